"""Sweeps of line searches over the factors of all classes, until they gain nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.linesearch import FactorSearch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GAIN = 1e-5  # sweeps end where one gains less

Wider = Callable[[ContenderTable], ContenderTable]
"""Returns a table of the same pixels, gathered for a larger ratio of factors than the one that is given."""


@dataclass(frozen=True)
class Fitted:
    """Factors that sweeps of line searches end at.

    Parameters
    ----------
    factors : of each class, integers, 65536 for 1.
    plateaus : the range of each class's factors with the same scores, both ends included.
    score : the objective.
    sweeps : how many were made.
    """

    factors: tuple[int, ...]
    plateaus: tuple[tuple[int, int], ...]
    score: float
    sweeps: int


def fit(
    table: ContenderTable,
    measure: Measure,
    wider: Wider,
    samples: NDArray[np.int64] | None = None,
    free: Sequence[int] | None = None,
) -> Fitted:
    """Search the factor of one class after the other, until a sweep over all gains less than 1e-5.

    Parameters
    ----------
    wider : called where a search is not certain that no factor beyond the table's ratio is better.
    samples : numbers of those that count; default: all.
    free : numbers of the classes whose factors are searched; the others keep 1. Default: all but the background, or
        else the first, since a common factor changes nothing.
    """
    search = FactorSearch(table, measure, samples)
    free = table.free if free is None else free
    enough = dict.fromkeys(free, table)  # a wider table takes a search twice as long, and few classes need one
    sweeps, before = 0, -np.inf
    while search.score - before >= _GAIN:
        before, sweeps = search.score, sweeps + 1
        for c in free:
            search.table = enough[c]
            while not search.search(c).is_certain:
                search.table = enough[c] = wider(search.table)
    plateaus = [(ONE, ONE)] * len(table.classes)
    for c in free:
        search.table = enough[c]
        while (found := search.plateau(c)) is None:
            search.table = wider(search.table)
        plateaus[c] = found
    return Fitted(tuple(search.factors), tuple(plateaus), search.score, sweeps)


@dataclass
class Widening:
    """The tables that fits share; one is gathered when the first of them asks for it.

    What a fit finds does not depend on a table's ratio.

    Parameters
    ----------
    gather : makes the table of a ratio's logarithm.
    tables : those that there are, ascending.
    """

    gather: Callable[[int], ContenderTable]
    tables: list[ContenderTable]
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __call__(self, table: ContenderTable) -> ContenderTable:
        """Return the next wider table."""
        with self._lock:
            if self.widest.ratio <= table.ratio:
                self.tables.append(self.gather(min(r for r in RATIOS if r > table.ratio)))
            return next(t for t in self.tables if t.ratio > table.ratio)

    @property
    def widest(self) -> ContenderTable:
        """The table that holds for all factors that were found."""
        return self.tables[-1]
