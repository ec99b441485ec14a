"""Greedy member selection: add, again and again, the member that helps most; keep the best prefix.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
) -> Selection:
    """Select members with replacement, and return the shortest of the best prefixes.

    Parameters
    ----------
    names : of the members; among equals the one whose name sorts first is taken.
    objective : what is maximised, of how often each member is taken.
    steps : how many members are taken at most.
    """
    seen: dict[tuple[int, ...], float] = {}
    counts, path = [0] * len(names), list[int]()
    best = Selection((0,) * len(names), float("-inf"), (), 0)
    for step in range(steps):
        scored = []
        for k in range(len(names)):
            tried = tuple(n + (j == k) for j, n in enumerate(counts))
            common = reduce(gcd, tried)
            share = tuple(n // common for n in tried)  # equal shares are one ensemble
            if share not in seen:
                seen[share] = objective(share)
            scored.append((-seen[share], names[k], k))
        loss, _, k = min(scored)
        counts[k] += 1
        path.append(k)
        if -loss > best.score:
            best = Selection(tuple(counts), -loss, (), step + 1)
        listener(Progress("selecting", step + 1, steps, step + 1, note=f"best {best.score:.6f} ({best.kept} taken)"))
    return Selection(best.counts, best.score, tuple(path), best.kept)
