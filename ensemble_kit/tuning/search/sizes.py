"""Exact thresholds under the smallest-component rule: every level of every class, at every one of some sizes.

Sizes are numbers of pixels, or of volumes mm³: then of each volume the voxels that have so much, so that a size means
the same at every spacing. A trial of thresholds and a size labels every mask anew. One pass down the levels
(`kernels/sizes.py`) counts them all: 16 sizes at all levels of 160 samples of 29 classes cost less than one such trial.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.connected import DropSmall
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure, coefficients
from ensemble_kit.tuning.curve import best_case
from ensemble_kit.tuning.search.units import least_of, rule_of, volume_of
from ensemble_kit.tuning.truth import items_with_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.thresholds.thresholdset import ThresholdSet

SIZES = 16
MEMORY = 1 << 28
"""Bytes of curves at a time; more classes take more passes over the stores."""
_CLOSE = 1e-12


@dataclass(frozen=True)
class SizeCurves:
    """One class's mean score at every level of a band, under the smallest-component rule at every size.

    Parameters
    ----------
    low, high : the band: thresholds `low … high`, both included.
    sizes : ascending; smaller components go.
    scores : float64 (high - low + 1, sizes).
    least : int64 (samples, sizes), pixels that stay, void ones apart, at `low`: no lower level has fewer.
    most_hits : int64 (samples, sizes), truth pixels that stay at `high`: no higher level has more.
    truth : int64 (samples,).
    """

    low: int
    high: int
    sizes: tuple[float, ...]
    scores: NDArray[np.float64]
    least: NDArray[np.int64]
    most_hits: NDArray[np.int64]
    truth: NDArray[np.int64]

    def best(self, j: int) -> tuple[int, float]:
        """Return the best level at size number `j`, of equal ones the nearest to 0.5 and then the lower; its score."""
        scores = self.scores[: LEVELS - self.low, j]  # no pixel reaches level 65536: the band's edge, no threshold
        near = self.low + np.flatnonzero(scores >= scores.max() - _CLOSE)
        level = int(near[np.argmin(np.abs(2 * near - (LEVELS - 1)))])
        return level, float(scores[level - self.low])

    def outside(self, j: int, measure: Measure) -> float:
        """Bound the score of every level beyond the band at size number `j`: masks only grow as the level falls."""
        below = best_case(self.truth, np.maximum(self.least[:, j], self.truth), self.truth, measure)
        hits = self.most_hits[:, j]
        above = best_case(hits, hits, self.truth, measure)
        return max(below if self.low > 0 else 0.0, above if self.high < LEVELS - 1 else 0.0)


def curves(
    ensemble: Ensemble,
    truth: MaskSet,
    bands: Mapping[int, tuple[int, int]],
    sizes: Sequence[float],
    measure: Measure,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    in_mm3: bool = False,
) -> dict[int, SizeCurves]:
    """Score some classes at every level of their bands and at every size.

    Memory is 8 bytes a level and size of a class, whatever the number of samples.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes.
    bands : for each class number, the levels low and high.
    sizes : numbers of pixels, ascending, or mm³.
    measure : "mean" over samples, and empty masks count.
    """
    from ensemble_kit.kernels import sizes as kernels

    work = CountSizes(ensemble.inputs, tuple(bands.items()), tuple(rule_of(size, in_mm3) for size in sizes))
    items = items_with_truth(ensemble.samples, truth, [ensemble.classes[c] for c in bands])
    options = (*coefficients(measure.metric), measure.convention.eps, float(measure.convention.empty))
    totals = {c: np.zeros((high - low + 1, len(sizes))) for c, (low, high) in bands.items()}
    edges: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64], int]]] = {c: [] for c in bands}
    for found in executor.map(work, items, "cleaning", listener):
        for (c, (low, high)), (levels, pred, tp, area) in zip(bands.items(), found, strict=True):
            kernels.add_steps(levels, pred, tp, area, low, high, *options, totals[c])
            edges[c].append((pred[-1], tp[0], area))
    out = {}
    for c, (low, high) in bands.items():
        kernels.sum_steps(totals[c])
        totals[c] /= len(ensemble.samples)
        least, most_hits, area = (np.array([e[k] for e in edges[c]]) for k in range(3))
        out[c] = SizeCurves(low, high, tuple(sizes), totals[c], least, most_hits, area)
    return out


@dataclass(frozen=True)
class CountSizes:
    """The work of counting one sample's classes by level and size of component; an item has their `Truth`."""

    inputs: Inputs
    bands: tuple[tuple[int, tuple[int, int]], ...]
    rules: tuple[DropSmall, ...]

    def __call__(self, item: Item) -> list[tuple[Any, ...]]:
        """Return levels, pixels and truth pixels at each (see `kernels.sizes.by_level`), and the truth's pixels."""
        from ensemble_kit.kernels import sizes as kernels

        scores, out = open_sample(self.inputs, item.sample), []
        within = scores.decide({c: low for c, (low, _) in self.bands})
        above = _above(scores, {c: high for c, (_, high) in self.bands})
        room = least_of(self.rules, self.inputs, item.sample), _nodes(scores.image)
        masks = within.masks(scores.image)
        true, void = item.truth
        for (c, _), reached, wanted in zip(self.bands, masks, true, strict=True):
            positions, levels = scores.pixels(c, reached - above[c])
            falling = np.argsort(levels, kind="stable")[::-1].copy()
            laid = above[c].starts, above[c].ends, positions, levels, falling
            found, pred, tp = kernels.by_level(*laid, wanted.starts, wanted.ends, *room)
            if void is not None:
                pred -= kernels.by_level(*laid, void.starts, void.ends, *room)[2]
            out.append((found, pred, tp, wanted.area))
        return out


