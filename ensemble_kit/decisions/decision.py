"""`Decision`, the seam between scores and masks, and the one loop that votes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ensemble_kit.decisions.clean import check_classes, clean, refuse_across
from ensemble_kit.decisions.partition import TOLD
from ensemble_kit.decisions.rule import Decided, Rule, ScoreRule
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample


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

    def __call__(self, item: Item) -> tuple[tuple[int, int], ManyRuns]:
        """Return the image's shape, and the masks of the classes that are kept."""
        scores = FusedSample(self.inputs, item.sample)
        return scores.image, self.of(scores)

    def of(self, scores: FusedSample) -> ManyRuns:
        """Return the masks of the classes that are kept."""
        classes, decided, kept = self.inputs.classes, self.decision(scores), self.decision.written(self.inputs.classes)
        if not self.rules and kept == classes:
            return decided
        masks = [decided.mask(classes.index(name), scores.image) for name in kept]
        sample = Decided(kept, masks, scores)
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
    """Decide and clean every sample.

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
        each other.
    """
    classes = decision.written(inputs.classes)
    check_classes(rules, classes)
    if any(isinstance(rule, ScoreRule) for rule in rules):
        inputs.check_each_class()
    if decision.excludes(inputs):
        refuse_across(rules)
    found = list(executor.map(Vote(inputs, decision, rules), Items(samples), "voting", listener))
    runs = ManyRuns.joined([decided for _, decided in found])
    indices = np.arange(len(found) * len(classes)).reshape(len(found), len(classes))
    images = {sample: image for sample, (image, _) in zip(samples, found, strict=True)}
    told = decision.told() + (f"; {TOLD}" if rules and decision.excludes(inputs) else "")
    return MaskSet.trusted(images, classes, runs, indices, told)
