"""MetaImage, `.mha`, and `.mhd` with its voxels in a file beside it: read only, by its text header."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.formats.volume import WHAT, Volume, damaged, geometry_of, open_at, voxels_beside

if TYPE_CHECKING:
    from ensemble_kit.spec.affine import Geometry

SUFFIXES = (".mha", ".mhd")

_HEAD = 1 << 16  # most bytes of a header
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MATRIX, _ORIGIN = ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin")
_SPACING, _ORDER = ("ElementSpacing", "ElementSize"), ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def open_volume(path: Path) -> Volume:
    """Read the header of a MetaImage.

    Raises
    ------
    DamagedError
        Another file, a damaged header, or one that declares more than the file holds.
    MismatchError
        Another number of axes than three.
    UsageError
        Voxels in several files, or as text.
    UnsafeError
        Its voxels are in a file outside its folder.
    """
    where = str(path)
    header, begin = _header(path)
    if header.get("NDims") != "3":
        item = f"{where} has {header.get('NDims')} axes"
        raise MismatchError("volume-axes", WHAT, item=item, fix="save a volume of the axes x, y, z")
    kind = header.get("ElementType", "")
    if kind not in _TYPES:
        raise damaged(where, f"its type of voxels is {kind!r}")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if _is(header, _ORDER) else "<")
    shape = tuple(int(v) for v in _numbers(header, ("DimSize",), 3, where)[::-1])
    source, begin = _source(path, header, begin)
    packed, size = _is(header, ("CompressedData",)), source.stat().st_size
    channels = int(_numbers({"n": header.get("ElementNumberOfChannels", "1")}, ("n",), 1, where)[0])
    return Volume(
        where,
        shape,
        dtype,
        partial(_inflated, source, begin) if packed else partial(open_at, source, begin, False),
        (size if packed else max(size - begin, 0), packed),
        _geometry(header, where),
        channels,
        together=True,
    )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Read the lines of a header, and where the voxels of an attached one begin."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    end = re.search(rb"^ElementDataFile\s*=[^\n]*(\n|$)", head, re.MULTILINE)
    lines = [] if end is None else head[: end.end()].decode("utf-8", "replace").splitlines()
    pairs = [line.partition("=") for line in lines if line.strip()]
    if not pairs or not all(middle for _, middle, _ in pairs):
        raise damaged(path, f"it is not MetaImage: it begins with {head[:8]!r}", "pass .mha or .mhd files")
    assert end is not None
    return {key.strip(): value.strip() for key, _, value in pairs}, end.end()


def _source(path: Path, header: Mapping[str, str], begin: int) -> tuple[Path, int]:
    """Return the file of the voxels, and where in it they begin."""
    beside = header["ElementDataFile"]
    if header.get("BinaryData", "True").casefold() == "false" or beside.split()[:1] == ["LIST"] or "%" in beside:
        item, fix = f"{path}: its voxels are text, or in several files", "save it as one binary file .mha"
        raise UsageError("format-unread", WHAT, item=item, fix=fix)
    if beside.upper() == "LOCAL":
        return path, begin
    skipped = int(_numbers({"n": header.get("HeaderSize", "0")}, ("n",), 1, str(path))[0])
    return voxels_beside(path, beside), max(skipped, 0)


def _geometry(header: Mapping[str, str], where: str) -> Geometry:
    """Return where a volume lies: a row of the matrix is the direction of an axis of the file."""
    matrix = _numbers(header, _MATRIX, 9, where, "1 0 0 0 1 0 0 0 1").reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = matrix * _numbers(header, _SPACING, 3, where, "1 1 1")
    affine[:3, 3] = _numbers(header, _ORIGIN, 3, where, "0 0 0")
    return geometry_of(affine, "LPS", where)


def _numbers(
    header: Mapping[str, str], names: tuple[str, ...], count: int, where: str, otherwise: str = ""
) -> np.ndarray[Any, np.dtype[np.float64]]:
    text = next((header[name] for name in names if name in header), otherwise)
    try:
        found = np.array([float(part) for part in text.split()])
    except ValueError:
        found = np.zeros(0)
    if found.size != count or not np.isfinite(found).all():
        raise damaged(where, f"{names[0]} is {text[:80]!r}, not {count} numbers")
    return found


def _is(header: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(header.get(name, "").casefold() == "true" for name in names)


@contextmanager
def _inflated(path: Path, begin: int) -> Iterator[IO[bytes]]:
    """Open voxels that zlib compressed."""
    with path.open("rb") as file:
        file.seek(begin)
        yield cast("IO[bytes]", io.BufferedReader(_Inflating(file)))


class _Inflating(io.RawIOBase):
    """What zlib compressed, as a file to read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._zlib = file, zlib.decompressobj()

    def readable(self) -> bool:
        """Give bytes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Inflate as many bytes as fit; 0 at the end."""
        while not self._zlib.eof:
            given = self._zlib.unconsumed_tail or self._file.read(1 << 16)
            found = self._zlib.decompress(given, len(buffer))
            buffer[: len(found)] = found
            if found:
                return len(found)
            if not given:
                raise EOFError("the end of the compressed data is missing")
        return 0
