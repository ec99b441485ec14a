"""Sweeps of line searches over the factors of all classes, until they gain nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.linesearch import FactorSearch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GAIN = 1e-5  # sweeps end where one gains less


@dataclass(frozen=True)
class Fitted:
    """Factors that sweeps of line searches end at.

    Parameters
    ----------
    factors : of each class, integers, 65536 for 1.
    plateaus : the range of each class's factors with the same scores, both ends included.
    score : the objective.
    sweeps : how many were made.
    is_certain : whether every line search was exact over all factors; if not, the search ended there.
    """

    factors: tuple[int, ...]
    plateaus: tuple[tuple[int, int], ...]
    score: float
    sweeps: int
    is_certain: bool


def fit(
    table: ContenderTable,
    measure: Measure,
    samples: NDArray[np.int64] | None = None,
    free: Sequence[int] | None = None,
) -> Fitted:
    """Search the factor of one class after the other, until a sweep over all gains less than 1e-5.

    Parameters
    ----------
    samples : numbers of those that count; default: all.
    free : numbers of the classes whose factors are searched; the others keep 1. Default: all but the background, or
        else the first, since a common factor changes nothing.
    """
    search = FactorSearch(table, measure, samples)
    free = table.free if free is None else free
    sweeps, before = 0, -np.inf
    while search.score - before >= _GAIN:
        before, sweeps = search.score, sweeps + 1
        for c in free:
            if not search.search(c).is_certain:
                return Fitted(tuple(search.factors), (), search.score, sweeps, False)
    plateaus = [search.plateau(c) if c in free else (ONE, ONE) for c in range(len(table.classes))]
    return Fitted(tuple(search.factors), tuple(plateaus), search.score, sweeps, True)
