"""The score of each class at every threshold, as a page draws it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.records import Best
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.counting import HIGHS, LOWS
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.statistics import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS = 160  # of a curve, on a panel that is 170 pixels wide
_HELD, _OF_A_PAIR = 256_000_000, 180_000
"""Bytes of counts that are held at a time, and those of one (sample, class): 18,000 levels, as `Statistics` tells."""


@dataclass(frozen=True)
class ClassCurve:
    """What a page shows of one class.

    Parameters
    ----------
    levels, scores : points of the curve, where it changes.
    best : the best level, and the score there.
    level, score : those of the decision; of one without thresholds the best.
    plateau : levels around it with the same score, both ends included.
    """

    levels: NDArray[np.int64]
    scores: NDArray[np.float64]
    best: Best
    level: int
    score: float
    plateau: tuple[int, int]


@dataclass(frozen=True)
class Counts:
    """What a curve is drawn of.

    Parameters
    ----------
    level : that of the decision; None of one without thresholds.
    """

    table: ClassStatistics
    level: int | None

    def drawn(self, measure: Measure) -> ClassCurve:
        """Draw it."""
        own = Curve(self.table, measure, [np.arange(self.table.truth.size)])
        best = own.best()
        level = best.level if self.level is None else self.level
        plateau = own.table.segment(level) if level != best.level else best.plateau
        return ClassCurve(*_points(own), best, level, own.score_at(level, (0,)), plateau)


def has_curves(vote: SoftVote, measure: Measure) -> bool:
    """Tell whether each class has a score at every threshold."""
    skips = measure.convention.empty == "skip-truth"
    return not (vote.ensemble.activation == "softmax" or isinstance(vote.decision, Argmax) or skips)


def counted(
    vote: SoftVote, truth: MaskSet, executor: Executor = THREADS, listener: Listener = nobody
) -> Iterator[tuple[str, Counts]]:
    """Count each class at every threshold of a band that holds 0.05 to 0.95 and the class's own.

    Some classes at a time, in a pass over the stores each, so that their counts take little memory beside the masks.
    """
    e = vote.ensemble
    own = vote.decision.in_order(e.classes) if isinstance(vote.decision, Thresholds) else None
    at_once = max(1, _HELD // (_OF_A_PAIR * len(e.samples)))
    for first in range(0, len(e.classes), at_once):
        some = range(first, min(first + at_once, len(e.classes)))
        levels = {c: LOWS[0] if own is None else own[c] for c in some}
        bands = {c: (min(LOWS[0], v), max(HIGHS[0], min(v + 1, LEVELS))) for c, v in levels.items()}
        for c, table in count(e, truth, bands, executor, listener).items():
            yield e.classes[c], Counts(table, None if own is None else own[c])


def _points(own: Curve) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Thin a curve to the levels where it changes and a pair counts, and these to what can be seen."""
    low, high = own.band
    scores = own.scores((0,))[: min(high, 65535) - low + 1]
    known = np.flatnonzero(~np.isnan(scores))
    kept = known[np.append(True, np.diff(scores[known]) != 0)[: known.size]]
    if kept.size > _POINTS:
        even = np.linspace(0, known.size - 1, _POINTS).round().astype(np.int64)
        kept = np.unique(np.append(known[even], np.nanargmax(scores)))
    return low + kept, scores[kept]
