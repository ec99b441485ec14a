"""`MaskStream`: masks that are made while they are written, some samples at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.idforms import IdForm, names_in
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.georeference import WorldGeometry

MASKS, RUNS = 256, 1 << 18
"""Masks of a piece, as many as a CSV formats in one call; and runs after which a piece ends all the same: 4 MB."""

Make = Callable[[Sequence[str]], Iterator[MaskSet]]
"""Makes the masks of these samples, in this order, some samples at a time."""


class MaskStream:
    """Masks whose names and sizes are known, and which are made in pieces as a file takes them.

    Parameters
    ----------
    extent : the classes, and the samples with the sizes of their images, in order.
    make : makes the masks of some of the samples, of all classes in their order; called by each `pieces`.
    rule : how the masks are made, in words.

    Examples
    --------
    >>> from ensemble_kit import Runs
    >>> masks = MaskSet({("a", "bone"): Runs([0], [2], (2, 2)), ("b", "bone"): Runs([3], [4], (2, 2))})
    >>> stream = MaskStream(masks.extent, lambda samples: (masks.arranged([s], ("bone",)) for s in samples))
    >>> [piece.samples for piece in stream.arranged(["b", "a"], ["bone"]).pieces()]
    [('b',), ('a',)]
    """

    def __init__(self, extent: Extent, make: Make, rule: str | None = None) -> None:
        self.samples, self.classes, self.rule = tuple(extent.sizes), extent.classes, rule
        self.extent, self._make = extent, make

    @classmethod
    def of(cls, masks: MaskSet) -> MaskStream:
        """Give masks that are made already, as one piece."""
        return cls(masks.extent, lambda samples: iter([masks.arranged(samples, masks.classes)]), masks.rule)

    def image_size(self, sample: str) -> Shape:
        """Return the size of a sample's image, (H, W)."""
        return self.extent.sizes[sample]

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a sample's volume lies in the world, or its scene on the Earth; None where nothing says it."""
        return self.extent.geometry.get(sample)

    def pieces(self) -> Iterator[MaskSet]:
        """Make the masks: those of some samples at a time, in the order of `samples`."""
        return self._make(self.samples)

    def whole(self) -> MaskSet:
        """Make the masks of all samples, and hold them."""
        found = list(self.pieces())
        whole = found[0] if len(found) == 1 else joined(found, self.classes, self.rule)
        return whole.within(self.extent)

    def arranged(self, samples: Sequence[str], classes: Sequence[str]) -> MaskStream:
        """Return the masks of these samples and classes, to be made in this order."""
        extent = self.extent.arranged(samples, classes)
        if extent.classes == self.classes:
            return MaskStream(extent, self._make, self.rule)
        make, names = self._make, extent.classes  # the stream that is arranged is not kept
        return MaskStream(extent, lambda s: (p.arranged(p.samples, names) for p in make(s)), self.rule)

    def renamed(self, form: IdForm, like: Sequence[str] | None = None) -> MaskStream:
        """Return the same masks under the ids of `MaskSet.renamed`."""
        new = names_in(self.samples, form, like)
        old, make = {name: sample for sample, name in new.items()}, self._make
        extent = self.extent.called(new)
        return MaskStream(extent, lambda s: (p.called(new) for p in make([old[name] for name in s])), self.rule)

    def without_void(self) -> MaskStream:
        """Return the same masks, with every pixel counting."""
        make = self._make
        return MaskStream(self.extent, lambda samples: (piece.without_void() for piece in make(samples)), self.rule)

    def watched(self, *looks: Callable[[MaskSet], object]) -> MaskStream:
        """Return the same masks, each piece of which is shown to these before it is taken."""

        def make(samples: Sequence[str]) -> Iterator[MaskSet]:
            for piece in self._make(samples):
                for look in looks:
                    look(piece)
                yield piece

        return MaskStream(self.extent, make, self.rule)


Masks = MaskSet | MaskStream
"""What a format writes: masks that are held, or made meanwhile."""


def by_sample(masks: Masks) -> Iterator[tuple[MaskSet, str]]:
    """Give each sample in order, with masks that hold its own."""
    return ((piece, sample) for piece in masks.pieces() for sample in piece.samples)


def pieces_of(
    found: Iterable[tuple[str, Shape, ManyRuns]], classes: tuple[str, ...], rule: str | None = None
) -> Iterator[MaskSet]:
    """Put samples, as they come, into pieces that are worth a call of a kernel.

    Parameters
    ----------
    found : id, size and masks of each sample, those of all classes in their order.
    """
    sizes, several, runs = dict[str, Shape](), list[ManyRuns](), 0
    for sample, size, many in found:
        sizes[sample] = size
        several.append(many)
        runs += many.starts.size
        if len(several) * len(classes) >= MASKS or runs >= RUNS:
            yield _piece(sizes, classes, several, rule)
            sizes, several, runs = {}, [], 0
    if several:
        yield _piece(sizes, classes, several, rule)


def joined(pieces: Sequence[MaskSet], classes: tuple[str, ...], rule: str | None = None) -> MaskSet:
    """Put the samples of several mask sets of the same classes one after the other."""
    sizes = {sample: piece.image_size(sample) for piece in pieces for sample in piece.samples}
    void = {sample: piece.void(sample) for piece in pieces if piece.has_void for sample in piece.samples}
    firsts = np.cumsum([0, *(piece.packed.offsets.size - 1 for piece in pieces)])
    indices = [p.indices(p.samples, classes) + first for p, first in zip(pieces, firsts[:-1], strict=True)]
    rows = np.concatenate([np.zeros((0, len(classes)), np.int64), *indices])
    geometry, windows = (
        {sample: own for piece in pieces for sample, own in getattr(piece.extent, name).items()}
        for name in ("geometry", "windows")
    )
    whole = MaskSet.trusted(sizes, classes, ManyRuns.joined([p.packed for p in pieces]), rows, rule, void)
    return whole.within(Extent(classes, sizes, geometry, windows))


def _piece(
    sizes: Mapping[str, Shape], classes: tuple[str, ...], several: Sequence[ManyRuns], rule: str | None
) -> MaskSet:
    indices = np.arange(len(several) * len(classes)).reshape(len(several), len(classes))
    return MaskSet.trusted(sizes, classes, ManyRuns.joined(several), indices, rule)
