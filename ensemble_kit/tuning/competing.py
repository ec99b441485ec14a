"""Counts by level of the pixels that competition leaves, for several ratios in one pass over the stores.

Which pixels a class keeps at a ratio depends on no threshold. So the counts without competition, less the beaten pixels
below the ratio, are statistics like any other: given the ratio every threshold, and every least area, is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.across import Compete
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.competition import Beaten, beaten
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.gathered_counts import GatheredCounts
from ensemble_kit.tuning.statistics import Counted, tables_of
from ensemble_kit.tuning.truth import items_with_truth, true_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ratio = float | None
"""Of `compete`; None without competition."""


@dataclass(frozen=True)
class CountCompeting:
    """The work of counting some classes of one sample at several ratios; an item has their `Truth`.

    Parameters
    ----------
    bands : of each class, by number, the levels to tell apart.
    rivals : numbers of the classes that compete; the others are counted as they are.
    """

    inputs: Inputs
    bands: tuple[tuple[int, Band], ...]
    ratios: tuple[Ratio, ...]
    rivals: tuple[int, ...]

    def __post_init__(self) -> None:
        self.inputs.check_each_class()

    def __call__(self, item: Item) -> list[Counted]:
        """Count pixels, and pixels of the truth, at and above every level of the bands, for each ratio."""
        scores, bands, (true, void) = open_sample(self.inputs, item.sample), dict(self.bands), item.truth
        every = scores.counts(bands, true)
        kept = every if void is None else every.without(scores.counts(bands, [void] * len(bands)))
        own = [c for c in bands if c in self.rivals]
        masks = scores.decide({c: bands[c][0] for c in own}).masks(scores.image)
        found = dict(zip(own, beaten(scores, self.rivals, dict(zip(own, masks, strict=True))), strict=True))
        lost = [
            self._lost(found[c], every.of(k)[0], bands[c][1], true[k], void)
            if c in found
            else np.zeros((len(self.ratios), 3, every.of(k)[0].size + 1), np.int64)
            for k, c in enumerate(bands)
        ]
        return [
            Counted(
                _without(every, [of_class[r, 0] for of_class in lost], [of_class[r, 1] for of_class in lost]),
                _without(
                    kept, [of_class[r, 0] - of_class[r, 2] for of_class in lost], [of_class[r, 1] for of_class in lost]
                ),
            )
            for r in range(len(self.ratios))
        ]

    def _lost(
        self, found: Beaten, levels: NDArray[np.uint16], high: int, true: Runs, void: Runs | None
    ) -> NDArray[np.int64]:
        """Count the pixels that competition takes from a class, the hits and the void ones among them, by ratio.

        Returns
        -------
        int64 (ratios, 3, levels + 1): at each level and above, and last at `high` and above.
        """
        from ensemble_kit.kernels import lost_pixels

        ratios = np.array([0 if ratio is None else Compete(ratio).in_65536 for ratio in self.ratios], np.int64)
        nowhere = Runs.empty(found.image) if void is None else void
        pixels = found.positions, found.levels, found.own, found.tops
        runs = true.starts, true.ends, nowhere.starts, nowhere.ends
        order = np.argsort(ratios, kind="stable")
        out = np.empty((ratios.size, 3, levels.size + 1), np.int64)
        out[order] = lost_pixels.lost(*pixels, ratios[order], *runs, levels, high)
        return out


def _without(
    counts: LevelCounts, pixels: Sequence[NDArray[np.int64]], hits: Sequence[NDArray[np.int64]]
) -> LevelCounts:
    """Take pixels and hits from the counts of each class: arrays at its levels, then one number above the band."""
    kind = counts.pred.dtype
    return counts._replace(
        pred=counts.pred - np.concatenate([v[:-1] for v in pixels]).astype(kind),
        tp=counts.tp - np.concatenate([v[:-1] for v in hits]).astype(kind),
        above=counts.above - np.array([v[-1] for v in pixels]),
        above_tp=counts.above_tp - np.array([v[-1] for v in hits]),
    )


def count_competing(
    ensemble: Ensemble,
    truth: MaskSet,
    bands: Mapping[int, Band],
    ratios: Sequence[Ratio],
    rivals: Sequence[int],
    executor: Executor = THREADS,
    listener: Listener = nobody,
    areas: bool = False,
) -> dict[Ratio, dict[int, ClassStatistics]]:
    """Count some classes at several ratios, in one pass over the stores.

    Parameters
    ----------
    truth, bands, areas : as for `statistics.count`.
    ratios : None is no competition.
    rivals : numbers of the classes that compete.
    """
    names = [ensemble.classes[c] for c in bands]
    work = CountCompeting(ensemble.inputs, tuple(bands.items()), tuple(ratios), tuple(rivals))
    kept = [GatheredCounts(len(bands)) for _ in ratios]
    whole = [GatheredCounts(len(bands)) if areas and truth.has_void else None for _ in ratios]
    for found in executor.map(work, items_with_truth(ensemble.samples, truth, names), "counting", listener):
        for r, counted in enumerate(found):
            kept[r].add(counted.kept)
            if (every := whole[r]) is not None:
                every.add(counted.every)
    true, out = true_areas(ensemble.samples, truth, names), dict[Ratio, dict[int, ClassStatistics]]()
    for r, ratio in enumerate(ratios):
        out[ratio] = tables_of(bands, kept[r], true, whole[r])
        if r:  # which levels occur depends on no ratio
            first = out[ratios[0]]
            out[ratio] = {
                c: replace(t, offsets=first[c].offsets, levels=first[c].levels) for c, t in out[ratio].items()
            }
    return out
