"""Greedy member selection: add, again and again, the member that helps most; keep the best prefix.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import gcd

from ensemble_kit.execution.events import Listener, Progress, nobody


@dataclass(frozen=True)
class Selection:
    """What greedy selection found.

    Parameters
    ----------
    counts : how often each member was taken; weights like any other.
    score : the objective there.
    path : members taken, step by step, by number; the best prefix is its first `kept` steps.
    """

    counts: tuple[int, ...]
    score: float
    path: tuple[int, ...]
    kept: int


def select(
    names: Sequence[str],
    objective: Callable[[tuple[int, ...]], float],
    steps: int,
    listener: Listener = nobody,
    bound: Callable[[tuple[int, ...]], tuple[float, float]] | None = None,
) -> Selection:
    """Select members with replacement, and return the shortest of the best prefixes.

    Parameters
    ----------
    names : of the members; among equals the one whose name sorts first is taken.
    objective : what is maximised, of how often each member is taken.
    steps : how many members are taken at most.
    bound : two numbers that the objective lies between; it is asked only where they do not decide. Default: it is.
    """
    scores = _Scores(objective, bound)
    counts, path = [0] * len(names), list[int]()
    best, kept = None, 0
    for step in range(steps):
        shares = []
        for k in range(len(names)):
            tried = tuple(n + (j == k) for j, n in enumerate(counts))
            common = reduce(gcd, tried)
            shares.append(tuple(n // common for n in tried))  # equal shares are one ensemble
        k = scores.first(shares, names)
        counts[k] += 1
        path.append(k)
        if best is None or scores.is_more(shares[k], best):
            best, kept = shares[k], step + 1
        about = sum(scores.between(best)) / 2
        listener(Progress("selecting", step + 1, steps, step + 1, note=f"best {about:.6f} ({kept} taken)"))
    taken = tuple(path[:kept].count(k) for k in range(len(names)))
    return Selection(taken, float("-inf") if best is None else scores.exactly(best), tuple(path), kept)


@dataclass
class _Scores:
    """The objective by shares of members; asked for only where its bounds do not decide."""

    objective: Callable[[tuple[int, ...]], float]
    bound: Callable[[tuple[int, ...]], tuple[float, float]] | None
    _exact: dict[tuple[int, ...], float] = field(default_factory=dict)
    _between: dict[tuple[int, ...], tuple[float, float]] = field(default_factory=dict)

    def exactly(self, share: tuple[int, ...]) -> float:
        if share not in self._exact:
            self._exact[share] = self.objective(share)
        return self._exact[share]

    def between(self, share: tuple[int, ...]) -> tuple[float, float]:
        """Return the least and the most that a score can be."""
        if share in self._exact or self.bound is None:
            return self.exactly(share), self.exactly(share)
        if share not in self._between:
            self._between[share] = self.bound(share)
        return self._between[share]

    def first(self, shares: Sequence[tuple[int, ...]], names: Sequence[str]) -> int:
        """Return the number of the best; among equals the one whose name sorts first."""
        bounds = [self.between(share) for share in shares]
        least = max(low for low, _ in bounds)
        rest = [k for k, (_, high) in enumerate(bounds) if high >= least]
        return rest[0] if len(rest) == 1 else min((-self.exactly(shares[k]), names[k], k) for k in rest)[2]

    def is_more(self, share: tuple[int, ...], other: tuple[int, ...]) -> bool:
        """Tell whether one scores more than another."""
        (low, high), (least, most) = self.between(share), self.between(other)
        if share == other or high <= least or low > most:
            return share != other and low > most
        return self.exactly(share) > self.exactly(other)
