"""A tuning: from stores and a truth to a threshold set with its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.clean import check_classes
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, UsageError, check_choice, check_kind, some
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.doubts import alike, doubted_members, emptying, twins_apart
from ensemble_kit.recipes.families import near_duplicates
from ensemble_kit.recipes.score import void_told
from ensemble_kit.recipes.together import check_together
from ensemble_kit.recipes.tuning_memory import Room, room_for_factors, room_for_thresholds
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.scoring import Measure, Objective
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning import shared
from ensemble_kit.tuning.calibration import fit_temperature, fold_temperatures, level_histogram, rank_scores
from ensemble_kit.tuning.choosing import usual
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.counting import folds_of, statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.factors import tune_factors
from ensemble_kit.tuning.folds import Groups, group_of
from ensemble_kit.tuning.gathering import exclusive_truth
from ensemble_kit.tuning.search import auto, described, factors, joint, metric_search
from ensemble_kit.tuning.search.metric_search import Metric
from ensemble_kit.tuning.search.plan import Search, check_by_argmax
from ensemble_kit.tuning.search.plan import check as check_search
from ensemble_kit.tuning.search.storage import check_storage
from ensemble_kit.tuning.search.task import Task
from ensemble_kit.tuning.shift import ShiftReport, compare
from ensemble_kit.tuning.statistics import Statistics, check_truth
from ensemble_kit.tuning.with_rules import Ruling, check_ruling, tune_ruled

Folds = int | Literal["auto"] | None
Decide = Literal["threshold", "argmax"]


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Parameters
    ----------
    set : the threshold set.
    report : its table, sentences and warnings, with those of the search and the rank rule.
    doubts : of these warnings, those about the members and the rank rule.
    rank : score of the rank rule per image, with and without a fitted temperature; None if it was not asked for.
    shift : how the scores of other images differ; None without any.
    ladder : the steps that `--search auto` tried; None of another tuning.
    """

    set: ThresholdSet
    report: Report
    doubts: list[Caution]
    rank: dict[str, Any] | None = None
    shift: ShiftReport | None = None
    ladder: Report | None = None


