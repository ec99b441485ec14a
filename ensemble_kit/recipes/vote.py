"""A soft vote: from stores to voted masks, for `ensk vote`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from ensemble_kit.decisions.clean import check_classes, refuse_across, told_of
from ensemble_kit.decisions.decision import Decision, stream_vote
from ensemble_kit.decisions.recorded import recorded, recorded_rules
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.joining.samples import without_geometry
from ensemble_kit.logits.folds import apart
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import MaskStream
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.deciding import Deciding
from ensemble_kit.recipes.doubts import alike, emptying
from ensemble_kit.recipes.members import counted, told_members
from ensemble_kit.thresholds.guarantee import LIMITS
from ensemble_kit.thresholds.thresholdset import ThresholdSet


@dataclass(frozen=True)
class SoftVote:
    """A soft vote whose options fit each other; nothing is fused yet.

    Parameters
    ----------
    decision : one that fits the ensemble, as `Ensemble.decision` and `Deciding.of` make it.
    rules : post-processing, in order.
    tuned : the set that the decision is of, if any.

    Raises
    ------
    MismatchError
        Rules for other classes.
    UsageError
        A rule across classes that exclude each other.
    """

    ensemble: Ensemble
    decision: Decision
    rules: tuple[Rule, ...] = ()
    tuned: ThresholdSet | None = None

    def __post_init__(self) -> None:
        check_classes(self.rules, self.decision.written(self.ensemble.classes))
        if self.decision.excludes(self.ensemble.inputs):
            refuse_across(self.rules)
        told_of(self.rules, self.names().extent)

    @classmethod
    def of(cls, ensemble: Ensemble, deciding: Deciding, rules: tuple[Rule, ...] = ()) -> SoftVote:
        """Make it of what the user says; without rules, those of a set hold that decides as it was tuned."""
        tuned = deciding.threshold if isinstance(deciding.threshold, ThresholdSet) else None
        if not rules and tuned is not None and deciding.kind in {None, tuned.decision.kind}:
            rules = recorded_rules(tuned)
        return cls(ensemble, deciding.of(ensemble), rules, tuned)

    def told(self) -> list[str]:
        """Say what will be done."""
        fusion, e = self.ensemble.fusion, self.ensemble
        shares, names = sorted(set(fusion.weights)), counted(e)
        weights = (
            ", ".join(f"{name} {w / 65536:.3g}" for name, w in zip(names, shares[0], strict=True))
            if len(shares) == 1
            else f"{', '.join(names)}, weighted per class"
        )
        lines = [f"soft vote: mean of {fusion.mean}, upsample {fusion.upsample}; members {weights}"]
        lines += told_members(e)
        if silent := [m for k, m in enumerate(fusion.members) if k not in fusion.heard]:
            lines.append(f"not read, since it weighs nothing: {', '.join(silent)}")
        if any(t != 1 for t in fusion.temperatures):
            lines.append(f"temperatures: {', '.join(f'{t:g}' for t in fusion.temperatures)}")
        if unknown := without_geometry([slot for member in e.members for slot in apart(member)], e.samples):
            lines.append(f"geometries not known, and taken to be those of the other members: {', '.join(unknown)}")
        lines.append(f"decision: {self.decision.told()}")
        if voids := e.inputs.voids(e.samples):
            where = f"{sum(own.area for own in voids.values())} pixels of {len(voids)} of {len(e.samples)} samples"
            lines.append(f"no data: {where}; no class has them, and they are void where the format has void")
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        if self.tuned is not None and self.tuned.guarantee is not None and self.keeps_guarantee:
            lines += [f"guaranteed: {self.tuned.guarantee}", LIMITS]
        return lines + self.seen_told()

    def seen_told(self) -> list[str]:
        """Say where folds are others than those of the tuning, and samples the same."""
        e = self.ensemble
        if self.tuned is None:
            return []
        told = self.tuned.overlap_told(e.samples, e.records)
        return [*self.tuned.folds_told(e.records), *([] if told is None else [told])]

    @property
    def keeps_guarantee(self) -> bool:
        """Whether masks are decided and cleaned as the set says that guarantees a risk."""
        tuned = self.tuned
        return tuned is not None and (self.decision, self.rules) == (recorded(tuned), recorded_rules(tuned))

    def doubts(self) -> list[Caution]:
        """Say what the user may not have meant."""
        e = self.ensemble
        out = alike(e.stores)
        out += emptying(self.rules, map(e.image_size, e.samples))
        if self.tuned is not None and self.tuned.guarantee is not None and not self.keeps_guarantee:
            told = self.tuned.guarantee
            doubt = f"the set's guarantee does not hold, since masks are decided or cleaned otherwise: {told}"
            out.append(Caution(doubt, "leave --decide and --rule out, or control the risk of what is meant"))
        elif self.tuned is not None and (unused := self._unused(self.tuned)) is not None:
            out.append(unused)
        return out

    @staticmethod
    def _options(rules: Iterable[Rule]) -> str:
        return " ".join(f"--rule {quote(str(rule))}" for rule in rules)

    def _unused(self, tuned: ThresholdSet) -> Caution | None:
        """Say which rules of the set are not applied, and what applies them."""
        own = recorded_rules(tuned)
        if not [rule for rule in own if rule not in self.rules]:
            return None
        told = " and ".join(map(str, own))
        if self.rules:
            doubt = f"--rule is applied in place of the rules that the set was tuned with, {told}"
            return Caution(doubt, f"to apply both, pass {self._options([*own, *self.rules])}; or leave --rule out")
        doubt = f"the set was tuned with the rules {told}, for another decision: they are not applied"
        return Caution(doubt, f"leave --decide out, or pass {self._options(own)}")

    def on(self, samples: Sequence[str]) -> SoftVote:
        """Return the same vote on some of the samples."""
        return replace(self, ensemble=self.ensemble.on(samples))

    @property
    def may_overlap(self) -> bool:
        """Whether exclusive classes are decided each by itself, so that pixels may have several, or none."""
        return self.ensemble.activation == "softmax" and not self.decision.excludes(self.ensemble.inputs)

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        e = self.ensemble
        return MaskSet.empty(e.inputs.extent(e.samples, self.decision.written(e.classes)))

    def check_memory(
        self, budget: int | None, jobs: int | None, in_pieces: bool = False, like: Path | None = None
    ) -> None:
        """Refuse what a memory budget does not hold; a few samples are tried for that.

        Parameters
        ----------
        in_pieces : whether masks are written as they come; otherwise those of all samples are held.
        like : the sample submission in whose order they are written.
        """
        if budget is not None:
            needed = memory.of_vote(self.ensemble, self.decision, self.rules, jobs, in_pieces)
            memory.check(budget, needed + memory.of_order(like, len(self.names())), "vote")

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> MaskStream:
        """Fuse, decide and clean every sample at the time its masks are taken."""
        e = self.ensemble
        return stream_vote(e.inputs, e.samples, self.decision, self.rules, executor, listener)