_OWN = threading.local()


def _nodes(image: Shape) -> NDArray[np.int32]:
    """Return room for the nodes of an image or a volume; a thread keeps its own, zeros between calls."""
    if getattr(_OWN, "image", None) != image:
        _OWN.nodes = None  # the former one goes first
        around = [n + 2 for n in image]
        _OWN.image, _OWN.nodes = image, np.zeros(around if len(image) == 3 else (1, *around), np.int32)
    nodes: NDArray[np.int32] = _OWN.nodes
    return nodes


def _above(fused: FusedSample, highs: dict[int, int]) -> dict[int, Runs]:
    """Decide at the upper edges; no pixel reaches level 65536."""
    reachable = {c: high for c, high in highs.items() if high < LEVELS}
    found = dict(zip(reachable, fused.decide(reachable).masks(fused.image), strict=True))
    return {c: found.get(c, Runs.empty(fused.image)) for c in highs}


# --- the search ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cleaned:
    """The best size for all classes, and each class's best level at it.

    Parameters
    ----------
    sizes : those that were compared, in pixels, or mm³ where `in_mm3`.
    rule : the rule; None where no component goes.
    tp, pred, truth : int64 (classes, samples), counts at these levels under the rule, from the masks themselves.
    certain : no level outside any band, at any of the sizes, can score higher.
    """

    sizes: tuple[float, ...]
    rule: DropSmall | None
    levels: tuple[int, ...]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    truth: NDArray[np.int64]
    score: float
    certain: bool
    in_mm3: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what a set records."""
        return {
            "sizes": list(self.sizes),
            "rule": None if self.rule is None else str(self.rule),
            "score": round(self.score, 9),
            "certain": self.certain,
            **({"unit": "mm3"} if self.in_mm3 else {}),
        }


def applies(measure: Measure) -> bool:
    """Tell whether scores add up over samples, so that a class's curve at a size is one sum."""
    return measure.objective == "mean" and measure.convention.empty != "skip"


