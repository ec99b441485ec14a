"""`Decision`, the seam between scores and masks, and the one loop that votes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ensemble_kit.decisions.clean import check_classes, clean, refuse_across, told_of
from ensemble_kit.decisions.partition import TOLD
from ensemble_kit.decisions.rule import Decided, Rule, ScoreRule
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import MaskStream, pieces_of
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape


class Decision(Protocol):
    """Turns one sample's fused scores into masks: a frozen value that can be pickled. The smallest one::

    @dataclass(frozen=True)
    class Nothing:
        def check(self, inputs):
            pass

        def written(self, classes):
            return classes

        def excludes(self, inputs):
            return False

        def told(self):
            return "no pixel is on"

        def __call__(self, scores):
            return scores.decide(dict.fromkeys(range(len(scores.inputs.classes)), 65536))
    """

    def check(self, inputs: Inputs) -> None:
        """Refuse, before any work, members that this decision does not fit."""

    def written(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes whose masks are kept, in this order."""

    def excludes(self, inputs: Inputs) -> bool:
        """Tell whether each pixel gets one class at most."""

    def told(self) -> str:
        """Return the decision in words, for reports and `MaskSet.rule`."""

    def __call__(self, scores: FusedSample) -> ManyRuns:
        """Decide a sample: the masks of all classes, in the order of `scores.inputs.classes`."""


@dataclass(frozen=True)
class Vote:
    """The work of a vote on one sample: fuse, decide, clean."""

    inputs: Inputs
    decision: Decision
    rules: tuple[Rule, ...] = ()

    def __call__(self, item: Item) -> tuple[Shape, ManyRuns]:
        """Return the image's shape, and the masks of the classes that are kept."""
        scores = open_sample(self.inputs, item.sample)
        return scores.image, self.of(scores)

    def of(self, scores: FusedSample) -> ManyRuns:
        """Return the masks of the classes that are kept."""
        classes, decided, kept = self.inputs.classes, self.decision(scores), self.decision.written(self.inputs.classes)
        void = self.inputs.void(scores.sample)
        if not self.rules and kept == classes and void is None:
            return decided
        masks = [decided.mask(classes.index(name), scores.image) for name in kept]
        masks = masks if void is None else [mask - void for mask in masks]
        geometry = self.inputs.geometry(scores.sample)
        sample = Decided(kept, masks, scores, geometry if isinstance(geometry, Geometry) else None)
        clean(sample, self.rules, Runs.empty(scores.image) if self.decision.excludes(self.inputs) else None)
        return ManyRuns.of(sample.masks)


def vote(
    inputs: Inputs,
    samples: Sequence[str],
    decision: Decision,
    rules: tuple[Rule, ...],
    executor: Executor,
    listener: Listener = nobody,
) -> MaskSet:
    """Decide and clean every sample, and hold all masks; see `stream_vote`."""
    return stream_vote(inputs, samples, decision, rules, executor, listener).whole()


def stream_vote(
    inputs: Inputs,
    samples: Sequence[str],
    decision: Decision,
    rules: tuple[Rule, ...],
    executor: Executor,
    listener: Listener = nobody,
) -> MaskStream:
    """Decide and clean every sample at the time its masks are taken.

    Parameters
    ----------
    decision : one that fits the inputs, by its `check`.
    rules : post-processing, applied in this order to the classes that they name.

    Raises
    ------
    MismatchError
        A rule for other classes.
    UsageError
        A rule that looks at scores where those of a class mean nothing by themselves, or across classes that exclude
        each other; or a rule of images for volumes, or the reverse.
    """
    classes = decision.written(inputs.classes)
    check_classes(rules, classes)
    if any(isinstance(rule, ScoreRule) for rule in rules):
        inputs.check_each_class()
    if decision.excludes(inputs):
        refuse_across(rules)
    extent = inputs.extent(samples, classes)
    ruled = ", then ".join(told_of(rules, extent)) if any(len(size) == 3 for size in extent.sizes.values()) else ""
    partition = TOLD if rules and decision.excludes(inputs) else ""
    told = "; ".join(filter(None, (decision.told(), ruled, partition)))

    def make(wanted: Sequence[str]) -> Iterator[MaskSet]:
        found = executor.map(Vote(inputs, decision, rules), Items(wanted), "voting", listener)
        pieces = pieces_of(((s, *one) for s, one in zip(wanted, found, strict=True)), classes, told)
        return (piece.with_void(voids) if (voids := inputs.voids(piece.samples)) else piece for piece in pieces)

    return MaskStream(extent, make, told)
