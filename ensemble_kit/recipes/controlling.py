"""A calibration of thresholds that control a risk: from stores and a truth to a set that says what it guarantees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ensemble_kit.decisions.clean import check_classes
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, IncompleteError, MismatchError, check_kind, some
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.doubts import alike, doubted_members, twins_apart
from ensemble_kit.recipes.score import void_told
from ensemble_kit.recipes.tuning import Tuned
from ensemble_kit.recipes.tuning_memory import room_for_thresholds
from ensemble_kit.spec.mean import LEVELS, PROBABILITY
from ensemble_kit.spec.risk import Risk
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.records import Calibration, ClassThreshold, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups, group_of
from ensemble_kit.tuning.risk import (
    Control,
    Counts,
    check_monotone,
    counts_after,
    counts_at,
    highest,
    statistics_for_risk,
)
from ensemble_kit.tuning.shift import compare
from ensemble_kit.tuning.statistics import Statistics, check_source, check_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEEN = "cannot calibrate on samples that the set was tuned on"


@dataclass(frozen=True)
class Controlling:
    """A calibration that is ready to run; nothing is counted yet.

    Parameters
    ----------
    ensemble : members and how they are fused: as `base` says, if there is one.
    risk : what is controlled.
    groups : samples that are not independent, as for `tune_thresholds`: one loss a group.
    base : the tuned set whose fusion is used, and whose rules.
    rules : post-processing after which the risk is controlled; None: those of `base`, if it decides by thresholds.
    measure : what the report scores the masks by.
    compared : the same members on other images, to tell how their scores differ.

    Raises
    ------
    UsageError
        A rule after which a lower threshold may miss more.
    IncompleteError
        Fewer groups than the risk can be controlled with.
    MismatchError
        Samples, or groups, that the set was tuned on; an ensemble that is fused otherwise.
    """

    ensemble: Ensemble
    risk: Risk
    groups: Groups = None
    base: ThresholdSet | None = None
    rules: tuple[Rule, ...] | None = None
    measure: Measure = Measure()  # noqa: RUF009 - a frozen value
    compared: Ensemble | None = None

    def __post_init__(self) -> None:
        e, base = self.ensemble, self.base
        e.inputs.check_each_class()
        if base is not None:
            base.check_fits(e.classes, e.records, e.fusion)
            self._check_unseen(base)
        if self.rules is None:
            kept = base.rules if base is not None and base.decision.kind == "threshold" else ()
            object.__setattr__(self, "rules", tuple(parse_rules(kept)))
        check_classes(self._rules, e.classes)
        check_monotone(self._rules)
        held, least = len(set(self._names)), self.risk.least_groups
        if held < least:
            by, more = (
                ("", "alpha") if self.risk.delta is None else (f" at delta = {self.risk.delta:g}", "alpha or delta")
            )
            raise IncompleteError(
                "risk-groups",
                "cannot control a risk with so few groups",
                item=f"there are {held}, alpha = {self.risk.alpha:g}{by} takes {least}, even where nothing is missed",
                fix=f"calibrate on {least} groups or more, or allow more with a larger {more}",
            )

    @property
    def split(self) -> None:
        """Folds: none, since nothing is chosen by score."""

    @property
    def _rules(self) -> tuple[Rule, ...]:
        return cast("tuple[Rule, ...]", self.rules)

    @property
    def _names(self) -> list[str]:
        return group_of(self.ensemble.samples, self.groups)

    def _check_unseen(self, base: ThresholdSet) -> None:
        e, which = self.ensemble, "the set" if base.path is None else str(base.path)
        named = [] if self.groups is None else sorted(set(self._names))
        samples, groups = base.validation.seen_of(e.samples, named)
        if not base.validation.seen and base.overlap_told(e.samples, e.records) is not None:
            samples = list(e.samples)
        if samples or groups:
            what, found, of = ("samples", samples, len(e.samples)) if samples else ("groups", groups, len(named))
            raise MismatchError(
                "risk-seen",
                _SEEN,
                item=f"{len(found)} of {of} {what} chose the fusion or the rules of {which}: {some(found)}",
                fix="pass stores and truth of other samples; or leave --thresholds out (base=None), to control the "
                "risk of the members' plain mean, which was not tuned",
            )

    def warnings(self) -> list[Caution]:
        """Say what is doubtful before any work."""
        out = alike(self.ensemble.stores)
        if self.base is not None and not self.base.validation.seen:
            doubt = "the set does not record which samples it was tuned on, since a former version wrote it"
            out.append(Caution(doubt, "make sure that none of them is among these, or tune it again"))
        if apart := twins_apart(self.ensemble, self.groups):
            doubt = f"{len(apart)} pairs of samples have identical logits but different groups: {some(apart)}"
            out.append(Caution(doubt, "pass --groups that hold such samples together, or take one of each"))
        f, e = self.ensemble.fusion, self.ensemble
        own = [set(member.classes) for member in e.members]
        held = [  # a member weighs nothing in a class that it lacks, which nobody chose
            [weight for weight, classes in zip(row, own, strict=True) if name in classes]
            for name, row in zip(e.classes, f.weights, strict=True)
        ]
        if self.base is None and (_is_chosen(held, f.temperatures) or f.mean != PROBABILITY):
            doubt = (
                "weights, temperatures or a mean are given, and the guarantee only holds if other samples chose them"
            )
            out.append(Caution(doubt, "pass the set that they are of with --thresholds (base=), or leave them out"))
        for name, store in self.ensemble.stores:
            fused = store.provenance.get("fused")
            if isinstance(fused, Mapping) and _is_chosen(list(fused["weights"].values()), fused["temperatures"]):
                doubt = f"{name!r} was fused with weights, and the guarantee only holds if other samples chose them"
                out.append(
                    Caution(doubt, "fuse its members by equal weights, or pass them with the set as --thresholds")
                )
        return out

    def check_memory(self, budget: int, unread: float, counted: bool, jobs: int | None) -> None:
        """Refuse what a budget does not hold, before the truth is read; parameters as for `Tuning.check_memory`."""
        e = self.ensemble
        self._check_memory(budget, MaskSet.empty(e.inputs.extent(e.samples, e.classes)), unread, counted, jobs)

    def _check_memory(self, budget: int, truth: MaskSet, unread: float, counted: bool, jobs: int | None) -> None:
        how = self.ensemble, truth, None, jobs, self.measure, counted
        room_for_thresholds(budget, *how, band=(0, LEVELS), unread=unread)

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
        """Count, choose levels and bound the risk; parameters as for `Tuning.run`.

        Raises
        ------
        IncompleteError
            After the rules no level keeps the risk low enough.
        ResourceError
            The budget is too small, by what a few samples show.
        """
        truth = self.ensemble.without_nodata(truth)
        check_truth(self.ensemble, truth)
        if budget is not None:
            self._check_memory(budget, truth, 0.0, known is not None, jobs)
        found = self._find(truth, known, keep, executor, listener)
        report, doubts = found.report(), doubted_members(self.ensemble, truth, executor, False)
        lines = [*report.lines, *void_told(truth)]
        if self.ensemble.activation == "softmax":
            lines.append("Softmax stores by thresholds: a pixel can have several classes, or none.")
        if self.groups is None:
            lines.append("Each sample is a group: --groups, where several are of one patient, site or sequence.")
        if found.rules:
            lines.append(f"After {', then '.join(found.rules)}: what is missed was counted behind that.")
        elif self.base is not None and self.base.rules:
            lines.append("The set's rules are not used: they were tuned for another decision.")
        shift = None
        if self.compared is not None:
            shift = compare(self.ensemble, self.compared.as_tuned(found), found, executor=executor)
        return Tuned(found, replace(report, lines=lines, warnings=[*report.warnings, *doubts]), doubts, shift=shift)

    def _find(
        self,
        truth: MaskSet,
        known: Statistics | ContenderTable | None,
        keep: Callable[[Statistics | ContenderTable], None] | None,
        executor: Executor,
        listener: Listener,
    ) -> ThresholdSet:
        e = self.ensemble
        control = Control(self.risk, np.unique(self._names, return_inverse=True)[1])
        counted = self._counted(control, truth, known, executor, listener)
        if keep is not None and counted is not known:
            keep(counted)
        tables = counted.tables
        levels = control.levels(tables)
        counts = counts_at(tables, levels.tolist())
        if self._rules:

            def after(levels: NDArray[np.int64]) -> Counts:
                return counts_after(self._rules, e, truth, counts.truth, levels.tolist(), executor, listener)

            levels = self._after_rules(control, after)
            counts = after(levels)
        return self._record(control, tables, levels.tolist(), counts)

    def _counted(
        self,
        control: Control,
        truth: MaskSet,
        known: Statistics | ContenderTable | None,
        executor: Executor,
        listener: Listener,
    ) -> Statistics:
        if known is not None:
            check_kind("the statistics", known, Statistics)
            own = cast("Statistics", known)
            fix = "pass the file of this ensemble, or another path (--statistics) to count anew"
            check_source(own, self.ensemble, truth, "cannot calibrate with these statistics", fix)
            sides = control.certain(dict(enumerate(own.tables)), range(len(own.tables)))
            if all(below and above for below, above in sides.values()):
                return own
        return statistics_for_risk(control, self.ensemble, truth, executor, listener)

    def _after_rules(self, control: Control, after: Callable[[NDArray[np.int64]], Counts]) -> NDArray[np.int64]:
        """Find the highest levels that are accepted after the rules, by votes: 17 passes, of all classes at once."""
        lowest = np.zeros(len(self.ensemble.classes), np.int64)
        held = control.accepts(after(lowest))
        if not held.all():
            lost = [name for name, ok in zip(self.ensemble.classes, held, strict=True) if not ok]
            raise IncompleteError(
                "risk-rule-misses",
                "cannot control the risk after these rules",
                item=f"of {some(lost)} they remove more than {self.risk.alpha:g} of the truth at every threshold: "
                f"{', '.join(map(str, self._rules))}",
                fix="use a set without these rules, or allow more (a larger alpha)",
            )
        return highest(lambda middle: control.accepts(after(middle)), lowest, lowest + LEVELS - 1)

    def _record(
        self, control: Control, tables: Sequence[ClassStatistics], levels: list[int], counts: Counts
    ) -> ThresholdSet:
        e, measure, half = self.ensemble, self.measure, self.ensemble.level_of(0.5)
        plain, pooled = counts_at(tables, [half] * len(tables)), Measure("pooled", "dice", measure.convention)
        split = [np.arange(len(e.samples))]
        classes = tuple(
            ClassThreshold(
                name,
                levels[c],
                measure.of_class(counts.tp[c], counts.pred[c], counts.truth[c]),
                measure.of_class(plain.tp[c], plain.pred[c], plain.truth[c]),
                (levels[c], levels[c]) if self._rules else tables[c].segment(levels[c]),
                int((counts.truth[c] > 0).sum()),
                len(e.samples),
                (tables[c].low, tables[c].high),
                Calibration.of(Curve(tables[c], pooled, split).best(), e.fusion.mean),
            )
            for c, name in enumerate(e.classes)
        )
        seen = () if self.base is None else self.base.validation.seen
        validation = Validation.of(e.samples, measure.of_all(*counts), measure.of_all(*plain), None)
        validation = validation.saw(() if self.groups is None else self._names, seen)
        found = ThresholdSet.of(
            classes,
            e.fusion,
            e.records,
            measure,
            validation,
            {"method": "risk", "seed": 0, "trials": None},
            {name: Curve(table, measure, split) for name, table in zip(e.classes, tables, strict=True)},
            member_classes=e.member_classes,
        )
        told = control.guarantee(counts, e.classes, levels)
        return replace(found, rules=tuple(map(str, self._rules)), guarantee=told)


def _is_chosen(weights: Sequence[Sequence[int]], temperatures: Sequence[float]) -> bool:
    """Tell whether members are weighted or scaled against each other: by more than the rounding of equal weights."""
    return any(max(row) - min(row) > 1 for row in weights) or any(t != 1 for t in temperatures)
