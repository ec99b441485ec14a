"""Margins of zeros: a crop that was padded back to its image's size, whose padding would be read as predictions.

A logit of 0 is the probability 0.5, which is on at the threshold 0.5; where all classes of a softmax are equal, the
first one wins. Inverse transforms (MONAI's Invertd) and crops that are pasted into an array of zeros make such margins.
A network does not put out a whole edge of values that are exactly 0 in every class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError
from ensemble_kit.logits import ingest
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.spec.geometry import Box, Placement
from ensemble_kit.spec.void import hides, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.floats import Floats
    from ensemble_kit.logits.plausible import Domain
    from ensemble_kit.spec.fusion import Activation

_FEW = 64
_LINES = ("slices", "rows", "columns")


class Extent:
    """The box of the cells whose logits say something, found slab by slab, from the first slice to the last.

    Edges are read until a value is found that says something, so that a sample without a margin costs a few rows.

    Parameters
    ----------
    box : the cells that are looked at.
    equal : whether a cell says nothing where its classes are equal, as softmax probabilities are that were padded
        before their activation; otherwise where all are 0.

    Examples
    --------
    >>> extent = Extent(Box(0, 0, 2, 3))
    >>> extent.add(np.array([[[0, 0, 1], [0, 0, 0]]], np.float16))
    >>> extent.found
    (0, 2, 1, 3)
    """

    def __init__(self, box: Box, equal: bool = False) -> None:
        self.box, self._equal = box, equal
        self._low, self._high = list(box.stop), list(box.start)

    @property
    def found(self) -> Box:
        """The box; its edges are reversed where nothing was found."""
        return Box(*self._low, *self._high)

    @property
    def is_blank(self) -> bool:
        """Whether nothing was found."""
        return self._low[0] >= self._high[0]

    def add(self, codes: NDArray[np.float16], first: Sequence[int] = (0, 0)) -> None:
        """Look at a slab (C, ...), whose first cell is `first` of the grid."""
        start = [max(a, f) for a, f in zip(self.box.start, first, strict=True)]
        stop = [min(b, f + n) for b, f, n in zip(self.box.stop, first, codes.shape[1:], strict=True)]
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return
        part = codes[:, *(slice(a - f, b - f) for a, b, f in zip(start, stop, first, strict=True))]
        whole = True
        for axis, (a, b) in enumerate(zip(start, stop, strict=True)):
            across = np.moveaxis(part, axis + 1, 1)
            if a < self._low[axis] and self._speaks(across[:, 0]):
                self._low[axis] = a
            if b > self._high[axis] and self._speaks(across[:, -1]):
                self._high[axis] = b
            whole = whole and self._low[axis] <= a and self._high[axis] >= b
        if whole:
            return
        said: NDArray[np.bool_] = np.asarray((part != part[:1] if self._equal else part != 0).any(axis=0))
        for axis in range(said.ndim) if said.any() else ():
            along = np.flatnonzero(said.any(axis=tuple(k for k in range(said.ndim) if k != axis)))
            self._low[axis] = min(self._low[axis], start[axis] + int(along[0]))
            self._high[axis] = max(self._high[axis], start[axis] + int(along[-1]) + 1)

    def _speaks(self, face: NDArray[np.float16]) -> bool:
        if self._equal:
            return any(bool((one != face[0]).any()) for one in face[1:])
        # few values nearly always do: all of a slice take 60 us
        return any(bool(one.flat[:_FEW].any()) or bool(one.any()) for one in face)


class Margins:
    """What the slabs of one sample say, or each tile of a scene.

    Parameters
    ----------
    array : of the sample; what lies outside its box is not looked at.
    activation, domain : of the classes, and what the arrays held before they became logits.
    """

    def __init__(self, array: SampleArray, activation: Activation, domain: Domain) -> None:
        self._array, self._activation, self._domain = array, activation, domain
        self._equal = activation == "softmax" and domain == "probabilities"
        self._extents = [Extent(array.placement.box, self._equal)] if array.mosaic is None else []
        self._slices = 0

    def add(self, codes: NDArray[np.float16]) -> None:
        """Look at the next slab (C, n, h, w), the next tile (C, 1, h, w), or the whole image (C, h, w)."""
        if self._array.mosaic is None:
            self._extents[0].add(codes, (self._slices, 0, 0) if self._array.has_slabs else (0, 0))
            self._slices += codes.shape[1]
            return
        tile, box = self._array.mosaic.boxes[len(self._extents)], self._array.placement.box
        edges = zip((max, max, min, min), tile, box, strict=True)
        self._extents.append(Extent(Box(*(choose(a, b) for choose, a, b in edges)), self._equal))
        h, w = tile.shape
        self._extents[-1].add(codes[:, 0, :h, :w], tile.start)

    def check(self, sample: str, fix: str = "") -> None:
        """Refuse a margin that says nothing, once all slabs were looked at; a sample that is all 0 is allowed.

        Parameters
        ----------
        fix : what to do; default: what mends a sample that is written.

        Raises
        ------
        DamagedError
            Whole edges of the sample, or of a tile, say nothing, or a whole tile does not.
        """
        asked = [k for k, extent in enumerate(self._extents) if min(extent.box.shape) > 0]
        padded = [k for k in asked if self._extents[k].found != self._extents[k].box]
        if self._array.void:  # pipelines put zeros where the image holds no data, which no answer shows
            place = self._array.placement
            void = unpack(self._array.void, place.image)
            padded = [k for k in padded if not all(hides(void, edge, place) for edge in _outside(self._extents[k]))]
        if not padded or all(self._extents[k].is_blank for k in asked):
            return
        extent, tiled = self._extents[padded[0]], self._array.mosaic is not None
        item, mend = f"sample {sample!r}", _fix(extent, self._array.placement, self._activation, self._domain)
        if tiled:
            item += f", tile {padded[0]}" + (f" (and {len(padded) - 1} more)" if len(padded) > 1 else "")
            mend = "pass the cells of each tile that the network saw, with their box; leave out tiles without any"
        which = "0.5 in all classes, a logit of 0" if self._domain == "probabilities" else "0 in all classes"
        if self._equal:
            which = f"{1 / self._array.classes:.4g} in all classes, equal in each of the {self._array.classes}"
        takes = "the first class wins" if self._activation == "softmax" else "every class is on at 0.5"
        raise DamagedError(
            "logits-padded",
            f"cannot take an array for {self._domain}: it has a margin where {takes}",
            item=f"{item}: {_edges(extent)} are exactly {which}",
            fix=fix or f"{mend}; or checked=True (--checked) if the network itself put this margin out",
        )


def check_array(
    array: Floats, name: str, classes: Sequence[str], domain: Domain, activation: Activation, fix: str
) -> None:
    """Refuse a margin of an array (C, h, w) or (C, d, h, w) that no store holds; raise as `Margins.check` does."""
    first = array.class_map(0)
    faces = [np.moveaxis(first, axis, 0)[k] for axis in range(first.ndim) for k in (0, -1)]
    if all(face.min() < face.max() for face in faces):
        return  # a margin is one value on a whole face, of every class
    grid = array.shape[1:]
    own = SampleArray(len(classes), Placement.of(grid, grid), own=True, depth=grid[0] if len(grid) == 3 else 0)
    found = Margins(own, activation, domain)
    found.add(ingest.slab(array, name, classes, domain, activation, seen=True).codes)
    found.check(name, fix)


def _outside(extent: Extent) -> list[Box]:
    """Cut what is outside of the cells that hold something into boxes: above, below, to the left and to the right."""
    (top, left, foot, right), (y0, x0, y1, x1) = extent.box, extent.found
    if extent.is_blank:
        return [extent.box]
    boxes = [(top, left, y0, right), (y1, left, foot, right), (y0, left, y1, x0), (y0, x1, y1, right)]
    return [Box(*edges) for edges in boxes if edges[0] < edges[2] and edges[1] < edges[3]]


def _edges(extent: Extent) -> str:
    """Say which lines of cells hold nothing, from 0 on each axis, and how many cells that are."""
    box, found = extent.box, extent.found
    if extent.is_blank:
        return f"all {math.prod(box.shape)} cells"
    told = []
    for name, a, low, high, b in zip(_LINES[-len(box.shape) :], box, found, found.stop, box.stop, strict=False):
        ends = [(first, last - 1) for first, last in ((a, low), (high, b)) if first < last]
        spans = [f"{first} to {last}" if first < last else f"{first}" for first, last in ends]
        told += [f"{name} {' and '.join(spans)}"] if spans else []
    count, total = math.prod(box.shape) - math.prod(found.shape), math.prod(box.shape)
    return f"{', '.join(told)} ({count} of {total} cells)"


def _fix(extent: Extent, place: Placement, activation: Activation, domain: Domain) -> str:
    """Say with which box and window the cells that hold something are written."""
    box, found, pixels = place.box, extent.found, place.covered
    sides = list(zip(box.start, box.shape, pixels.start, pixels.shape, strict=True))
    window = [
        p + (2 * (cell - a) * size + cells) // (2 * cells)  # rounded
        for edges in (found.start, found.stop)
        for cell, (a, cells, p, size) in zip(edges, sides, strict=True)
    ]
    fix = f"pass box={tuple(found)}, window={tuple(window)}, the cells and pixels that the network saw, to "
    fix += "LogitWriter.write of a store made with grid=None; "
    fix += "or box= alone where the margin is outside of the image (--resize letterbox)"
    other = "0 in place of these 0.5" if domain == "probabilities" else "-20 in place of these zeros"
    return fix if activation == "softmax" else f"{fix}; or {other}"
