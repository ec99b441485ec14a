"""What a page is made of: the answer, its truth, and what is known of the members; each is gathered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.execution.parts import WHOLE, Part
from ensemble_kit.masks.alignment import check_aligned, check_same_classes
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.once import once
from ensemble_kit.recipes.reporting.curves import ClassCurve, counted, has_curves
from ensemble_kit.recipes.reporting.distances import Distances
from ensemble_kit.recipes.reporting.rules import Effect, effects_of
from ensemble_kit.recipes.reporting.voted import Voted
from ensemble_kit.recipes.score import Scores, score
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.shift import Measured, measured

if TYPE_CHECKING:
    from ensemble_kit.decisions.review import Review


@dataclass(frozen=True)
class Material:
    """What a page tells of; what is None or empty is left out of it.

    Parameters
    ----------
    masks : the answer.
    truth : of the same samples and classes.
    measure : what the one figure is.
    tuned : the set that decided, or that is told of by itself.
    voted : how the answer was voted, of stores.
    members : the masks of each member alone, decided as without tuning; of two or more.
    plain : the answer without tuning and rules; None where that is the answer itself.
    curves : of each class the score at every threshold.
    effects : what each rule did.
    expected : the Dice that masks are expected to get, where there is no truth.
    measured : scores of the samples and of those of a test set, which are compared.
    distances : how far surfaces lie apart, where it is asked for.
    groups : what is resampled together.
    rule : how masks were made, in words.
    left_out : how many samples of the truth have no answer, since no store holds them.
    """

    masks: MaskSet | None = None
    truth: MaskSet | None = None
    measure: Measure = field(default_factory=Measure)
    tuned: ThresholdSet | None = None
    voted: Voted | None = None
    members: Mapping[str, MaskSet] = field(default_factory=dict)
    plain: MaskSet | None = None
    curves: Mapping[str, ClassCurve] = field(default_factory=dict)
    effects: Sequence[Effect] = ()
    expected: Review | None = None
    measured: Measured | None = None
    distances: Distances | None = None
    groups: Groups = None
    seed: int = 0
    rule: str | None = None
    left_out: int = 0

    @once
    def scores(self) -> Scores | None:
        """The scores of the answer, as `ensk score` has them."""
        return None if self.masks is None or self.truth is None else self.scores_of(self.masks)

    def scores_of(self, masks: MaskSet) -> Scores:
        """Score other masks of the same samples in the same way."""
        assert self.truth is not None
        m = self.measure
        return replace(score(masks, self.truth, m.metric, m.convention, m.background), measure=m)

    @property
    def in_sample(self) -> bool:
        """Whether the set was tuned on these very samples."""
        return self.tuned is not None and self.masks is not None and self.tuned.validation.is_on(self.masks.samples)


def measure_for(
    tuned: ThresholdSet | None, metric: str | None, convention: Convention | None, classes: Sequence[str] = ()
) -> Measure:
    """Return what is reported: what the user asks for, else what the set was tuned by, else the mean Dice."""
    own = Measure() if tuned is None else tuned.measure
    measure = replace(own, metric=metric or own.metric, convention=convention or own.convention)
    known = not classes or measure.background in classes
    return measure if known else replace(measure, background=None)


def of_masks(sets: Mapping[str, MaskSet], truth: MaskSet | None, measure: Measure, tuned: ThresholdSet | None,
             groups: Groups, seed: int) -> Material:  # fmt: skip
    """Gather what masks alone tell; several are voted on by more than half of them."""
    several = list(sets.values())
    masks = several[0] if len(several) == 1 else hard_vote(several)
    members = sets if len(several) > 1 else {}
    members = {name: own.arranged(masks.samples, masks.classes) for name, own in members.items()}
    if truth is not None and (set(truth.samples), set(truth.classes)) == (set(masks.samples), set(masks.classes)):
        truth = truth.arranged(masks.samples, masks.classes)  # rows of scores are those of masks
    return Material(masks, truth, measure, tuned, None, members, groups=groups, seed=seed, rule=masks.rule)


def of_vote(
    vote: SoftVote, truth: MaskSet | None, measure: Measure, test: Ensemble | None, groups: Groups, seed: int,
    executor: Executor = THREADS, listener: Listener = nobody, part: Part = WHOLE,
) -> Material:  # fmt: skip
    """Gather what stores tell: the vote, each member alone, curves, rules, and where masks are doubtful.

    Parameters
    ----------
    part : which share of the samples is told of; its curves are left out, which are of all samples.
    """
    voted, whole = Voted.of(vote), vote.ensemble
    left_out = 0 if truth is None else len(set(truth.samples) - set(whole.samples))
    truth = None if truth is None else truth_of(vote, truth, whole.samples)
    if part.of > 1:
        vote = vote.on(part.share(whole.samples))
        truth = None if truth is None else truth.arranged(vote.ensemble.samples, truth.classes)
    e = vote.ensemble
    masks = vote.run(executor, listener).whole()
    usual = Argmax(background=vote.decision.background) if isinstance(vote.decision, Argmax) else e.decision()
    is_plain = _is_usual(vote.decision, usual, e.classes) and not vote.rules
    plain = None if is_plain else SoftVote(e, usual).run(executor, listener).whole()
    members = alone(vote, masks.classes, executor, listener) if len(e.members) > 1 else {}
    scores = None
    if test is not None:
        scores = measured(whole, test, vote.decision, executor=executor, listener=listener, part=part)
    material = Material(
        masks, truth, measure, vote.tuned, voted, members, plain, groups=groups, seed=seed, rule=masks.rule,
        left_out=left_out, effects=effects_of(vote, executor, listener) if vote.rules else (),
        measured=scores,
    )  # fmt: skip
    if truth is None:
        return replace(material, expected=e.review(vote.decision, vote.rules, executor=executor, listener=listener))
    if part.of > 1 or not has_curves(vote, measure):
        return material
    curves = {name: own.drawn(measure) for name, own in counted(vote, truth, executor, listener)}
    return replace(material, curves=curves)


def truth_of(vote: SoftVote, truth: MaskSet, samples: tuple[str, ...]) -> MaskSet:
    """Return the truth of some samples of a vote and the classes that it writes; the truth may have others.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, image sizes or geometries.
    """
    e, what, names = vote.ensemble, "cannot compare with the truth", ("the truth", "the ensemble")
    classes = vote.decision.written(e.classes)
    if not set(classes) <= set(truth.classes):
        fix = "pass a truth of all classes of the stores, and leave --only and --except out"
        check_same_classes([c for c in truth.classes if c in classes], classes, names, what, fix)
    wanted, own = e.inputs.extent(samples, classes), truth.extent.arranged(truth.samples, classes)
    if set(samples) <= set(truth.samples):
        own = own.arranged(samples, classes)
    check_aligned(own, wanted, names, what, missing="truth-missing")
    return e.without_nodata(truth).arranged(samples, classes)


def _is_usual(decision: Decision, usual: Decision, classes: tuple[str, ...]) -> bool:
    """Tell whether a decision is the one without tuning, however it was written."""
    if isinstance(decision, Thresholds) and isinstance(usual, Thresholds):
        return decision.in_order(classes) == usual.in_order(classes)
    if isinstance(decision, Argmax) and isinstance(usual, Argmax):
        plain = decision.in_order(classes) == usual.in_order(classes) and decision.least is None
        return plain and decision.background == usual.background
    return False


def alone(
    vote: SoftVote, classes: tuple[str, ...], executor: Executor = THREADS, listener: Listener = nobody
) -> dict[str, MaskSet]:
    """Vote with each member alone, as without tuning; those that lack a class are left out."""
    found = {}
    for member in vote.ensemble.members:
        if not set(vote.ensemble.classes) <= set(member.classes):
            continue
        fusion = vote.ensemble.fusion
        alone = Ensemble([member], mean=fusion.mean, upsample=fusion.upsample, samples="common")
        own = alone.on(vote.ensemble.samples)
        decision = Argmax(background=vote.decision.background) if isinstance(vote.decision, Argmax) else own.decision()
        masks = SoftVote(own, decision).run(executor, listener).whole()
        found[member.member] = masks.arranged(masks.samples, classes)
    return found
