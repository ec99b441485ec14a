"""`Task`: a search with its ensemble, truth and folds, on all samples or on some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, threads_here
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.counting import folds_of, reaches, unions_of, widened
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.search.kept_counts import KeptCounts
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.statistics import Statistics
from ensemble_kit.tuning.with_rules import Ruling, tune_ruled

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """A search with everything that it needs; `on` is the same on some of the samples.

    Parameters
    ----------
    ruling : rules that go with the thresholds, chosen from counts.
    at_once : classes at a time whose tables are held; default: all.
    counts : of all samples, by fusion, where thresholds are tuned.
    numbers : of these samples among all; None: all.
    """

    ensemble: Ensemble
    truth: MaskSet
    measure: Measure
    search: Search
    groups: Groups
    seed: int
    choose: Choice
    studies: int
    executor: Executor
    jobs: int | None
    listener: Listener
    ruling: Ruling = field(default_factory=Ruling)
    at_once: int | None = None
    counts: KeptCounts | None = None
    numbers: NDArray[np.int64] | None = None

    def on(self, samples: NDArray[np.int64]) -> Task:
        """Return the same search on some of the samples, by number."""
        ensemble, truth = subset(self.ensemble, self.truth, samples)
        numbers = samples if self.numbers is None else self.numbers[samples]
        return replace(self, ensemble=ensemble, truth=truth, numbers=numbers)

    @property
    def is_whole(self) -> bool:
        """Tell whether it is of all samples."""
        return self.numbers is None

    @property
    def needs_judgement(self) -> bool:
        """Tell whether it looks at how thresholds that it tuned were judged out of fold: rules are chosen so."""
        return bool(self.ruling) or "post" in self.search.what

    def taken(self, fused: Ensemble, bands: Mapping[int, Band]) -> dict[int, ClassStatistics]:
        """Return counts of some classes of these samples, each in a band, from those that are kept of all."""
        assert self.counts is not None
        numbers = np.arange(len(self.ensemble.samples)) if self.numbers is None else self.numbers
        return self.counts.take(fused.fusion, bands, numbers)

    def tuned(self, fused: Ensemble, folds: int | None, judged: bool = True) -> ThresholdSet:
        """Tune the thresholds of an ensemble of these samples exactly.

        Parameters
        ----------
        judged : whether the set tells the scores of the cross-validation; its thresholds are the same without.
        """
        how = folds, self.groups, self.seed
        split, _ = folds_of(self.ensemble.samples, *how)
        certain = reaches([self.measure], split, unions_of(split), threads_here(self.executor))
        tables = widened(certain, len(fused.classes), lambda bands: self.taken(fused, bands))
        counted = Statistics(fused.samples, fused.classes, tables, "")
        return tune_from(counted, fused, self.measure, *how, self.choose, self.executor, judged)

    def ruled(self, fused: Ensemble, found: ThresholdSet, folds: int | None) -> ThresholdSet:
        """Choose rules and thresholds together for an ensemble of these samples, whose thresholds were tuned."""
        how = folds, self.groups, self.seed, self.executor, self.listener, self.at_once
        return tune_ruled(found, fused, self.truth, self.ruling, *how)


def subset(ensemble: Ensemble, truth: MaskSet, samples: NDArray[np.int64]) -> tuple[Ensemble, MaskSet]:
    """Return an ensemble and its truth on some of the samples, by number."""
    some = ensemble.on([ensemble.samples[k] for k in samples.tolist()])
    return some, truth.arranged(some.samples, some.classes)
