"""`ManyRuns`: the runs of many masks one after the other, for one call of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.rle import Order, check_options
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ManyRuns(NamedTuple):
    """Runs of many masks one after the other, as kernels take and give them: one call for all, no object a mask."""

    starts: NDArray[np.int64]
    """First position of each run, int64 (n,)."""
    ends: NDArray[np.int64]
    """Position behind each run, int64 (n,)."""
    offsets: NDArray[np.int64]
    """Where each mask's runs begin, and the end of the last one's, int64 (masks + 1,)."""

    @classmethod
    def of(cls, masks: Sequence[Runs]) -> ManyRuns:
        """Copy the runs of many masks into one."""
        none, offsets = np.zeros(0, np.int64), np.zeros(len(masks) + 1, np.int64)
        starts, ends = [m.starts for m in masks], [m.ends for m in masks]
        np.cumsum([s.size for s in starts], out=offsets[1:])
        return cls(np.concatenate(starts or [none]), np.concatenate(ends or [none]), offsets)

    @classmethod
    def joined(cls, several: Sequence[ManyRuns]) -> ManyRuns:
        """Put the masks of several one after the other."""
        if not several:
            return cls.of([])
        starts, ends, counts = zip(*((m.starts, m.ends, np.diff(m.offsets)) for m in several), strict=True)
        return cls(np.concatenate(starts), np.concatenate(ends), np.cumsum(np.concatenate([[0], *counts])))

    @classmethod
    def continued(cls, parts: Sequence[ManyRuns]) -> ManyRuns:
        """Join the same masks of one range of positions after the other; runs that meet become one."""
        if len(parts) == 1:
            return parts[0]
        of = np.concatenate([np.repeat(np.arange(p.offsets.size - 1), np.diff(p.offsets)) for p in parts])
        order = np.argsort(of, kind="stable")
        owners, starts, ends = of[order], *(np.concatenate([p[k] for p in parts])[order] for k in (0, 1))
        apart = np.ones(owners.size + 1, np.bool_)
        apart[1:-1] = (owners[1:] != owners[:-1]) | (starts[1:] != ends[:-1])
        offsets = np.searchsorted(owners[apart[:-1]], np.arange(parts[0].offsets.size))
        return cls(starts[apart[:-1]], ends[apart[1:]], offsets)

    def between(self, first: int, stop: int) -> ManyRuns:
        """Cut every mask to the positions `first … stop - 1`."""
        cuts = list(zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True))
        begins = [a + int(np.searchsorted(self.ends[a:b], first, "right")) for a, b in cuts]
        stops = [a + int(np.searchsorted(self.starts[a:b], stop)) for a, b in cuts]
        kept = [slice(a, max(a, b)) for a, b in zip(begins, stops, strict=True)]
        none = np.zeros(0, np.int64)
        starts, ends = (np.concatenate([v[own] for own in kept] or [none]) for v in (self.starts, self.ends))
        offsets = np.cumsum([0, *(own.stop - own.start for own in kept)])
        return ManyRuns(np.maximum(starts, first), np.minimum(ends, stop), offsets)

    def areas(self) -> NDArray[np.int64]:
        """Count the pixels of every mask, int64 (masks,)."""
        before = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        return np.diff(before[self.offsets])

    def masks(self, shape: Shape) -> list[Runs]:
        """View every mask, all of one size."""
        return [self.mask(index, shape) for index in range(self.offsets.size - 1)]

    def mask(self, index: int, shape: Shape) -> Runs:
        """View one mask."""
        begin, end = self.offsets[index : index + 2].tolist()
        return Runs.trusted((self.starts[begin:end], self.ends[begin:end]), shape)


def texts(masks: Sequence[Runs], order: Order = "C", base: int = 1, relative: bool = False) -> list[str]:
    """Write many masks as `Runs.text` writes each, in one call.

    Examples
    --------
    >>> texts([Runs([0], [2], (2, 2)), Runs.empty((2, 2))])
    ['1 2', '']
    """
    from ensemble_kit.kernels import rle as kernels

    check_options(order, base)
    if not masks:
        return []
    many = ManyRuns.of(masks if order == "C" else [m.transposed() for m in masks])
    glue = np.full(len(masks) + kernels.PAD, ord("\n"), np.uint8)
    cuts = np.clip(np.arange(len(masks) + 2) - 1, 0, len(masks) - 1)
    written = kernels.format_texts(
        glue, cuts, many.starts, many.ends, many.offsets[:-1], many.offsets[1:], base, relative
    )
    return str(written.data, "ascii").split("\n")


def overlaps(a: Sequence[Runs], b: Sequence[Runs]) -> NDArray[np.int64]:
    """Count the pixels that are on in both masks of each pair, int64 (n,).

    Raises
    ------
    MismatchError
        The masks of a pair differ in size.

    Examples
    --------
    >>> overlaps([Runs([0], [3], (2, 2))], [Runs([2], [4], (2, 2))]).tolist()
    [1]
    """
    from ensemble_kit.kernels import runs as kernels

    found = []  # a call each: to pack all masks for one call takes longer
    for one, other in zip(a, b, strict=True):
        if one.shape != other.shape:
            one.check_same_size(other)
        found.append(kernels.overlap(one.starts, one.ends, other.starts, other.ends))
    return np.array(found, np.int64)
