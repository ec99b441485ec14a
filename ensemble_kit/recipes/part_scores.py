"""Scores by parts: each counts its share of the samples, and together they are the whole's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import __version__
from ensemble_kit.errors import EnskError
from ensemble_kit.execution.parts import joined
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.confusion import Confusion
from ensemble_kit.metrics.conventions import named
from ensemble_kit.metrics.overlap import Overlap
from ensemble_kit.recipes.part_file import PartFile, fitting, measure_of
from ensemble_kit.recipes.part_masks import digest_of
from ensemble_kit.recipes.score import Scores, Void, score

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "scores"
_COUNTS = ("tp", "pred", "truth")


def plan_of(prediction: MaskSet, truth: MaskSet, how: Mapping[str, Any]) -> dict[str, Any]:
    """Say what all parts of a score count, after the checks of a whole run.

    Parameters
    ----------
    how : the other arguments of `recipes.score.score`.

    Raises
    ------
    UsageError, MismatchError, IncompleteError
        As for `recipes.score.score`.
    """
    empty = MaskSet.empty(truth.extent)
    counted = score(MaskSet.empty(prediction.extent), empty, **how)
    if counted.convention is not None:
        counted.convention.check(truth)
    plan = {
        "command": "score",
        "prediction": digest_of(prediction),
        "truth": digest_of(truth),
        "samples": len(truth.samples),
        "measure": asdict(counted.measure),
        "convention": None if counted.convention is None else counted.convention.name,
        "version": __version__,
    }
    return dict(json.loads(json.dumps(plan)))


def score_part(
    prediction: MaskSet, truth: MaskSet, how: Mapping[str, Any], own: Sequence[str]
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Count a share of the samples, and return the head and arrays of its `PartFile`."""
    ours, theirs = (side.arranged(own, side.classes) for side in (prediction, truth))
    found = score(ours, theirs, **how)
    o, m = found.overlap, found.confusion
    arrays: dict[str, NDArray[Any]] = {name: getattr(o, name) for name in _COUNTS}
    if m is not None:
        none = np.zeros(0, np.int64)
        arrays |= {"cells": np.concatenate([none, *(i for i, _ in m.cells)]), "void": m.void}
        arrays |= {"pixels": np.concatenate([none, *(p for _, p in m.cells)])}
        arrays |= {"offsets": np.cumsum([0, *(i.size for i, _ in m.cells)])}
    voids = {"void": list(found.void), "void_predicted": list(found.void_predicted)}
    return {"samples": list(o.samples), "classes": list(o.classes), "exclusive": m is not None, **voids}, arrays


def merged(parts: Sequence[PartFile]) -> Scores:
    """Put the counts of all parts together; `parts` are those of one plan, in order."""
    with fitting("merge scores", EnskError):
        return _merged(parts)


def _merged(parts: Sequence[PartFile]) -> Scores:
    plan, classes = parts[0].plan, tuple(parts[0].head["classes"])
    samples = tuple(joined([p.head["samples"] for p in parts]))
    measure = measure_of(plan)

    def rows(name: str) -> NDArray[np.int64]:
        return np.array(joined([list(p.arrays[name]) for p in parts]), np.int64)

    tp, pred, true = map(rows, _COUNTS)
    if not tp.shape == pred.shape == true.shape == (len(samples), len(classes)):
        raise ValueError("counts of another shape than samples and classes")
    found = Overlap(samples, classes, tp, pred, true, measure.convention).under(measure)
    confusion = None
    if all(p.head["exclusive"] for p in parts):
        cells = joined([[(p.arrays["cells"][a:b], p.arrays["pixels"][a:b]) for a, b in _cuts(p)] for p in parts])
        confusion = Confusion(samples, classes, tuple(cells), rows("void"), measure.background)
    name = plan["convention"]
    voids = [Void(*map(sum, zip(*(p.head[side] for p in parts), strict=True))) for side in ("void", "void_predicted")]
    return Scores(found, measure, confusion, None if name is None else named(name), *voids)


def _cuts(part: PartFile) -> list[tuple[int, int]]:
    return list(pairwise(part.arrays["offsets"].tolist()))
