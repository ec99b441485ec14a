"""Thresholds by trials, for metrics that counts per class do not determine, such as a user-defined one.

For Dice, IoU and F-beta the exact optimum costs less (`ensemble_kit.tuning.exact`); a study begins with it and is
compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit import user_code
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import EnskError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import dice
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import Groups, make_folds
from ensemble_kit.tuning.search import studies
from ensemble_kit.tuning.search.samplers import Dimension, Params
from ensemble_kit.tuning.search.studies import Plan
from ensemble_kit.tuning.search.task import subset
from ensemble_kit.tuning.statistics import source_of

if TYPE_CHECKING:
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

Metric = Callable[[MaskSet, MaskSet], float]
"""Takes the prediction and the truth, and returns what is maximised."""


def is_own(text: str) -> bool:
    """Tell whether a metric's text names the user's own, module:callable."""
    return ":" in text


def load(text: str) -> Metric:
    """Import a metric, `module:callable`, which runs its module's code.

    Raises
    ------
    UsageError
        The module cannot be imported, or has no such callable.
    """
    found = user_code.import_named("metric-import", "a metric", text)
    if not callable(found):
        raise UsageError(
            "metric-import",
            "cannot import a metric",
            item=f"{text!r} is {type(found).__name__}, not callable",
            fix="pass a function that takes the prediction and the truth, two MaskSets, and returns a number",
        )
    return cast("Metric", found)


def of_measure(measure: Measure) -> Metric:
    """Return a built-in measure as a metric of two mask sets."""
    return lambda prediction, truth: measure.of_all(*counts(prediction, truth, prediction.classes))


def tune(
    ensemble: Ensemble,
    truth: MaskSet,
    metric: Metric,
    plan: Plan,
    measure: Measure | None = None,
    name: str = "own",
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> ThresholdSet:
    """Search one threshold per class by trials that vote and measure; the first is the exact optimum of `measure`.

    Parameters
    ----------
    metric : what is maximised, of the masks that a trial's thresholds give and the truth.
    plan : of the study; those of folds stand beside it as NAME/fold-1 and so on.
    measure : what the first trial is the exact optimum of, and what the set's scores say; default: mean Dice.
    name : of the metric, for the record and to tell studies apart.
    folds : with it the study is done again without each fold, and judged on all that was left out.

    Returns
    -------
    ThresholdSet
        With the comparison in `.search`: the metric at the exact optimum, at 0.5, and at the study's best.

    Raises
    ------
    DamagedError
        The metric returned NaN or an infinity.
    UsageError
        The metric failed, or returned no number.
    """
    measure = measure or Measure()
    exact = _exact(ensemble, truth, measure, seed, executor, listener)
    objective = _Objective(ensemble, truth, metric, name, executor)
    done = _study(objective, exact, plan, measure, listener)
    best = objective.levels_of(done.best)
    found = _described(exact, ensemble, truth, best, executor)
    told: dict[str, Any] = {
        "method": "optuna",
        "metric": name,
        **done.to_dict(),
        "sampler": plan.sampler,
        "sampler_seed": plan.seed,
        "exact_optimum": round(done.trials[0], 9),
        "half": round(done.trials[1], 9) if len(done.trials) > 1 else None,
    }
    if folds:
        told["nested"] = _nested(objective, plan, measure, folds, groups, seed, listener)
    return replace(found, search={**found.search, **told})


def _exact(
    ensemble: Ensemble, truth: MaskSet, measure: Measure, seed: int, executor: Executor, listener: Listener
) -> ThresholdSet:
    counted = statistics_for(ensemble, truth, measure, seed=seed, executor=executor, listener=listener)
    return tune_from(counted, ensemble, measure, seed=seed, executor=executor)


class _Objective:
    """The metric of the masks that levels give: what a study maximises."""

    def __init__(self, ensemble: Ensemble, truth: MaskSet, metric: Metric, name: str, executor: Executor) -> None:
        self.ensemble, self.truth, self.metric, self.name, self.executor = ensemble, truth, metric, name, executor

    def on(self, samples: Any) -> _Objective:
        """Return the same objective on some of the samples, by number."""
        return _Objective(*subset(self.ensemble, self.truth, samples), self.metric, self.name, self.executor)

    def levels_of(self, params: Params) -> tuple[int, ...]:
        return tuple(int(params[f"level:{c}"]) for c in self.ensemble.classes)

    def vote(self, levels: tuple[int, ...]) -> MaskSet:
        levels_of = dict(zip(self.ensemble.classes, levels, strict=True))
        return self.ensemble.vote(Thresholds(levels_of), executor=self.executor)

    def value(self, prediction: MaskSet) -> float:
        try:
            return float(self.metric(prediction, self.truth))
        except EnskError:
            raise
        except Exception as error:
            raise UsageError(
                "metric-failed",
                "cannot measure",
                item=f"metric {self.name!r}: {type(error).__name__}: {error}",
                fix="make it take the prediction and the truth, two MaskSets, and return a number",
            ) from error


def _study(
    objective: _Objective, exact: ThresholdSet, plan: Plan, measure: Measure, listener: Listener
) -> studies.Finished:
    classes, half = objective.ensemble.classes, objective.ensemble.level_of(0.5)
    dimensions = [Dimension(f"level:{c}", 0, LEVELS - 1, step=1, grid=_GRID) for c in classes]
    first: list[Params] = [
        {f"level:{c}": exact.levels[c] for c in classes},
        {f"level:{c}": half for c in classes},
    ]
    about = {
        "source": source_of(objective.ensemble, objective.truth),
        "objective": f"{objective.name}, from {measure}",
        "what": ["level"],
    }
    return studies.run(
        plan,
        dimensions,
        first[: plan.trials],
        lambda p: objective.value(objective.vote(objective.levels_of(p))),
        about,
        listener,
    )


_GRID = tuple(float(round(LEVELS * k / 10)) for k in range(1, 10))


def _nested(
    objective: _Objective,
    plan: Plan,
    measure: Measure,
    folds: int,
    groups: Groups,
    seed: int,
    listener: Listener,
) -> dict[str, Any]:
    """Repeat the study without each fold, and measure the masks of all samples that were left out together."""
    split = make_folds(objective.ensemble.samples, folds, groups, seed)
    found: dict[str, dict[Any, Any]] = {"study": {}, "exact": {}}
    for k, fold in enumerate(split):
        rest = np.sort(np.concatenate([f for j, f in enumerate(split) if j != k]))
        training, held = objective.on(rest), objective.on(fold)
        exact = _exact(training.ensemble, training.truth, measure, 0, objective.executor, nobody)
        done = _study(training, exact, replace(plan, study=f"{plan.study}/fold-{k + 1}"), measure, listener)
        found["study"].update(held.vote(training.levels_of(done.best)))
        found["exact"].update(held.vote(tuple(exact.levels.values())))
    ordered = {name: MaskSet({key: masks[key] for key in objective.truth}) for name, masks in found.items()}
    return {
        "folds": folds,
        "out_of_fold": round(objective.value(ordered["study"]), 9),
        "exact_out_of_fold": round(objective.value(ordered["exact"]), 9),
    }


def _described(
    exact: ThresholdSet, ensemble: Ensemble, truth: MaskSet, levels: tuple[int, ...], executor: Executor
) -> ThresholdSet:
    """Return the set with other levels, and its own measure's scores there."""
    moved = replace(
        exact, classes=tuple(replace(c, level=level) for c, level in zip(exact.classes, levels, strict=True))
    )
    counted = counts(ensemble.vote(moved, executor=executor), truth, ensemble.classes)
    scores = [exact.measure.of_class(*(v[c] for v in counted)) for c in range(len(levels))]
    classes = tuple(
        replace(c, score=score, plateau=(c.level, c.level)) for c, score in zip(moved.classes, scores, strict=True)
    )
    validation = replace(exact.validation, in_sample=exact.measure.of_all(*counted), crossed=None)
    return replace(moved, classes=classes, validation=validation)


def counts(prediction: MaskSet, truth: MaskSet, classes: Sequence[str]) -> tuple[Any, Any, Any]:
    """Return hits, pixels and truth pixels, int64 (classes, samples) each."""
    found = dice(prediction, truth)
    order = [found.classes.index(c) for c in classes]
    return found.tp.T[order], found.pred.T[order], found.truth.T[order]


def describe(tuned: ThresholdSet) -> list[str]:
    """Say what the study reached beside the exact optimum it began with."""
    s = tuned.search
    if s.get("method") != "optuna":
        return []
    half = "" if s["half"] is None else f", 0.5 {s['half']:.4f}"
    exact = f"exact optimum of {tuned.measure.title}"
    best = f"best of {s['trials']} trials {s['best']:.4f} (number {s['best_trial']})"
    lines = [f"{s['metric']}, in-sample: {exact} {s['exact_optimum']:.4f}{half}, {best}."]
    if "nested" in s:
        n = s["nested"]
        how = f"out of fold ({n['folds']} folds, the study repeated without each)"
        lines.append(f"{s['metric']}, {how}: study {n['out_of_fold']:.4f}, {exact} {n['exact_out_of_fold']:.4f}.")
    return lines
