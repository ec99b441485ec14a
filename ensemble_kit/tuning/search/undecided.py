"""The pixels that members do not agree on: all that a trial of weights has to look at.

A pixel that every member puts below the band of thresholds, or every member at or above it, is decided for any convex
weights. The others are kept, one 16-bit value per member, and one trial is: fuse them, and read the exact best
threshold of every class off the curve.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.cores import cores
from ensemble_kit.kernels.arguments import CurveRoom, Score, UndecidedPixels
from ensemble_kit.spec.fusion import folds_of, integer_weights, spread
from ensemble_kit.spec.mean import LEVELS, Mean, levels_of_q
from ensemble_kit.spec.scoring import Measure, coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray


Kind = Literal["q", "level"]

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
    values : uint16 (n, members); group g has the rows `offsets[g]:offsets[g+1]`, hits up to `splits[g]`. A sample has a
        group for each set of members, most often one.
    above, above_hits, truth : int64 (groups,), pixels decided on, hits among them, hits in all.
    inside : int64 (groups,), pixels in all; empty where all members saw all of every image.
    fills : whether the class has the pixels where no member weighs anything.

    Void pixels are in none of them.
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
    kind : what is stored, the logit's `q` or the probability's "level".
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
        return sum(c.values.shape[0] for c in self.classes)

    def try_setting(
        self, setting: Setting, measure: Measure, samples: NDArray[np.int64] | None = None, jobs: int | None = None
    ) -> Trial:
        """Find the best threshold of every class under a setting, and the objective there.

        Parameters
        ----------
        samples : numbers of those that count; default: all.
        """
        folds = folds_of(self.names)
        heats = zip(self.temperatures, spread(setting.temperatures, folds), strict=True)
        scales = [self._scale(setting.mean, own, t) for own, t in heats]
        every = self.sets or (tuple(range(len(self.names))),)
        weights = np.array([among(setting.weights, self.names, which) for which in every], np.uint32)
        table, silent = weights[:, :, None] * np.stack(scales).astype(np.uint32), np.all(weights == 0, axis=1)
        scratch = _Scratch()
        count = self.classes[0].truth.size // len(every)
        use = np.arange(count) if samples is None else np.asarray(samples, np.int64)

        def one(pixels: ClassPixels) -> tuple[float, int, int]:
            # decided pixels lie below `low` and at or above `high` on this trial's scale, whatever the weights
            low = max(int(s[pixels.low - 1]) + 1 if pixels.low > 0 else 0 for s in scales)
            high = min(int(s[pixels.high]) if pixels.high < LEVELS else LEVELS for s in scales)
            return _best(pixels, use, table, silent, low, high, measure, scratch)

        with ThreadPoolExecutor(jobs or cores()) as pool:
            found = list(pool.map(one, self.classes))
        levels = tuple(level for _, _, level in found)
        tops, counts = [f[0] for f in found], [f[1] for f in found]
        if measure.objective == "pooled":
            kept = [top for top, count in zip(tops, counts, strict=True) if count]
            return Trial(round(sum(kept) / len(kept), 12) if kept else float("nan"), levels)
        return Trial(round(sum(tops) / sum(counts), 12) if sum(counts) else float("nan"), levels)

    def _scale(self, mean: Mean, own: float, temperature: float) -> NDArray[np.uint16]:
        """What every stored value becomes in the sum: uint16 (65536,), monotone."""
        from ensemble_kit.kernels import tables

        every, ratio = np.arange(LEVELS), own / temperature
        if self.kind == "q":
            q = tables.identity() if ratio == 1 else tables.q_of_logit(tables.logit_of_q(every) * ratio)
            return levels_of_q(mean)[q]
        level = tables.identity()
        if ratio != 1:
            p = every / (LEVELS - 1)
            with np.errstate(divide="ignore"):
                level = tables.level_of_probability(tables.sigmoid((np.log(p) - np.log1p(-p)) * ratio))
        return mean.scale[level]


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
    """Room for each thread's kernel; zeros between calls."""

    def __init__(self) -> None:
        counts, touched = np.zeros(LEVELS + 1, np.uint64), np.zeros(1025, np.uint64)
        self.room = CurveRoom(counts, touched, np.empty(LEVELS + 1, np.float64), np.empty(LEVELS + 1, np.int64))


def _best(
    p: ClassPixels,
    samples: NDArray[np.int64],
    table: NDArray[np.uint32],
    silent: NDArray[np.bool_],
    low: int,
    high: int,
    measure: Measure,
    scratch: _Scratch,
) -> tuple[float, int, int]:
    """Sum of scores, how many count, and the level, at a class's best level; the nearest to 0.5 among equals."""
    from ensemble_kit.kernels import undecided

    convention, room = measure.convention, scratch.room
    skip = convention.empty == "skip"
    empty = 0.0 if convention.empty == "skip" else float(convention.empty)
    level = undecided.curve(
        UndecidedPixels(p.values, p.offsets, p.splits, p.above, p.above_hits, p.truth, p.inside),
        samples,
        table,
        silent,
        p.fills,
        low,
        high,
        Score(*coefficients(measure.metric), float(convention.eps), empty, skip),
        measure.objective == "pooled",
        room,
    )
    return float(room.top[level]), int(room.counted[level]), int(level)
