"""Bitmaps as files hold them: a binary one holds two values only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, some
from ensemble_kit.masks.runs import Runs, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray


def runs_of_bitmap(bitmap: NDArray[Any], where: str) -> Runs:
    """Encode a binary bitmap, bool or integer (H, W), whose values are {0, 1} or {0, 255}.

    Raises
    ------
    DamagedError
        Any other value: the bitmap may be probabilities, labels, or a mask with soft edges.
    """
    if bitmap.dtype == np.bool_:
        return encode(bitmap)
    if bitmap.dtype.kind not in "ui":
        raise _refused(where, f"is {bitmap.dtype}, not bool or integer")
    top = int(bitmap.max())
    sound = top in {0, 1, 255} and int(bitmap.min()) >= 0
    if not sound or (top == 255 and bool(((bitmap != 0) & (bitmap != 255)).any())):
        raise _refused(where, f"holds the values {some(np.unique(bitmap).tolist())}")
    return encode(bitmap)


def _refused(where: str, why: str) -> DamagedError:
    item = f"{where} {why}; the values have to be {{0, 1}} or {{0, 255}}"
    fix = "write 0 and 255 (threshold soft masks); for one label a pixel pass --format label-map"
    return DamagedError("mask-values", "cannot read a binary mask", item=item, fix=fix)
