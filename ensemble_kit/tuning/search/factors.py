"""The joint search of weights and mean for argmax, with the factors at their optimum inside every trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.metrics.overlap import iou
from ensemble_kit.strict_json import plain_number
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.factors import tune_factors
from ensemble_kit.tuning.folds import group_of, make_folds
from ensemble_kit.tuning.gathering import exclusive_truth
from ensemble_kit.tuning.resampling import Resampler
from ensemble_kit.tuning.search import contending
from ensemble_kit.tuning.search.joint import search_fusion
from ensemble_kit.tuning.search.plan import check, check_by_argmax
from ensemble_kit.tuning.search.storage import check_storage
from ensemble_kit.tuning.search.task import Task
from ensemble_kit.tuning.search.undecided import Setting

if TYPE_CHECKING:
    from numpy.typing import NDArray


def tune(
    task: Task,
    background: str | None = None,
    folds: int | None = None,
    known: ContenderTable | None = None,
    keep: Callable[[ContenderTable], None] | None = None,
    least: float | None = None,
) -> ThresholdSet:
    """Search the fusion, tune the factors of what was found exactly, and judge both out of fold.

    With `folds` everything is nested: for each fold the search and the factors are done again on the other folds
    alone, and judged on the one left out, beside the uniform ensemble with tuned factors.

    Parameters
    ----------
    task : the ensemble with its own fusion; trials begin with equal weights.
    background : a class whose mask is not written.
    known, keep : statistics of the uniform ensemble, as for `tune_factors`.
    least : as for `tune_factors`; trials are made without it.

    Raises
    ------
    UsageError, MismatchError
        What is searched does not fit the ensemble, or the stored study does not fit the search.
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    search = task.search
    check_by_argmax(search)
    check(task.ensemble, search)
    if search.storage is not None:
        check_storage(search.storage)
    uniform = Setting.uniform(task.ensemble).applied(task.ensemble)
    task = replace(task, ensemble=uniform, truth=exclusive_truth(uniform, task.truth, background))
    procedure = _Procedure(task, background, least)
    plain = procedure.tuned(uniform, task, folds, known, keep)
    found = procedure.searched(task, np.arange(len(uniform.samples)), folds, "", plain)
    return procedure.nested(folds, found) if folds else found


class _Procedure:
    """A search on all samples or on some, by the same table of members' scores."""

    def __init__(self, task: Task, background: str | None, least: float | None) -> None:
        memory = task.search.memory
        self.task, self.background, self.least = task, background, least
        self.table = contending.collect(task.ensemble, task.truth, background, memory, task.executor, task.listener)

    def tuned(
        self, fused: Ensemble, task: Task, folds: int | None, known: Any = None, keep: Any = None
    ) -> ThresholdSet:
        """Tune the factors of an ensemble of a task's samples exactly."""
        how = folds, task.groups, task.seed, task.choose, known, keep, task.executor, task.jobs, task.listener
        return tune_factors(fused, task.truth, task.measure, self.background, *how, self.least)

    def searched(
        self, task: Task, samples: NDArray[np.int64], folds: int | None, name: str, plain: ThresholdSet
    ) -> ThresholdSet:
        """Search on the task's samples (numbers `samples` of the table), then tune what was found."""
        setting, record = search_fusion(task, self.table, samples, name)
        fused = task.ensemble if setting is None else setting.applied(task.ensemble)
        found = plain if fused.fusion == task.ensemble.fusion else self.tuned(fused, task, folds)
        how = {"method": "greedy" if "greedy" in task.search.what else "search", "what": list(task.search.what)}
        told = {**found.search, **how, **record, "uniform": {"in_sample": plain_number(plain.score)}}
        return replace(found, search=told)

    def nested(self, folds: int, found: ThresholdSet) -> ThresholdSet:
        """Judge the whole procedure on samples that were not searched on; return the set with these scores."""
        task, measure = self.task, self.task.measure
        ensemble, names = task.ensemble, group_of(task.ensemble.samples, task.groups)
        counts = {kind: _Counts() for kind in ("tuned", "uniform", "one")}
        chosen, split = [], make_folds(ensemble.samples, folds, task.groups, task.seed)
        for k, fold in enumerate(split):
            rest = np.sort(np.concatenate([other for j, other in enumerate(split) if j != k]))
            groups = len({names[s] for s in rest.tolist()})
            inner = min(folds, groups) if groups >= 3 and task.choose == "shrunk" else None
            training, held = task.on(rest), task.on(fold)
            uniform = self.tuned(training.ensemble, training, inner)
            best = self.searched(training, rest, inner, f"/fold-{k + 1}", uniform)
            one = replace(uniform, factors=tuple(replace(c, factor=65536) for c in uniform.factors))
            for kind, judged in (("tuned", best), ("uniform", uniform), ("one", one)):
                counts[kind].add(held, judged)
            chosen.append({"weights": list(best.fusion.weights[0]), "mean": str(best.fusion.mean)})
        order = np.argsort(np.concatenate(split))
        (tuned, truth), (uniform_counts, _), (one_counts, _) = (counts[kind].joined(order) for kind in counts)
        judge, crossed = Resampler(names, task.seed), found.validation.crossed
        assert crossed is not None
        pairs = {"tuned": tuned, "uniform": uniform_counts, "one": one_counts}
        scores = {kind: measure.of_all(*pair, truth) for kind, pair in pairs.items()}
        over = judge.interval(measure, tuned, uniform_counts, truth)
        honest: CrossValidation = replace(
            crossed,
            scores=scores,
            gain=judge.interval(measure, tuned, one_counts, truth),
            as_decided=None,
            score=judge.interval(measure, tuned, None, truth),
        )
        told = {
            "folds": chosen,
            "out_of_fold": plain_number(scores["tuned"]),
            "uniform_out_of_fold": plain_number(scores["uniform"]),
            "gain_over_uniform": [plain_number(v) for v in (over.value, over.low, over.high)],
        }
        validation = replace(found.validation, crossed=honest)
        return replace(found, validation=validation, search={**found.search, "nested": told})


class _Counts:
    """Hits, pixels and true pixels of written classes on held-out samples, fold after fold."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], ...]] = []

    def add(self, held: Task, tuned: ThresholdSet) -> None:
        """Vote on a fold with a set that did not see it."""
        masks = held.ensemble.as_tuned(tuned).vote(tuned, executor=held.executor, listener=held.listener)
        scored = iou(masks, held.truth.arranged(masks.samples, masks.classes))
        self._parts.append((scored.tp.T, scored.pred.T, scored.truth.T))

    def joined(self, order: NDArray[np.int64]) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
        """Return hits and pixels, and true pixels, int64 (classes, samples) each, in the samples' order."""
        tp, pred, truth = (np.concatenate(part, axis=1)[:, order] for part in zip(*self._parts, strict=True))
        return (tp, pred), truth
