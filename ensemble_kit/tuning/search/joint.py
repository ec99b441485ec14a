"""The joint search: what does not separate into classes, with the exact best thresholds inside every trial."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import DamagedError, MismatchError, UsageError, some
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.mean import PROBABILITY, Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.crossval import Resampler, shared_level
from ensemble_kit.tuning.folds import Groups, group_of, make_folds
from ensemble_kit.tuning.search import cleaning, greedy, hardvote, studies, undecided
from ensemble_kit.tuning.search.studies import Dimension, Params
from ensemble_kit.tuning.search.undecided import Setting, Undecided

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.thresholds.thresholdset import ThresholdSet
    from ensemble_kit.tuning.statistics import Statistics

WHAT = ("weights", "mean", "temperature", "post", "quorum", "greedy")
_STEPS = 25  # members that greedy selection takes at most
_HOTTEST, _COLDEST = 3.0, 0.5  # factors of a member's own temperature
_STEP = 0.05  # of the power of the mean: 0.55 can be read, 0.5512 says no more


@dataclass(frozen=True)
class Search:
    """What a joint search may change, and how it is run.

    Parameters
    ----------
    what : some of "weights" (one per member), "mean" (power between geometric, 0, and arithmetic, 1), "temperature"
        (one per member), "post" (rules of post-processing), "quorum" (a hard vote beside the soft one); or "greedy",
        Caruana's selection of members instead of "weights".
    trials : of each study, those of an earlier run included.
    timeout : seconds for all studies of one run together; the best trial until then counts.
    storage, study : an Optuna storage URL, such as "sqlite:///study.db", and the study's name in it. The studies of
        folds stand beside it as NAME/fold-1 and so on, that of post-processing as NAME/post.
    sampler : "tpe", "cmaes" or "grid".
    seed : of the sampler; default: the tuning's.
    memory : bytes for undecided pixels; beyond it every second (third, …) pixel of every second row stands for the
        rest, which the record says. Default: 500 MB.

    Examples
    --------
    >>> Search.of("weights,mean").what
    ('weights', 'mean')
    """

    what: tuple[str, ...] = ("weights",)
    trials: int = 200
    timeout: float | None = None
    storage: str | None = None
    study: str = "ensk"
    sampler: studies.Sampler = "tpe"
    seed: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        unknown = [w for w in self.what if w not in WHAT]
        fused = set(self.what) & {"weights", "mean", "temperature"}
        if not self.what or unknown or len(set(self.what)) != len(self.what) or ("greedy" in self.what and fused):
            raise UsageError(
                "option-invalid",
                "cannot search",
                item=f"what={','.join(self.what)!r}",
                fix=f"name some of {', '.join(WHAT)}; greedy goes without weights, mean and temperature",
            )
        if self.trials < 1 or (self.timeout is not None and not self.timeout > 0):
            raise UsageError(
                "option-invalid",
                "cannot search",
                item=f"trials={self.trials}, timeout={self.timeout}",
                fix="pass at least one trial, and a timeout above 0",
            )
        if self.sampler not in studies.SAMPLERS:
            raise UsageError(
                "option-invalid",
                "cannot search",
                item=f"sampler={self.sampler!r}",
                fix=f"pass one of {', '.join(studies.SAMPLERS)}",
            )

    @classmethod
    def of(cls, given: Search | str | Sequence[str]) -> Search:
        """Read a search, or the text of its `what`, such as "weights,mean" or "greedy"."""
        if isinstance(given, Search):
            return given
        names = given.split(",") if isinstance(given, str) else list(given)
        return cls(tuple(n.strip() for n in names))

    def count_studies(self, folds: int | None) -> int:
        """Count the studies of a run, which share the timeout."""
        each = bool(set(self.what) & {"weights", "mean", "temperature"}) + ("post" in self.what)
        return each * (1 + (folds or 0)) + ("quorum" in self.what)

    def plan(self, seed: int, name: str, studies_in_all: int) -> studies.Plan:
        """Say how one study of this search is run."""
        timeout = None if self.timeout is None else self.timeout / studies_in_all
        own = seed if self.seed is None else self.seed
        return studies.Plan(self.trials, timeout, self.storage, self.study + name, self.sampler, own)


@dataclass(frozen=True)
class _Task:
    """A search with all that it is about; `of_part` is the same on some of the samples."""

    ensemble: Ensemble
    truth: MaskSet
    measure: Measure
    search: Search
    groups: Groups
    seed: int
    shrink: bool
    studies: int
    jobs: int | None
    listener: Listener

    def of_part(self, samples: NDArray[np.int64]) -> _Task:
        ensemble, truth = part_of(self.ensemble, self.truth, samples)
        return replace(self, ensemble=ensemble, truth=truth)


def tune(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    given: Search | str | Sequence[str],
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    shrink: bool = True,
    statistics: Statistics | None = None,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> ThresholdSet:
    """Search, tune the thresholds of what was found exactly at full resolution, and judge both out of fold.

    With `folds` everything is nested: for each fold the whole search (the same trials), the thresholds and, with
    `shrink`, the decision to keep them are done again on the other folds alone, and judged on the one left out. The
    uniform ensemble with tuned thresholds is judged the same way beside it.

    Parameters
    ----------
    statistics : of the ensemble with uniform weights, where they are at hand.
    """
    from ensemble_kit.tuning.counting import statistics_for
    from ensemble_kit.tuning.exact import tune_from
    from ensemble_kit.tuning.statistics import check_truth, source_of

    search = Search.of(given)
    _check(ensemble, search)
    check_truth(ensemble, truth)
    uniform = Setting.uniform(ensemble).applied(ensemble)
    if search.storage is not None:
        studies.check_storage(search.plan(seed, "", 1))
    task = _Task(uniform, truth, measure, search, groups, seed, shrink, search.count_studies(folds), jobs, listener)
    known = statistics if statistics is not None and statistics.source == source_of(uniform, truth) else None
    counted = statistics_for(uniform, truth, measure, folds, groups, seed, known, jobs, listener)
    plain = tune_from(counted, uniform, measure, folds, groups, seed, shrink)
    table = None
    if set(search.what) & {"weights", "mean", "temperature", "greedy"}:
        bands = {c: (t.low, t.high) for c, t in enumerate(counted.tables)}
        hottest = _HOTTEST if "temperature" in search.what else 1.0
        table = undecided.collect(uniform, truth, bands, search.memory, jobs, listener, hottest)
    found = _fit(task, table, np.arange(len(ensemble.samples)), folds, "", plain)
    if folds:
        _nest(task, table, folds, found)
    return found


def _fit(
    task: _Task,
    table: Undecided | None,
    samples: NDArray[np.int64],
    folds: int | None,
    name: str,
    plain: ThresholdSet,
) -> ThresholdSet:
    """Search on the task's samples (numbers `samples` of the table), then tune what was found."""
    from ensemble_kit.tuning.counting import statistics_for
    from ensemble_kit.tuning.exact import tune_from

    search, ensemble = task.search, task.ensemble
    setting, record = _search_fusion(task, table, samples, name)
    fused = ensemble if setting is None else setting.applied(ensemble)
    if fused.fusion == ensemble.fusion:
        found = copy.copy(plain)
        found.search = dict(plain.search)
    else:
        counted = statistics_for(
            fused, task.truth, task.measure, folds, task.groups, task.seed, None, task.jobs, task.listener
        )
        found = tune_from(counted, fused, task.measure, folds, task.groups, task.seed, task.shrink)
    if "post" in search.what:
        plan = search.plan(task.seed, f"{name}/post", task.studies)
        found = cleaning.search(fused, task.truth, found, plan, task.jobs, task.listener)
        record["post"] = found.search["post"]
    if "quorum" in search.what and not name:
        plan = search.plan(task.seed, "/quorum", task.studies)
        record["hard_vote"] = hardvote.search(ensemble, task.truth, task.measure, plan, task.jobs, task.listener)
    found.search.update(
        {"method": "greedy" if "greedy" in search.what else "search", "what": list(search.what), **record}
    )
    found.search["uniform"] = {"in_sample": _plain_number(plain.score)}
    return found


