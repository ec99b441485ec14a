"""Studies: trials proposed by Optuna or a grid, one after another, kept where a person says, and gone on with later.

A storage only ever receives finished trials, and the proposal of a trial is a function of the seed and of the
finished ones before it. So a study that was killed and is run again ends with the same trials as one that was not.
CMA-ES is replayed from the trials too, since Optuna keeps its state as a pickle, which nothing here ever opens.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, LockedError, MismatchError, ResourceError, UsageError, some
from ensemble_kit.execution.events import Listener, Progress, nobody

Params = dict[str, float]
Sampler = Literal["tpe", "cmaes", "grid"]
SAMPLERS = ("tpe", "cmaes", "grid")
_ATTRIBUTE = "ensemble_kit"  # the study's user attribute that says what it is a study of
_SIGMA = 0.2  # first step of CMA-ES, of the width of each parameter


@dataclass(frozen=True)
class Dimension:
    """One parameter of a study.

    Parameters
    ----------
    low, high : both included.
    log : whether steps are factors.
    step : distance between values, or None; 1 makes them integers.
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


@dataclass(frozen=True)
class Finished:
    """What a study found.

    Parameters
    ----------
    best, value, number : parameters of the best trial (the first of equals), its value, and its number from 0.
    trials : values of all trials, in order; the first `known` of them an earlier run had finished.
    stopped : why it ended before its last trial: "timeout", "grid exhausted", or None.
    """

    best: Params
    value: float
    number: int
    trials: tuple[float, ...]
    known: int
    stopped: str | None


@dataclass(frozen=True)
class Plan:
    """How a study is run.

    Parameters
    ----------
    trials : how many in all, those of an earlier run included.
    timeout : seconds of this run, or None.
    storage, study : an Optuna storage URL, and the study's name in it; None keeps nothing.
    sampler : "tpe", "cmaes" or "grid".
    seed : of the sampler.
    """

    trials: int
    timeout: float | None = None
    storage: str | None = None
    study: str = "ensk"
    sampler: Sampler = "tpe"
    seed: int = 0


def run(
    plan: Plan,
    dimensions: Sequence[Dimension],
    first: Sequence[Params],
    objective: Callable[[Params], float],
    about: Mapping[str, Any],
    listener: Listener = nobody,
    verb: str = "searching",
) -> Finished:
    """Run a study, or go on with it, and return its best trial.

    Parameters
    ----------
    first : parameters of the first trials, before any are proposed.
    objective : what is maximised.
    about : what the study is of; a stored one of something else is refused.

    Raises
    ------
    MismatchError
        The stored study is of another ensemble, truth, objective, search space, sampler or seed.
    UsageError, DamagedError, LockedError, ResourceError
        A storage that cannot be used, cannot be read, is in use by another process, or cannot be opened.
    DamagedError
        The objective is not a finite number.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        kept = None
        if plan.storage is not None:
            check_storage(plan)
            if path := _file_of(plan):
                stack.enter_context(_locked(path))
            kept = _Kept(plan, dimensions, _identity(plan, dimensions, about))
        history = kept.history() if kept else []
        known, stopped, start = len(history), None, time.monotonic()
        propose = _proposer(plan, dimensions, len(first), history)
        listener(Progress(verb, known, plan.trials, note=_note(history)))
        while len(history) < plan.trials:
            k = len(history)
            if k > known and plan.timeout is not None and time.monotonic() - start >= plan.timeout:
                stopped = "timeout"
                break
            params = dict(first[k]) if k < len(first) else propose.next()
            if params is None:
                stopped = "grid exhausted"
                break
            value = float(objective(params))
            if not math.isfinite(value):
                raise DamagedError(
                    "objective-not-finite",
                    "cannot search",
                    item=f"trial {k} scored {value} with {params}",
                    fix="make the metric give a finite number for every pair of masks",
                )
            if kept:
                kept.add(params, value)
            history.append((params, value))
            propose.told(params, value)
            listener(Progress(verb, len(history), plan.trials, len(history) - known, note=_note(history)))
    values = tuple(v for _, v in history)
    number = max(range(len(values)), key=lambda k: (values[k], -k))
    return Finished(history[number][0], values[number], number, values, known, stopped)


def _note(history: Sequence[tuple[Params, float]]) -> str:
    if not history:
        return "no trial yet"
    number = max(range(len(history)), key=lambda k: (history[k][1], -k))
    return f"best {history[number][1]:.6f} (trial {number}), first {history[0][1]:.6f}"


def _identity(plan: Plan, dimensions: Sequence[Dimension], about: Mapping[str, Any]) -> dict[str, Any]:
    space = {d.name: [d.low, d.high, d.log, d.step] for d in dimensions}
    return json.loads(json.dumps({**about, "space": space, "sampler": plan.sampler, "seed": plan.seed}))


# --- proposals -----------------------------------------------------------------------------------------------


class _Proposer(Protocol):
    def next(self) -> Params | None:
        """Propose the next trial; None where there is nothing left to try."""

    def told(self, params: Params, value: float) -> None:
        """Learn from a finished trial."""


def _proposer(
    plan: Plan, dimensions: Sequence[Dimension], first: int, history: Sequence[tuple[Params, float]]
) -> _Proposer:
    kinds: dict[str, Callable[..., _Proposer]] = {"tpe": _Tpe, "cmaes": _Cmaes, "grid": _Grid}
    return kinds[plan.sampler](plan, dimensions, first, history)


class _Tpe:
    """Optuna's TPE on a study in memory; its random numbers are drawn anew, by number, for every trial."""

    def __init__(
        self, plan: Plan, dimensions: Sequence[Dimension], _: int, history: Sequence[tuple[Params, float]]
    ) -> None:
        import optuna

        self._optuna, self._seed = optuna, plan.seed
        self._space = _distributions(dimensions)
        self._study = optuna.create_study(direction="maximize")
        self._count = 0
        self._asked: Any = None
        for params, value in history:
            self.told(params, value)

    def next(self) -> Params:
        samplers = self._optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is experimental before Optuna 5
            self._study.sampler = samplers.TPESampler(seed=_seed(self._seed, self._count), multivariate=True)
        self._asked = self._study.ask(self._space)
        return dict(self._asked.params)

    def told(self, params: Params, value: float) -> None:
        self._count += 1
        if self._asked is not None:
            self._study.tell(self._asked, value)
            self._asked = None
            return
        self._study.add_trial(self._optuna.trial.create_trial(params=params, distributions=self._space, value=value))


