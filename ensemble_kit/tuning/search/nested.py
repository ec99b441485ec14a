"""The out-of-fold score of a search: the whole of it repeated without each fold, and judged on that fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.metrics.overlap import dice
from ensemble_kit.strict_json import plain_number
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.common_level import common_level
from ensemble_kit.tuning.curve import curves_of
from ensemble_kit.tuning.folds import group_of, make_folds
from ensemble_kit.tuning.resampling import Resampler
from ensemble_kit.tuning.search.task import Task
from ensemble_kit.tuning.truth import true_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Fit = Callable[[Task, NDArray[np.int64], int | None, str, ThresholdSet], ThresholdSet]
    """Searches on a task's samples (their numbers in all), with folds, under a name; begins with a set."""


def nested(task: Task, folds: int, found: ThresholdSet, fit: Fit) -> ThresholdSet:
    """Judge the whole procedure on samples that were not searched on; return the set with these scores.

    Parameters
    ----------
    folds : how many.
    found : what the search on all samples found.
    fit : the search.
    """
    ensemble, measure = task.ensemble, task.measure
    split, rests = split_of(task, folds)
    names = group_of(ensemble.samples, task.groups)
    shape = (len(ensemble.classes), len(ensemble.samples))
    counts = {k: np.zeros((2, *shape), np.int64) for k in ("tuned", "own", "shared", "half", "uniform")}
    chosen = []
    for k, (fold, rest) in enumerate(zip(split, rests, strict=True)):
        inner_groups = len({names[s] for s in rest.tolist()})
        inner = min(folds, inner_groups) if inner_groups >= 3 and (task.choose != "own" or task.ruling) else None
        training, held = task.on(rest), task.on(fold)
        uniform = training.tuned(training.ensemble, inner, training.needs_judgement)
        best = fit(training, rest, inner, f"/fold-{k + 1}", uniform)
        half = held.ensemble.level_of(0.5)
        _judge(held, uniform, {"uniform": tuple(uniform.levels.values()), "half": (half,) * shape[0]}, fold, counts)
        curves = list(curves_of(best).values())
        every = range(len(curves[0].folds))
        common = common_level(curves, every, half)
        own = [c.best().level if c.has_positives(every) else common for c in curves]
        levels = {"tuned": tuple(best.levels.values()), "own": tuple(own), "shared": (common,) * shape[0]}
        _judge(held, best, levels, fold, counts)
        fusion = best.fusion
        chosen.append(
            {
                "weights": list(fusion.weights[0]),
                "mean": str(fusion.mean),
                "temperatures": list(fusion.temperatures),
                "rules": list(best.rules),
            }
        )
    truth = true_areas(ensemble.samples, task.truth, ensemble.classes)
    crossed, resampler = found.validation.crossed, Resampler(names, task.seed)
    assert crossed is not None
    pairs = {name: (both[0], both[1]) for name, both in counts.items()}
    scores = {name: measure.of_all(*pair, truth) for name, pair in pairs.items()}
    classes = {
        name: replace(
            crossed.classes[name], score=measure.of_class(counts["tuned"][0, c], counts["tuned"][1, c], truth[c])
        )
        for c, name in enumerate(ensemble.classes)
    }
    seen = truth.sum(axis=1) > 0
    had = {name: (tp[seen], pred[seen]) for name, (tp, pred) in pairs.items()}
    gain = resampler.interval(measure, had["tuned"], had["half"], truth[seen])
    score = resampler.interval(measure, pairs["tuned"], None, truth)
    over = resampler.interval(measure, had["tuned"], had["uniform"], truth[seen])
    scored = {k: scores[k] for k in crossed.scores}
    honest = replace(crossed, scores=scored, gain=gain, classes=classes, as_decided=None, score=score)
    told = {
        "folds": chosen,
        "out_of_fold": plain_number(scores["tuned"]),
        "uniform_out_of_fold": plain_number(scores["uniform"]),
        "gain_over_uniform": [plain_number(v) for v in (over.value, over.low, over.high)],
    }
    validation = replace(found.validation, crossed=honest)
    return replace(found, validation=validation, search={**found.search, "nested": told})


def split_of(task: Task, folds: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Return the sample numbers of each fold, and those of all others, ascending."""
    split = make_folds(task.ensemble.samples, folds, task.groups, task.seed)
    return split, [np.sort(np.concatenate([o for j, o in enumerate(split) if j != k])) for k in range(folds)]


def _judge(
    held: Task,
    tuned: ThresholdSet,
    settings: dict[str, tuple[int, ...]],
    fold: NDArray[np.int64],
    counts: dict[str, NDArray[np.int64]],
) -> None:
    """Count hits and pixels of held-out samples under several choices of levels of one set's fusion."""
    ensemble = held.ensemble.as_tuned(tuned)
    order = {name: k for k, name in enumerate(tuned.levels)}
    at = [[levels[order[c]] for levels in settings.values()] for c in ensemble.classes]
    bands = {c: (min(levels), max(levels) + 1) for c, levels in enumerate(at)}
    tables = held.taken(ensemble, bands)
    for k, name in enumerate(settings):
        for c in range(len(ensemble.classes)):
            counts[name][0][c, fold], counts[name][1][c, fold] = tables[c].at(at[c][k])
    if tuned.rules:
        masks = ensemble.vote(tuned, executor=held.executor, listener=held.listener)
        found = dice(masks, held.truth)
        counts["tuned"][:, :, fold] = found.tp.T, found.pred.T