def _search_fusion(
    task: _Task, table: Undecided | None, samples: NDArray[np.int64], name: str
) -> tuple[Setting | None, dict[str, Any]]:
    """Find the best fusion by trials on undecided pixels; what there is to say of it."""
    from ensemble_kit.tuning.statistics import source_of

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
        chosen = greedy.select(
            names,
            lambda counts: score(replace(start, weights=counts)),
            steps,
            task.listener,
        )
        taken = [names[k] for k in chosen.path[: chosen.kept]]
        return replace(start, weights=chosen.counts), {
            **told,
            "trials": steps,
            "taken": taken,
            "best": _plain_number(chosen.score),
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
        "trials": len(done.trials),
        "sampler": search.sampler,
        "sampler_seed": plan.seed,
        "best_trial": done.number,
        "best": _plain_number(done.value),
        "first": _plain_number(done.trials[0]),
        "params": {name: round(value, 6) for name, value in done.best.items()},
        "stopped": done.stopped,
    }


def _space(ensemble: Ensemble, search: Search) -> tuple[list[Dimension], Params]:
    """Dimensions of the search, and the uniform ensemble in them: the first trial."""
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
    mean = start.mean
    if "mean" in params:
        power = round(params["mean"], 2)
        mean = Mean(power)
    return Setting(weights, mean, temperatures)


