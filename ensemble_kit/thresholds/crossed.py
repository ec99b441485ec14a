"""What a cross-validation found: scores out of fold, gains and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Choice = Literal["bagged", "shrunk", "own", "shared"]
"""How thresholds, or factors of argmax, are chosen (docs/concepts.md#how-thresholds-are-chosen)."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval over groups (percentiles; Efron and Tibshirani 1993).

    It says how well the mean of many such samples is known, not where that of the next few will lie: see
    `CrossValidation.expected`.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True)
class ClassFolds:
    """One class across folds.

    Parameters
    ----------
    levels : the level that each fold's training samples chose; of a set that decides by argmax, the factor.
    gain : out-of-fold gain of the class's own threshold over the common one, with its interval.
    keeps : whether the class keeps its own threshold: its gain is above noise.
    score : out-of-fold score of the tuned setting.
    """

    levels: tuple[int, ...]
    gain: Interval
    keeps: bool
    score: float


@dataclass(frozen=True)
class CrossValidation:
    """What tuning is worth on samples that did not choose it.

    Parameters
    ----------
    folds, groups : how many.
    shrink : whether classes without a gain above noise take the common level.
    scores : out-of-fold scores of the "tuned" setting (shrunk where asked), of every class's "own" threshold, of one
        "shared" threshold, and of 0.5 ("half"), which needs no training.
    gain : of the tuned setting over 0.5, out of fold.
    common_level : the level of a class that does not keep its own: the best shared one, or that of 0.5 where the
        shared one gains nothing above noise; of a set that decides by argmax, the factor 65536, which is 1.
    classes : by class name.
    as_decided : gain over 0.5, out of fold, with each class by its own threshold or by the common one as all samples
        decided; `gain` is of what each fold decided for itself. None: the two are one.
    score : out-of-fold score of the tuned setting, with its interval; None: not known, of a set from an older file.
    """

    folds: int
    groups: int
    shrink: bool
    scores: dict[str, float]
    gain: Interval
    common_level: int
    classes: dict[str, ClassFolds] = field(repr=False)
    as_decided: Interval | None = field(default=None, repr=False)
    score: Interval | None = field(default=None, repr=False)

    def expected(self, new: int | None = None) -> Interval | None:
        """Return the gain, and where that of new groups lies in 95 of 100 cases (docs/concepts.md#the-gain-to-expect).

        The prediction interval of a mean of `new` values after `n` of them (Hahn and Meeker, "Statistical Intervals",
        1991): `t(n - 1) · s · √(1/n + 1/new)`, with `s / √n` from the width of the bootstrap interval. The gain was
        measured in K folds, whose sets share samples, so 1/n is multiplied by `1 + K / (K - 1)` (Nadeau and Bengio,
        "Inference for the generalization error", Machine Learning 52, 2003). It spans that of `as_decided` too.

        Parameters
        ----------
        new : number of new groups; default: as many as here.

        Returns
        -------
        Interval
            None where it is not known: of a set whose file does not hold `as_decided`, or without a pair that counts.
        """
        return self._predicted([self.gain, self.gain if self.as_decided is None else self.as_decided], new, -1.0)

    def expected_score(self, new: int | None = None) -> Interval | None:
        """Return the score out of fold, and where that of new groups lies in 95 of 100 cases; as for `expected`.

        Returns
        -------
        Interval
            None where it is not known: of a set whose file does not hold it, or without a pair that counts.
        """
        return None if self.score is None else self._predicted([self.score], new, 0.0)

    def _predicted(self, means: Sequence[Interval], new: int | None, least: float) -> Interval | None:
        """Return the first of some means, with an interval that spans the predictions of them all.

        Scores lie between 0 and 1, and gains between -1 and 1, so the interval is cut to that from `least` to 1.
        """
        from scipy.special import ndtri, stdtrit  # quantiles; scipy.stats takes 0.4 s to import

        n, level = self.groups, 0.975
        spread = math.sqrt(1 + self.folds / (self.folds - 1) + n / (n if new is None else new)) * math.sqrt(n / (n - 1))
        factor = float(stdtrit(n - 1, level)) / float(ndtri(level)) * spread
        halves = [factor * (i.high - i.low) / 2 for i in means]
        low = max(least, min(i.value - half for i, half in zip(means, halves, strict=True)))
        high = min(1.0, max(i.value + half for i, half in zip(means, halves, strict=True)))
        return Interval(means[0].value, low, high) if math.isfinite(sum(halves)) else None


UNKNOWN = Interval(math.nan, math.nan, math.nan)
"""In place of an interval that the file of a set does not hold."""
