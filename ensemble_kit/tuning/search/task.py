"""`Task`: a search with its ensemble, truth and folds, on all samples or on some."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.statistics import Statistics
from ensemble_kit.tuning.with_rules import Ruling, tune_ruled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """A search with everything that it needs; `on` is the same on some of the samples.

    Parameters
    ----------
    ruling : rules that go with the thresholds, chosen from counts.
    at_once : classes at a time whose tables are held; default: all.
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

    def on(self, samples: NDArray[np.int64]) -> Task:
        """Return the same search on some of the samples, by number."""
        ensemble, truth = subset(self.ensemble, self.truth, samples)
        return replace(self, ensemble=ensemble, truth=truth)

    def tuned(self, fused: Ensemble, folds: int | None, known: Statistics | None = None) -> ThresholdSet:
        """Tune the thresholds of an ensemble of these samples exactly."""
        split = folds, self.groups, self.seed
        counted = statistics_for(fused, self.truth, self.measure, *split, known, self.executor, self.listener)
        return tune_from(counted, fused, self.measure, *split, self.choose, self.executor)

    def ruled(self, fused: Ensemble, found: ThresholdSet, folds: int | None) -> ThresholdSet:
        """Choose rules and thresholds together for an ensemble of these samples, whose thresholds were tuned."""
        how = folds, self.groups, self.seed, self.executor, self.listener, self.at_once
        return tune_ruled(found, fused, self.truth, self.ruling, *how)


def subset(ensemble: Ensemble, truth: MaskSet, samples: NDArray[np.int64]) -> tuple[Ensemble, MaskSet]:
    """Return an ensemble and its truth on some of the samples, by number."""
    some = ensemble.on([ensemble.samples[k] for k in samples.tolist()])
    return some, truth.arranged(some.samples, some.classes)
