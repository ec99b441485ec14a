"""`SharedTrials`: trials that the searches of all folds make, each looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.search.undecided import UNSURE, Setting, Trial, Undecided

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SharedTrials:
    """Trials on the undecided pixels of a table; what one union of samples tries, others will.

    Greedy selections on all samples and without each fold begin alike and often go on so: of 262 trials of four
    selections among three members 102 were different. Pixels are fused once for all unions.

    Parameters
    ----------
    unions : sample numbers, ascending, of each search that will ask.
    """

    table: Undecided
    unions: Sequence[NDArray[np.int64]]
    _known: dict[tuple[Setting, Measure], list[Trial]] = field(default_factory=dict, repr=False)
    _estimated: dict[tuple[Setting, Measure], list[float]] = field(default_factory=dict, repr=False)

    @property
    def stride(self) -> int:
        """Every stride-th pixel of every stride-th row stands for the rest."""
        return self.table.stride

    @property
    def pixels(self) -> int:
        """Number of pixels that a trial looks at."""
        return self.table.pixels

    def try_setting(
        self, setting: Setting, measure: Measure, samples: NDArray[np.int64] | None = None, jobs: int | None = None
    ) -> Trial:
        """Find the best thresholds under a setting, and the objective there, on one of the unions."""
        own = self._number(samples)
        if own is None:
            return self.table.try_setting(setting, measure, samples, jobs)
        if (setting, measure) not in self._known:
            self._known[setting, measure] = self.table.try_on(setting, measure, self.unions, jobs)
        return self._known[setting, measure][own]

    def can_bound(self, measure: Measure) -> bool:
        """Tell whether `bound` can be asked."""
        return self.table.can_estimate(measure)

    def bound(
        self, setting: Setting, measure: Measure, samples: NDArray[np.int64], jobs: int | None = None
    ) -> tuple[float, float]:
        """Return numbers that a trial's score on one of the unions lies between, in half of the time."""
        own = self._number(samples)
        assert own is not None
        if (setting, measure) not in self._estimated:
            self._estimated[setting, measure] = self.table.estimate_on(setting, measure, self.unions, jobs)
        about = self._estimated[setting, measure][own]
        return about - UNSURE, about + UNSURE

    def _number(self, samples: NDArray[np.int64] | None) -> int | None:
        wanted = np.arange(self.table.samples) if samples is None else samples
        return next((u for u, union in enumerate(self.unions) if np.array_equal(union, wanted)), None)
