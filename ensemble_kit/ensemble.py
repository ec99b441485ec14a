"""`Ensemble`: members' logits fused into levels, and levels turned into masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.decisions.decision import Decision, vote
from ensemble_kit.decisions.given import decision_of, level_of
from ensemble_kit.decisions.recorded import recorded, rules_of
from ensemble_kit.decisions.review import Review, review
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.errors import IncompleteError, check_choice, check_kind, check_several, some
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.joining.fusing import check_fusion, fuse
from ensemble_kit.joining.given import Members, members_of
from ensemble_kit.joining.members import check_members
from ensemble_kit.joining.samples import check_geometries, join_samples
from ensemble_kit.logits.folds import StoreMember, apart, called, stores_of
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.scores.class_sets import ClassSets, beside, joined_classes, view
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Activation, Fusion, Upsample, Weights
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.labels import check_names
from ensemble_kit.spec.mean import Mean
from ensemble_kit.thresholds.members import MemberRecord
from ensemble_kit.thresholds.thresholdset import ThresholdSet

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Ensemble:
    """Several members' stores, read sample by sample and fused. It never changes: `with_fusion` and `on` make others.

    Parameters
    ----------
    members : paths or `LogitStore`s, whose order makes no difference; or a mapping, name → path or list of paths.
        Several stores of one name are the folds of one member: of different samples they are joined, of the same ones
        they are averaged (docs/concepts.md#rule-18-folds). Classes are joined by name.
    weights : one number per member (in the order of `members`), a mapping by member name, or for each member a
        row with one number per class. Default: equal.
    mean : "probability" averages scores; "logit" averages logits clipped to ±16; "power:R" averages scores to the
        power R, 0 ≤ R < 1, between the geometric mean ("power:0") and the arithmetic one.
    upsample : "logits" (default) interpolates each member to the image's size and then fuses, as every framework's
        own pipeline does; "scores" fuses on the grid and interpolates the result: cheaper. The two differ at
        boundaries.
    temperatures : one number per member; logits are divided by it. Default: 1.
    samples : "same" refuses members of different samples; "common" takes the samples that all of them hold, and
        `dropped` counts the others. Folds that share some samples are averaged on those that all of them hold.
    classes : "same" refuses members of different classes, "common" takes those that all of them have, "union" those of
        any: a class is then fused over the members that have it (docs/concepts.md#rule-17-members-of-other-class-sets).

    Attributes
    ----------
    members : the stores, sorted by name; of a member that was given a name, `Folds` of its stores.
    classes, samples : names, in the order of the answer.
    fusion : how members are fused, a `Fusion`.
    dropped : samples that are not in every member.
    order : where each of `.members` stood when the user named them.

    Raises
    ------
    MismatchError
        Members of different classes, samples, image sizes or activations, or of volumes of different geometries.
    UsageError
        Weights, temperatures or options that cannot mean anything.
    """

    members: tuple[StoreMember, ...]
    classes: tuple[str, ...]
    samples: tuple[str, ...]
    fusion: Fusion
    dropped: int
    order: tuple[int, ...]

    def __init__(
        self,
        members: Members,
        weights: Weights | None = None,
        mean: Mean | str = "probability",
        upsample: Upsample | None = None,
        temperatures: Sequence[float] | Mapping[str, float] | None = None,
        samples: Literal["same", "common"] = "same",
        classes: ClassSets = "same",
    ) -> None:
        check_choice("samples", samples, ("same", "common"))
        given = members_of(members, samples == "common")
        order = sorted(range(len(given)), key=lambda k: (given[k].member, given[k].fingerprint))
        joined = tuple(given[k] for k in order)
        check_members(joined)
        names = joined_classes(joined, classes)
        fusion = fuse(joined, names, order, weights, Mean.of(mean), upsample, temperatures)
        held, dropped = join_samples(joined, samples)
        check_geometries([slot for member in joined for slot in apart(member)], held)
        self._fill(joined, names, held, fusion, dropped, tuple(order))

    def _fill(self, *values: object) -> None:
        for name, value in zip((f.name for f in fields(self)), values, strict=True):
            object.__setattr__(self, name, value)

    def _with(self, **changes: Any) -> Ensemble:
        other = object.__new__(Ensemble)
        other._fill(*(changes.get(f.name, getattr(self, f.name)) for f in fields(self)))
        return other

    @classmethod
    def of_set(cls, tuned: ThresholdSet, members: Members, samples: Literal["same", "common"] = "same") -> Ensemble:
        """Open members and fuse them as a set was tuned: also of their classes it takes what the set did."""
        check_kind("the set", tuned, ThresholdSet)
        return cls(members, samples=samples, classes=tuned.member_classes).as_tuned(tuned)

    def with_fusion(
        self,
        fusion: Fusion | None = None,
        *,
        weights: Weights | None = None,
        mean: Mean | str | None = None,
        upsample: Upsample | None = None,
        temperatures: Sequence[float] | Mapping[str, float] | None = None,
    ) -> Ensemble:
        """Return the same members and samples, fused another way.

        Parameters
        ----------
        fusion : all of it, for the members in the order of `.members`.
        weights, mean, upsample, temperatures : what changes, as for `Ensemble`: weights and temperatures by member's
            name, or in the order in which the user named the members. The rest stays.

        Raises
        ------
        MismatchError
            A fusion of other members or classes; a mean of logits that were limited differently.
        """
        if fusion is not None:
            check_kind("the fusion", fusion, Fusion)
        check_fusion(fusion, self.fusion, self.classes, self.members)
        now = self.fusion if fusion is None else fusion
        changed = fuse(
            self.members, self.classes, self.order, weights, now.mean if mean is None else Mean.of(mean),
            now.upsample if upsample is None else upsample, temperatures,
        )  # fmt: skip
        if weights is None:
            changed = replace(changed, weights=now.weights, original=now.original)
        if temperatures is None:
            changed = replace(changed, temperatures=now.temperatures)
        return self._with(fusion=changed)

    def on(self, samples: Iterable[str]) -> Ensemble:
        """Return the same members on some of the samples, in the order given.

        Raises
        ------
        IncompleteError
            A sample that the ensemble does not have, or none at all.
        UsageError
            A sample that is named twice.
        """
        if isinstance(samples, str):
            samples = [samples]
        check_several("samples", samples, "pass a list of their ids")
        wanted, known = tuple(samples), set(self.samples)
        if wanted:
            check_names("samples", wanted)
        unknown = [s for s in wanted if s not in known]
        if unknown or not wanted:
            raise IncompleteError(
                "sample-unknown" if unknown else "samples-none",
                "cannot take samples of an ensemble",
                item=f"it has no {some(unknown)}" if unknown else "none is named",
                fix=f"pass some of its {len(self.samples)} samples: {some(self.samples, 3)}",
            )
        return self._with(samples=wanted)

    def as_tuned(self, tuned: ThresholdSet) -> Ensemble:
        """Return the same members, fused as the set was tuned: its mean, upsampling, weights and temperatures."""
        check_kind("the set", tuned, ThresholdSet)
        tuned.check_members(self.classes, self.records, self.member_classes)
        f, numbers = tuned.fusion, {name: k for k, name in enumerate(tuned.names)}
        rows = [numbers[c] for c in self.classes]
        original = tuple(f.original[k] for k in rows) if f.original else ()
        return self.with_fusion(replace(f, weights=tuple(f.weights[k] for k in rows), original=original))

    @property
    def activation(self) -> Activation:
        """What turns the members' logits into probabilities: "sigmoid" or "softmax"."""
        return self.members[0].activation

    @property
    def stores(self) -> tuple[tuple[str, LogitStore], ...]:
        """All stores of all members, each with what it is called: its member's name, of folds with the store's."""
        return tuple(pair for member in self.members for pair in called(member))

    @property
    def lacking(self) -> dict[str, tuple[str, ...]]:
        """The members that lack some of the classes, and which."""
        return beside({m.member: m.classes for m in self.members}, self.classes)[1]

    @property
    def left_out(self) -> dict[str, tuple[str, ...]]:
        """The members that have further classes, which other members lack, and which."""
        return beside({m.member: m.classes for m in self.members}, self.classes)[0]

    @property
    def member_classes(self) -> ClassSets:
        """Which classes are taken of members that have different ones; "same" where all have the same."""
        return "union" if self.lacking else "common" if self.left_out else "same"

    @property
    def records(self) -> tuple[MemberRecord, ...]:
        """The members as a threshold set records them."""
        return tuple(MemberRecord.of(m.member, m.fingerprint, stores_of(m)) for m in self.members)

    @property
    def inputs(self) -> Inputs:
        """What a fused sample takes: members, of those that are averaged each fold; classes and fusion."""
        slots = [apart(member) for member in self.members]
        members = tuple(view(slot, self.classes) for own in slots for slot in own)
        return Inputs(members, self.classes, self.fusion.spread([len(own) for own in slots]))

    def __repr__(self) -> str:
        names = ", ".join(self.fusion.members)
        return (
            f"Ensemble({names}: {len(self.samples)} samples x {len(self.classes)} classes, mean of {self.fusion.mean})"
        )

    def image_size(self, sample: str) -> Shape:
        """Return (H, W) of a sample's image."""
        return self.members[0].image_size(sample)

    def without_nodata(self, truth: MaskSet) -> MaskSet:
        """Return the truth, without the pixels at which a scene's image holds no data: they count neither way."""
        voids = self.inputs.voids(sample for sample in self.samples if sample in truth.extent.sizes)
        return truth.with_void({sample: own | truth.void(sample) for sample, own in voids.items()}) if voids else truth

    def levels(self, sample: str) -> NDArray[np.uint16]:
        """Fuse a sample on the finest member's grid: uint16 (C, h, w), by rules 1 to 3 of docs/concepts.md.

        Where members' grids or boxes differ, each is interpolated to the finest one's box; cells outside it are 0.
        """
        return open_sample(self.inputs, sample, "scores").levels()

    def sample(self, sample: str) -> FusedSample:
        """Open a sample for decisions and counts, without fusing anything yet."""
        return open_sample(self.inputs, sample)

    def level_of(self, threshold: float) -> int:
        """Turn a threshold in [0, 1] into the level that decides, on the scale of the mean.

        Raises
        ------
        UsageError
            A threshold outside [0, 1].
        """
        return level_of(threshold, self.fusion.mean)

    def decision(self, given: Any = None) -> Decision:
        """Turn what `vote` takes into a decision that fits this ensemble.

        Parameters
        ----------
        given : a number in [0, 1], one per class (a sequence in the order of `.classes`, or a mapping by name), a
            `ThresholdSet`, or a decision; None is 0.5, of softmax members the largest score (`Argmax()`).

        Raises
        ------
        MismatchError
            Thresholds of other classes, a set that was tuned for another ensemble.
        UsageError
            A threshold outside [0, 1].
        """
        if isinstance(given, ThresholdSet):
            given.check_fits(self.classes, self.records, self.fusion, self.member_classes)
            decision = recorded(given)
        else:
            decision = decision_of(given, self.inputs)
        decision.check(self.inputs)
        return decision

    def vote(
        self,
        decision: Any = None,
        rules: Iterable[Rule | str] | Rule | str | None = None,
        jobs: int | None = None,
        executor: Given = None,
        listener: Listener = nobody,
    ) -> MaskSet:
        """Soft vote: fuse and decide every sample.

        Parameters
        ----------
        decision : a number, one per class (a sequence in the order of `.classes` or a mapping by name), a
            `ThresholdSet`, which must fit this ensemble, or a decision such as `Argmax()`; None is
            0.5, of softmax members `Argmax()`.
        rules : post-processing (`ensemble_kit.decisions.rules`), rules or their texts such as "drop-small:200";
            applied in this order to every mask of the classes that they name. None: those of the set; (): none.
        jobs : threads over samples; default: every core. The result never depends on it.
        executor : where the work runs: a `distributed.Client`, any `concurrent.futures` executor; default: threads of
            this process. The bytes are the same everywhere.

        Raises
        ------
        MismatchError
            Thresholds or rules for other classes, a set that was tuned for another ensemble.
        UsageError
            A threshold outside [0, 1], a rule that cannot be read, both jobs and an executor.
        """
        where = chosen(executor, jobs, listener)
        return vote(self.inputs, self.samples, self.decision(decision), rules_of(rules, decision), where, listener)

    def review(
        self,
        decision: Any = None,
        rules: Iterable[Rule | str] | Rule | str | None = None,
        jobs: int | None = None,
        executor: Given = None,
        listener: Listener = nobody,
    ) -> Review:
        """Rank samples for review, without truth: those whose masks are expected to have the lowest Dice come first.

        `.table(20)` is a pandas frame of the first 20, `.write(path)` makes a CSV file of all, `.expected` has a figure
        for each sample and class (docs/concepts.md#expected-dice).

        Parameters
        ----------
        decision, rules, jobs, executor : what decides the masks, as for `vote`.

        Raises
        ------
        MismatchError, UsageError
            As for `vote`.
        """
        where = chosen(executor, jobs, listener)
        return review(self.inputs, self.samples, self.decision(decision), rules_of(rules, decision), where, listener)
