"""A second copy of a committed sample, as distributed samplers make them: whether it can be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import differ as differing
from ensemble_kit.spec.geometry import as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.records import Record
    from ensemble_kit.logits.samplearray import SampleArray

COMPARED = 16
"""Copies of a writer whose logits are read and compared: a share is padded by a few, a resumed run repeats all."""
_LEAST = 0.01  # of the variance; another batch size or bf16 change 1e-4 of it at most, another image a tenth and more
_ROUNDING = 1e-3  # mean square of what is taken for rounding where logits hardly vary


def check(there: Record, copy: SampleArray, store: object) -> None:
    """Refuse a copy that lies on another grid, or is of an image of another size, window, geometry or nodata.

    Raises
    ------
    MismatchError
        It names both.
    """
    if there.array == copy:
        return
    raise differing(
        "cannot skip a second copy of a sample that is of another image",
        f"sample {there.sample!r} in {store}",
        f"{_told(there.array, copy)} is there",
        f"{_told(copy, there.array)} came now",
        "give each image an id of its own, and a store for each way of preparing images",
        "duplicate-differs",
    )


def differ(copy: NDArray[np.float16], there: NDArray[np.float16]) -> bool:
    """Tell whether logits (C, h, w) are others than the same network puts out for the same image in another batch.

    The mean square of the difference is compared with the variance of both, each class around its own mean.
    """
    if np.array_equal(copy, there):
        return False
    a, b = (np.clip(v.astype(np.float32).reshape(len(v), -1), -16, 16) for v in (copy, there))
    variance = a.var(axis=1).sum() + b.var(axis=1).sum()
    return bool(((a - b) ** 2).mean(axis=1).sum() > _LEAST * variance + _ROUNDING * len(a))


def _told(array: SampleArray, other: SampleArray) -> str:
    """Say what one of two has, where they differ."""
    own, its = array.placement, other.placement
    told = [f"an image of {as_text(own.image)} on a grid of {as_text(own.grid)}"]
    told += [f"box {tuple(own.box)}"] if own.box != its.box and own.grid == its.grid else []
    told += [f"window {None if own.window is None else tuple(own.window)}"] if own.window != its.window else []
    told += [f"axes {list(own.axes or ())}"] if own.axes != its.axes else []
    if array.geometry != other.geometry:
        told.append("no geometry" if array.geometry is None else array.geometry.as_text())
    told += [f"{0 if array.mosaic is None else len(array.mosaic.boxes)} tiles"] if array.mosaic != other.mosaic else []
    return ", ".join(told)
