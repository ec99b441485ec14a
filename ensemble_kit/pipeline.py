"""The few functions that compose the others; what the command line calls.

The road: stores → `Ensemble` (scores.py) → `MaskSet` (masks.py) → one file (formats/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.errors import UsageError
from ensemble_kit.events import Listener, nobody
from ensemble_kit.formats import read_masks
from ensemble_kit.masks import MaskSet
from ensemble_kit.scores import Ensemble
from ensemble_kit.store import is_store
from ensemble_kit.thresholds import ThresholdSet, find

Size = tuple[int, int]


def resolve(threshold: str) -> ThresholdSet | float:
    """Read what a person typed as a threshold: a number, or the path or name of a set."""
    try:
        return float(threshold)
    except ValueError:
        return ThresholdSet.load(find(threshold))


def open_ensemble(stores: Sequence[Path], threshold: ThresholdSet | float, options: Mapping[str, Any]) -> Ensemble:
    """Open stores for a vote; with a set and no options of fusing, they are fused as it was tuned."""
    given = {k: v for k, v in options.items() if v is not None}
    ensemble = Ensemble(stores, **given)
    if isinstance(threshold, ThresholdSet) and not set(given) - {"samples"}:
        return ensemble.as_tuned(threshold)
    return ensemble


def member_masks(
    members: Sequence[Path],
    thresholds: Sequence[ThresholdSet | float],
    options: Mapping[str, Any],
    image_size: Size | Mapping[str, Size] | None = None,
    classes: Sequence[str] | None = None,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> list[MaskSet]:
    """Bring every member of a hard vote to masks: a store decides by its own threshold, a mask file has decided.

    Parameters
    ----------
    members : stores and mask files, in the order of the vote's weights.
    thresholds : one for all stores, or one for each in their order.
    options : fusing options of each store by itself (`mean`, `upsample`).
    image_size, classes : for mask files that do not say them; where a store is among the members, it says.
    """
    stores = [m for m in members if is_store(m)]
    if len(thresholds) not in {1, len(stores)}:
        raise UsageError(
            "thresholds-count",
            "cannot vote",
            item=f"{len(thresholds)} thresholds for {len(stores)} stores",
            fix="pass --thresholds once for all stores, or once for each in their order",
        )
    own = list(thresholds) if len(thresholds) == len(stores) else list(thresholds) * len(stores)
    decided: dict[Path, MaskSet] = {}
    for store, threshold in zip(stores, own, strict=True):
        ensemble = open_ensemble([store], threshold, options)
        decided[store] = ensemble.vote(threshold, jobs=jobs, listener=listener)
        image_size = image_size or {s: ensemble.image_size(s) for s in ensemble.samples}
        classes = classes or ensemble.classes
    return [decided[m] if m in decided else read_masks(m, image_size=image_size, classes=classes) for m in members]


def truth_for(
    ensemble: Ensemble,
    path: Path,
    format: str | None = None,  # noqa: A002 - the option's name
    image_size: Size | None = None,
) -> MaskSet:
    """Read the truth of an ensemble's samples; sizes and class names come from the ensemble."""
    sizes = image_size or {s: ensemble.image_size(s) for s in ensemble.samples}
    return read_masks(path, format=format, image_size=sizes, classes=ensemble.classes)


def read_pair(
    masks: Path,
    truth: Path,
    format: str | None = None,  # noqa: A002 - the option's name
    truth_format: str | None = None,
    image_size: Size | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[MaskSet, MaskSet]:
    """Read masks and their truth; where only one of the files says sizes or class names, they hold for both."""
    sizes: Size | dict[str, Size] | None = image_size
    try:
        wanted = read_masks(truth, format=truth_format, image_size=sizes, classes=classes)
    except UsageError:  # the truth does not say its sizes; the masks may
        given = read_masks(masks, format=format, image_size=sizes, classes=classes)
        known = {s: given.image_size(s) for s in given.samples}
        return given, read_masks(truth, format=truth_format, image_size=known, classes=classes or given.classes)
    sizes = sizes or {s: wanted.image_size(s) for s in wanted.samples}
    return read_masks(masks, format=format, image_size=sizes, classes=classes or wanted.classes), wanted