class _Cmaes:
    """CMA-ES (Hansen 2016) over the unit cube, asked and told in whole generations, restarted when it has settled."""

    def __init__(
        self, plan: Plan, dimensions: Sequence[Dimension], first: int, history: Sequence[tuple[Params, float]]
    ) -> None:
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
            raise UsageError(
                "option-invalid",
                "cannot search by CMA-ES",
                item=f"there is one parameter, {dimensions[0].name!r}",
                fix="pass --sampler tpe or grid, or search more",
            )
        self._cmaes, self._plan, self._dimensions, self._first = cmaes, plan, dimensions, first
        self._restarts, self._seen = 0, 0
        self._asked: Any = None
        self._generation: list[tuple[Any, float]] = []
        self._start()
        for params, value in history:
            if self._seen >= first:
                self.next()
            self.told(params, value)

    def _start(self) -> None:
        n = len(self._dimensions)
        self._cma = self._cmaes.CMA(
            mean=np.full(n, 0.5),
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (n, 1)),
            seed=_seed(self._plan.seed, self._restarts),
        )

    def next(self) -> Params:
        self._asked = self._cma.ask()
        return {d.name: d.at(float(x)) for d, x in zip(self._dimensions, self._asked, strict=True)}

    def told(self, params: Params, value: float) -> None:  # noqa: ARG002 - its own, to full precision
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

    def __init__(
        self, plan: Plan, dimensions: Sequence[Dimension], first: int, history: Sequence[tuple[Params, float]]
    ) -> None:
        size = math.prod(len(d.grid) for d in dimensions)
        if size > 10**6:
            raise UsageError(
                "option-invalid",
                "cannot search by a grid",
                item=f"{len(dimensions)} parameters make {size} combinations",
                fix="search less at a time, or pass --sampler tpe",
            )
        combinations = list(itertools.product(*(d.grid for d in dimensions)))
        order = np.random.default_rng(plan.seed).permutation(size)
        names = [d.name for d in dimensions]
        self._left: Iterator[Params] = iter([dict(zip(names, combinations[k], strict=True)) for k in order])
        for _ in range(max(0, len(history) - first)):
            next(self._left, None)

    def next(self) -> Params | None:
        return next(self._left, None)

    def told(self, params: Params, value: float) -> None:
        pass


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def _distributions(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        d.name: IntDistribution(int(d.low), int(d.high), log=d.log)
        if d.step == 1
        else FloatDistribution(d.low, d.high, log=d.log, step=d.step)
        for d in dimensions
    }


# --- what is kept --------------------------------------------------------------------------------------------


