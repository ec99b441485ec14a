"""`Truth`: the true masks of one sample and the pixels that do not count, as the work on a sample takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.execution.executor import Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Truth(NamedTuple):
    """The truth of some classes of one sample (docs/concepts.md#rule-12-void).

    Counting never has to know both at once: pixels that count are all pixels without the void ones, and the void ones
    among some pixels are their hits with void in place of a true mask.
    """

    masks: list[Runs]
    """The classes' true masks, without void pixels."""
    void: Runs | None = None
    """The pixels that do not count; None where all do."""

    @classmethod
    def of(cls, truth: MaskSet, sample: str, classes: Sequence[str]) -> Truth:
        """Take them from a mask set, in this order of classes."""
        masks = [truth[sample, name] for name in classes]
        void = truth.void(sample) if truth.has_void else None
        return cls([mask - void for mask in masks], void) if void else cls(masks)


def items_with_truth(samples: Sequence[str], truth: MaskSet, classes: Sequence[str]) -> Items:
    """Make the items of a pass, each with its sample's `Truth` of these classes."""
    return Items(samples, lambda sample: Truth.of(truth, sample, classes))


def true_areas(samples: Sequence[str], truth: MaskSet, classes: Sequence[str]) -> NDArray[np.int64]:
    """Count the true pixels that are not void, int64 (classes, samples)."""
    if not truth.has_void:
        return truth.packed.areas()[truth.indices(samples, classes)].T
    rows = [[mask.area for mask in Truth.of(truth, sample, classes).masks] for sample in samples]
    return np.array(rows, np.int64).reshape(len(samples), len(classes)).T
