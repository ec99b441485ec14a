"""Samplers: what proposes the trials of a study, by Optuna's TPE, by CMA-ES or from a grid.

A proposal is a function of the seed and of the finished trials before it. So a study that was killed and is resumed
ends with the same trials as one that was not. CMA-ES is replayed from the trials too, since Optuna keeps its state as
a pickle, which nothing here ever opens.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ensemble_kit.errors import UsageError

Params = dict[str, float]
Trial = tuple[Params, float]
Sampler = Literal["tpe", "cmaes", "grid"]
SAMPLERS = ("tpe", "cmaes", "grid")
_SIGMA = 0.2  # first step of CMA-ES, of the width of each parameter
_MOST = 10**6  # combinations of a grid


@dataclass(frozen=True)
class Dimension:
    """One parameter of a study.

    Parameters
    ----------
    low, high : the range, both included.
    log : whether the range is searched on a logarithmic scale.
    step : distance between values; 1 makes them integers, None leaves them free.
    grid : values that the grid sampler tries.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    grid: tuple[float, ...] = ()

    def holds(self, value: object) -> bool:
        """Tell whether a value could have been proposed."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def at(self, share: float) -> float:
        """Return the value at a share, in [0, 1], of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        if self.step is not None:
            value = self.low + self.step * round((value - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return int(value) if self.step == 1 else round(value, 6)


class Proposer(Protocol):
    """Proposes the trials of a study, one after another."""

    def next(self) -> Params | None:
        """Propose the next trial; None where there is nothing left to try."""

    def learn(self, params: Params, value: float) -> None:
        """Learn from a finished trial."""


def proposer(
    sampler: Sampler, seed: int, dimensions: Sequence[Dimension], first: int, history: Sequence[Trial]
) -> Proposer:
    """Make the proposer of a study, which may have begun in an earlier run.

    Parameters
    ----------
    first : how many trials are given, before any are proposed.
    history : the finished trials, in order.

    Raises
    ------
    UsageError
        CMA-ES without its package or for one parameter; a grid of more than a million combinations.
    """
    if sampler == "tpe":
        return _Tpe(seed, dimensions, history)
    kind = _Cmaes if sampler == "cmaes" else _Grid
    return kind(seed, dimensions, first, history)


class _Tpe:
    """Optuna's TPE on a study in memory; its random numbers are drawn anew, by number, for every trial."""

    def __init__(self, seed: int, dimensions: Sequence[Dimension], history: Sequence[Trial]) -> None:
        import optuna

        self._optuna, self._seed = optuna, seed
        self._space = distributions(dimensions)
        self._study = optuna.create_study(direction="maximize")
        self._count = 0
        self._asked: Any = None
        for params, value in history:
            self.learn(params, value)

    def next(self) -> Params:
        samplers = self._optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is experimental before Optuna 5
            self._study.sampler = samplers.TPESampler(seed=_numbered(self._seed, self._count), multivariate=True)
        self._asked = self._study.ask(self._space)
        return dict(self._asked.params)

    def learn(self, params: Params, value: float) -> None:
        self._count += 1
        if self._asked is not None:
            self._study.tell(self._asked, value)
            self._asked = None
            return
        self._study.add_trial(self._optuna.trial.create_trial(params=params, distributions=self._space, value=value))


class _Cmaes:
    """CMA-ES (Hansen 2016) over the unit cube, asked and told in whole generations, restarted when it has converged."""

    def __init__(self, seed: int, dimensions: Sequence[Dimension], first: int, history: Sequence[Trial]) -> None:
        try:
            import cmaes
        except ModuleNotFoundError:
            raise UsageError(
                "cmaes-missing",
                "cannot search by CMA-ES",
                item="the package cmaes is not installed",
                fix="run: pip install 'ensemble_kit[search]', or pass --sampler tpe",
            ) from None
        if len(dimensions) < 2:
            item = f"there is one parameter, {dimensions[0].name!r}"
            raise _unusable("CMA-ES", item, "pass --sampler tpe or grid, or search more")
        self._cmaes, self._seed, self._dimensions, self._first = cmaes, seed, dimensions, first
        self._restarts, self._seen = 0, 0
        self._asked: Any = None
        self._generation: list[tuple[Any, float]] = []
        self._start()
        for params, value in history:
            if self._seen >= first:
                self.next()
            self.learn(params, value)

    def _start(self) -> None:
        n = len(self._dimensions)
        self._cma = self._cmaes.CMA(
            mean=np.full(n, 0.5),
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (n, 1)),
            seed=_numbered(self._seed, self._restarts),
        )

    def next(self) -> Params:
        self._asked = self._cma.ask()
        return {d.name: d.at(float(x)) for d, x in zip(self._dimensions, self._asked, strict=True)}

    def learn(self, params: Params, value: float) -> None:  # noqa: ARG002 - its own, to full precision
        self._seen += 1
        if self._seen <= self._first:
            return
        self._generation.append((self._asked, -value))
        if len(self._generation) == self._cma.population_size:
            self._cma.tell(self._generation)
            self._generation = []
            if self._cma.should_stop():
                self._restarts += 1
                self._start()


class _Grid:
    """Every combination of the dimensions' grid values, in a seeded order."""

    def __init__(self, seed: int, dimensions: Sequence[Dimension], first: int, history: Sequence[Trial]) -> None:
        size = math.prod(len(d.grid) for d in dimensions)
        if size > _MOST:
            item = f"{len(dimensions)} parameters make {size} combinations"
            raise _unusable("a grid", item, "search less at a time, or pass --sampler tpe")
        combinations = list(itertools.product(*(d.grid for d in dimensions)))
        order = np.random.default_rng(seed).permutation(size)
        names = [d.name for d in dimensions]
        self._left: Iterator[Params] = iter([dict(zip(names, combinations[k], strict=True)) for k in order])
        for _ in range(max(0, len(history) - first)):
            next(self._left, None)

    def next(self) -> Params | None:
        return next(self._left, None)

    def learn(self, params: Params, value: float) -> None:
        pass


def _numbered(seed: int, number: int) -> int:
    """Derive the seed of one step from the study's."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def distributions(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Return the dimensions as Optuna's distributions, by name."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        d.name: IntDistribution(int(d.low), int(d.high), log=d.log)
        if d.step == 1
        else FloatDistribution(d.low, d.high, log=d.log, step=d.step)
        for d in dimensions
    }


def _unusable(how: str, item: str, fix: str) -> UsageError:
    return UsageError("option-invalid", f"cannot search by {how}", item=item, fix=fix)
