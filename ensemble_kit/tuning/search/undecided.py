"""The pixels that members do not agree on: all that a trial of weights has to look at.

A pixel that every member puts below the band of thresholds, or every member at or above it, is decided for any convex
weights. The others are kept, one 16-bit value per member, and one trial is: fuse them, and read the exact best
threshold of every class off the curve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.cores import cores
from ensemble_kit.kernels.arguments import CurveRoom, Score, UndecidedPixels
from ensemble_kit.spec.fusion import folds_of, integer_weights, spread
from ensemble_kit.spec.mean import LEVELS, Mean, levels_of_q
from ensemble_kit.spec.scoring import Measure, coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray


T = TypeVar("T")

Kind = Literal["q", "level", "summed"]
"""A logit's `q`, a probability's level, or what one mean sums: then trials differ in weights alone."""

UNSURE = 1e-7
"""How far an estimate may be off: 65,536 levels in a row may each lose a tie of 1e-12, and rounding is below 1e-9."""
_ROUNDING = 1e-9

_AT_ONCE = 4096
"""Pixels and strips of them that are fused at a time, in the first-level cache."""

Which = tuple[int, ...]
"""The members that have a say in some region of an image, by number."""


@dataclass(frozen=True)
class Setting:
    """How members are fused in one trial.

    Parameters
    ----------
    weights, temperatures : one per member, in the ensemble's order.
    mean : as for `Ensemble`.
    """

    weights: tuple[float, ...]
    mean: Mean
    temperatures: tuple[float, ...]

    @classmethod
    def uniform(cls, ensemble: Ensemble) -> Setting:
        """Weigh all members alike, with the ensemble's own mean and temperatures."""
        return cls((1.0,) * len(ensemble.members), ensemble.fusion.mean, ensemble.fusion.temperatures)

    def applied(self, ensemble: Ensemble) -> Ensemble:
        """Return the ensemble fused this way."""
        row = integer_weights(self.weights, ensemble.fusion.members)
        return ensemble.with_fusion(
            replace(
                ensemble.fusion, mean=self.mean, weights=(row,) * len(ensemble.classes), temperatures=self.temperatures
            )
        )


@dataclass(frozen=True)
class Trial:
    """What one setting reaches: the objective over all classes, and the level of each class that reaches it.

    The score is rounded to twelve decimals: below that it is the order of float sums.
    """

    score: float
    levels: tuple[int, ...]


