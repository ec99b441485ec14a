"""What an image's values mean: from the values of a file to the 0..1 scale, or to a mean of 0 and a deviation of 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTHS = (10, 12, 14)
"""Bits of scanners and cameras that save 16: a file whose values fit one of them may well be of that depth."""
_FLAT = 1e-8  # the least deviation that is divided by, as in nnU-Net


def to_unit(pixels: NDArray[Any], limits: tuple[float, float] | None) -> NDArray[np.float32]:
    """Bring pixels to 0..1: by their type, or from `limits`, beyond which they are cut."""
    if limits is None:
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)
    low, high = limits
    return np.clip((pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def standardise(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the image's mean and divide by its standard deviation, each channel by itself; (H, W) or (H, W, c)."""
    wide = pixels.astype(np.float64)
    deviation = np.maximum(wide.std(axis=(0, 1)), _FLAT)
    return np.asarray((wide - wide.mean(axis=(0, 1))) / deviation, np.float32)


class DepthCheck:
    """Asks once whether the values of 16-bit images reach to 65535, by evidence in the images.

    Parameters
    ----------
    others : reads further images of the folder, of which one bright pixel settles the question.
    """

    def __init__(self, others: Callable[[], Iterable[NDArray[Any]]], say: Callable[[str], None]) -> None:
        self._others, self._say, self._settled = others, say, False

    def __call__(self, image: NDArray[Any], name: str) -> None:
        """Look at an image that no range was given for.

        Raises
        ------
        UsageError
            It has 16 bits, and neither it nor the others have a value that 14 bits could not hold.
        """
        if self._settled or image.dtype != np.uint16 or not image.any():
            return
        largest = int(image.max())
        if largest < 1 << DEPTHS[-1]:
            most = max((int(one.max(initial=0)) for one in self._others() if one.dtype == np.uint16), default=0)
            largest = max(largest, most)
        if largest < 1 << DEPTHS[-1]:
            bits = next(bits for bits in DEPTHS if largest < 1 << bits)
            raise UsageError(
                "range-ambiguous",
                "cannot tell the range of 16-bit images",
                item=f"{name!r} and those looked at beside it reach {largest}, as {bits}-bit scans do",
                fix=f"pass --range 0,{(1 << bits) - 1} for {bits} bits, --range 0,65535 if they are dark and have 16",
            )
        self._settled = True
        self._say(f"16-bit images: values are divided by 65535 (those seen reach {largest}); --range LO,HI for others")


def check_window(image: NDArray[Any], name: str, window: tuple[float, float] | None, low: float, high: float) -> None:
    """Refuse a window that begins below 0 on images that hold nothing there: it may be meant in other units.

    Raises
    ------
    UsageError
        It names both readings.
    """
    if window is not None and low < 0 and image.dtype.kind == "u":
        raise UsageError(
            "window-ambiguous",
            "cannot tell the units of a window",
            item=f"--window {window[0]:g},{window[1]:g} reaches from {low:g} to {high:g}, as of Hounsfield units; "
            f"{name!r} is {image.dtype}, which holds nothing below 0, and reaches from {image.min()} to {image.max()}",
            fix=f"pass --range {low:g},{high:g} if it is meant in the values of the files, else the window in those "
            "values, or images that hold Hounsfield units, such as TIFF of floats",
        )
