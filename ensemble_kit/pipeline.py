"""The few functions that compose the others; what the command line calls.

The road: stores → `Ensemble` (scores.py) → `MaskSet` (masks.py) → one file (formats/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit.decisions.clean import Rule, apply_rules, check_classes, refuse_gates
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import IncompleteError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.formats import read_masks
from ensemble_kit.logits.store import is_store
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.thresholdset import ThresholdSet, find
from ensemble_kit.validation import Groups

Size = tuple[int, int]
Sizes = Size | Mapping[str, Size]
Threshold = ThresholdSet | float

_LACKS = {"image-size-missing", "classes-needed"}  # what another file may know


def resolve(threshold: str) -> Threshold:
    """Read what a person typed as a threshold: a number, or the path or name of a set."""
    try:
        return float(threshold)
    except ValueError:
        return ThresholdSet.load(find(threshold))


def open_ensemble(stores: Sequence[Path], threshold: Threshold, options: Mapping[str, Any]) -> Ensemble:
    """Open stores for a vote; with a set and no options of fusing, they are fused as it was tuned."""
    given = {k: v for k, v in options.items() if v is not None}
    ensemble = Ensemble(stores, **given)
    if isinstance(threshold, ThresholdSet) and not set(given) - {"samples"}:
        return ensemble.as_tuned(threshold)
    return ensemble


@dataclass(frozen=True)
class SoftVote:
    """A soft vote that is known to be possible: nothing is fused yet.

    Parameters
    ----------
    threshold : a number for every class, or a set that fits the ensemble.
    rules : post-processing, in order; without any, those of the set.
    rank, temperature : decide by the rank rule (`ranking.py`) in place of thresholds.
    """

    ensemble: Ensemble
    threshold: Threshold
    rules: tuple[Rule, ...] = ()
    rank: bool = False
    temperature: float | None = None

    def __post_init__(self) -> None:
        from ensemble_kit.decisions.rank import probabilities

        self.ensemble.class_levels(self.threshold)
        check_classes(self.rules, self.ensemble.classes)
        if self.rank:
            probabilities("probability", self.temperature)

    def told(self) -> list[str]:
        """Say what will be done."""
        fusion, e = self.ensemble.fusion, self.ensemble
        shares = sorted(set(fusion.weights))
        weights = (
            ", ".join(f"{name} {w / 65536:.3g}" for name, w in zip(fusion.members, shares[0], strict=True))
            if len(shares) == 1
            else f"{', '.join(fusion.members)}, weighted per class"
        )
        lines = [f"soft vote: mean of {fusion.mean}, upsample {fusion.upsample}; members {weights}"]
        if any(t != 1 for t in fusion.temperatures):
            lines.append(f"temperatures: {', '.join(f'{t:g}' for t in fusion.temperatures)}")
        if self.rank:
            lines.append("each mask takes the pixels of its highest expected Dice (rank rule)")
        elif not isinstance(self.threshold, ThresholdSet):
            lines.append(f"thresholds: {self.threshold:g} for every class (pass --thresholds for a tuned set)")
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        return lines

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        e = self.ensemble
        return MaskSet({(s, c): Runs.empty(e.image_size(s)) for s in e.samples for c in e.classes})

    def run(self, jobs: int | None = None, listener: Listener = nobody) -> MaskSet:
        """Fuse, decide and clean every sample."""
        from ensemble_kit.decisions.rank import rank_vote
        from ensemble_kit.spec.scoring import Convention

        if not self.rank:
            return self.ensemble.vote(self.threshold, self.rules, jobs, listener)
        tuned = self.threshold if isinstance(self.threshold, ThresholdSet) else None
        convention = tuned.measure.convention if tuned else Convention()
        return rank_vote(self.ensemble, jobs, self.temperature, convention, self.rules, listener)


@dataclass(frozen=True)
class HardVote:
    """A hard vote over stores and mask files, in the order of its weights.

    Parameters
    ----------
    thresholds : one for all stores, or one for each in their order; a mask file has decided.
    voting : options of `hard_vote`: weights, quorum, ties, empty.
    fusing : options of each store by itself: mean, upsample.
    rules : post-processing of the voted masks.
    image_size, classes : for mask files that do not say them; where another member does, it says.
    common : vote on the samples that all members have.
    """

    members: tuple[Path, ...]
    thresholds: tuple[Threshold, ...]
    voting: Mapping[str, Any]
    fusing: Mapping[str, Any]
    rules: tuple[Rule, ...] = ()
    image_size: Sizes | None = None
    classes: Sequence[str] | None = None
    common: bool = False

    def __post_init__(self) -> None:
        refuse_gates(self.rules)
        stores = sum(is_store(m) for m in self.members)
        if len(self.thresholds) not in {1, stores}:
            raise UsageError(
                "thresholds-count",
                "cannot vote",
                item=f"{len(self.thresholds)} thresholds for {stores} stores",
                fix="pass --thresholds once for all stores, or once for each in their order",
            )

    def run(self, jobs: int | None = None, listener: Listener = nobody) -> MaskSet:
        """Bring every member to masks, vote, and clean."""
        stores = [m for m in self.members if is_store(m)]
        own = self.thresholds if len(self.thresholds) == len(stores) else self.thresholds * len(stores)
        decided: dict[Path, MaskSet] = {}
        for store, threshold in zip(stores, own, strict=True):
            ensemble = open_ensemble([store], threshold, self.fusing)
            decided[store] = ensemble.vote(threshold, jobs=jobs, listener=listener)
        files = [m for m in self.members if m not in decided]
        read = read_together(files, image_size=self.image_size, classes=self.classes, known=list(decided.values()))
        decided.update(zip(files, read, strict=True))
        masks = [decided[m] for m in self.members]
        voted = hard_vote(_common(masks) if self.common else masks, **self.voting)
        return apply_rules(voted, self.rules)


def _common(masks: Sequence[MaskSet]) -> list[MaskSet]:
    """Keep the samples that all mask sets have."""
    shared = set.intersection(*(set(m.samples) for m in masks))
    if not shared:
        raise IncompleteError(
            "samples-none",
            "cannot vote",
            item="the members have no sample in common",
            fix="vote over members of the same images",
        )
    return [MaskSet({key: runs for key, runs in m.items() if key[0] in shared}) for m in masks]


def truth_for(
    ensemble: Ensemble,
    path: Path,
    format: str | None = None,  # noqa: A002 - the option's name
    image_size: Sizes | None = None,
) -> MaskSet:
    """Read the truth of an ensemble's samples; sizes and class names come from the ensemble."""
    refuse_store(path, "the truth")
    sizes = image_size or {s: ensemble.image_size(s) for s in ensemble.samples}
    return read_masks(path, format=format, image_size=sizes, classes=ensemble.classes)


