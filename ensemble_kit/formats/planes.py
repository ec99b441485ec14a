"""Bitmaps of whole planes as files hold them: only two values may stand in a binary one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, some
from ensemble_kit.masks.runs import Runs, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray


def runs_of_plane(plane: NDArray[Any], where: str) -> Runs:
    """Encode a binary plane, bool or integer (H, W), whose values are {0, 1} or {0, 255}.

    Raises
    ------
    DamagedError
        Any other value: the plane may be probabilities, labels, or a mask with soft edges.
    """
    if plane.dtype == np.bool_:
        return encode(plane)
    if plane.dtype.kind not in "ui":
        raise _refused(where, f"is {plane.dtype}, not bool or integer")
    top = int(plane.max())
    if top not in {0, 1, 255} or int(plane.min()) < 0 or (top == 255 and bool(((plane != 0) & (plane != 255)).any())):
        raise _refused(where, f"holds the values {some(np.unique(plane).tolist())}")
    return encode(plane)


def _refused(where: str, why: str) -> DamagedError:
    return DamagedError(
        "mask-values",
        "cannot read a binary mask",
        item=f"{where} {why}; wanted are {{0, 1}} or {{0, 255}}",
        fix="write 0 and 255 (threshold soft masks); for labels pass --format indexed-png",
    )