# --- the honest score ----------------------------------------------------------------------------------------


def _nest(task: _Task, table: Undecided | None, folds: int, found: ThresholdSet) -> None:
    """Judge the whole procedure on samples that took no part in it; write the scores into the set."""
    from ensemble_kit.tuning.counting import statistics_for
    from ensemble_kit.tuning.exact import tune_from

    ensemble, measure = task.ensemble, task.measure
    parts = make_folds(ensemble.samples, folds, task.groups, task.seed)
    names = group_of(ensemble.samples, task.groups)
    shape = (len(ensemble.classes), len(ensemble.samples))
    counts = {k: np.zeros((2, *shape), np.int64) for k in ("tuned", "own", "shared", "half", "uniform")}
    chosen = []
    for k, fold in enumerate(parts):
        rest = np.sort(np.concatenate([p for j, p in enumerate(parts) if j != k]))
        inner_groups = len({names[s] for s in rest.tolist()})
        inner = min(folds, inner_groups) if inner_groups >= 3 and task.shrink else None
        training = task.of_part(rest)
        counted = statistics_for(
            training.ensemble, training.truth, measure, inner, task.groups, task.seed, None, task.jobs, task.listener
        )
        uniform = tune_from(counted, training.ensemble, measure, inner, task.groups, task.seed, task.shrink)
        best = _fit(training, table, rest, inner, f"/fold-{k + 1}", uniform)
        held = task.of_part(fold)
        half = held.ensemble.level_of(0.5)
        _judge(held, uniform, {"uniform": tuple(uniform.levels.values()), "half": (half,) * shape[0]}, fold, counts)
        curves = list(best.curves.values())
        every = range(len(curves[0].parts))
        own, common = [c.best(every).level for c in curves], shared_level(curves, every)
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
    truth = np.array([[task.truth[s, c].area for s in ensemble.samples] for c in ensemble.classes], np.int64)
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
    gain = resampler.interval(measure, pairs["tuned"], pairs["half"], truth)
    over = resampler.interval(measure, pairs["tuned"], pairs["uniform"], truth)
    nested = replace(crossed, scores={k: scores[k] for k in crossed.scores}, gain=gain, classes=classes)
    found.validation = replace(found.validation, crossed=nested)
    found.search["nested"] = {
        "folds": chosen,
        "out_of_fold": _plain_number(scores["tuned"]),
        "uniform_out_of_fold": _plain_number(scores["uniform"]),
        "gain_over_uniform": [_plain_number(v) for v in (over.value, over.low, over.high)],
    }


def _judge(
    held: _Task,
    tuned: ThresholdSet,
    settings: dict[str, tuple[int, ...]],
    fold: NDArray[np.int64],
    counts: dict[str, NDArray[np.int64]],
) -> None:
    """Count hits and pixels of held-out samples under several choices of levels of one set's fusion."""
    from ensemble_kit.tuning.statistics import count

    ensemble = held.ensemble.as_tuned(tuned)
    order = {name: k for k, name in enumerate(tuned.levels)}
    at = [[levels[order[c]] for levels in settings.values()] for c in ensemble.classes]
    bands = {c: (min(levels), max(levels) + 1) for c, levels in enumerate(at)}
    tables = count(ensemble, held.truth, bands, held.jobs, held.listener)
    for k, name in enumerate(settings):
        for c in range(len(ensemble.classes)):
            counts[name][0][c, fold], counts[name][1][c, fold] = tables[c].at(at[c][k])
    if tuned.rules:
        masks = ensemble.vote(tuned, jobs=held.jobs, listener=held.listener)
        for s, sample in zip(fold.tolist(), ensemble.samples, strict=True):
            for c, name in enumerate(ensemble.classes):
                mask = masks[sample, name]
                counts["tuned"][:, c, s] = mask.overlap(held.truth[sample, name]), mask.area


