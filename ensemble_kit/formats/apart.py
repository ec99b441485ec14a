"""Formats that keep all classes in one label map where they lie apart, and each by itself where they overlap.

Masks may come in pieces, so a writer begins with label maps, and takes those that it wrote apart at the first overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kit.errors import Caution, DamagedError, some
from ensemble_kit.formats.maskformat import Telling
from ensemble_kit.formats.volume_files import binary
from ensemble_kit.masks.labelmaps import LabelMap, overlap_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs

ON, VOID = 1, 255
"""Values of a class that is kept by itself, and of pixels that do not count."""


def overlaps(masks: MaskSet, sample: str) -> bool:
    """Tell whether two classes of a sample share a pixel."""
    return overlap_of(masks.packed, masks.indices((sample,), masks.classes)) is not None


def parted(found: LabelMap, where: str) -> tuple[Runs, Runs]:
    """Return the pixels of a class that is kept by itself, and those that do not count.

    Raises
    ------
    DamagedError
        Other values.
    """
    if odd := sorted(set(found.counts()) - {0, ON, VOID}):
        item, fix = f"{where} holds the values {some(odd, 12)}", f"write 0, {ON} where the class is, and {VOID} as void"
        raise DamagedError("mask-values", "cannot read the mask of a class", item=item, fix=fix)
    return binary(found, where, [ON]), binary(found, where, [VOID])


class TogetherOrApart(Telling):
    """Says how classes were kept, once all masks were seen.

    Parameters
    ----------
    together : says the value of each class in label maps.
    apart : what is said where classes overlap.
    painted : whether classes are drawn over each other, and so are never kept apart.
    also : what is said beside either.
    """

    def __init__(self, together: Telling, apart: str, painted: bool, also: str = "") -> None:
        self._together, self._words, self._painted, self._apart, self._also = together, apart, painted, False, also

    def add(self, masks: MaskSet) -> None:
        """Look for classes that overlap."""
        self._together.add(masks)
        self._apart = self._apart or not (self._painted or masks.exclusive)

    def told(self) -> str:
        """Say which of the two it is."""
        told = self._words if self._apart else self._together.told()
        return f"{told}; {self._also}" if self._also else told

    def doubts(self) -> Sequence[Caution]:
        """Return those of label maps."""
        return self._together.doubts()
