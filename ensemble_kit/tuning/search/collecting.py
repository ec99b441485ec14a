"""Collecting undecided pixels: one pass over the stores, which a search then tries its settings on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores import exclusive, layouts, space
from ensemble_kit.scores.fusing import is_whole_image
from ensemble_kit.scores.inputs import Inputs, Member
from ensemble_kit.spec.mean import LEVELS, LOGIT
from ensemble_kit.tuning.search.by_masks import Part, undecided_of
from ensemble_kit.tuning.search.undecided import ClassPixels, Kind, Undecided, Which, band_of, scale_of
from ensemble_kit.tuning.truth import items_with_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMORY = 500 * 10**6
"""Bytes that undecided pixels may take unless the user says otherwise: half a second a trial for five members."""
_LOWEST = 328  # 0.005: trials look no lower, where every pixel of the image is; the final tuning looks everywhere
_PROBES = 4  # samples that tell how many pixels there will be


def collect(
    ensemble: Ensemble,
    truth: MaskSet,
    bands: Mapping[int, tuple[int, int]],
    memory: int | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    hottest: float = 1.0,
    by_weights: bool = False,
) -> Undecided:
    """Collect an ensemble's undecided pixels in one pass over the stores.

    Time is that of reading the stores once (of volumes and windows three times) and of evaluating the members where
    they are undecided. Memory is two bytes per member and pixel; where it would exceed `memory`, only every second
    (third, …) pixel of every second row is kept, and `stride` says so.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes.
    bands : for each class number the levels, low and high, between which thresholds will be looked for.
    memory : bytes; default 500 MB.
    hottest : the largest factor by which temperatures will be multiplied; the band is widened for it.
    by_weights : whether trials will differ in weights alone. Then what is kept is what the ensemble's mean sums, and a
        trial needs no table.
    """
    build = _Builder(ensemble.inputs, bands, hottest, by_weights)
    items = items_with_truth(ensemble.samples, truth, ensemble.classes)
    budget = memory or MEMORY
    every = ensemble.samples
    probes = Items(every[:: max(1, len(every) // _PROBES)][:_PROBES], items.truth)
    bytes_each = sum(map(build.bytes_of, probes)) / len(probes)
    stride = 1
    while bytes_each * len(every) > budget * stride**2:
        stride += 1
    while True:
        found = build.all(items, stride, budget, executor, listener)
        if found is not None:
            return found
        stride += 1


def _bytes_of(row: Sequence[Mapping[Which, Part]]) -> int:
    return sum(part.values.nbytes for parts in row for part in parts.values())


class _Builder:
    """The arrays by which undecided pixels are found, the same for every sample; a value that can be pickled."""

    def __init__(
        self, inputs: Inputs, bands: Mapping[int, tuple[int, int]], hottest: float, by_weights: bool = False
    ) -> None:
        self.inputs, fusion = inputs, inputs.fusion
        self.softmax = inputs.activation == "softmax"
        as_q = not self.softmax and (fusion.upsample == "logits" or fusion.mean.of_logits)
        self.kind: Kind = "q" if as_q else "level"
        codes: layouts.Codes = "q" if as_q else "levels"
        if self.softmax:
            codes = exclusive.codes(fusion, fusion.upsample)
        self.of_shares = codes == "shares"
        # what is stored is each member's own score, interpolated: a mean of logits leaves it as it is
        self.scoring = layouts.scoring(layouts.Recipe(codes, fusion.temperatures, LOGIT, interpolate_members=True))
        self.bands = [self._stored(*bands[c], hottest) for c in range(len(inputs.classes))]
        by_key = np.maximum.accumulate(self.scoring.by_key, axis=1)  # codes of NaN, at the end, hold 0
        keys = np.array([np.searchsorted(table, self.bands) - 32768 for table in by_key])  # (T, classes, 2)
        self.keys = np.ascontiguousarray(keys[self.scoring.table_of].transpose(1, 2, 0))
        self.summed = scale_of(self.kind, fusion.mean) if by_weights else None

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

    def bytes_of(self, item: Item) -> int:
        """Tell how many bytes a sample takes; of a volume as its sixteenth part says it."""
        stride = 1 if is_whole_image(self.inputs, item.sample) else 4
        return _bytes_of(self.sample(item, stride)) * stride**2

    def all(self, items: Items, stride: int, budget: int, executor: Executor, listener: Listener) -> Undecided | None:
        """Collect every sample; None where that takes more than the budget."""
        rows, taken = [], 0
        for row in executor.map(CollectUndecided(self, stride), items, "collecting", listener):
            rows.append(row)
            taken += _bytes_of(row)
            if taken > budget and stride < 64:
                return None
        sets = tuple(sorted({which for row in rows for which in row[0]}, key=lambda which: (-len(which), which)))
        none, classes = Part(np.empty((len(self.inputs.members), 0), np.uint16), 0, 0, 0, 0), []
        outside = space.outside(self.inputs)
        for c in range(len(self.inputs.classes)):
            parts = [row[c].get(which, none) for row in rows for which in sets]
            offsets = np.cumsum([0, *(p.values.shape[1] for p in parts)])
            numbers = np.array([p[1:] for p in parts], np.int64)
            splits, *counts = (np.ascontiguousarray(column) for column in numbers.T)
            values = np.concatenate([p.values for p in parts], axis=1)
            fills = bool(outside[c] > 0)
            above, above_hits, true, inside = counts
            at = offsets, offsets[:-1] + splits
            band = self.bands[c] if self.summed is None else band_of(*self.bands[c], [self.summed])
            classes.append(ClassPixels(*band, values, *at, above, above_hits, true, inside, fills))
            for row in rows:
                row[c] = {}
        fusion = self.inputs.fusion
        kind = self.kind if self.summed is None else "summed"
        return Undecided(fusion.members, fusion.temperatures, kind, stride, tuple(classes), sets)

    def sample(self, item: Item, stride: int) -> list[dict[Which, Part]]:
        """Collect one sample: for each class its part of each region."""
        if not is_whole_image(self.inputs, item.sample):
            return undecided_of(self.inputs, item.sample, self.kind, self.bands, stride, item.truth)
        everyone = tuple(range(len(self.inputs.members)))
        return [{everyone: Part(*found)} for found in self._of_image(item, stride)]

    def laid(self, part: Part) -> Part:
        """Lay values out by members, uint16 (M, n), on the scale of the sum where that is known."""
        values = np.ascontiguousarray(part.values.T)
        return part._replace(values=values if self.summed is None else self.summed[values])

    def _of_image(self, item: Item, stride: int) -> list[tuple[Any, ...]]:
        """Collect an image that all members saw, by the fast kernels: values, hits, above, hits among them, in all."""
        from ensemble_kit.kernels import undecided

        members, classes, fusion = self.inputs.members, self.inputs.classes, self.inputs.fusion
        placements = [m.placement(item.sample) for m in members]
        codes = [self._codes(m, item.sample, t) for m, t in zip(members, fusion.temperatures, strict=True)]
        order = layouts.order(tuple([m.classes for m in members]), classes)
        laid = layouts.members(codes, placements, order, layouts.weights(fusion.weights)), self.scoring
        axes = layouts.axes(tuple([p.box.shape for p in placements]), placements[0].image)
        pixels = space.of_whole(placements)

        def gather(masks: Sequence[Runs]) -> list[tuple[Any, ...]]:
            if self.of_shares:
                return exclusive.undecided(laid, pixels, self.bands, stride, masks)
            return [
                undecided.gather(c, *laid, axes, *self.bands[c], *self.keys[c], stride, mask.starts, mask.ends)
                for c, mask in enumerate(masks)
            ]

        true, void = item.truth
        if void is None:
            return gather(true)
        pairs = zip(gather(true), gather([mask | void for mask in true]), strict=True)
        return [_without_void(*pair) for pair in pairs]

    def _codes(self, member: Member, sample: str, temperature: float) -> NDArray[np.uint16]:
        logits = member.read(sample)
        if self.softmax:
            return (exclusive.q if self.of_shares else exclusive.levels)(logits, temperature)
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

    def __call__(self, item: Item) -> list[dict[Which, Part]]:
        """Return, for each class, its part of each region, with values laid out by members."""
        found = self.build.sample(item, self.stride)
        return [{which: self.build.laid(part) for which, part in parts.items()} for parts in found]
