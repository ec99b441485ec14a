"""Images of any number of channels: .npy arrays, and TIFF files of several samples a pixel or of several pages.

The imaging libraries at hand decode at most four channels. What is read here is what scientific programs write: strips
or tiles, uncompressed or deflated, samples beside each other or in planes of their own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = frozenset({".npy", ".tif", ".tiff"})

_TYPES = {1: "B", 3: "H", 4: "I"}
_FORMATS = {1: "u", 2: "i", 3: "f"}
_DEFLATE = (8, 32946)
_MOST_TAGS, _MOST_PAGES = 256, 2**10
_SWELL = 1100
"""Most bytes that one deflated byte can become, 1032, and room for headers."""


class Extent(NamedTuple):
    """Size of an image and its number of channels."""

    height: int
    width: int
    channels: int


def extent(path: Path, channels: int) -> Extent:
    """Read size and number of channels from a header; `channels` tells the axes of an array apart.

    Raises
    ------
    ValueError
        It cannot be read, with the reason.
    """
    if path.suffix.lower() == ".npy":
        return _laid_out(_mapped(path), channels)[1]
    pages = _pages(path.read_bytes())
    first = pages[0]
    return Extent(first.height, first.width, first.samples if len(pages) == 1 else len(pages))


def read(path: Path, channels: int) -> NDArray[Any]:
    """Read an image (H, W, channels) in the type that the file has; raises as `extent` does."""
    if path.suffix.lower() == ".npy":
        return np.ascontiguousarray(_laid_out(_mapped(path), channels)[0])
    data = path.read_bytes()
    pages = _pages(data)
    if len(pages) == 1:
        return pages[0].pixels(data)
    if any((p.height, p.width, p.samples) != (pages[0].height, pages[0].width, 1) for p in pages):
        raise ValueError("its pages differ in size, or have several samples a pixel")
    return np.concatenate([page.pixels(data) for page in pages], axis=2)


def count(path: Path) -> int:
    """Count the samples a pixel, or the pages, of a file; 0 where nothing can be told."""
    try:
        return extent(path, 0).channels
    except Exception:  # noqa: BLE001 - whatever is wrong with a file that cannot be read anyway
        return 0


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # refuses objects, and a file that was cut
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, not numbers")
    return array


def _laid_out(array: NDArray[Any], channels: int) -> tuple[NDArray[Any], Extent]:
    """Put the channels last."""
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim != 3:
        raise ValueError(f"it has the shape {shape}; (H, W), (H, W, channels) or (channels, H, W) is read")
    elif shape[0] == channels == shape[2]:
        raise ValueError(f"its shape {shape} can be read as (channels, H, W) and as (H, W, channels)")
    elif shape[0] == channels or (shape[2] != channels and shape[0] < shape[2]):
        array = np.moveaxis(array, 0, 2)
    return array, Extent(array.shape[0], array.shape[1], array.shape[2])


@dataclass(frozen=True)
class _Page:
    """One page of a TIFF: what its tags say."""

    order: Literal["<", ">"]
    tags: Mapping[int, tuple[int, ...]]

    def one(self, tag: int, default: int | None = None) -> int:
        values = self.tags.get(tag, ())
        if values:
            return values[0]
        if default is None:
            raise ValueError(f"its tag {tag} is missing")
        return default

    @property
    def width(self) -> int:
        return self.one(256)

    @property
    def height(self) -> int:
        return self.one(257)

    @property
    def samples(self) -> int:
        return self.one(277, 1)

    def pixels(self, data: bytes) -> NDArray[Any]:
        """Decode the page: (H, W, samples)."""
        if self.one(274, 1) != 1:
            raise ValueError("it is turned by its orientation tag, which is not followed here: save it upright")
        bits, kind = set(self.tags.get(258, (1,))), _FORMATS.get(self.one(339, 1))
        if bits not in ({8}, {16}, {32}) or kind is None:
            raise ValueError(f"it has {sorted(bits)} bits a sample; 8, 16 and 32 are read")
        dtype = np.dtype(f"{kind}{next(iter(bits)) // 8}").newbyteorder(self.order)
        apart = self.one(284, 1) == 2 and self.samples > 1
        if self.height * self.width * self.samples * dtype.itemsize > _SWELL * len(data):
            raise ValueError("it says more pixels than a file of its length can hold")
        inner, outer = (1, self.samples) if apart else (self.samples, 1)
        tiled = 322 in self.tags
        h, w = (self.one(323), self.one(322)) if tiled else (min(self.one(278, self.height), self.height), self.width)
        starts, sizes = self.tags.get(324 if tiled else 273, ()), self.tags.get(325 if tiled else 279, ())
        rows, columns = -(-self.height // max(h, 1)), -(-self.width // max(w, 1))
        if len(starts) != len(sizes) or len(starts) != rows * columns * outer:
            raise ValueError(f"it has {len(starts)} pieces where {rows * columns * outer} are needed")
        out = np.empty((outer, self.height, self.width, inner), dtype.newbyteorder("="))
        for k, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            sample, index = divmod(k, rows * columns)
            y, x = index // columns * h, index % columns * w
            lines = h if tiled else min(h, self.height - y)
            piece = self._piece(data[start : start + size], (lines, w, inner), dtype)
            out[sample, y : y + h, x : x + w] = piece[: self.height - y, : self.width - x]
        return np.ascontiguousarray(np.moveaxis(out, 0, 2).reshape(self.height, self.width, self.samples))

    def _piece(self, raw: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode a strip or a tile; it may not swell beyond what its shape needs."""
        compression, predictor = self.one(259, 1), self.one(317, 1)
        needed = int(np.prod(shape)) * dtype.itemsize
        if compression in _DEFLATE:
            raw = zlib.decompressobj().decompress(raw, needed + 1)
        elif compression != 1:
            raise ValueError(f"it is compressed by method {compression}: save it uncompressed, deflated, or as .npy")
        if len(raw) < needed:
            raise ValueError("it is truncated")
        values = np.frombuffer(raw, dtype, int(np.prod(shape))).reshape(shape)
        if predictor == 2 and dtype.kind in "iu":
            return np.cumsum(values, axis=1, dtype=dtype.newbyteorder("="))
        if predictor != 1:
            raise ValueError(f"it has the predictor {predictor}: save it without one, or as .npy")
        return values


