"""Bitmaps as files hold them: a binary one holds two values only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, some
from ensemble_kit.masks.runs import Runs, encode, of_slices
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


def runs_of_bitmap(bitmap: NDArray[Any], where: str) -> Runs:
    """Encode a binary bitmap, bool or integer (H, W), whose values are {0, 1} or {0, 255}.

    Raises
    ------
    DamagedError
        Any other value: the bitmap may be probabilities, labels, or a mask with soft edges.
    """
    _check(bitmap, where)
    return encode(bitmap)


def runs_of_bands(bands: Iterable[NDArray[Any]], shape: Shape, where: str) -> Runs:
    """Encode a binary image (H, W) whose rows come some at a time; raise as `runs_of_bitmap` does."""
    tops, parts, at = set[int](), list[Runs](), 0
    for band in bands:
        tops.add(_check(band, where))
        own = encode(band)
        parts.append(Runs(own.starts + at, own.ends + at, shape))
        at += band.size
    if {1, 255} <= tops:
        raise _refused(where, "holds the values 1 and 255")
    starts, ends = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "ends"))
    return Runs(starts, ends, shape)


def runs_of_volume(slices: Iterable[NDArray[Any]], shape: Shape, where: str) -> Runs:
    """Encode a binary volume (D, H, W) whose slices come one after the other; raise as `runs_of_bitmap` does."""
    tops = set[int]()

    def checked() -> Iterator[NDArray[Any]]:
        for bitmap in slices:
            tops.add(_check(bitmap, where))
            yield bitmap

    found = of_slices(checked(), shape)
    if {1, 255} <= tops:
        raise _refused(where, "holds the values 1 and 255")
    return found


def _check(bitmap: NDArray[Any], where: str) -> int:
    """Refuse values that are not those of a binary mask; return the highest."""
    if bitmap.dtype == np.bool_:
        return 1
    if bitmap.dtype.kind not in "ui":
        raise _refused(where, f"is {bitmap.dtype}, not bool or integer")
    top = int(bitmap.max())
    sound = top in {0, 1, 255} and int(bitmap.min()) >= 0
    if not sound or (top == 255 and bool(((bitmap != 0) & (bitmap != 255)).any())):
        raise _refused(where, f"holds the values {some(np.unique(bitmap).tolist())}")
    return top


def _refused(where: str, why: str) -> DamagedError:
    item = f"{where} {why}; the values have to be {{0, 1}} or {{0, 255}}"
    fix = "write 0 and 255 (threshold soft masks); for one label a pixel pass --format label-map"
    return DamagedError("mask-values", "cannot read a binary mask", item=item, fix=fix)