def check_storage(plan: Plan) -> None:
    """Refuse, before any work, a storage that cannot be used; errors as for `run`."""
    import optuna

    path = _file_of(plan)
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(
            "storage-invalid",
            "cannot use a study's storage",
            item=f"{plan.storage!r}: {str(path.absolute().parent)!r} is no folder",
            fix="make the folder first, or pass another --storage",
        )
    with _quiet(), _worded(plan):
        optuna.storages.RDBStorage(plan.storage)


def _file_of(plan: Plan) -> Path | None:
    prefix = "sqlite:///"
    return Path(plan.storage.removeprefix(prefix)) if plan.storage and plan.storage.startswith(prefix) else None


class _Kept:
    """A study in an Optuna storage: plain parameters, values and one attribute that says what it is of."""

    def __init__(self, plan: Plan, dimensions: Sequence[Dimension], identity: dict[str, Any]) -> None:
        import optuna

        self._optuna, self._plan, self._dimensions = optuna, plan, dimensions
        with _worded(plan):
            storage = optuna.storages.RDBStorage(plan.storage)
            known = plan.study in [s.study_name for s in optuna.get_all_study_summaries(storage)]
            self._study = optuna.create_study(
                study_name=plan.study, storage=storage, direction="maximize", load_if_exists=True
            )
            found = self._study.user_attrs.get(_ATTRIBUTE)
            empty = known and found is None and not self._study.trials  # killed between the two lines
            if not known or empty:
                self._study.set_user_attr(_ATTRIBUTE, identity)
                found = identity
        if found != identity or self._study.direction.name != "MAXIMIZE":
            differing = [k for k in identity if not isinstance(found, dict) or found.get(k) != identity[k]]
            raise MismatchError(
                "study-differs",
                "cannot go on with this study",
                item=f"{plan.study!r} in {plan.storage!r} is of another {some(differing or ['direction'], 9)}",
                fix="pass another --study name, or the same ensemble, truth, objective and --search as then",
            )

    def history(self) -> list[tuple[Params, float]]:
        """Parameters and values of the finished trials, in order."""
        with _worded(self._plan):
            trials = [t for t in self._study.trials if t.state.name == "COMPLETE"]
        out = []
        for trial in trials:
            sound = set(trial.params) == {d.name for d in self._dimensions} and all(
                d.holds(trial.params[d.name]) for d in self._dimensions
            )
            if not sound or trial.value is None or not math.isfinite(trial.value):
                raise DamagedError(
                    "study-invalid",
                    "cannot go on with this study",
                    item=f"trial {trial.number} of {self._plan.study!r} has {trial.params} and value {trial.value}",
                    fix="pass another --study name",
                )
            out.append((dict(trial.params), float(trial.value)))
        return out

    def add(self, params: Params, value: float) -> None:
        """Keep a finished trial; one transaction, so it is there or not."""
        with _worded(self._plan):
            trial = self._optuna.trial.create_trial(
                params=params, distributions=_distributions(self._dimensions), value=value
            )
            self._study.add_trial(trial)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own log from the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a study file against other processes: two would each propose the same trials."""
    lock = path.with_name(path.name + ".lock")
    with lock.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                raise BlockingIOError  # its last holder removed it between our two lines
        except BlockingIOError:
            raise LockedError(
                "study-locked",
                "cannot go on with this study",
                item=f"{str(path)!r} is in use by another process",
                fix="wait for it to end, or pass another --storage",
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _worded(plan: Plan) -> Iterator[None]:
    """Say in our words what Optuna and its database say in theirs."""
    import optuna
    import sqlalchemy.exc as sql

    where, told = f"{plan.storage!r}", "cannot use a study's storage"
    try:
        yield
    except EnskError:
        raise
    except (sql.ArgumentError, sql.NoSuchModuleError, ImportError) as error:
        raise UsageError(
            "storage-invalid",
            told,
            item=f"{where}: {_brief(error)}",
            fix="pass a URL such as sqlite:///study.db, and install its driver where it needs one",
        ) from None
    except RuntimeError as error:  # Optuna: the table schema is of another version
        raise UsageError(
            "storage-version",
            told,
            item=f"{where}: {_brief(error)}",
            fix="run: optuna storage upgrade --storage URL, or pass another --storage",
        ) from None
    except (optuna.exceptions.StorageInternalError, sql.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        if isinstance(cause, sql.OperationalError):
            raise ResourceError(
                "storage-io", told, item=f"{where}: {_brief(cause)}", fix="check its folder, permissions and free space"
            ) from None
        raise _damaged(where, cause or error) from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise _damaged(where, error) from None


def _damaged(where: str, error: BaseException) -> DamagedError:
    return DamagedError(
        "storage-damaged",
        "cannot read a study",
        item=f"{where}: {_brief(error)}",
        fix="pass another --storage; what it held is left as it is",
    )


def _brief(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