def _pages(data: bytes) -> list[_Page]:
    order: Literal["<", ">"] = "<" if data[:4] == b"II*\0" else ">"
    if data[:4] not in {b"II*\0", b"MM\0*"}:
        raise ValueError("it is not a TIFF file of up to 4 GB" if data else "the file is empty")
    pages: list[_Page] = []
    try:
        at = struct.unpack_from(f"{order}I", data, 4)[0]
        seen: set[int] = set()
        while at and at not in seen:
            seen.add(at)
            count = struct.unpack_from(f"{order}H", data, at)[0]
            if count > _MOST_TAGS or len(pages) == _MOST_PAGES:
                raise ValueError(f"it has {count} tags on page {len(pages) + 1}; at most {_MOST_TAGS} on {_MOST_PAGES}")
            tags = dict(_tag(data, at + 2 + 12 * k, order) for k in range(count))
            pages.append(_Page(order, tags))
            at = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)[0]
    except struct.error:
        raise ValueError("it is truncated") from None
    return pages


def _tag(data: bytes, at: int, order: str) -> tuple[int, tuple[int, ...]]:
    """Read an entry; one of another kind than whole numbers has no values."""
    tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
    if kind not in _TYPES or not count:
        return tag, ()
    form = f"{order}{count}{_TYPES[kind]}"
    where = at + 8 if struct.calcsize(form) <= 4 else struct.unpack_from(f"{order}I", data, at + 8)[0]
    return tag, struct.unpack_from(form, data, where) if struct.calcsize(form) <= len(data) else ()
