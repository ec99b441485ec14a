"""`ThresholdSet`: what tuning found, in one readable file, and whether it fits an ensemble."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit import __version__
from ensemble_kit.errors import MismatchError, UsageError, check_path, differ, some
from ensemble_kit.remote.copies import as_path, local
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds import file, summary
from ensemble_kit.thresholds.crossed import Choice, Interval
from ensemble_kit.thresholds.members import MemberRecord, stores_in
from ensemble_kit.thresholds.records import (
    ClassFactor,
    ClassThreshold,
    DecisionRecord,
    ScoreCurve,
    SetFields,
    Validation,
)
from ensemble_kit.thresholds.risk_report import risk_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ensemble_kit.scores.class_sets import ClassSets
    from ensemble_kit.spec.fusion import Fusion

_OTHERS = "pass the ensemble that it was tuned for, or tune this one (ensk tune-thresholds)"
_NAMED = (
    "pass the members that it was tuned for: NAME=PATH calls a store as the set does, and the same NAME again adds a "
    "fold (in Python Ensemble({name: paths})); or tune this ensemble (ensk tune-thresholds)"
)
_MEMBER_CLASSES = (
    "leave --member-classes out (in Python pass classes={0!r}, as Ensemble.of_set(set, members) does), or tune this "
    "ensemble (ensk tune-thresholds)"
)
_AS_TUNED = (
    "leave --mean, --upsample, --weights and --temperatures out (Ensemble.as_tuned(set)), or tune this ensemble "
    "(ensk tune-thresholds)"
)


@dataclass(frozen=True, eq=False, repr=False)
class ThresholdSet(SetFields):
    """Thresholds per class, with the fusion, convention and validation that they belong to.

    Made by `tune_thresholds`, kept by `save` and `load`; `Ensemble.vote` takes it and refuses one that does not fit.

    Parameters
    ----------
    classes … rules : see `SetFields`.
    curves : of the tuning that made it, by class; a set that was read from a file has none.
    path : the file that it was read from, if any.

    Attributes
    ----------
    levels, thresholds : dict by class, the deciding level and the same on the probability scale; empty in a set that
        decides by argmax, whose `factors` say what each class's score is multiplied by.
    score : the objective over all classes, exactly what the vote gets on the same samples.
    per_class : dict by class, the objective of each.
    """

    curves: Mapping[str, ScoreCurve] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def of(
        cls,
        classes: tuple[ClassThreshold, ...],
        fusion: Fusion,
        members: tuple[MemberRecord, ...],
        measure: Measure,
        validation: Validation,
        search: Mapping[str, Any],
        curves: Mapping[str, ScoreCurve] | None = None,
        factors: tuple[ClassFactor, ...] = (),
        decision: DecisionRecord | None = None,
        member_classes: ClassSets = "same",
    ) -> ThresholdSet:
        """Record what was found, with today's date and the versions that found it."""
        found = {**search, "versions": {"ensemble_kit": __version__, "numpy": np.__version__}}
        return cls(
            classes,
            fusion,
            members,
            measure,
            validation,
            found,
            _today(),
            (),
            factors,
            decision or DecisionRecord(),
            member_classes=member_classes,
            curves=curves or {},
        )

    @property
    def levels(self) -> dict[str, int]:
        """Deciding level of each class, 0 … 65535."""
        return {c.name: c.level for c in self.classes}

    @property
    def thresholds(self) -> dict[str, float]:
        """Threshold of each class on the probability scale."""
        return {c.name: self.fusion.mean.probability_of(c.level) for c in self.classes}

    @property
    def score(self) -> float:
        """The objective over all classes on the validation samples."""
        return self.validation.in_sample

    @property
    def per_class(self) -> dict[str, float]:
        """The objective of each class on the validation samples."""
        return {c.name: c.score for c in self.classes or self.factors}

    @property
    def is_plain(self) -> bool:
        """Whether the set decides as without tuning: by 0.5, or factors of 1, for every class; nothing was searched."""
        half = self.fusion.mean.level_of(0.5)
        if self.rules or "what" in self.search:
            return False
        return all(c.level == half for c in self.classes) and all(c.factor == ONE for c in self.factors)

    @property
    def gain_on_new(self) -> Interval | None:
        """The gain over 0.5, or factors of 1, to expect of as many new groups of samples of the same kind.

        Its ends are a 95 % prediction interval (`CrossValidation.expected`); None without a cross-validation, and of a
        shrunk set whose file is older than that.
        """
        crossed = self.validation.crossed
        if crossed is None:
            return None
        return Interval(0.0, 0.0, 0.0) if self.is_plain else crossed.expected()

    @property
    def score_on_new(self) -> Interval | None:
        """The score out of fold, and a 95 % prediction interval of it on as many new groups of the same kind.

        None without a cross-validation, and of a set whose file is older than that.
        """
        crossed = self.validation.crossed
        return None if crossed is None else crossed.expected_score()

    @property
    def choose(self) -> Choice:
        """How thresholds or factors were chosen: "bagged", "shrunk", "own" or "shared"."""
        crossed = self.validation.crossed
        older = "shared" if self.search.get("shared") else "shrunk" if crossed and crossed.shrink else "own"
        return cast("Choice", self.search.get("choose", older))

    def __repr__(self) -> str:
        return f"ThresholdSet({len(self.names)} classes, {self.measure.name} {self.score:.6f})"

    def report(self) -> Report:
        """Describe the set: one table, a few sentences, and warnings."""
        if self.guarantee is not None:
            return risk_report(self.guarantee, self.classes, self.measure, self.fusion.mean, self.validation.n)
        if self.factors:
            return summary.factor_report(self.factors, self.measure, self.validation, self.is_plain)
        return summary.report(self.classes, self.measure, self.fusion.mean, self.validation, self.is_plain, self.choose)

    def _repr_html_(self) -> str:
        from ensemble_kit.reports.html import report_html

        return report_html(self.report())

    def plot(self, classes: Sequence[str] | None = None) -> Figure:
        """Draw a panel for each class: its score at every threshold that was scanned.

        A point marks the chosen threshold, a bar its plateau. Of a cross-validated set a band spans the curves that
        the folds chose from (all samples but one fold's), and marks at the foot are the thresholds that they chose.

        Parameters
        ----------
        classes : names to draw, in this order; default: all.

        Raises
        ------
        UsageError
            matplotlib is not installed, or the set was read from a file, which holds no curves.
        MismatchError
            A name that is not among the set's classes.
        """
        if not self.curves:
            raise UsageError(
                "curves-missing",
                "cannot draw a threshold set",
                item="it was read from a file, which holds no curves",
                fix="draw the set that tune_thresholds returned; with kept statistics it tunes again without counting",
            )
        by_name = {c.name: c for c in self.classes}
        names = list(by_name) if classes is None else list(classes)
        unknown = [name for name in names if name not in by_name]
        if unknown or not names:
            raise MismatchError(
                "classes-differ",
                "cannot draw a threshold set",
                item=f"no class is called {some(unknown)}; it has {some(by_name)}" if unknown else "no class is named",
                fix="pass names of its classes, or none for all",
            )
        from ensemble_kit.reports.plots import draw

        mean, crossed = self.fusion.mean, self.validation.crossed
        panels = [summary.panel(by_name[name], self.curves[name], mean, crossed) for name in names]
        return draw(panels, "threshold", self.measure.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThresholdSet) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.validation.digest, self.names, *self.levels.items()))

    def check_fits(
        self,
        classes: Sequence[str],
        members: Sequence[MemberRecord],
        fusion: Fusion,
        member_classes: ClassSets = "same",
    ) -> None:
        """Refuse an ensemble that is not fused as the set was tuned.

        Raises
        ------
        MismatchError
            Other classes, members, models, mean, upsampling, weights or temperatures.
        """
        self.check_members(classes, members, member_classes)
        for what, tuned, now in self.fusion.differences(fusion, self.names, classes):
            raise self._unfit(what, tuned, now, _AS_TUNED)

    def check_member_classes(self, given: ClassSets) -> None:
        """Refuse other class sets than those that the set was tuned for, unless its members all had the same ones.

        Raises
        ------
        MismatchError
            Both are named.
        """
        if self.member_classes not in {"same", given}:
            fix = _MEMBER_CLASSES.format(self.member_classes)
            raise self._unfit("classes of members", repr(self.member_classes), repr(given), fix)

    def check_members(
        self, classes: Sequence[str], members: Sequence[MemberRecord], member_classes: ClassSets = "same"
    ) -> None:
        """Refuse other members, however they are fused.

        Parameters
        ----------
        member_classes : which classes the ensemble takes of members that have different ones.

        Raises
        ------
        MismatchError
            Other classes, members or models. Other folds of a member are no other member.
        """
        tuned_on = {m.name: m for m in self.members}
        others = {m.name for m in members} != set(tuned_on)
        if member_classes != "same" or (set(classes) != set(self.names) and not others):
            self.check_member_classes(member_classes)
        pairs: list[tuple[str, object, object]] = [
            ("classes", sorted(self.names), sorted(classes)),
            ("members", sorted(m.name for m in self.members), sorted(m.name for m in members)),
            *(
                (f"model of member {m.name!r}", sorted(map(str, tuned_on[m.name].models)), sorted(map(str, m.models)))
                for m in members
                if m.name in tuned_on and m.is_other(tuned_on[m.name])
            ),
        ]
        for what, tuned, now in pairs:
            if tuned != now:
                raise self._unfit(what, tuned, now, _NAMED if what == "members" else _OTHERS)

    def folds_told(self, members: Sequence[MemberRecord]) -> list[str]:
        """Say which members have other folds here than those that the set was tuned on."""
        tuned_on = {m.name: m for m in self.members}
        told = [m.folds_told(tuned_on[m.name]) for m in members if m.name in tuned_on]
        return [line for line in told if line is not None]

    def overlap_told(self, samples: Sequence[str], members: Sequence[MemberRecord]) -> str | None:
        """Say where samples are those that the set was tuned on, or lie in the stores that it was tuned on."""
        stores = stores_in(self.members) & stores_in(members)
        if not stores and not self.validation.is_on(samples):
            return None
        which = "are" if self.validation.is_on(samples) else "come from the stores of"
        set_ = "the set" if self.path is None else str(self.path)
        return f"these samples {which} the {self.validation.n} that {set_} was tuned on: a score on them is in-sample"

    def _unfit(self, what: str, tuned: object, now: object, fix: str = _OTHERS) -> MismatchError:
        return differ(
            "cannot vote with a threshold set that was tuned for another ensemble",
            what if self.path is None else f"{self.path}: {what}",
            f"tuned for {tuned}",
            f"asked for {now}",
            fix,
            "set-does-not-fit",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file (docs/storage.md)."""
        return file.encode(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, to a file or a URL: sorted keys, numbers in full; complete, or nothing."""
        check_path(path)
        file.write(self, as_path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ThresholdSet:
        """Read a set, from a file or a URL.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It is not a threshold set, or holds impossible values.
        """
        check_path(path)
        return cls(**vars(file.read(local(path))), path=as_path(path))


def _today() -> str:
    """Return the date in UTC; SOURCE_DATE_EPOCH sets it, for a file that can be made again byte by byte."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
