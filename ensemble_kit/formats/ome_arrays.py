"""Arrays of label images as zarr v3, a pyramid of resolutions, written band by band and read back.

Chunks are deflated (codec gzip, whose checksum tells damage). Those that hold the fill value only are not written, as
zarr itself does; how many were is kept, so that a missing one is told from an empty one. A lower resolution holds
every second pixel: labels cannot be averaged.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.formats.sizes import declared_depth, declared_size
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.spec.geometry import Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

META = "zarr.json"
CHUNKS = {2: (512, 512), 3: (16, 256, 256)}
"""Of images and of volumes; the first number is the height of the bands that are written."""

_LEVEL = 1  # of gzip: level 6 took twice the time for 9 % fewer bytes
_GZIP = 31  # window bits of zlib, which then writes a header without a time
_MOST = 2**29  # pixels of a row of chunks, which is what reading holds
_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "gzip", "configuration": {"level": _LEVEL}},
]


def steps_of(shape: Shape, spacing: Sequence[float]) -> list[Shape]:
    """Return the step of each resolution along each axis: halved until a slice is one chunk.

    A volume is halved along z too, where its slices lie no farther apart than its pixels.

    Examples
    --------
    >>> steps_of((2048, 1024), (1, 1))
    [(1, 1), (2, 2), (4, 4)]
    >>> steps_of((40, 1024, 1024), (5, 1, 1))
    [(1, 1, 1), (1, 2, 2), (1, 4, 4)]
    """
    out: list[Shape] = [(1,) * len(shape)]
    while max(-(-n // s) for n, s in zip(shape[-2:], out[-1][-2:], strict=True)) > CHUNKS[len(shape)][-1]:
        *depth, y, x = out[-1]
        if depth:
            near = depth[0] * spacing[0] <= y * spacing[1] and depth[0] < shape[0]
            depth = [depth[0] * 2] if near else depth
        out.append((*depth, 2 * y, 2 * x))
    return out


def write_pyramid(
    folder: Path,
    bands: Iterable[NDArray[np.unsignedinteger]],
    shape: Shape,
    kind: np.dtype[Any],
    fill: int,
    steps: Sequence[Shape],
) -> None:
    """Write one array for each of `steps`, called `0`, `1`, …; equal labels are equal bytes.

    Parameters
    ----------
    folder : that is there.
    bands : rows of an image or slices of a volume, from the first on, a chunk's height of them at a time.
    fill : the value of pixels in chunks that are not written.
    """
    levels = [_Level(folder / str(k), shape, step, kind, fill) for k, step in enumerate(steps)]
    first = 0
    for band in bands:
        for level in levels:
            level.take(band, first)
        first += band.shape[0]
    for level in levels:
        level.end()


class _Level:
    """One resolution, whose bands wait until they fill a row of chunks."""

    def __init__(self, folder: Path, shape: Shape, step: Shape, kind: np.dtype[Any], fill: int) -> None:
        self._folder, self._step, self._kind, self._fill = folder, step, kind, fill
        self._shape = tuple(-(-n // s) for n, s in zip(shape, step, strict=True))
        self._chunk = _chunk_of(self._shape)
        self._waiting: list[NDArray[Any]] = []
        self._rows = self._done = self._written = 0
        folder.mkdir()

    def take(self, band: NDArray[np.unsignedinteger], first: int) -> None:
        """Take a band, whose first row is `first` of the image."""
        rows = band[tuple(slice(-first % s if k == 0 else 0, None, s) for k, s in enumerate(self._step))]
        self._waiting.append(rows)
        self._rows += rows.shape[0]
        high = self._chunk[0]
        while self._rows >= high:
            whole = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
            self._put(whole[:high])
            self._waiting, self._rows = [whole[high:].copy()], self._rows - high

    def end(self) -> None:
        """Write what waits, and the array's description."""
        if self._rows:
            self._put(np.concatenate(self._waiting))
        describe(self._folder, self._shape, self._chunk, self._kind, self._fill, self._written)

    def _put(self, rows: NDArray[Any]) -> None:
        grid = [range(-(-n // c)) for n, c in zip(self._shape[1:], self._chunk[1:], strict=True)]
        for where in product(*grid):
            inside = (slice(k * c, (k + 1) * c) for k, c in zip(where, self._chunk[1:], strict=True))
            part = rows[(slice(None), *inside)]
            self._written += put_chunk(self._folder, (self._done, *where), part, self._chunk, self._kind, self._fill)
        self._done += 1


def put_chunk(
    folder: Path, where: Sequence[int], part: NDArray[Any], chunk: Shape, kind: np.dtype[Any], fill: int
) -> bool:
    """Write one chunk, filled up to its size; tell whether it was written, which one of the fill value is not."""
    if (part == fill).all():
        return False
    whole = np.full(chunk, fill, kind.newbyteorder("<"))
    whole[tuple(map(slice, part.shape))] = part
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    path = folder.joinpath("c", *map(str, where))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packer.compress(whole.tobytes()) + packer.flush())
    return True


def describe(folder: Path, shape: Shape, chunk: Shape, kind: np.dtype[Any], fill: int, written: int) -> None:
    """Write the `zarr.json` of an array of which so many chunks were written."""
    value = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": _CODECS,
        "dimension_names": list("zyx"[-len(shape) :]),
        "attributes": {"ensemble_kit": {"chunks": written}},
    }
    (folder / META).write_bytes(strict_json.dump(value))


class LabelArray:
    """An array that `write_pyramid` wrote.

    Parameters
    ----------
    folder : of one resolution.

    Raises
    ------
    IncompleteError
        It is not there, or lacks chunks.
    DamagedError
        It is described in a way that the kit does not write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / META).is_file():
            raise _incomplete(f"{folder / META} does not exist")
        meta = strict_json.load(folder / META)
        try:
            *depth, height, width = meta["shape"]
            self.chunk = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
            self.kind, self.fill = np.dtype(meta["data_type"]), int(meta["fill_value"])
            written = meta["attributes"]["ensemble_kit"]["chunks"]
            sound = (
                len(depth) < 2
                and self.kind.name in {"uint8", "uint16"}
                and 0 <= self.fill <= np.iinfo(self.kind).max
                and meta["codecs"] == _CODECS
                and meta["chunk_key_encoding"]["configuration"]["separator"] == "/"
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(folder / META, f"a value is missing or of another kind ({error})") from None
        deep = declared_depth(depth[0], str(folder)) if depth else ()
        self.shape: Shape = (*deep, *declared_size(height, width, str(folder)))
        if not sound or self.chunk != _chunk_of(self.shape):
            raise _damaged(folder / META, "it describes an array that the kit did not write")
        if math.prod((self.chunk[0], *self.shape[1:])) > _MOST:
            item = f"{folder} declares {as_text(self.shape)} pixels, of which {self.chunk[0]} rows are read at once"
            fix = "store masks of this size as runs (CSV or COCO RLE)"
            raise DamagedError("image-too-large", "cannot read a label image", item=item, fix=fix)
        found = sum(path.is_file() for path in (folder / "c").rglob("*"))
        if found != written:
            raise _incomplete(f"{folder} has {found} of {written} chunks")

    def grid(self) -> Iterator[tuple[int, ...]]:
        """List the indices of all chunks, row by row."""
        return product(*(range(-(-n // c)) for n, c in zip(self.shape, self.chunk, strict=True)))

    def chunk_at(self, where: Sequence[int]) -> NDArray[Any] | None:
        """Read a chunk, without what lies beyond the array; None where it was not written.

        Raises
        ------
        DamagedError
            Its checksum or its length is wrong.
        """
        path = self._path(where)
        if not path.is_file():
            return None
        size, unpacker = math.prod(self.chunk) * self.kind.itemsize, zlib.decompressobj(_GZIP)
        try:
            raw = unpacker.decompress(path.read_bytes(), size + 1)
        except zlib.error as error:
            raise _damaged(path, str(error)) from None
        if len(raw) != size or not unpacker.eof or unpacker.unused_data:
            raise _damaged(path, f"it does not hold the {size} bytes of a chunk")
        whole = np.frombuffer(raw, self.kind.newbyteorder("<")).reshape(self.chunk).astype(self.kind, copy=False)
        return whole[tuple(slice(n - k * c) for n, k, c in zip(self.shape, where, self.chunk, strict=True))]

    def labels(self) -> LabelMap:
        """Read the array as a label map, one row of chunks at a time."""
        high = self.chunk[0]
        heights = [min(high, self.shape[0] - first) for first in range(0, self.shape[0], high)]
        return LabelMap.joined([self._row(k, height) for k, height in enumerate(heights)], self.shape)

    def _row(self, row: int, height: int) -> LabelMap:
        shape = (height, *self.shape[1:])
        band: NDArray[Any] | None = None
        for where in product(*(range(-(-n // c)) for n, c in zip(self.shape[1:], self.chunk[1:], strict=True))):
            if (part := self.chunk_at((row, *where))) is not None:
                band = np.full(shape, self.fill, self.kind) if band is None else band
                starts = (k * c for k, c in zip(where, self.chunk[1:], strict=True))
                inside = (slice(s, s + n) for s, n in zip(starts, part.shape[1:], strict=True))
                band[(slice(None), *inside)] = part
        if band is None:
            return LabelMap(np.zeros(1, np.int64), np.full(1, self.fill, self.kind), shape)
        return LabelMap.of(band, str(self.folder))

    def _path(self, where: Sequence[int]) -> Path:
        return self.folder.joinpath("c", *map(str, where))


def _chunk_of(shape: Shape) -> Shape:
    return tuple(min(c, n) for c, n in zip(CHUNKS[len(shape)], shape, strict=True))


def _damaged(path: Path, why: str) -> DamagedError:
    fix = "take an undamaged copy, or write the folder again; other arrays are read as .npy (--format label-map)"
    return DamagedError("ome-zarr-invalid", "cannot read a label image", item=f"{path}: {why}", fix=fix)


def _incomplete(item: str) -> IncompleteError:
    fix = "bring its files back, or write the folder again"
    return IncompleteError("files-missing", "cannot read masks: files are missing", item=item, fix=fix)
