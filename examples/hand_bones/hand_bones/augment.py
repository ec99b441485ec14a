"""Augmentation from the configuration: torchvision's v2 transforms, and three of OpenCV.

`[{"name": "flip", "p": 0.5}, {"name": "clahe", "clip": 2.0, "p": 0.3}, …]`, applied in this order. Chance is torch's,
so a loader's seed decides it. torchvision has no median and no CLAHE, and its JPEG is deprecated since 0.29.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from hand_bones.classes import CLASSES, FLIP_SWAP, swapped
from hand_bones.config import Section, construct


class Augmentation:
    """Change an image and its masks alike.

    Parameters
    ----------
    sections : names and options of `TRANSFORMS`; none leaves everything as it is.

    Raises
    ------
    UsageError
        A name or an option that no transform has, or a value that it cannot take.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        self.steps = [construct("the augmentation", section, TRANSFORMS) for section in sections]

    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Take and give float32 (3, S, S) in 0…1, grey in three channels, and uint8 (C, S, S)."""
        both: tuple[Tensor, Tensor] = (tv_tensors.Image(image), tv_tensors.Mask(masks))
        for step in self.steps:
            both = step(*both)
        return both[0].as_subclass(Tensor), both[1].as_subclass(Tensor)


class Flip(v2.Transform):
    """Mirror left and right, and exchange the planes of classes that a mirror exchanges."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = list(order)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:  # noqa: ARG002 - torchvision's form
        """Mirror an image, or masks."""
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(inpt[self.order].flip(-1), like=inpt)
        return v2.functional.horizontal_flip(inpt)


class OnGrey(v2.Transform):
    """Change an image as 8-bit grey; masks stay."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Change an image."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        grey = (inpt[0] * 255).round().to(torch.uint8).numpy()
        done = torch.from_numpy(self.change(grey, **params)).to(inpt.dtype) / 255
        return tv_tensors.wrap(done.expand_as(inpt).contiguous(), like=inpt)

    def change(self, grey: NDArray[np.uint8], **params: Any) -> NDArray[np.uint8]:
        """Change uint8 (S, S)."""
        raise NotImplementedError


class Jpeg(OnGrey):
    """Compress and decompress, with a quality between two bounds of 1…100."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        if not 1 <= _whole("quality", low) <= _whole("quality", high) <= 100:
            raise ValueError(f"quality = {low}, {high}, two of 1…100 in order are needed")
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - torchvision's form
        """Draw the quality."""
        return {"quality": int(torch.randint(self.low, self.high + 1, ()))}

    def change(self, grey: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:  # type: ignore[override]
        """Compress."""
        _, text = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(text, cv2.IMREAD_GRAYSCALE)


class MedianBlur(OnGrey):
    """Median over a square of an odd side of at most `limit` pixels."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        if _whole("limit", limit) < 3:
            raise ValueError(f"limit = {limit}, at least 3 is needed")
        self.limit = limit

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - torchvision's form
        """Draw the side."""
        return {"side": 3 + 2 * int(torch.randint((self.limit - 1) // 2, ()))}

    def change(self, grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:  # type: ignore[override]
        """Blur."""
        return cv2.medianBlur(grey, side)


class Clahe(OnGrey):
    """Equalise the histogram in tiles, with limited contrast (Zuiderveld 1994)."""

    def __init__(self, clip: float, tiles: int) -> None:
        super().__init__()
        if not 1 <= clip < math.inf or _whole("tiles", tiles) < 1:
            raise ValueError(f"clip = {clip}, tiles = {tiles}, at least 1 is needed")
        self.clip, self.tiles = clip, tiles

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - torchvision's form
        """Draw the limit."""
        return {"clip": 1 + float(torch.rand(())) * (self.clip - 1)}

    def change(self, grey: NDArray[np.uint8], clip: float) -> NDArray[np.uint8]:  # type: ignore[override]
        """Equalise."""
        return cv2.createCLAHE(clip, (self.tiles, self.tiles)).apply(grey)


def _whole(name: str, value: int) -> int:
    """Refuse what only looks like a whole number: it would fail in the middle of an epoch."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} = {value!r}, a whole number is needed")
    return value


def resize(size: int) -> v2.Transform:
    """Bring image and masks to a side of `size` pixels, whatever the dataset's was."""
    if _whole("size", size) < 1:
        raise ValueError(f"size = {size}, at least 1 is needed")
    return v2.Resize((size, size), antialias=False)


def brightness_contrast(brightness: float = 0.2, contrast: float = 0.2, p: float = 0.5) -> v2.Transform:
    """Multiply brightness and contrast by up to so much more or less."""
    return v2.RandomApply([v2.ColorJitter(brightness=brightness, contrast=contrast)], p)


def affine(
    degrees: float = 15, shift: float = 0.05, zoom: tuple[float, float] = (0.9, 1.1), p: float = 0.5
) -> v2.Transform:
    """Turn by up to `degrees`, shift by up to a share of the side, and zoom."""
    move = v2.RandomAffine(degrees, (shift, shift), tuple(zoom), interpolation=v2.InterpolationMode.BILINEAR)
    return v2.RandomApply([move], p)


def elastic(alpha: float = 50.0, sigma: float = 8.0, p: float = 0.3) -> v2.Transform:
    """Displace pixels smoothly (Simard 2003): `alpha` is the strength, `sigma` the smoothness, in pixels."""
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma = {sigma}, more than 0 is needed")
    return v2.RandomApply([v2.ElasticTransform(alpha, sigma)], p)


def jpeg(quality: tuple[int, int] = (50, 95), p: float = 0.3) -> v2.Transform:
    """Compress and decompress as JPEG."""
    return v2.RandomApply([Jpeg(*quality)], p)


def blur(kernel: int = 5, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.3) -> v2.Transform:
    """Blur by a Gaussian of a side of `kernel` pixels."""
    return v2.RandomApply([v2.GaussianBlur(kernel, tuple(sigma))], p)


def median_blur(limit: int = 5, p: float = 0.2) -> v2.Transform:
    """Blur by a median."""
    return v2.RandomApply([MedianBlur(limit)], p)


def flip(swap: Mapping[str, str] = FLIP_SWAP, p: float = 0.5) -> v2.Transform:
    """Mirror left and right; `swap` names pairs of classes that this exchanges, here none."""
    if not isinstance(swap, Mapping):
        raise TypeError(f"swap = {swap!r}, pairs of classes are needed")
    return v2.RandomApply([Flip(swapped(CLASSES, swap))], p)


def clahe(clip: float = 2.0, tiles: int = 8, p: float = 0.3) -> v2.Transform:
    """Equalise locally, with the contrast limited to between 1 and `clip`."""
    return v2.RandomApply([Clahe(clip, tiles)], p)


TRANSFORMS = {
    make.__name__: make for make in (resize, brightness_contrast, affine, elastic, jpeg, blur, median_blur, flip, clahe)
}