def judge_rank_rule(
    fused: Ensemble,
    truth: MaskSet,
    measure: Measure,
    folds: int | None,
    groups: Groups,
    seed: int,
    jobs: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Score the rank rule, which trains nothing, and with a temperature fitted out of fold: values, and sentences."""
    import numpy as np

    from ensemble_kit.ranking import fit_temperature, fold_temperatures, level_histogram, rank_scores
    from ensemble_kit.validation import make_folds

    every = [np.arange(len(fused.samples))]
    parts = make_folds(fused.samples, folds, groups, seed) if folds else every
    histogram = level_histogram(fused, truth, parts, jobs=jobs)
    scaling = fit_temperature(histogram, fused.fusion.mean)
    values: dict[str, Any] = {
        "score": rank_scores(fused, truth, measure, jobs=jobs).score,
        "scaling": scaling.to_dict(),
    }
    lines = [f"Rank rule per image, nothing trained: {values['score']:.4f}."]
    if folds:
        temperatures = fold_temperatures(histogram, parts, fused.fusion.mean)
        values["scaled"] = rank_scores(fused, truth, measure, temperatures, jobs=jobs).score
        lines = [f"{lines[0][:-1]}; with a temperature fitted out of fold: {values['scaled']:.4f}."]
    return values, [*lines, str(scaling)]


def read_together(
    paths: Sequence[Path],
    formats: Sequence[str | None] | None = None,
    image_size: Sizes | None = None,
    classes: Sequence[str] | None = None,
    known: Sequence[MaskSet] = (),
) -> list[MaskSet]:
    """Read mask files of the same samples; what one says of sizes or class names holds for those that do not.

    Parameters
    ----------
    formats : of each file; None is recognised.
    image_size, classes : what a person says; it goes before what files say.
    known : mask sets that are read already, and know.
    """
    names = tuple(classes) if classes is not None else next((m.classes for m in known), None)
    sizes: dict[str, Size] = {s: m.image_size(s) for m in known for s in m.samples}
    formats = formats or [None] * len(paths)
    read: dict[int, MaskSet] = {}
    while len(read) < len(paths):
        before, missing = len(read), None
        for k, path in enumerate(paths):
            if k in read:
                continue
            refuse_store(path, "masks")
            try:
                masks = read_masks(path, formats[k], image_size or sizes or None, names)
            except UsageError as error:
                if error.code not in _LACKS:
                    raise
                missing = error
                continue
            read[k] = masks
            names = names or masks.classes
            sizes.update({s: masks.image_size(s) for s in masks.samples})
        if len(read) == before and missing is not None:
            raise missing
    return [read[k] for k in range(len(paths))]


def refuse_store(path: Path, wanted: str) -> None:
    """Refuse a store of logits where masks are wanted."""
    if is_store(path):
        raise UsageError(
            "store-not-masks",
            f"cannot read {wanted}",
            item=f"{str(path)!r} is a store of logits",
            fix="pass a mask file or folder; ensk vote makes masks of stores",
        )


def sizes_from(path: Path) -> dict[str, Size]:
    """Read the size of every image: of a store's samples, of a folder of images (by name and stem), of masks.

    Raises
    ------
    UsageError
        The path is none of these.
    """
    from ensemble_kit.dumping.images import find_images, image_size
    from ensemble_kit.logits.store import LogitStore

    if is_store(path):
        store = LogitStore(path)
        return {s: store.image_size(s) for s in store.samples}
    if path.is_dir() and (found := [p for p in find_images(path) if p.parent == path]):
        sizes = {p: image_size(p) for p in found}
        return {key: size for p, size in sizes.items() for key in (p.stem, p.name)}
    masks = read_masks(path)
    return {s: masks.image_size(s) for s in masks.samples}
