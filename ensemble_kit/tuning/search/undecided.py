"""The pixels that members do not agree on: all that a trial of weights has to look at.

A pixel that every member puts below the band of thresholds, or every member at or above it, is decided for any convex
weights. The others are kept, one 16-bit value per member, and one trial is: fuse them, and read the exact best
threshold of every class off the curve.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.cores import cores
from ensemble_kit.kernels.arguments import CurveRoom, Score, UndecidedPixels
from ensemble_kit.spec.fusion import integer_weights
from ensemble_kit.spec.mean import LEVELS, Mean, levels_of_q
from ensemble_kit.spec.scoring import Measure, coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray


Kind = Literal["q", "level"]


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
    values : uint16 (n, members); sample s has the rows `offsets[s]:offsets[s+1]`, hits up to `splits[s]`.
    above, above_hits, truth : int64 (samples,), pixels decided on, hits among them, hits in all.

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
    names, temperatures : of the members, as they were collected.
    kind : what is stored, the logit's `q` or the probability's "level".
    stride : every stride-th pixel of every stride-th row stands for the rest.
    classes : one `ClassPixels` per class.
    """

    names: tuple[str, ...]
    temperatures: tuple[float, ...]
    kind: Kind
    stride: int
    classes: tuple[ClassPixels, ...]

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
        heats = zip(self.temperatures, setting.temperatures, strict=True)
        scales = [self._scale(setting.mean, own, t) for own, t in heats]
        weights = integer_weights(setting.weights, self.names)
        table = np.stack([s.astype(np.uint32) * np.uint32(w) for s, w in zip(scales, weights, strict=True)])
        scratch = _Scratch()
        use = np.arange(self.classes[0].truth.size) if samples is None else np.asarray(samples, np.int64)

        def one(pixels: ClassPixels) -> tuple[float, int, int]:
            # decided pixels lie below `low` and at or above `high` on this trial's scale, whatever the weights
            low = max(int(s[pixels.low - 1]) + 1 if pixels.low > 0 else 0 for s in scales)
            high = min(int(s[pixels.high]) if pixels.high < LEVELS else LEVELS for s in scales)
            return _best(pixels, use, table, low, high, measure, scratch)

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


class _Scratch(threading.local):
    """Room for each thread's kernel; zeros between calls."""

    def __init__(self) -> None:
        counts, touched = np.zeros(LEVELS + 1, np.uint64), np.zeros(1025, np.uint64)
        self.room = CurveRoom(counts, touched, np.empty(LEVELS + 1, np.float64), np.empty(LEVELS + 1, np.int64))


def _best(
    p: ClassPixels,
    samples: NDArray[np.int64],
    table: NDArray[np.uint32],
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
        UndecidedPixels(p.values, p.offsets, p.splits, p.above, p.above_hits, p.truth),
        samples,
        table,
        low,
        high,
        Score(*coefficients(measure.metric), convention.eps, empty, skip),
        measure.objective == "pooled",
        room,
    )
    return float(room.top[level]), int(room.counted[level]), int(level)
