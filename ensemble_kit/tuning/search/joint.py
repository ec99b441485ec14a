"""The joint search of weights, mean, temperatures and rules, with the exact best thresholds inside every trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import DamagedError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.mean import Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.strict_json import plain_number
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.choosing import usual
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.search import cleaning, collecting, greedy, studies
from ensemble_kit.tuning.search.kept_counts import KeptCounts
from ensemble_kit.tuning.search.nested import nested, split_of
from ensemble_kit.tuning.search.plan import TRIALS, Search, check
from ensemble_kit.tuning.search.samplers import Dimension, Params
from ensemble_kit.tuning.search.shared_trials import SharedTrials
from ensemble_kit.tuning.search.storage import check_storage
from ensemble_kit.tuning.search.task import Task
from ensemble_kit.tuning.search.undecided import Setting, Trial
from ensemble_kit.tuning.statistics import Statistics, check_truth, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Trials(Protocol):
    """Pixels on which a setting is scored at its best thresholds, or factors; `Undecided` is one."""

    @property
    def stride(self) -> int:
        """Every stride-th pixel of every stride-th row stands for the rest."""

    @property
    def pixels(self) -> int:
        """Number of pixels that a trial looks at."""

    def try_setting(
        self, setting: Setting, measure: Measure, samples: NDArray[np.int64] | None = None, jobs: int | None = None
    ) -> Trial:
        """Find the best thresholds or factors under a setting, and the objective there."""


_STEPS = 25  # members that greedy selection takes at most
_HOTTEST, _COLDEST = 3.0, 0.5  # factors of a member's own temperature
_STEP = 0.05  # of the power of the mean: 0.55 can be read, 0.5512 says no more


def tune(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    wanted: Search | str | Sequence[str],
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    choose: Choice | None = None,
    statistics: Statistics | None = None,
    executor: Executor = THREADS,
    jobs: int | None = None,
    listener: Listener = nobody,
    given: Sequence[Rule] = (),
    at_once: int | None = None,
) -> ThresholdSet:
    """Search, tune the thresholds of what was found exactly and at full resolution, and judge both out of fold.

    With `folds` everything is nested: for each fold the whole search (the same trials), the thresholds and, with
    choose="shrunk", the decision to keep them are done again on the other folds alone, and judged on the one left out.
    The uniform ensemble with tuned thresholds is judged the same way beside it.

    Parameters
    ----------
    statistics : of the ensemble with uniform weights, if an earlier run kept them.
    executor : where passes over the samples run.
    jobs : threads of a trial, which runs in this process.
    given : rules that hold whatever is searched.
    at_once : classes at a time whose tables are held, where rules are chosen from counts; default: all.

    Raises
    ------
    UsageError, MismatchError
        What is searched does not fit the ensemble, or the stored study does not fit the search.
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    DamagedError
        Every pair of masks is skipped, so that there is nothing to maximise.
    """
    search, choose = Search.of(wanted), usual(choose, folds)
    check(ensemble, search)
    check_truth(ensemble, truth)
    uniform = Setting.uniform(ensemble).applied(ensemble) if TRIALS & set(search.what) else ensemble
    if search.storage is not None:
        check_storage(search.storage)
    studies_in_all = search.count_studies(folds)
    ruling = search.ruling(given)
    how = groups, seed, choose, studies_in_all, executor, jobs, listener, ruling, at_once
    task = Task(uniform, truth, measure, search, *how, KeptCounts(uniform, truth, executor, listener))
    known = statistics if statistics is not None and statistics.source == source_of(uniform, truth) else None
    counted = statistics_for(uniform, truth, measure, folds, groups, seed, known, executor, listener)
    plain = tune_from(counted, uniform, measure, folds, groups, seed, choose, executor)
    assert task.counts is not None
    task.counts.keep(uniform.fusion, dict(enumerate(counted.tables)))
    table: Trials | None = None
    if TRIALS & set(search.what):
        bands = {c: (t.low, t.high) for c, t in enumerate(counted.tables)}
        hottest = _HOTTEST if "temperature" in search.what else 1.0
        by_weights = not {"mean", "temperature"} & set(search.what)
        pixels = collecting.collect(uniform, truth, bands, search.memory, executor, listener, hottest, by_weights)
        table = pixels
        if "greedy" in search.what or (folds and search.sampler == "grid"):  # other samplers try other settings
            rests = split_of(task, folds)[1] if folds else []
            table = SharedTrials(pixels, [np.arange(len(ensemble.samples)), *rests])
    fit = partial(_fit, table)
    found = fit(task, np.arange(len(ensemble.samples)), folds, "", plain)
    return nested(task, folds, found, fit) if folds else found


def _fit(
    table: Trials | None,
    task: Task,
    samples: NDArray[np.int64],
    folds: int | None,
    name: str,
    plain: ThresholdSet,
) -> ThresholdSet:
    """Search on the task's samples (numbers `samples` of the table), then tune what was found."""
    search, ensemble = task.search, task.ensemble
    setting, record = search_fusion(task, table, samples, name)
    fused = ensemble if setting is None else setting.applied(ensemble)
    judged = task.is_whole or task.needs_judgement
    found = plain if fused.fusion == ensemble.fusion else task.tuned(fused, folds, judged)
    if "post" in search.what:
        plan = search.plan(task.seed, f"{name}/post", task.studies)
        found, record["post"] = cleaning.search(fused, task.truth, found, plan, task.executor, task.listener)
    if task.ruling:
        found = task.ruled(fused, found, folds)
    how = {"method": "greedy" if "greedy" in search.what else "search", "what": list(search.what), **record}
    return replace(found, search={**found.search, **how, "uniform": {"in_sample": plain_number(plain.score)}})


