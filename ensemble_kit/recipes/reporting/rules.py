"""What each rule of post-processing did: pixels taken and added, components and masks that it removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.clean import clean
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.rule import NEIGHBOURS, Decided, Rule
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.masks.runs import Runs
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.affine import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES = ("pixels removed", "pixels added", "components before", "components after", "masks changed", "masks emptied")


@dataclass(frozen=True)
class Effect:
    """What one rule did over all samples.

    Parameters
    ----------
    rule : as a text.
    figures : int64 (classes, 6), in the order of `FIGURES`; the pixels are those of whole images.
    """

    rule: str
    classes: tuple[str, ...]
    figures: NDArray[np.int64]


@dataclass(frozen=True)
class CountEffects:
    """The work of one sample: fuse, decide, and clean as a vote does, and count what each rule changed."""

    inputs: Inputs
    decision: Decision
    rules: tuple[Rule, ...]

    def __call__(self, item: Item) -> NDArray[np.int64]:
        """Return the figures of every rule and class, int64 (rules, classes, 6)."""
        scores, classes = open_sample(self.inputs, item.sample), self.inputs.classes
        decided, kept = self.decision(scores), self.decision.written(classes)
        masks = [decided.mask(classes.index(name), scores.image) for name in kept]
        void = self.inputs.void(item.sample)
        masks = masks if void is None else [mask - void for mask in masks]
        geometry = self.inputs.geometry(item.sample)
        sample = Decided(kept, masks, scores, geometry if isinstance(geometry, Geometry) else None)
        nowhere = Runs.empty(scores.image) if self.decision.excludes(self.inputs) else None
        out = np.zeros((len(self.rules), len(kept), len(FIGURES)), np.int64)
        for k, rule in enumerate(self.rules):
            before = list(sample.masks)
            clean(sample, (rule,), nowhere)
            for c, (old, new) in enumerate(zip(before, sample.masks, strict=True)):
                out[k, c] = _figures(old, new, rule.neighbours(scores.image))
        return out


def _figures(old: Runs, new: Runs, neighbours: int) -> tuple[int, ...]:
    both = old.overlap(new)
    several = components(old, neighbours)
    if old == new:
        return 0, 0, several, several, 0, 0
    return (
        old.area - both, new.area - both, several, components(new, neighbours), 1, int(old.area > 0 and not new.area),
    )  # fmt: skip


def components(runs: Runs, neighbours: int | None = None) -> int:
    """Count the connected components of a mask; by default over all neighbours."""
    from ensemble_kit.kernels import components as kernels

    own = NEIGHBOURS[len(runs.shape)][-1] if neighbours is None else neighbours
    return int(kernels.components(runs.starts, runs.ends, *runs.shape[-2:], own)[3].size)


def effects_of(vote: SoftVote, executor: Executor = THREADS, listener: Listener = nobody) -> Sequence[Effect]:
    """Count over all samples of a vote what each of its rules did."""
    e = vote.ensemble
    kept, total = vote.decision.written(e.classes), None
    for found in executor.map(
        CountEffects(e.inputs, vote.decision, vote.rules), Items(e.samples), "cleaning", listener
    ):
        total = found if total is None else total + found
    assert total is not None
    return [Effect(str(rule), kept, own) for rule, own in zip(vote.rules, total, strict=True)]
