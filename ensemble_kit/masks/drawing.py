"""Masks drawn on images, as arrays and as pictures that a notebook shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_number, some
from ensemble_kit.masks.layers import class_colours, class_layer
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import as_text

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image

_WHAT = "cannot draw masks on an image"
_KINDS = "pass an image of (H, W) or (H, W, 3), and masks of its size: a mapping, (C, H, W) bool, or a label map (H, W)"


def overlay(
    image: ArrayLike,
    masks: Mapping[Any, Any] | Sequence[Any] | NDArray[Any],
    sample: str | None = None,
    opacity: float = 0.35,
) -> NDArray[np.uint8]:
    """Lay masks on an image, each class in a colour of its own with its outline: uint8 RGB (H, W, 3).

    Parameters
    ----------
    image : grey (H, W) or RGB (H, W, 3) of any type; values beyond 8 bits are stretched from their 0.5 % to their
        99.5 % quantile.
    masks : a `MaskSet`, or masks by class name: `Runs` or bool (H, W); or bool (C, H, W); or a label map, integers
        (H, W), whose values but 0 are classes.
    sample : which one of a `MaskSet`; default: its only one.
    opacity : of the colours, in [0, 1]; outlines are drawn in full.

    Raises
    ------
    UsageError
        Masks or an image of another kind; a sample that is not there.
    MismatchError
        Masks of another size than the image.

    Examples
    --------
    >>> import numpy as np
    >>> shown = overlay(np.zeros((4, 6)), {"bone": Runs([7], [9], (4, 6))}, opacity=1)
    >>> shown.shape, shown[1, 1].tolist(), shown[0, 0].tolist()
    ((4, 6, 3), [230, 159, 0], [0, 0, 0])
    """
    check_number("opacity", opacity, "pass a number in [0, 1]", least=0, most=1, what=_WHAT)
    shown = as_rgb(image)
    planes = [_drawn(mask, shown.shape[:2], name) for name, mask in named(masks, sample).items()]
    pen = max(1, max(shown.shape[:2]) // 700)
    return class_layer(planes, opacity, pen).on(shown) if planes else shown


def named(masks: Any, sample: str | None = None) -> dict[str, Any]:
    """Return masks by class name, of a mapping by sample and class those of one sample."""
    if isinstance(masks, Mapping):
        if not any(isinstance(key, tuple) for key in masks):
            return {str(name): mask for name, mask in masks.items()}
        samples = dict.fromkeys(key[0] for key in masks)
        if (sample is None and len(samples) != 1) or (sample is not None and sample not in samples):
            item = f"sample {sample!r} of {some(samples, 3)}" if sample is not None else f"{len(samples)} samples"
            raise UsageError("sample-unknown", _WHAT, item=item, fix="pass sample=, one of .samples")
        own = next(iter(samples)) if sample is None else sample
        return {key[1]: masks[key] for key in masks if key[0] == own}
    array = None if isinstance(masks, Sequence) and any(isinstance(m, Runs) for m in masks) else np.asarray(masks)
    if array is None:
        return {f"class {k}": mask for k, mask in enumerate(masks)}
    if array.ndim == 3 and array.dtype == np.bool_:
        return {f"class {k}": plane for k, plane in enumerate(array)}
    if array.ndim == 2 and array.dtype == np.bool_:
        return {"class 0": array}
    if array.ndim == 2 and array.dtype.kind in "iu":
        return {str(value): array == value for value in np.unique(array).tolist() if value}
    raise UsageError("array-kind", _WHAT, item=f"masks are {array.dtype} of {array.shape}", fix=_KINDS)


def _drawn(mask: Any, size: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    plane = mask.decode() if isinstance(mask, Runs) else np.asarray(mask)
    if plane.shape != size:
        item = f"the mask of {name!r} has {as_text(plane.shape)} pixels, the image {as_text(size)}"
        raise MismatchError("image-size-differs", _WHAT, item=item, fix="pass the image that the masks were made for")
    if plane.dtype.kind not in "bui":
        item = f"the mask of {name!r} is {plane.dtype}, of which any value but 0 would be drawn"
        raise UsageError("array-kind", _WHAT, item=item, fix="pass a mask: probabilities >= 0.5, logits >= 0")
    return plane != 0


def as_rgb(image: ArrayLike) -> NDArray[np.uint8]:
    """Return an image as uint8 RGB (H, W, 3)."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    is_rgb = array.ndim == 3 and array.shape[2] in {3, 4}
    if not (array.ndim == 2 or is_rgb) or array.dtype.kind not in "buif":
        raise UsageError("array-kind", _WHAT, item=f"the image is {array.dtype} of {array.shape}", fix=_KINDS)
    eight = to_eight_bits(array[..., :3] if is_rgb else array)
    return eight if is_rgb else np.repeat(eight[..., None], 3, axis=2)


def to_eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring any values to 0 … 255; those of more than 8 bits from their 0.5 % to their 99.5 % quantile."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    known = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    low, high = (float(v) for v in np.quantile(known, [0.005, 0.995])) if known.size else (0.0, 1.0)
    scaled = (image.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.asarray((np.clip(np.nan_to_num(scaled), 0, 1) * 255).round(), np.uint8)


def picture(masks: Mapping[str, Runs], image: ArrayLike | None, size: tuple[int, ...], opacity: float = 0.35) -> Image:
    """Draw masks by class on an image with their names below: a picture that a notebook shows.

    Parameters
    ----------
    image : None: on black.
    size : (H, W) of the masks.

    Raises
    ------
    UsageError
        Masks of a volume.
    """
    from PIL import Image, ImageDraw, ImageFont

    if len(size) != 2:
        item, fix = (
            f"the mask is a volume of {as_text(size)}",
            "take a slice: overlay(image[z], {name: mask.decode()[z]})",
        )
        raise UsageError("shape-invalid", "cannot draw a volume", item=item, fix=fix)
    shown = overlay(np.zeros(size, np.uint8) if image is None else image, masks, opacity=opacity)
    height = max(12, min(size[0] // 24, 40))
    font = ImageFont.load_default(height * 0.8)
    places, x, y = list[tuple[int, int]](), 0, 0
    for name in masks:
        width = height + round(font.getlength(name)) + height
        if x and x + width > size[1]:
            x, y = 0, y + height + height // 3
        places.append((x, y))
        x += width
    whole = Image.new("RGB", (size[1], size[0] + y + 2 * height), "white")
    whole.paste(Image.fromarray(shown))
    pen = ImageDraw.Draw(whole)
    for name, colour, (left, below) in zip(masks, class_colours(len(masks)), places, strict=True):
        top = size[0] + height // 3 + below
        pen.rectangle((left + 2, top, left + height * 2 // 3, top + height * 2 // 3), fill=colour)
        pen.text((left + height, top + height // 3), name, fill="black", font=font, anchor="lm")
    return whole
