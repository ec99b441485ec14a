"""Image sizes: what the user passes, what a file declares, and how large a bitmap may be."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ensemble_kit.errors import DamagedError, UsageError, differ
from ensemble_kit.masks.idforms import IdForm, by_form, difference, in_form
from ensemble_kit.spec.geometry import Shape, as_text, check_image_size

ImageSize = Sequence[int] | Mapping[str, Sequence[int]]
"""(H, W) of all samples, or (D, H, W) of volumes, or a mapping of sample to either."""

PIXEL_LIMIT = 2**28
"""Most pixels of an image that is decoded as a bitmap: a 109 KB PNG can declare 9e8 of them."""

SIDE_LIMIT = 2**20
"""Largest height or width that a file may declare; a transposition keeps one number a column."""


_KINDS = {2: "an image", 3: "a volume"}


def parse_image_size(text: str) -> Shape:
    """Read `HxW`, such as `2048x1024`, or one number for square images: (H, W); of volumes `DxHxW`: (D, H, W).

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> parse_image_size("2048x1024")
    (2048, 1024)
    >>> parse_image_size("256")
    (256, 256)
    >>> parse_image_size("40x512x512")
    (40, 512, 512)
    """
    numbers = re.split("[xX×]", text.strip())
    if len(numbers) > 3 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        item = f"--image-size {text!r} is no size, and no file or folder"
        fix = (
            "pass height x width in pixels, such as --image-size 2048x1024, one number for square images, of volumes "
            "depth x height x width, or a CSV of sample,height,width, a store or a folder of images that is there"
        )
        raise UsageError("option-invalid", "cannot use an image size", item=item, fix=fix)
    return check_image_size([int(number) for number in (numbers * 2 if len(numbers) == 1 else numbers)], None)


class ImageSizes:
    """The size of each sample's image, from what the user passes and what the file declares.

    Parameters
    ----------
    given : (H, W), or (D, H, W) of volumes; a mapping of sample to either; or None.
    form : in which ids of the mapping are compared with those of the file; None: they are the same text.
    ranks : how many axes images of the format may have.
    """

    def __init__(
        self, given: ImageSize | None = None, form: IdForm | None = None, ranks: Collection[int] = (2, 3)
    ) -> None:
        self._ranks = ranks
        self._one: Shape | None = None
        self._form = form
        self._each: dict[str, Shape] | None = None
        if isinstance(given, Mapping):
            self._each = {sample: check_image_size(size, None) for sample, size in given.items()}
            self._forms = by_form(self._each, form, doubled=True) if form is not None else {}
        elif given is not None:
            self._one = check_image_size(given, None)

    @property
    def samples(self) -> frozenset[str] | None:
        """The samples that a mapping names as the file does; None where that is not known."""
        return None if self._each is None or self._form is not None else frozenset(self._each)

    def known(self, sample: str) -> Shape | None:
        """Return the size that was passed for a sample; None where none was."""
        return self._one if self._each is None else self._listed(self._each, sample)

    def of(self, sample: str, declared: Shape | None = None, where: str = "the file", also: str = "") -> Shape:
        """Return the size of a sample's image, (H, W).

        Parameters
        ----------
        declared : what the file says; None: nothing.
        where : what messages call the file.
        also : what else than a size may be passed, where that is known.

        Raises
        ------
        UsageError
            Neither the file nor the user says it; the user says that of a volume, and the format holds images.
        MismatchError
            They say two different sizes.
        """
        passed = self.known(sample)
        if declared is not None and passed is not None and declared != passed:
            what, which = "cannot read a mask of another size", f"sample {sample!r}"
            ours, theirs = f"{as_text(declared)} in {where}", f"{as_text(passed)} was passed"
            fix = "pass the image's own size as height x width, or leave it out"
            if len(declared) == 3:
                fix = "write both at the size of their image; where axes differ, turn masks to it: "
                fix += "ensk convert MASKS --like-image FOLDER --out FOLDER"
            if len(declared) != len(passed):
                ours, theirs = f"{ours} ({_KINDS[len(declared)]})", f"{theirs} ({_KINDS[len(passed)]})"
                fix = "pass volumes with masks of volumes, and images with masks of images"
            raise differ(what, which, ours, theirs, fix, "image-size-differs")
        size = declared if declared is not None else passed
        if declared is None and size is not None and len(size) not in self._ranks:
            item = f"sample {sample!r}: {as_text(size)} was passed for {where}, which holds images"
            fix = "pass height x width; volumes are read from .npz, .npy, NIfTI and NRRD"
            raise UsageError("format-unfit", "cannot read masks of volumes", item=item, fix=fix)
        if size is None:
            item = f"sample {sample!r}: {where} does not say it, and none was passed for it"
            fix = (
                f"pass {also or '--image-size HxW'}, or a CSV of sample,height,width, a store or a folder of images "
                "(image_size=(H, W), or a mapping by sample)"
            )
            if found := difference([sample], self._each or ()):
                item, fix = f"{item}; {found[0]}", found[1]
            raise UsageError("image-size-missing", "cannot tell the size of an image", item=item, fix=fix)
        return size

    def _listed(self, each: dict[str, Shape], sample: str) -> Shape | None:
        """Find a sample in the mapping, by its form."""
        if self._form is None or sample in each:
            return each.get(sample)
        return each.get(self._forms.get(in_form(sample, self._form), ""))


def declared_depth(depth: Any, where: str) -> tuple[int, ...]:
    """Check the number of slices that a file declares: (D,), or () of an image, which has none."""
    return () if depth is None else declared_size(depth, 1, where)[:1]


def declared_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check a size that a file declares: (H, W)."""
    if any(type(v) is not int or not 1 <= v <= SIDE_LIMIT for v in (height, width)):
        item = f"{where}: height {str(height)[:24]!r}, width {str(width)[:24]!r}"
        fix = f"write whole numbers of pixels from 1 to {SIDE_LIMIT}"
        raise DamagedError("image-size-invalid", "cannot use the size that a file declares", item=item, fix=fix)
    return height, width


def check_bitmap(size: Shape, where: str) -> Shape:
    """Refuse an image that is too large to be decoded as a bitmap, before it is decoded."""
    if math.prod(size) > PIXEL_LIMIT:
        item = f"{where} declares {as_text(size)} pixels, the limit is {PIXEL_LIMIT}"
        fix = "store masks of this size as runs (CSV or COCO RLE)"
        raise DamagedError("image-too-large", "cannot decode a mask", item=item, fix=fix)
    return size