def search_fusion(
    task: Task, table: Trials | None, samples: NDArray[np.int64], name: str
) -> tuple[Setting | None, dict[str, Any]]:
    """Find the best fusion by trials on undecided pixels; return it, and what a set records."""
    search, ensemble = task.search, task.ensemble
    if table is None:
        return None, {"trials": None}
    names, start = ensemble.fusion.members, Setting.uniform(ensemble)

    def score(setting: Setting) -> float:
        reached = table.try_setting(setting, task.measure, samples, task.jobs).score
        if np.isnan(reached):
            raise DamagedError(
                "objective-not-finite",
                "cannot search",
                item=f"every pair of the {samples.size} samples is empty in both masks, and such pairs are skipped",
                fix="pass empty=1 or empty=0 (--empty), or samples with something on them",
            )
        return reached

    told: dict[str, Any] = {"stride": table.stride, "pixels": table.pixels}
    if "greedy" in search.what:
        steps = max(1, min(_STEPS, search.trials))
        bound = None
        if isinstance(table, SharedTrials) and table.can_bound(task.measure):
            bound = partial(_bound, table, start, task, samples)
        chosen = greedy.select(names, lambda counts: score(replace(start, weights=counts)), steps, task.listener, bound)
        taken = [names[k] for k in chosen.path[: chosen.kept]]
        return replace(start, weights=chosen.counts), {
            **told,
            "trials": steps,
            "taken": taken,
            "best": plain_number(chosen.score),
        }
    dimensions, first = _space(ensemble, search)
    about = {
        "source": source_of(ensemble, task.truth),
        "objective": str(task.measure),
        "what": sorted(set(search.what) & {"weights", "mean", "temperature"}),
        "stride": table.stride,
    }
    plan = search.plan(task.seed, name, task.studies)
    done = studies.run(plan, dimensions, [first], lambda p: score(_setting(p, start, names)), about, task.listener)
    return _setting(done.best, start, names), {
        **told,
        **done.to_dict(),
        "sampler": search.sampler,
        "sampler_seed": plan.seed,
        "first": plain_number(done.trials[0]),
        "params": {name: round(value, 6) for name, value in done.best.items()},
    }


def _bound(
    table: SharedTrials, start: Setting, task: Task, samples: NDArray[np.int64], counts: tuple[int, ...]
) -> tuple[float, float]:
    """Bound the score of members that were taken so often."""
    return table.bound(replace(start, weights=counts), task.measure, samples, task.jobs)


def _space(ensemble: Ensemble, search: Search) -> tuple[list[Dimension], Params]:
    """Return the dimensions of the search, and the uniform ensemble in them: the first trial."""
    fusion = ensemble.fusion
    dimensions, first = list[Dimension](), Params()
    if "weights" in search.what:
        for name in fusion.members:
            dimensions.append(Dimension(f"weight:{name}", 0, 1, grid=(0.0, 0.25, 0.5, 0.75, 1.0)))
            first[dimensions[-1].name] = 1.0
    if "mean" in search.what:
        dimensions.append(Dimension("mean", 0, 1, step=_STEP, grid=(0.0, 0.25, 0.5, 0.75, 1.0)))
        first["mean"] = 1.0
    if "temperature" in search.what:
        for name, t in zip(fusion.members, fusion.temperatures, strict=True):
            dimensions.append(
                Dimension(f"temperature:{name}", t * _COLDEST, t * _HOTTEST, log=True, grid=(t, 0.5 * t, 2.0 * t))
            )
            first[dimensions[-1].name] = t
    return dimensions, first


def _setting(params: Params, start: Setting, names: Sequence[str]) -> Setting:
    """Read a trial's parameters: how members are fused."""
    weights, temperatures = start.weights, start.temperatures
    if f"weight:{names[0]}" in params:
        weights = tuple(round(params[f"weight:{n}"], 4) for n in names)
        if not any(weights):
            weights = start.weights
    if f"temperature:{names[0]}" in params:
        temperatures = tuple(round(params[f"temperature:{n}"], 4) for n in names)
    mean = Mean(round(params["mean"], 2)) if "mean" in params else start.mean
    return Setting(weights, mean, temperatures)