def part_of(ensemble: Ensemble, truth: MaskSet, samples: NDArray[np.int64]) -> tuple[Ensemble, MaskSet]:
    """Return an ensemble and its truth on some of the samples, by number."""
    part = copy.copy(ensemble)
    part.samples = tuple(ensemble.samples[k] for k in samples.tolist())
    return part, MaskSet({(s, c): truth[s, c] for s in part.samples for c in part.classes})


def _check(ensemble: Ensemble, search: Search) -> None:
    """Refuse what cannot be searched with this ensemble."""
    names = ensemble.fusion.members
    if len(set(names)) != len(names):
        raise MismatchError(
            "members-namesakes",
            "cannot tell members apart",
            item=f"of {some(names)} two have one name",
            fix="give each a name of its own: LogitWriter(member=…), ensk dump-logits --member",
        )
    fusing = {"weights", "greedy", "quorum"} & set(search.what)
    if fusing and len(names) < 2:
        raise UsageError(
            "option-invalid",
            "cannot search",
            item=f"{', '.join(sorted(fusing))} of one member, {names[0]!r}",
            fix="pass two members or more, or search temperature or post only",
        )
    if ensemble.activation == "softmax" and "temperature" in search.what:
        raise UsageError(
            "softmax-option",
            "cannot search",
            item="temperatures of softmax members, whose classes one temperature changes together",
            fix="leave temperature out, or give --temperatures",
        )
    if "mean" in search.what and ensemble.fusion.mean != PROBABILITY:
        raise UsageError(
            "option-invalid",
            "cannot search",
            item=f"the power of the mean, with mean={str(ensemble.fusion.mean)!r}",
            fix="leave mean out of the search, or --mean out of the options",
        )


def _plain_number(value: float) -> float | None:
    """Return a number that JSON has, to nine decimals."""
    return round(float(value), 9) if np.isfinite(value) else None


def describe(tuned: ThresholdSet) -> list[str]:
    """Say in a few sentences what a search found, and what it is worth."""
    s = tuned.search
    if "what" not in s:
        return []
    lines = []
    first = tuned.fusion.weights[0]
    shares = ", ".join(f"{n} {w / sum(first):.3f}" for n, w in zip(tuned.fusion.members, first, strict=True))
    if s.get("taken"):
        lines.append(f"Greedy selection took {' '.join(s['taken'])}.")
    elif "best_trial" in s:
        ended = f", ended by {s['stopped']}" if s.get("stopped") else ""
        lines.append(f"Best of {s['trials']} trials ({s['sampler']}): number {s['best_trial']}{ended}.")
    if "pixels" in s:
        lines.append(f"Weights {shares}; mean {tuned.fusion.mean}; temperatures {list(tuned.fusion.temperatures)}.")
        if s["stride"] > 1:
            lines.append(
                f"Trials looked at one pixel of {s['stride'] ** 2} (every {s['stride']} rows and columns) to stay "
                "within the memory budget; all scores shown are exact, on every pixel."
            )
    if tuned.rules:
        lines.append(f"Post-processing: {', then '.join(tuned.rules)}.")
    if "exact" in s.get("post", {}):
        lines.append(cleaning.describe(s["post"]["exact"]))
    uniform = s.get("uniform", {}).get("in_sample")
    if uniform is not None:
        lines.append(f"In-sample {tuned.score:.4f}; the uniform ensemble with tuned thresholds {uniform:.4f}.")
    nested = s.get("nested")
    if nested:
        value, low, high = nested["gain_over_uniform"]
        lines.append(
            f"Out of fold, the search repeated without each fold: {nested['out_of_fold']:.4f}; uniform "
            f"{nested['uniform_out_of_fold']:.4f}; gain over uniform {value:+.4f} [{low:+.4f}, {high:+.4f}]."
        )
        if low <= 0:
            lines.append(
                "That gain is not above noise: on unseen images the uniform ensemble, without a search, does as well."
            )
    if "hard_vote" in s:
        lines += hardvote.describe(s["hard_vote"])
    return lines