def search(
    ensemble: Ensemble,
    truth: MaskSet,
    tuned: ThresholdSet,
    sizes: Sequence[float],
    executor: Executor = THREADS,
    listener: Listener = nobody,
    memory: int = MEMORY,
    in_mm3: bool = False,
) -> Cleaned:
    """Find the size, one for all classes, and the levels that score best; ties go to the smaller size.

    Classes that take the common threshold keep it. Levels are searched in the bands of `tuned`, which were certain
    without rules; `certain` tells whether they are under this one.

    Parameters
    ----------
    tuned : the set of this ensemble that `tune_from` made.
    sizes : numbers of pixels, ascending, or mm³.
    memory : bytes of curves at a time.
    """
    measure, crossed = tuned.measure, tuned.validation.crossed
    fixed = {
        c: t.level for c, t in enumerate(tuned.classes) if crossed is not None and not crossed.classes[t.name].keeps
    }
    bands = {}
    for c, t in enumerate(tuned.classes):
        low, high = tuned.curves[t.name].band
        bands[c] = min(low, fixed.get(c, low)), max(high, fixed.get(c, high))
    at_once = max(1, memory // (8 * len(sizes) * max(high - low + 1 for low, high in bands.values())))
    best, bounds = np.empty((len(bands), len(sizes), 2)), np.zeros((len(bands), len(sizes)))
    for first in range(0, len(bands), at_once):
        few = {c: bands[c] for c in range(first, min(first + at_once, len(bands)))}
        for c, curve in curves(ensemble, truth, few, sizes, measure, executor, listener, in_mm3).items():
            for j in range(len(sizes)):
                if c in fixed:
                    best[c, j] = fixed[c], curve.scores[fixed[c] - curve.low, j]
                else:
                    best[c, j], bounds[c, j] = curve.best(j), curve.outside(j, measure)
    means = best[:, :, 1].mean(axis=0)
    j = int(np.flatnonzero(means >= means.max() - _CLOSE)[0])
    reach = np.maximum(best[:, :, 1], bounds).mean(axis=0)
    levels = tuple(int(v) for v in best[:, j, 0])
    rule: DropSmall | None = rule_of(sizes[j], in_mm3)
    if all(int(least_of([rule_of(sizes[j], in_mm3)], ensemble.inputs, s)[0]) == 1 for s in ensemble.samples):
        rule = None
    tp, pred, area = _counts(ensemble, truth, levels, rule, executor, listener)
    return Cleaned(
        tuple(sizes), rule, levels, tp, pred, area, measure.of_all(tp, pred, area),
        certain=bool((reach <= means[j] + _CLOSE).all()), in_mm3=in_mm3,
    )  # fmt: skip


@dataclass(frozen=True)
class CountCleaned:
    """The work of counting one sample's masks under a rule: hits, pixels and truth pixels of every class.

    An item has the `Truth` of all classes.
    """

    inputs: Inputs
    levels: tuple[int, ...]
    rule: DropSmall | None

    def __call__(self, item: Item) -> NDArray[np.int64]:
        """Return int64 (3, classes)."""
        scores = open_sample(self.inputs, item.sample)
        masks = scores.decide(dict(enumerate(self.levels))).masks(scores.image)
        place = volume_of(self.inputs, item.sample)
        cleaned = masks if self.rule is None else [self.rule.apply(m, place) for m in masks]
        true, void = item.truth
        areas = np.array([[m.area for m in cleaned], [m.area for m in true]], np.int64)
        if void is not None:
            areas[0] -= overlaps(cleaned, [void] * len(cleaned))
        return np.stack([overlaps(cleaned, true), *areas])


def _counts(
    ensemble: Ensemble, truth: MaskSet, levels: tuple[int, ...], rule: DropSmall | None, executor: Executor,
    listener: Listener,
) -> tuple[NDArray[np.int64], ...]:  # fmt: skip
    """Count hits, pixels and truth pixels of the masks themselves, (classes, samples) each."""
    items = items_with_truth(ensemble.samples, truth, ensemble.classes)
    work = CountCleaned(ensemble.inputs, levels, rule)
    tp, pred, area = np.stack(list(executor.map(work, items, "measuring", listener)), axis=2)
    return tp, pred, area
