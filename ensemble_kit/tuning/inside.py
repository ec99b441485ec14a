"""Counts by level of a class inside the masks of the classes that enclose it, under `nested`."""

from __future__ import annotations

from dataclasses import dataclass

from ensemble_kit.decisions.across import Compete
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.competition import beaten
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.gathered_counts import GatheredCounts
from ensemble_kit.tuning.statistics import Counted, tables_of
from ensemble_kit.tuning.truth import items_with_truth, true_areas

Levels = tuple[int, ...]
"""Of the classes that enclose one, the outermost first."""


@dataclass(frozen=True)
class CountInside:
    """The work of counting one class of one sample inside others, at several levels of those; an item has its `Truth`.

    Parameters
    ----------
    c, band : the class, and the levels of it to tell apart.
    enclosing : numbers of the classes around it, the outermost first.
    levels : their levels, each a case of its own.
    ratio, rivals : of the competition that comes before; None without.
    """

    inputs: Inputs
    c: int
    band: Band
    enclosing: tuple[int, ...]
    levels: tuple[Levels, ...]
    ratio: Ratio
    rivals: tuple[int, ...]

    def __call__(self, item: Item) -> list[Counted]:
        """Count pixels, and pixels of the truth, at and above every level of the band, for each case."""
        scores, (true, void) = open_sample(self.inputs, item.sample), item.truth
        lost, out = self._lost(scores), []
        for levels in self.levels:
            inside = ~Runs.empty(scores.image)
            for c, level in zip(self.enclosing, levels, strict=True):
                inside &= scores.runs(c, level) - lost.get(c, Runs.empty(scores.image))
            inside -= lost.get(self.c, Runs.empty(scores.image))
            whole = scores.counts({self.c: self.band}, [inside])
            hits = scores.counts({self.c: self.band}, [inside & true[0]])
            every = LevelCounts(*whole[:2], whole.tp, hits.tp, whole.above_tp, hits.above_tp)
            kept = every
            if void is not None:
                kept = every.without(scores.counts({self.c: self.band}, [inside & void]))
            out.append(Counted(every, kept))
        return out

    def _lost(self, scores: FusedSample) -> dict[int, Runs]:
        """Find what competition takes from these classes, by number."""
        if self.ratio is None:
            return {}
        lowest = {c: min(levels[k] for levels in self.levels) for k, c in enumerate(self.enclosing)}
        own = {c: level for c, level in {**lowest, self.c: self.band[0]}.items() if c in self.rivals}
        masks = dict(zip(own, scores.decide(own).masks(scores.image), strict=True))
        found = beaten(scores, self.rivals, masks)
        return {c: of_class.below(Compete(self.ratio).in_65536) for c, of_class in zip(own, found, strict=True)}


def count_inside(
    ensemble: Ensemble,
    truth: MaskSet,
    work: CountInside,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> dict[Levels, ClassStatistics]:
    """Count a class inside the masks that enclose it, for each choice of their levels, in one pass over the stores."""
    names = [ensemble.classes[work.c]]
    kept = [GatheredCounts(1) for _ in work.levels]
    whole = [GatheredCounts(1) if truth.has_void else None for _ in work.levels]
    for found in executor.map(work, items_with_truth(ensemble.samples, truth, names), "counting", listener):
        for k, counted in enumerate(found):
            kept[k].add(counted.kept)
            if (every := whole[k]) is not None:
                every.add(counted.every)
    true, bands = true_areas(ensemble.samples, truth, names), {work.c: work.band}
    return {levels: tables_of(bands, kept[k], true, whole[k])[work.c] for k, levels in enumerate(work.levels)}