@dataclass(frozen=True)
class ClassPixels:
    """One class's undecided pixels.

    Parameters
    ----------
    low, high : stored values; members all below `low`, or all at or above `high`, have decided.
    values : uint16 (members, n); group g has the columns `offsets[g]:offsets[g+1]`, hits up to `splits[g]`. A sample
        has a group for each set of members, most often one.
    above, above_hits, truth : int64 (groups,), pixels decided on, hits among them, hits in all.
    inside : int64 (groups,), pixels in all; empty where all members saw all of every image.
    fills : whether the class has the pixels where no member weighs anything.

    Void pixels are in none of them.

    Attributes
    ----------
    peaks : uint16 (members, …), the largest values of every few columns.
    """

    low: int
    high: int
    values: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    splits: NDArray[np.int64]
    above: NDArray[np.int64]
    above_hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    inside: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    fills: bool = False
    peaks: NDArray[np.uint16] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from ensemble_kit.kernels import undecided

        peaks = np.empty((len(self.values), -(-self.values.shape[1] // undecided.STRIP)), np.uint16)
        undecided.put_peaks(self.values, peaks)
        object.__setattr__(self, "peaks", peaks)


@dataclass(frozen=True)
class Undecided:
    """Undecided pixels of every class and sample of an ensemble.

    With upsample="logits", a stride of 1 and the ensemble's own temperatures a trial's scores are exact, to the last
    pixel, at every threshold inside the band. Otherwise it is an approximation, and what is found is tuned anew from
    the stores: another temperature is applied behind the interpolation instead of before it (with "logits" that is
    rounding, and the clipping at ±16; with "scores" more), and with upsample="scores" members are interpolated before
    they are fused, each from its own grid.

    Parameters
    ----------
    names, temperatures : of the members, as they were collected; a member of several folds is there once for each.
    kind : what is stored.
    stride : every stride-th pixel of every stride-th row stands for the rest.
    classes : one `ClassPixels` per class.
    sets : of members that have a say in some region; () is one set, of all.
    """

    names: tuple[str, ...]
    temperatures: tuple[float, ...]
    kind: Kind
    stride: int
    classes: tuple[ClassPixels, ...]
    sets: tuple[Which, ...] = ()

    @property
    def bytes(self) -> int:
        """Memory that the values take."""
        return sum(c.values.nbytes for c in self.classes)

    @property
    def pixels(self) -> int:
        """Number of pixels that a trial looks at."""
        return sum(c.values.shape[1] for c in self.classes)

    def try_setting(
        self, setting: Setting, measure: Measure, samples: NDArray[np.int64] | None = None, jobs: int | None = None
    ) -> Trial:
        """Find the best threshold of every class under a setting, and the objective there.

        Parameters
        ----------
        samples : numbers of those that count; default: all.
        """
        return self.try_on(setting, measure, [np.arange(self.samples) if samples is None else samples], jobs)[0]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.classes[0].truth.size // max(len(self.sets), 1)

    def try_on(
        self, setting: Setting, measure: Measure, unions: Sequence[NDArray[np.int64]], jobs: int | None = None
    ) -> list[Trial]:
        """Try a setting on several unions of samples, numbers that ascend; pixels are fused once for all."""
        fusing, scratch = self._fusing(setting), _Scratch(len(unions))
        of_class = self._each(lambda pixels: _best(pixels, unions, fusing, measure, scratch), jobs)
        return [_trial([tops[u] for tops in of_class], measure) for u in range(len(unions))]

    def can_estimate(self, measure: Measure) -> bool:
        """Tell whether scores of a measure add up over samples, and values need no table."""
        return self.kind == "summed" and measure.objective == "mean" and not isinstance(measure.convention.empty, str)

    def estimate_on(
        self, setting: Setting, measure: Measure, unions: Sequence[NDArray[np.int64]], jobs: int | None = None
    ) -> list[float]:
        """Return the scores of `try_on` to within `UNSURE`, in half of the time, where `can_estimate`."""
        fusing, scratch = self._fusing(setting), _Scratch()
        sums = self._each(lambda pixels: _peaks(pixels, unions, fusing, measure, scratch), jobs)
        sizes = np.array([union.size for union in unions])
        return [float(mean) for mean in np.sum(sums, axis=0) / (sizes * len(self.classes))]

    def _fusing(self, setting: Setting) -> _Fusing:
        folds = folds_of(self.names)
        heats = zip(self.temperatures, spread(setting.temperatures, folds), strict=True)
        scales = [scale_of(self.kind, setting.mean, own / t) for own, t in heats]
        every = self.sets or (tuple(range(len(self.names))),)
        weights = np.array([among(setting.weights, self.names, which) for which in every], np.uint32)
        no_tables = np.empty((len(self.names), 0), np.uint32)
        tables = no_tables if self.kind == "summed" else np.stack(scales).astype(np.uint32)
        return _Fusing(weights[:, :, None] * tables, weights, scales)

    def _each(self, work: Callable[[ClassPixels], T], jobs: int | None) -> list[T]:
        """Work on every class in threads."""
        with ThreadPoolExecutor(jobs or cores()) as pool:
            sizes = [pixels.values.size for pixels in self.classes]
            largest = sorted(range(len(sizes)), key=lambda c: -sizes[c])  # first, so that threads end alike
            done = dict(zip(largest, pool.map(work, (self.classes[c] for c in largest)), strict=True))
        return [done[c] for c in range(len(self.classes))]


class _Fusing(NamedTuple):
    """How values are fused: uint32 tables and weights as for `kernels.undecided.curves`, and the members' scales."""

    table: NDArray[np.uint32]
    weights: NDArray[np.uint32]
    scales: list[NDArray[np.uint16]]


class _Top(NamedTuple):
    """A class's best level: the sum of scores there, how many pairs of masks count, and the level."""

    score: float
    pairs: int
    level: int


def _trial(tops: Sequence[_Top], measure: Measure) -> Trial:
    """Join classes."""
    levels, counts = tuple(top.level for top in tops), sum(top.pairs for top in tops)
    if measure.objective == "pooled":
        kept = [top.score for top in tops if top.pairs]
        return Trial(round(sum(kept) / len(kept), 12) if kept else float("nan"), levels)
    return Trial(round(sum(top.score for top in tops) / counts, 12) if counts else float("nan"), levels)


def scale_of(kind: Kind, mean: Mean, ratio: float = 1) -> NDArray[np.uint16]:
    """Return what every stored value becomes in the sum: uint16 (65536,), monotone.

    Parameters
    ----------
    ratio : of the temperature that values were stored with to that of a trial.
    """
    from ensemble_kit.kernels import tables

    every = np.arange(LEVELS)
    if kind == "q":
        q = tables.identity() if ratio == 1 else tables.q_of_logit(tables.logit_of_q(every) * ratio)
        return levels_of_q(mean)[q]
    if kind == "summed":
        return tables.identity()
    level = tables.identity()
    if ratio != 1:
        p = every / (LEVELS - 1)
        with np.errstate(divide="ignore"):
            level = tables.level_of_probability(tables.sigmoid((np.log(p) - np.log1p(-p)) * ratio))
    return mean.scale[level]


def band_of(low: int, high: int, scales: Sequence[NDArray[np.uint16]]) -> tuple[int, int]:
    """Return where decided pixels lie on the members' scales: all below the first, or from the second on."""
    return (
        max(int(s[low - 1]) + 1 if low > 0 else 0 for s in scales),
        min(int(s[high]) if high < LEVELS else LEVELS for s in scales),
    )


def among(weights: Sequence[float], names: Sequence[str], which: Which) -> list[int]:
    """Return the integer weights of some members' folds, by rule 2 on those given, and 0 for others; all 0 if they are.

    Parameters
    ----------
    weights : of each member, which its folds share.
    names : of each fold, the member's.
    which : numbers of folds.
    """
    folds = folds_of(names)
    each = spread([Fraction(str(float(w))) / k for w, k in zip(weights, folds, strict=True)], folds)
    own, out = [each[m] for m in which], [0] * len(names)
    if any(own):
        for m, weight in zip(which, integer_weights(own, [names[m] for m in which]), strict=True):
            out[m] = weight
    return out


class _Scratch(threading.local):
    """Room for each thread's kernel, for some unions; zeros between calls."""

    def __init__(self, unions: int = 0) -> None:
        self.sums = np.empty(_AT_ONCE, np.uint32)
        if unions:
            counts, touched = np.zeros(LEVELS + 1, np.uint64), np.zeros(1025, np.uint64)
            order = np.empty(LEVELS + 1, np.int64)
            top, counted = np.empty((LEVELS + 1, unions), np.float64), np.empty((LEVELS + 1, unions), np.int64)
            self.room = CurveRoom(counts, touched, order, top, counted, self.sums)


def _kernel_score(measure: Measure) -> Score:
    convention = measure.convention
    empty = 0.0 if convention.empty == "skip" else float(convention.empty)
    return Score(*coefficients(measure.metric), float(convention.eps), empty, convention.empty == "skip")


def _kernel_pixels(p: ClassPixels) -> UndecidedPixels:
    return UndecidedPixels(p.values, p.peaks, p.offsets, p.splits, p.above, p.above_hits, p.truth, p.inside)


def _held(unions: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the samples of any union, and which of them each has, (samples, unions)."""
    samples = np.unique(np.concatenate(unions))
    return samples, np.stack([np.isin(samples, union) for union in unions], axis=1)


def _best(
    p: ClassPixels, unions: Sequence[NDArray[np.int64]], fusing: _Fusing, measure: Measure, scratch: _Scratch
) -> list[_Top]:
    """Find a class's best level on each union; the nearest to 0.5 among equals."""
    from ensemble_kit.kernels import undecided

    room, pooled, score = scratch.room, measure.objective == "pooled", _kernel_score(measure)
    band, out = band_of(p.low, p.high, fusing.scales), []
    for some in [[union] for union in unions] if pooled else [unions]:  # pooled pixels are of one union
        samples, held = _held(some)
        levels = np.empty(len(some), np.int64)
        how = fusing.table, fusing.weights, p.fills, *band, score, pooled
        undecided.curves(_kernel_pixels(p), samples, held, *how, room, levels)
        for u, level in enumerate(levels.tolist()):
            all_ = min(int(held[:, u].sum()), 1 if pooled else samples.size)
            counted = int(room.counted[level, u]) if score.skip else all_
            out.append(_Top(float(room.top[level, u]), counted, level))
    return out


def _peaks(
    p: ClassPixels, unions: Sequence[NDArray[np.int64]], fusing: _Fusing, measure: Measure, scratch: _Scratch
) -> NDArray[np.float64]:
    """Return a class's sum of scores at its best level on each union, but for rounding."""
    from ensemble_kit.kernels import coarse

    peaks, how = np.empty(len(unions)), (fusing.weights, p.fills)
    rest = *band_of(p.low, p.high, fusing.scales), _kernel_score(measure), _ROUNDING, scratch.sums, peaks
    coarse.find_peaks(_kernel_pixels(p), *_held(unions), *how, *rest)
    return peaks
