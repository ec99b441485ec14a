"""Studies: trials run one after another, stored where the user says, and resumed by a later run.

A storage only ever receives finished trials.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ensemble_kit.errors import DamagedError
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.tuning.search.samplers import Dimension, Params, Sampler, Trial, proposer
from ensemble_kit.tuning.search.storage import Stored, check_storage, locked, quiet


@dataclass(frozen=True)
class Finished:
    """What a study found.

    Parameters
    ----------
    best, value, number : parameters of the best trial (the first of equals), its value, and its number from 0.
    trials : values of all trials, in order.
    known : how many of them an earlier run had finished.
    stopped : why it ended before its last trial, "timeout" or "grid exhausted"; None where it did not.
    """

    best: Params
    value: float
    number: int
    trials: tuple[float, ...]
    known: int
    stopped: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return what a set records of every study."""
        return {
            "trials": len(self.trials),
            "best_trial": self.number,
            "best": round(self.value, 9),
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class Plan:
    """How a study is run.

    Parameters
    ----------
    trials : how many in all, those of an earlier run included.
    timeout : seconds of this run, or None.
    storage, study : an Optuna storage URL, and the study's name in it; None stores nothing.
    sampler : "tpe", "cmaes" or "grid".
    seed : of the sampler.
    """

    trials: int
    timeout: float | None = None
    storage: str | None = field(default=None, repr=False)  # it may hold a password
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
    """Run a study, or resume it, and return its best trial.

    Parameters
    ----------
    first : parameters of the first trials, before any are proposed.
    objective : what is maximised.
    about : what it is a study of; a stored study of something else is refused.
    verb : what is being done, for `Progress`.

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
        stack.enter_context(quiet())
        stored = None
        if plan.storage is not None:
            check_storage(plan.storage)
            stack.enter_context(locked(plan.storage))
            stored = Stored(plan.storage, plan.study, dimensions, _identity(plan, dimensions, about))
        history = stored.history() if stored else []
        known, stopped, start = len(history), None, time.monotonic()
        propose = proposer(plan.sampler, plan.seed, dimensions, len(first), history)
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
            if stored:
                stored.add(params, value)
            history.append((params, value))
            propose.learn(params, value)
            listener(Progress(verb, len(history), plan.trials, len(history) - known, note=_note(history)))
    values = tuple(v for _, v in history)
    number = max(range(len(values)), key=lambda k: (values[k], -k))
    return Finished(history[number][0], values[number], number, values, known, stopped)


def _note(history: Sequence[Trial]) -> str:
    if not history:
        return "no trial yet"
    number = max(range(len(history)), key=lambda k: (history[k][1], -k))
    return f"best {history[number][1]:.6f} (trial {number}), first {history[0][1]:.6f}"


def _identity(plan: Plan, dimensions: Sequence[Dimension], about: Mapping[str, Any]) -> dict[str, Any]:
    space = {d.name: [d.low, d.high, d.log, d.step] for d in dimensions}
    return json.loads(json.dumps({**about, "space": space, "sampler": plan.sampler, "seed": plan.seed}))