@dataclass(frozen=True)
class Tuning:
    """A tuning that is ready to run; nothing is counted yet.

    Parameters
    ----------
    ensemble : members and how they are fused.
    measure : what is maximised.
    folds, groups, seed, choose, search : as for `tune_thresholds`.
    trials : thresholds by trials of a metric, its name and itself, instead of the exact optimum; `search` then says
        how the study is run.
    rank : whether to judge the rank rule per image too.
    decide : "threshold" tunes the level of each class, "argmax" its factor; None: argmax of softmax members.
    background : with argmax, a class whose mask is not written and not scored.
    least : with argmax, the probability that a pixel's class must reach, or the pixel has no class.
    compared : the same members on other images, to tell how their scores differ.
    at_once : classes that a pass for rules counts; default: all.
    rules : `compete` and `least-area` that the thresholds are tuned for, and that the set holds.
    """

    ensemble: Ensemble
    measure: Measure
    folds: Folds = "auto"
    groups: Groups = None
    seed: int = 0
    choose: Choice | None = None
    search: Search | None = None
    trials: tuple[str, Metric] | None = None
    rank: bool = False
    compared: Ensemble | None = None
    decide: Decide | None = None
    background: str | None = None
    least: float | None = None
    at_once: int | None = None
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        check_choice("objective", self.measure.objective, get_args(Objective), "cannot tune")
        check_choice("empty", self.measure.convention.empty, (1, 0, "skip"), "cannot tune", "convention")
        check_choice("decide", self.decide, (None, *get_args(Decide)), "cannot tune")
        if self.search is not None and self.trials is None:
            if self.by_argmax:
                check_by_argmax(self.search)
            check_search(self.ensemble, self.search)
            if self.search.is_auto:
                auto.check(self._count_groups(), self.split)
        kind, other, options = (
            ("argmax", "threshold", ("trials",)) if self.by_argmax else ("threshold", "argmax", ("background", "least"))
        )
        Argmax(least=self.least)  # a probability, or refused
        for idle in (name for name in options if getattr(self, name) is not None):
            item = f"{idle} with decide={kind!r}"
            fix = f"leave it out, or decide by {other} (--decide {other})"
            raise UsageError("decide-invalid", "cannot tune", item=item, fix=fix)
        check_classes(self.rules, self.ensemble.classes)
        check_together(self.by_argmax, self.trials is not None, self.search, self.rules, self.choose, self.least)
        if self.trials is None and not self.by_argmax:
            check_ruling(self.ruling, self.ensemble)

    @property
    def by_argmax(self) -> bool:
        """Whether the factors of argmax are tuned, and not thresholds."""
        return decides_by_argmax(self.ensemble, self.decide)

    @property
    def ruling(self) -> Ruling:
        """Rules that thresholds are tuned for: those given, and those searched from counts."""
        return Ruling(given=self.rules) if self.search is None else self.search.ruling(self.rules)

    @property
    def split(self) -> int | None:
        """Number of folds, None without a cross-validation."""
        if self.folds == "auto":
            return min(5, self._count_groups()) if self._count_groups() >= 3 else None
        return self.folds or None

    @property
    def passes(self) -> tuple[int, int] | None:
        """Passes over the stores of an automatic search, at least and where members are left out; None of another."""
        if self.search is None or not self.search.is_auto:
            return None
        return auto.count_passes(
            auto.menu_of(self.ensemble, self.by_argmax, self.background), len(self.ensemble.members)
        )

    def _count_groups(self) -> int:
        return len(set(group_of(self.ensemble.samples, self.groups)))

    def warnings(self) -> list[Caution]:
        """Say what is doubtful before any work: too few groups, or identical samples on two sides of a split."""
        e = self.ensemble
        out = alike(e.stores)
        out += emptying(self.rules, map(e.image_size, e.samples))
        if self.folds == "auto" and self.split is None:
            doubt = f"{self._count_groups()} groups are too few to cross-validate: the score is in-sample only"
            out.append(Caution(doubt, "tune on samples of three groups or more (--groups)"))
        apart = twins_apart(self.ensemble, self.groups) if self.split else []
        if apart:
            doubt = (
                f"{len(apart)} pairs of samples have identical logits but different groups, so one may be tuned on the "
                f"other: {some(apart)}"
            )
            out.append(Caution(doubt, "pass --groups that hold such samples together, or take one of each"))
        return out

    def run(
        self,
        truth: MaskSet,
        known: Statistics | ContenderTable | None = None,
        keep: Callable[[Statistics | ContenderTable], None] | None = None,
        executor: Executor = THREADS,
        jobs: int | None = None,
        listener: Listener = nobody,
        budget: int | None = None,
    ) -> Tuned:
        """Count, tune, judge and compare.

        Parameters
        ----------
        truth : masks of exactly the ensemble's samples and classes.
        known : statistics of an earlier run, used if they suffice.
        keep : called with the statistics if they had to be counted.
        executor : where passes over the samples run.
        jobs : threads of a search's trial.
        budget : bytes of memory; for rules, classes are counted some at a time where all at once do not fit.

        Raises
        ------
        ResourceError
            The budget is too small, by what a few samples show.
        """
        truth = self.ensemble.without_nodata(truth)
        if budget is not None:
            room = self._room(budget, truth, known is not None, jobs)
            searched = self.search and replace(self.search, memory=room.pixels)
            fitting = replace(self, at_once=room.classes, search=searched)
            return fitting.run(truth, known, keep, executor, jobs, listener)
        if self.search is not None and self.search.storage is not None:
            check_storage(self.search.storage)
        found = self._find(truth, known, keep, executor, jobs, listener)
        if self.groups is not None:
            found = replace(found, validation=found.validation.saw(group_of(self.ensemble.samples, self.groups)))
        fused = self.ensemble.as_tuned(found)
        report, doubts = found.report(), doubted_members(fused, truth, executor, self.by_argmax)
        doubts += near_duplicates(truth) if self.split and self.groups is None else []
        lines = [*report.lines, *self._least_told(), *void_told(truth)]
        lines += [*described.describe(found), *metric_search.describe(found)]
        if self.choose == "shared":
            lines.append(f"One threshold for all classes: {found.thresholds[found.names[0]]:.4f}.")
        rank = shift = None
        if self.rank:
            rank, told = self._judge_rank_rule(fused, truth, executor)
            found = replace(found, search={**found.search, "scaling": rank["scaling"]})
            lines += told
            score, plain = rank.get("scaled", rank["score"]), _untuned(found)
            if score < plain:
                other = "argmax without factors" if self.by_argmax else "0.5"
                doubt = f"the rank rule loses to {other} out of fold: {score:.4f}, {other} {plain:.4f}"
                doubts = [*doubts, Caution(doubt, "decide as the set does: ensk vote without --decide rank")]
        if self.compared is not None:
            shift = compare(fused, self.compared.as_tuned(found), found, executor=executor)
        full = replace(report, lines=lines, warnings=[*report.warnings, *doubts, *described.doubted_rules(found)])
        return Tuned(found, full, doubts, rank, shift, auto.report(found))

    def check_memory(self, budget: int, unread: float, counted: bool, jobs: int | None) -> None:
        """Refuse what a budget does not hold, before the truth is read; a few samples are counted for that.

        Parameters
        ----------
        budget : bytes.
        unread : what the truth will take.
        counted, jobs : whether the statistics are there already; as for `run`.
        """
        e = self.ensemble
        self._room(budget, MaskSet.empty(e.inputs.extent(e.samples, e.classes)), counted, jobs, unread)

    def _room(self, budget: int, truth: MaskSet, counted: bool, jobs: int | None, unread: float = 0.0) -> Room:
        e, how = self.ensemble, (self.split, jobs)
        if self.by_argmax:
            full = exclusive_truth(e, truth, self.background)
            return room_for_factors(budget, e, full, *how, self.search is not None, unread)
        check_truth(e, truth)
        searches = self.search is not None and not self.search.by_counts
        labels = self.search is not None and "post" in self.search.what
        ruling = Ruling(compete=True) if self.search is not None and self.search.is_auto else self.ruling
        ratios = len(ruling.ratios) if ruling else 0
        return room_for_thresholds(
            budget, e, truth, *how, self.measure, counted, searches, labels=labels, ratios=ratios, unread=unread
        )

    def _least_told(self) -> list[str]:
        if self.least is None:
            return []
        told = f"A pixel has no class where its largest probability is below {self.least:g}: in-sample scores are so."
        return [f"{told} Factors were tuned, and scored out of fold, without that."]

    def _find(
        self,
        truth: MaskSet,
        known: Statistics | ContenderTable | None,
        keep: Callable[[Statistics | ContenderTable], None] | None,
        executor: Executor,
        jobs: int | None,
        listener: Listener,
    ) -> ThresholdSet:
        ensemble, measure, how = self.ensemble, self.measure, (self.split, self.groups, self.seed)
        if self.search is not None and self.search.is_auto:
            if known is not None or keep is not None:
                item, fix = "--search auto with statistics, which are of one fusion", "leave --statistics out"
                raise UsageError("option-idle", "cannot search", item=item, fix=fix)
            task = Task(
                ensemble, truth, measure, self.search, self.groups, self.seed, "own", 0, executor, jobs, listener
            )
            return auto.tune(task, self.split or 0, self.by_argmax, self.background, self.at_once)
        if self.by_argmax:
            if known is not None:
                check_kind("the statistics", known, ContenderTable)
            own, run = cast("ContenderTable | None", known), (executor, jobs, listener)
            if self.search is None:
                return tune_factors(
                    ensemble, truth, measure, self.background, *how, self.choose, own, keep, *run, self.least
                )
            studies, split = self.search.count_studies(self.split), self.split
            choose = usual(self.choose, split, by_argmax=True)
            rest = self.search, self.groups, self.seed, choose, studies, *run
            return factors.tune(Task(ensemble, truth, measure, *rest), self.background, split, own, keep, self.least)
        if known is not None:
            check_kind("the statistics", known, Statistics)
        if self.trials is not None:
            name, metric = self.trials
            plan = (self.search or Search()).plan(self.seed, "", 1 + (self.split or 0))
            return metric_search.tune(ensemble, truth, metric, plan, measure, name, *how, executor, listener)
        before = cast("Statistics | None", known)
        counted = statistics_for(ensemble, truth, measure, *how, before, executor, listener)
        if self.choose == "shared":
            counted = shared.widened(counted, ensemble, truth, measure, executor, listener)
        if keep is not None and counted is not known:
            keep(counted)
        if self.search is None or self.search.by_counts:
            found = tune_from(counted, ensemble, measure, *how, self.choose, executor)
            if not self.ruling:
                return found
            return tune_ruled(found, ensemble, truth, self.ruling, *how, executor, listener, self.at_once)
        return joint.tune(
            ensemble, truth, measure, self.search, *how, self.choose, counted, executor, jobs, listener, self.rules,
            self.at_once,
        )  # fmt: skip

    def _judge_rank_rule(self, fused: Ensemble, truth: MaskSet, executor: Executor) -> tuple[dict[str, Any], list[str]]:
        """Score the rank rule as it is, and with a temperature fitted out of fold."""
        split, _ = folds_of(fused.samples, self.split, self.groups, self.seed)
        histogram = level_histogram(fused, truth, split, executor=executor)
        scaling = fit_temperature(histogram, fused.fusion.mean)
        values: dict[str, Any] = {
            "score": rank_scores(fused, truth, self.measure, executor=executor).score,
            "scaling": scaling.to_dict(),
        }
        told = f"Rank rule per image, nothing trained: {values['score']:.4f}"
        if self.split:
            temperatures = fold_temperatures(histogram, split, fused.fusion.mean)
            values["scaled"] = rank_scores(fused, truth, self.measure, temperatures, executor=executor).score
            told += f"; with a temperature fitted out of fold: {values['scaled']:.4f}"
        return values, [f"{told}.", str(scaling)]


def _untuned(found: ThresholdSet) -> float:
    """Return what 0.5, or argmax without factors, scores; neither is trained, so that is out of fold."""
    crossed = found.validation.crossed
    return found.validation.in_sample_at_half if crossed is None else crossed.scores["one" if found.factors else "half"]


def decides_by_argmax(ensemble: Ensemble, decide: Decide | None) -> bool:
    """Tell whether factors are tuned: where asked for, and of softmax members by default."""
    return decide == "argmax" or (decide is None and ensemble.activation == "softmax")
