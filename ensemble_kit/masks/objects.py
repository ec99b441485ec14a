"""Objects of a mask: its connected components, and the union of many rows that are one object each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def components(mask: Runs) -> list[Runs]:
    """Split a mask into its connected components, in the order of their first pixels.

    Pixels that touch by a corner are connected (8 neighbours, 26 in a volume), as for the rules of post-processing and
    for `skimage.measure.label`; `scipy.ndimage.label` takes 4 and 6 by default.

    Examples
    --------
    >>> [part.text() for part in components(Runs([0, 5, 7], [1, 6, 8], (2, 4)))]
    ['1 1 6 1', '8 1']
    """
    from ensemble_kit.kernels import components as kernels

    if not mask:
        return []
    neighbours = 8 if len(mask.shape) == 2 else 26
    starts, ends, labels, areas = kernels.components(mask.starts, mask.ends, *mask.shape[-2:], neighbours)
    order = np.argsort(labels, kind="stable")
    starts, ends, labels = starts[order], ends[order], labels[order]
    first = _first_of_group((starts[1:] > ends[:-1]) | (labels[1:] != labels[:-1]), starts.size)
    last = np.append(first[1:], True)[: starts.size]  # a run that was cut at a row's end is one again
    offsets = np.append(0, np.cumsum(np.bincount(labels[first], minlength=areas.size)))
    return ManyRuns(starts[first], ends[last], offsets).masks(mask.shape)


def united(rows: ManyRuns, owners: Sequence[int], pixels: Sequence[int]) -> tuple[ManyRuns, str]:
    """Unite the rows of each mask.

    Parameters
    ----------
    rows : runs of each row.
    owners : which mask each row belongs to.
    pixels : of the image of each mask.

    Returns
    -------
    The runs of the masks, and what was united, in words.
    """
    count, of_rows = len(pixels), np.diff(rows.offsets)
    if sum(pixels) + count >= 2**62:
        what, item = "cannot unite rows: a row is an object", f"{sum(pixels)} pixels in all images together"
        raise DamagedError("image-too-large", what, item=item, fix="check the sizes of the images, or read fewer rows")
    bases = np.append(0, np.cumsum(np.array(pixels, np.int64) + 1))  # a pixel apart, so that masks stay apart
    at = np.repeat(bases[np.asarray(owners, np.int64)], of_rows)
    starts = rows.starts + at
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], (rows.ends + at)[order]
    del at, order
    np.maximum.accumulate(reach, out=reach)
    first = _first_of_group(starts[1:] > reach[:-1], starts.size)
    last = np.append(first[1:], True)[: starts.size]
    begins, stops = starts[first], reach[last]
    mask = np.searchsorted(bases, begins, side="right") - 1
    made = ManyRuns(begins - bases[mask], stops - bases[mask], np.searchsorted(mask, np.arange(count + 1)))
    return made, _told(rows, made, owners, of_rows)


def _first_of_group(apart: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    return np.append(True, apart)[:size]


def _told(rows: ManyRuns, made: ManyRuns, owners: Sequence[int], of_rows: NDArray[np.int64]) -> str:
    """Say how many objects there are, and how many pixels lie in several."""
    count = made.offsets.size - 1
    owner = np.repeat(np.asarray(owners, np.int64), of_rows)
    drawn = np.bincount(owner, rows.ends - rows.starts, count).astype(np.int64)
    covered = np.bincount(np.repeat(np.arange(count), np.diff(made.offsets)), made.ends - made.starts, count)
    twice = drawn - covered.astype(np.int64)
    objects, masks = int((of_rows > 0).sum()), len(np.unique(owner))
    overlapping = (
        f"; objects of {_count(int((twice > 0).sum()), 'mask')} overlap, by {_count(int(twice.sum()), 'pixel')}"
    )
    return f"{_count(objects, 'object')} in {_count(masks, 'mask')}{overlapping if twice.any() else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
