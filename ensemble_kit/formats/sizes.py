"""Image sizes: what a person passes, what a file declares, and how large a plane may be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import DamagedError, MismatchError, UsageError
from ensemble_kit.spec.geometry import check_image_size

ImageSize = Sequence[int] | Mapping[str, Sequence[int]]
"""(H, W) of all samples, or a mapping of sample to (H, W)."""

PIXEL_LIMIT = 2**28
"""Most pixels of a plane that is decoded as a bitmap: a 109 KB PNG can declare 9e8 of them."""

SIDE_LIMIT = 2**20
"""Largest height or width that a file may declare; a transposition keeps one number a column."""


def parse_image_size(text: str) -> tuple[int, int]:
    """Read `HxW`, such as `2048x1024`: (H, W).

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> parse_image_size("2048x1024")
    (2048, 1024)
    """
    match = re.fullmatch(r"([0-9]{1,9})[xX×]([0-9]{1,9})", text.strip())
    if match is None:
        raise UsageError(
            "option-invalid",
            "cannot use an image size",
            item=f"--image-size {text!r}",
            fix="pass height x width in pixels, such as --image-size 2048x1024",
        )
    return check_image_size((int(match[1]), int(match[2])))


class ImageSizes:
    """The size of each sample's image, from what was passed and what the file declares.

    Parameters
    ----------
    given : (H, W), a mapping of sample to (H, W), or None.
    """

    def __init__(self, given: ImageSize | None = None) -> None:
        self._one: tuple[int, int] | None = None
        self._each: dict[str, tuple[int, int]] | None = None
        if isinstance(given, Mapping):
            self._each = {sample: check_image_size(size) for sample, size in given.items()}
        elif given is not None:
            self._one = check_image_size(given)

    @property
    def samples(self) -> frozenset[str] | None:
        """The samples that a mapping names; None where no mapping was passed."""
        return None if self._each is None else frozenset(self._each)

    def of(self, sample: str, declared: tuple[int, int] | None = None, where: str = "the file") -> tuple[int, int]:
        """Return (H, W) of a sample.

        Raises
        ------
        UsageError
            Neither the file nor the caller says it.
        MismatchError
            They say two different sizes.
        """
        passed = self._one if self._each is None else self._each.get(sample)
        if declared is None and passed is None:
            raise UsageError(
                "image-size-missing",
                "cannot tell the size of an image",
                item=f"sample {sample!r}: {where} does not say it, and none was passed for it",
                fix="pass --image-size HxW (image_size=(H, W), or a mapping by sample)",
            )
        if declared is not None and passed is not None and declared != passed:
            raise MismatchError(
                "image-size-differs",
                "cannot read a mask of another size",
                item=f"sample {sample!r}: {declared[0]} x {declared[1]} in {where}, "
                f"{passed[0]} x {passed[1]} was passed",
                fix="pass the image's own size as height x width, or leave it out",
            )
        return declared if declared is not None else passed  # type: ignore[return-value]


def declared_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check a size that a file declares: (H, W)."""
    if any(type(v) is not int or not 1 <= v <= SIDE_LIMIT for v in (height, width)):
        raise DamagedError(
            "image-size-invalid",
            "cannot use the size that a file declares",
            item=f"{where}: height {str(height)[:24]!r}, width {str(width)[:24]!r}",
            fix=f"write whole numbers of pixels from 1 to {SIDE_LIMIT}",
        )
    return height, width


def check_bitmap(size: tuple[int, int], where: str) -> tuple[int, int]:
    """Refuse a plane that is too large to be decoded as a bitmap, before it is."""
    if size[0] * size[1] > PIXEL_LIMIT:
        raise DamagedError(
            "image-too-large",
            "cannot decode a mask",
            item=f"{where} declares {size[0]} x {size[1]} pixels, the limit is {PIXEL_LIMIT}",
            fix="store masks of this size as runs (CSV or COCO RLE)",
        )
    return size
