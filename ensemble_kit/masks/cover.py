"""How many classes the pixels of an image have: none, one, or several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemble_kit.masks.maskset import MaskSet


class Cover(NamedTuple):
    """Shares of all pixels, in [0, 1]."""

    none: float
    several: float

    def __str__(self) -> str:
        return f"{self.none:.2%} of the pixels have no class, {self.several:.2%} have two or more"


class Covering:
    """Counts of pixels by how many classes they have, over masks that are looked at some samples at a time."""

    def __init__(self) -> None:
        self._pixels = self._none = self._several = 0

    def add(self, masks: MaskSet) -> None:
        """Count, run by run, the pixels of these samples."""
        for sample in masks.samples:
            own = [masks[sample, name] for name in masks.classes]
            size = int(np.prod(masks.image_size(sample)))
            edges = np.concatenate([*(m.starts for m in own), *(m.ends for m in own), [0, size]])
            change = np.repeat([1, -1, 0], [sum(m.starts.size for m in own), sum(m.ends.size for m in own), 2])
            order = edges.argsort(kind="stable")
            depth, lengths = change[order].cumsum()[:-1], np.diff(edges[order])
            self._pixels += size
            self._none += int(lengths[depth == 0].sum())
            self._several += int(lengths[depth > 1].sum())

    @property
    def bare(self) -> int:
        """Count of the pixels so far that no class has."""
        return self._none

    @property
    def shares(self) -> Cover:
        """The shares so far."""
        pixels = self._pixels
        return Cover(self._none / pixels, self._several / pixels) if pixels else Cover(0.0, 0.0)


def cover(masks: MaskSet) -> Cover:
    """Count the pixels of all samples that no class has, and those that several have.

    Examples
    --------
    >>> from ensemble_kit import MaskSet, Runs
    >>> cover(MaskSet({("x", "a"): Runs([0], [4], (2, 4)), ("x", "b"): Runs([3], [6], (2, 4))}))
    Cover(none=0.25, several=0.125)
    """
    counted = Covering()
    counted.add(masks)
    return counted.shares
