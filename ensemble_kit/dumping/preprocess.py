"""From an image to a network's input, and where on the network's grid the image then lies.

The way back is not stored as a transform but as a box of whole grid cells (docs/concepts.md#rule-5-placement). So that
undoing it is exact, an image that does not fill the input is placed on multiples of `align`, the input pixels per whole
grid cell: at stride 1 any pixel will do, at stride 4 the scaled image is rounded to whole cells of 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ensemble_kit.dumping.decoding import import_cv2
from ensemble_kit.dumping.intensity import standardise, to_unit
from ensemble_kit.dumping.parameters import check_scale, invalid, is_number, is_whole, one_each, pair_of
from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.remote.copies import local
from ensemble_kit.spec.geometry import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]
Resize = Literal["stretch", "letterbox"]
Channels = Literal["rgb", "bgr", "grey"]
Normalise = Literal["none", "zscore"]
Anchor = Literal["center", "corner"]

MAX_ALIGN = 64
"""Coarsest cell that images are placed on; beyond it rounding to whole cells would distort them."""


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input: values to 0..1, resize, subtract `mean`, divide by `std`.

    Parameters
    ----------
    size : (h, w) of the input. "native" keeps each image's own size, padded at the bottom and on the right to multiples
        of `divisor`; None does so too, for a sliding window, which needs no padding.
    resize : "stretch" fills the input and changes the aspect; "letterbox" keeps it and pads the rest.
    mean, std : one value per channel, or one for all, on the 0..1 scale, in the order of `channels`: 0 <= mean <= 1,
        0 < std <= 1. A network that was trained on 0..255 has mean 0 and std 1/255.
    channels : "rgb", "bgr", or "grey": luma (ITU-R 601); or a number: images are arrays or TIFF files of as many.
    anchor : where letterbox puts the image: "center" or "corner" (top left).
    fill : grey of the padding, on the 0..1 scale, before `mean` and `std`.
    range : (low, high): which values become 0 and 1; what lies beyond is cut. None: the whole range of 8 or 16 bits,
        and floats as they are.
    window : (centre, width), the same in the words of CT: low = centre - width / 2, high = centre + width / 2.
    normalise : "zscore" subtracts each image's own mean and divides by its standard deviation, channel by channel,
        as read; padding is then 0, the image's mean.
    count : how many channels the network is fed with: 1 or 3 with "grey". None: 3, or the number of `channels`.
    divisor : of the sides of a "native" input: the network's deepest stride.
    """

    size: Size | Literal["native"] | None = None
    resize: Resize = "stretch"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: Channels | int = "rgb"
    anchor: Anchor = "center"
    fill: float = 0.0
    range: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    normalise: Normalise = "none"
    count: int | None = None
    divisor: int = 32

    def __post_init__(self) -> None:
        if self.size is not None and self.size != "native":
            object.__setattr__(self, "size", parse_size(self.size))
        if not is_whole(self.divisor, 2**12):
            raise invalid("divisor", self.divisor, "what the sides of the network's input must be multiples of: 32")
        for name, choice in (("resize", Resize), ("anchor", Anchor), ("normalise", Normalise)):
            if getattr(self, name) not in get_args(choice):
                raise invalid(name, getattr(self, name), " or ".join(get_args(choice)))
        if self.channels not in get_args(Channels) and not is_whole(self.channels, 2**10):
            raise invalid("channels", self.channels, "rgb, bgr, grey, or the number of channels of arrays")
        if self.count is not None and not (is_whole(self.count, 3) and self.count != 2 and self.channels == "grey"):
            raise invalid(
                "count", self.count, 'the number of channels that grey images are fed as: 1 or 3, channels="grey"'
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, one_each(name, getattr(self, name), self.feeds))
        check_scale(self.mean, self.std)
        if not is_number(self.fill) or not 0 <= self.fill <= 1:
            raise invalid("fill", self.fill, "a number from 0 to 1")
        object.__setattr__(self, "fill", float(self.fill))
        for name in ("range", "window"):
            object.__setattr__(self, name, pair_of(name, getattr(self, name)))
        if self.range is not None and self.window is not None:
            raise invalid("window", self.window, "the only one: a range says the same as a window")
        if self.normalise == "zscore" and (set(self.mean), set(self.std)) != ({0.0}, {1.0}):
            raise invalid("normalise", "zscore", "the only one, without mean and std: it is computed from each image")

    @property
    def fixed(self) -> Size | None:
        """The (h, w) that every input has; None where images keep their own sizes."""
        return None if self.size == "native" else self.size

    @property
    def feeds(self) -> int:
        """How many channels the network is fed with."""
        if isinstance(self.channels, int):
            return self.channels
        return 3 if self.count is None else self.count

    @property
    def arrays(self) -> int | None:
        """The number of channels of images that are arrays; None where they show colours or grey."""
        return self.channels if isinstance(self.channels, int) else None

    @property
    def limits(self) -> tuple[float, float] | None:
        """Values that become 0 and 1, from `range` or `window`; None: by the type of the image."""
        if self.window is not None:
            centre, width = self.window
            return centre - width / 2, centre + width / 2
        return self.range

    @property
    def by_type(self) -> bool:
        """Whether the type of an image tells what its values mean."""
        return self.limits is None and self.normalise == "none"

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain JSON values, without later options that were not given."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {k: v for k, v in values.items() if k not in _LATER or v != _LATER[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Read it from plain JSON values; a key that is not known is refused."""
        known = {f.name for f in fields(cls)}
        if not isinstance(values, Mapping) or set(values) - known:
            odd = some(sorted(set(values) - known)) if isinstance(values, Mapping) else f"a {type(values).__name__}"
            fix = f"use only the keys {', '.join(sorted(known))}"
            raise UsageError("preprocess-invalid", "cannot use preprocessing", item=f"unknown: {odd}", fix=fix)
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Preprocess:
        """Read it from a JSON file: {"size": [h, w], "resize": "stretch", "mean": [...], "std": [...], ...}."""
        from ensemble_kit import strict_json

        return cls.from_dict(strict_json.load(local(path)))

    def but(self, **changes: Any) -> Preprocess:
        """Copy it with those of `changes` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def place(self, image: Size, canvas: Size | None = None, align: Size = (1, 1)) -> Box:
        """Compute which pixels of the input an image of (H, W) covers.

        `canvas` is the input's (h, w) where it is not fixed; `align` the multiples that the box must fall on.
        """
        canvas = self.canvas(image, align) if canvas is None else canvas
        if self.fixed is None:
            return Box(0, 0, *_own_size(image, align))
        if self.resize == "stretch":
            return Box(0, 0, *canvas)
        scale = min(canvas[0] / image[0], canvas[1] / image[1])
        spans = [_span(*v, scale, self.anchor) for v in zip(image, canvas, align, strict=True)]
        return Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])

    def canvas(self, image: Size, align: Size = (1, 1), least: int = 1) -> Size:
        """Compute the input's (h, w): the fixed one, or else the smallest that holds the image, at least `least`."""
        if self.fixed is not None:
            return self.fixed
        steps = [math.lcm(a, self.divisor if self.size == "native" else 1) for a in align]
        own = zip(_own_size(image, align), steps, strict=True)
        return tuple(_up(max(n, least), step) for n, step in own)  # type: ignore[return-value]

    def apply(
        self, image: NDArray[Any], canvas: Size | None = None, align: Size = (1, 1)
    ) -> tuple[NDArray[np.float32], Box]:
        """Turn an image, (H, W) or (H, W, c), into the input, float32 (channels, h, w), and its box on it.

        Resizing is bilinear without anti-aliasing, as cv2.resize does it and most trainers call it: in the image's own
        type where that tells the range, else after the range and the z-score.
        """
        size = image.shape[0], image.shape[1]
        canvas = self.canvas(size, align) if canvas is None else canvas
        box = self.place(size, canvas, align)
        pixels = self._ordered(image)
        if not self.by_type:
            pixels = self._scaled(pixels)
        if box.shape != size:
            pixels = _resized(pixels, box.shape)
        if self.by_type:
            pixels = self._scaled(pixels)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        out = np.empty((self.feeds, *canvas), np.float32)
        if box.shape != canvas:
            fill = np.float32(0 if self.normalise == "zscore" else self.fill)
            out[:] = ((fill - mean) / std)[:, None, None]
        maps = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        out[:, *box.slices] = (maps - mean[:, None, None]) / std[:, None, None]
        return out, box

    def _scaled(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        if self.normalise == "zscore":
            return standardise(pixels if self.limits is None else to_unit(pixels, self.limits))
        return to_unit(pixels, self.limits)

    def _ordered(self, image: NDArray[Any]) -> NDArray[Any]:
        """Bring the channels in order; grey stays (H, W) while it is resized, a third of the work."""
        if image.ndim == 2 or self.channels == "rgb" or isinstance(self.channels, int):
            return image
        if self.channels == "bgr":
            return np.ascontiguousarray(image[..., ::-1])
        cv2 = import_cv2()
        grey: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return grey


_LATER: dict[str, object] = {"range": None, "window": None, "normalise": "none", "count": None, "divisor": 32}
"""Options that former versions did not record: without them a record stays what it was."""


def alignment(canvas: Size, grid: Size) -> Size:
    """Compute the multiples of input pixels on which a box falls on whole cells: the stride of an ordinary head."""
    return canvas[0] // math.gcd(canvas[0], grid[0]), canvas[1] // math.gcd(canvas[1], grid[1])


def check_alignment(canvas: Size, grid: Size, what: str) -> Size:
    """Return the alignment, or refuse a grid on whose whole cells nothing can be placed without distorting it."""
    align = alignment(canvas, grid)
    if max(align) > MAX_ALIGN:
        item = f"{what}: an input of {canvas[0]} x {canvas[1]} gives a grid of {grid[0]} x {grid[1]}, no whole stride"
        fix = "pass a size that the network's stride divides (usually a multiple of 32), or --resize stretch"
        raise not_aligned(item, fix)
    return align


def not_aligned(item: str, fix: str) -> MismatchError:
    """Make the error of an image or window that does not fall on whole cells of the grid."""
    return MismatchError("grid-not-aligned", "cannot place images on whole grid cells", item=item, fix=fix)


def grid_box(box: Box, canvas: Size, grid: Size) -> Box:
    """Carry a box on the input over to the grid; exact, because `place` put it on whole cells."""
    ends = [(v * g, c) for v, g, c in zip(box, (*grid, *grid), (*canvas, *canvas), strict=True)]
    if any(a % c for a, c in ends):
        item = f"box {tuple(box)} of an input of {canvas} on a grid of {grid}"
        raise not_aligned(item, "place the image with align=alignment(canvas, grid)")
    return Box(*(a // c for a, c in ends))


def parse_size(value: object) -> Size:
    """Read a size: `512x640`, `512`, 512, or (512, 640); height first."""
    parts: Any = value
    if isinstance(value, str):
        parts = value.lower().replace("×", "x").split("x")
    elif is_number(value):
        parts = [value]
    try:
        numbers = [int(str(p)) for p in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not all(0 < n <= 2**16 for n in numbers):
        raise invalid("size", value, "HEIGHTxWIDTH such as 512x640, one number for both, or native")
    return numbers[0], numbers[1]


def _own_size(image: Size, align: Size) -> Size:
    """Round an image's own size to whole cells: less than half a cell of change."""
    return tuple(max(a, (2 * n + a) // (2 * a) * a) for n, a in zip(image, align, strict=True))  # type: ignore[return-value]


def _span(image: int, canvas: int, align: int, scale: float, anchor: Anchor) -> tuple[int, int]:
    """Place one side of a letterboxed image: its scaled length in whole cells, then its start."""
    cells = canvas // align
    length = min(max(1, math.floor(image * scale / align + 0.5)), cells)
    start = (cells - length) // 2 if anchor == "center" else 0
    return start * align, (start + length) * align


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def _resized(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Resize (H, W) or (H, W, c), of any number of channels."""
    cv2 = import_cv2()
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR))
    maps = [np.ascontiguousarray(pixels[..., k]) for k in range(pixels.shape[2])]
    return np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in maps], axis=2)
