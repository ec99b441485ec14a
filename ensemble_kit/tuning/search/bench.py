"""`Bench`: counts of every setting of a ladder, each made in one pass over the stores when it is first tried."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.clean import clean
from ensemble_kit.decisions.decision import Decision, Vote
from ensemble_kit.decisions.rule import Decided, Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns, overlaps
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.records import DecisionRecord
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.calibration import rank_scores
from ensemble_kit.tuning.class_options import unions_of
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.search.ladder import Candidate
from ensemble_kit.tuning.truth import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ruling = tuple[Decision, tuple[Rule, ...]]
"""A decision, and the rules that go with it."""


@dataclass
class Bench(ABC):
    """Counts of candidates.

    Parameters
    ----------
    ensemble : as it was given; candidates with all shares 1 and its mean are fused so.
    truth_masks : of its samples and classes.
    truth : int64 (classes that count, samples), pixels of the truth.
    folds : sample numbers of each.
    at_once : classes that a pass for rules counts; default: all.
    deadline : of `time.monotonic`, after which nothing more is counted, but for the first pass; None: no limit.

    Attributes
    ----------
    passes : over the stores, so far.
    stopped : whether time was up before all was tried.
    """

    ensemble: Ensemble
    truth_masks: MaskSet
    measure: Measure
    truth: NDArray[np.int64]
    folds: Sequence[NDArray[np.int64]]
    deadline: float | None
    executor: Executor
    listener: Listener
    at_once: int | None = None
    passes: int = 0
    stopped: bool = False
    _voted: dict[Candidate, dict[tuple[int, ...], Counts]] = field(default_factory=dict)

    @property
    def scored(self) -> list[int]:
        """Numbers of the classes that count."""
        return list(range(len(self.ensemble.classes)))

    @abstractmethod
    def _is_counted(self, candidate: Candidate) -> bool:
        """Tell whether a candidate without rules can be judged."""

    @abstractmethod
    def _count(self, candidates: Sequence[Candidate]) -> None:
        """Count candidates of one fusion, without rules, in one pass."""

    @abstractmethod
    def _fitted(self, candidate: Candidate, which: tuple[int, ...]) -> Counts:
        """Return what a candidate without rules does that was fitted on some folds."""

    @abstractmethod
    def decided(self, candidate: Candidate, which: tuple[int, ...]) -> Ruling:
        """Return the decision of a candidate that was fitted on some folds, and all its rules."""

    @abstractmethod
    def recorded(self, candidate: Candidate, crossed: CrossValidation, seed: int) -> ThresholdSet:
        """Make the set of a candidate that is fitted on all samples."""

    @abstractmethod
    def values(self, candidate: Candidate, which: tuple[int, ...]) -> list[int]:
        """Return the level, or the factor, of each class that some folds chose."""

    def fused(self, candidate: Candidate) -> Ensemble:
        """Return the ensemble as a candidate fuses it."""
        if set(candidate.shares) != {1}:
            weights = dict(zip(self.ensemble.fusion.members, candidate.shares, strict=True))
            return self.ensemble.with_fusion(weights=weights, mean=candidate.mean)
        return self.ensemble.with_fusion(mean=candidate.mean)

    def prepare(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Count what candidates need, each fusion in one pass; return those that can be judged."""
        for fusion in dict.fromkeys(c.fusion for c in candidates):
            own = [c for c in candidates if c.fusion == fusion]
            plain = [replace(c, rules=()) for c in own]
            ranked = [c for c in plain if c.kind == "rank" and c not in self._voted]
            missing = [c for c in plain if c.kind != "rank" and not self._is_counted(c)]
            ruled = [c for c in own if c.rules and c not in self._voted]
            for some, count in ((missing, self._count), (ranked, self._rank), (ruled, self._vote)):
                if some and not self._is_late():
                    count(some)
        return [c for c in candidates if c in self._voted or (c.kind != "rank" and not c.rules and self._is_counted(c))]

    def counts(self, candidate: Candidate, which: tuple[int, ...]) -> Counts:
        """Return hits and pixels of every class and sample, int64, of what some folds chose."""
        voted = self._voted.get(candidate)
        return self._fitted(candidate, which) if voted is None else voted[which]

    def in_classes(
        self, candidate: Candidate, crossed: CrossValidation, seed: int, levels: Sequence[int]
    ) -> ThresholdSet:
        """Make a set of thresholds with a level for each class, and the scores of the candidate on all samples."""
        fused, every = self.fused(candidate), tuple(range(len(self.folds)))
        self.passes += 1
        counted = statistics_for(fused, self.truth_masks, self.measure, executor=self.executor, listener=self.listener)
        plain = tune_from(counted, fused, self.measure, seed=seed, executor=self.executor)
        tp, pred = self.counts(candidate, every)
        classes = tuple(
            replace(
                old, level=level, score=self.measure.of_class(tp[c], pred[c], self.truth[c]), plateau=(level, level)
            )
            for c, (old, level) in enumerate(zip(plain.classes, levels, strict=True))
        )
        score = self.measure.of_all(tp, pred, self.truth)
        validation = replace(plain.validation, in_sample=score, crossed=crossed)
        return replace(plain, classes=classes, validation=validation)

    def ranked(self, candidate: Candidate, crossed: CrossValidation, seed: int) -> ThresholdSet:
        """Make a set that decides by the rank rule; the thresholds that it lists are 0.5."""
        half = [self.fused(candidate).level_of(0.5)] * len(self.ensemble.classes)
        return replace(self.in_classes(candidate, crossed, seed, half), decision=DecisionRecord("rank"))

    def _is_late(self) -> bool:
        late = self.deadline is not None and self.passes > 0 and time.monotonic() > self.deadline
        self.stopped |= late
        return late

    def _rank(self, candidates: Sequence[Candidate]) -> None:
        """Score the rank rule, which needs no training."""
        for candidate in dict.fromkeys(candidates):
            self.passes += 1
            found = rank_scores(
                self.fused(candidate), self.truth_masks, self.measure, executor=self.executor, listener=self.listener
            )
            counts = found.tp[self.scored], found.pred[self.scored]
            self._voted[candidate] = dict.fromkeys(unions_of(len(self.folds)), counts)

    def _vote(self, candidates: Sequence[Candidate]) -> None:
        """Vote with further rules each: a sample by what all samples chose, and by each choice made without it."""
        unions, every = unions_of(len(self.folds)), len(self.folds)
        plain, further = replace(candidates[0], rules=()), [parse_rules(list(c.rules)) for c in candidates]
        made = {which: self.decided(plain, which) for which in unions}
        different = list(dict.fromkeys(made.values()))
        number = {which: different.index(decided) for which, decided in made.items()}
        fold_of = {self.ensemble.samples[s]: j for j, fold in enumerate(self.folds) for s in fold.tolist()}
        wanted = [
            sorted({number[which] for which in unions if j not in which or len(which) == every}) for j in range(every)
        ]
        names = [self.ensemble.classes[c] for c in self.scored]

        def of(sample: str) -> tuple[Truth, list[int]]:
            return Truth.of(self.truth_masks, sample, names), wanted[fold_of[sample]]

        work = CountVoted(self.fused(plain).inputs, tuple(names), tuple(different), tuple(further))
        out = np.zeros((len(different), len(further), 2, *self.truth.shape), np.int64)
        self.passes += 1
        rows = self.executor.map(work, Items(self.ensemble.samples, of), "cleaning", self.listener)
        for s, found in enumerate(rows):
            for k, counts in found.items():
                out[k, :, :, :, s] = counts
        for t, candidate in enumerate(candidates):
            self._voted[candidate] = {which: (out[k, t, 0], out[k, t, 1]) for which, k in number.items()}


