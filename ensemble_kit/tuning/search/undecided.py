"""The pixels that members do not agree on: all that a trial of weights has to look at.

A pixel that every member puts below the band of thresholds, or every member at or above it, is decided for any convex
weights. The others are kept, one 16-bit value per member, and one trial is: fuse them, and read the exact best
threshold of every class off the curve.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.kernels.arguments import CurveRoom, Score, UndecidedPixels
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores import exclusive, layouts
from ensemble_kit.scores.inputs import Inputs, Member
from ensemble_kit.spec.fusion import integer_weights
from ensemble_kit.spec.mean import LEVELS, LOGIT, Mean, levels_of_q
from ensemble_kit.spec.scoring import Measure, coefficients
from ensemble_kit.tuning.truth import items_with_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray


MEMORY = 500 * 10**6
"""Bytes that undecided pixels may take unless the user says otherwise: half a second a trial for five members."""
_LOWEST = 328  # 0.005: trials look no lower, where every pixel of the image is; the final tuning looks everywhere
_PROBES = 4  # samples that tell how many pixels there will be
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


def collect(
    ensemble: Ensemble,
    truth: MaskSet,
    bands: Mapping[int, tuple[int, int]],
    memory: int | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    hottest: float = 1.0,
) -> Undecided:
    """Collect an ensemble's undecided pixels in one pass over the stores.

    Time is that of reading the stores once and of evaluating the members where they are undecided. Memory is two
    bytes per member and pixel; where it would exceed `memory`, only every second (third, …) pixel of every second
    row is kept, and `stride` says so.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes.
    bands : for each class number the levels, low and high, between which thresholds will be looked for.
    memory : bytes; default 500 MB.
    hottest : the largest factor by which temperatures will be multiplied; the band is widened for it.
    """
    build = _Builder(ensemble.inputs, bands, hottest)
    items = items_with_truth(ensemble.samples, truth, ensemble.classes)
    budget = memory or MEMORY
    every = ensemble.samples
    probes = Items(every[:: max(1, len(every) // _PROBES)][:_PROBES], items.truth)
    bytes_each = sum(_bytes_of(build.sample(item, 1)) for item in probes) / len(probes)
    stride = 1
    while bytes_each * len(every) > budget * stride**2:
        stride += 1
    while True:
        found = build.all(items, stride, budget, executor, listener)
        if found is not None:
            return found
        stride += 1


def _bytes_of(parts: list[tuple[Any, ...]]) -> int:
    return sum(p[0].nbytes for p in parts)


class _Builder:
    """The arrays by which undecided pixels are found, the same for every sample; a value that can be pickled."""

    def __init__(self, inputs: Inputs, bands: Mapping[int, tuple[int, int]], hottest: float) -> None:
        self.inputs, fusion = inputs, inputs.fusion
        self.softmax = inputs.activation == "softmax"
        as_q = not self.softmax and (fusion.upsample == "logits" or fusion.mean.of_logits)
        self.kind: Kind = "q" if as_q else "level"
        codes: layouts.Codes = "scores" if self.softmax else "q" if as_q else "levels"
        # what is stored is each member's own score, interpolated: a mean of logits leaves it as it is
        self.scoring = layouts.scoring(layouts.Recipe(codes, fusion.temperatures, LOGIT, interpolate_members=True))
        self.bands = [self._stored(*bands[c], hottest) for c in range(len(inputs.classes))]
        by_key = np.maximum.accumulate(self.scoring.by_key, axis=1)  # codes of NaN, at the end, hold 0
        keys = np.array([np.searchsorted(table, self.bands) - 32768 for table in by_key])  # (T, classes, 2)
        self.keys = np.ascontiguousarray(keys[self.scoring.table_of].transpose(1, 2, 0))

    def _stored(self, low: int, high: int, hottest: float) -> tuple[int, int]:
        """Turn a band of fused levels into one of stored values that holds it at every temperature."""
        from ensemble_kit.kernels import tables

        steps = tables.identity()  # what a stored value is on the scale of the band
        if not self.inputs.fusion.mean.of_logits:
            scale = self.inputs.fusion.mean.scale
            low = max(low, int(scale[_LOWEST]))
            steps = scale[tables.q_levels()] if self.kind == "q" else scale
        low, high = int(np.searchsorted(steps, low)), LEVELS if high == LEVELS else int(np.searchsorted(steps, high))
        if hottest == 1:
            return low, high
        if self.kind == "q":
            wide = tables.q_of_logit(tables.logit_of_q([low, min(high, LEVELS - 1)]) * hottest)
        else:
            p = np.clip(np.array([low, high]) / (LEVELS - 1), 1e-9, 1 - 1e-9)
            wide = tables.level_of_probability(tables.sigmoid((np.log(p) - np.log1p(-p)) * hottest))
        return int(wide[0]), int(wide[1]) if high < LEVELS else LEVELS

    def all(self, items: Items, stride: int, budget: int, executor: Executor, listener: Listener) -> Undecided | None:
        """Collect every sample; None where that takes more than the budget."""
        rows, taken = [], 0
        for parts in executor.map(CollectUndecided(self, stride), items, "collecting", listener):
            rows.append(parts)
            taken += _bytes_of(parts)
            if taken > budget and stride < 64:
                return None
        classes = []
        for c in range(len(self.inputs.classes)):
            parts = [row[c] for row in rows]
            offsets = np.cumsum([0, *(p[0].shape[0] for p in parts)])
            numbers = np.array([p[1:] for p in parts], np.int64)
            classes.append(
                ClassPixels(
                    *self.bands[c],
                    np.concatenate([p[0] for p in parts]),
                    offsets,
                    offsets[:-1] + numbers[:, 0],
                    *(np.ascontiguousarray(numbers[:, k]) for k in (1, 2, 3)),
                )
            )
            for row in rows:
                row[c] = ()
        fusion = self.inputs.fusion
        return Undecided(fusion.members, fusion.temperatures, self.kind, stride, tuple(classes))

    def sample(self, item: Item, stride: int) -> list[tuple[Any, ...]]:
        """Collect one sample: for each class its values, hits, pixels above, hits among them, hits in all."""
        from ensemble_kit.kernels import undecided

        members, classes, fusion = self.inputs.members, self.inputs.classes, self.inputs.fusion
        placements = [m.placement(item.sample) for m in members]
        codes = [self._codes(m, item.sample, t) for m, t in zip(members, fusion.temperatures, strict=True)]
        order = layouts.order(tuple([m.classes for m in members]), classes)
        laid = (
            layouts.members(codes, placements, order, layouts.weights(fusion.weights)),
            self.scoring,
            layouts.axes(tuple([p.box.shape for p in placements]), placements[0].image),
        )

        def gather(c: int, hits: Runs) -> tuple[Any, ...]:
            return undecided.gather(c, *laid, *self.bands[c], *self.keys[c], stride, hits.starts, hits.ends)

        true, void = item.truth
        if void is None:
            return [gather(c, mask) for c, mask in enumerate(true)]
        return [_without_void(gather(c, mask), gather(c, mask | void)) for c, mask in enumerate(true)]

    def _codes(self, member: Member, sample: str, temperature: float) -> NDArray[np.uint16]:
        logits = member.read(sample)
        if self.softmax:
            return exclusive.levels(logits, temperature)
        return np.ascontiguousarray(logits).view(np.uint16)


def _without_void(hits: tuple[Any, ...], hits_and_void: tuple[Any, ...]) -> tuple[Any, ...]:
    """Join the hits of what was gathered with the true mask, and the misses of what was with the void added to it."""
    values, n_hits, above, above_hits, area = hits
    others, n_others, _, above_others, _ = hits_and_void
    kept = np.concatenate([values[:n_hits], others[n_others:]])
    return kept, n_hits, above - (above_others - above_hits), above_hits, area


@dataclass(frozen=True)
class CollectUndecided:
    """The work of collecting one sample, of every second (third, …) pixel and row by its stride.

    An item has the `Truth` of all classes.
    """

    build: _Builder
    stride: int

    def __call__(self, item: Item) -> list[tuple[Any, ...]]:
        """Return, for each class, its values, hits, pixels above, hits among them, hits in all."""
        return self.build.sample(item, self.stride)