@dataclass(frozen=True)
class CountVoted:
    """The work of counting one sample's masks under several decisions, each cleaned by several lists of further rules.

    An item has the `Truth` of the classes that count, and the numbers of the decisions that it is asked about.
    """

    inputs: Inputs
    names: tuple[str, ...]
    decisions: tuple[Ruling, ...]
    further: tuple[tuple[Rule, ...], ...]

    def __call__(self, item: Item) -> dict[int, NDArray[np.int64]]:
        """Return hits and pixels, int64 (lists, 2, classes), by the number of the decision."""
        scores, (truth, wanted) = open_sample(self.inputs, item.sample), item.truth
        out = {}
        for k in wanted:
            decision, own = self.decisions[k]
            vote = Vote(self.inputs, decision, own).of(scores)
            out[k] = np.stack([self._counts(vote, decision, rules, scores, truth) for rules in self.further])
        return out

    def _counts(
        self, vote: ManyRuns, decision: Decision, rules: tuple[Rule, ...], scores: FusedSample, truth: Truth
    ) -> NDArray[np.int64]:
        """Clean masks, and count."""
        written = decision.written(self.inputs.classes)
        sample = Decided(written, vote.masks(scores.image), scores)
        clean(sample, rules, Runs.empty(scores.image) if decision.excludes(self.inputs) else None)
        masks = [sample.masks[written.index(name)] for name in self.names]
        pred = np.array([mask.area for mask in masks], np.int64)
        if truth.void is not None:
            pred -= overlaps(masks, [truth.void] * len(masks))
        return np.stack([overlaps(masks, truth.masks), pred])
