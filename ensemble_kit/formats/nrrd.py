"""NRRD, attached or with its voxels in a file beside it, by pynrrd; also the segments of 3D Slicer's `.seg.nrrd`."""

from __future__ import annotations

import bz2
import gzip
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.formats.volume import (
    HEADER_FIX,
    WHAT,
    Segment,
    Volume,
    damaged,
    geometry_of,
    missing_extra,
    open_at,
    voxels_beside,
)
from ensemble_kit.spec.affine import Geometry

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from ensemble_kit.spec.geometry import Shape

SUFFIXES = (".nrrd", ".nhdr")

_HEAD = 1 << 22  # most bytes of a header
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_RAS = {"right": 1, "left": -1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}
_SHORT = {letter: word for word in _RAS for letter in [word[0].upper()]}
_MM = {"mm": 1.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "cm": 10.0, "m": 1000.0}
_GZIP, _BZIP = {"gzip", "gz"}, {"bzip2", "bz2"}
_PACKED = dict.fromkeys(_BZIP, 1 << 10)  # how much further bzip2 packs equal bytes than gzip does


def open_volume(path: Path) -> Volume:
    """Read the header of an NRRD file.

    Raises
    ------
    DamagedError
        Another file, a damaged header, or one that declares more than the file holds.
    MismatchError
        Axes that are not x, y, z and one of classes.
    UsageError
        Voxels in several files, or encoded otherwise than as raw, gzip or bzip2; pynrrd is not installed.
    UnsafeError
        Its voxels are in a file outside its folder.
    """
    where = str(path)
    header, begin = _header(path)
    sizes, dtype = [int(n) for n in _field(header, "sizes", where)], _dtype(header, where)
    directions, channel = _axes(header, sizes, where)
    spatial = [n for k, n in enumerate(sizes) if k != channel]
    opened, size = _voxels(path, header, begin, spatial, dtype)
    geometry, told = _geometry(header, directions, where)
    return Volume(
        where,
        tuple(spatial[::-1]),
        dtype,
        opened,
        size,
        geometry,
        1 if channel is None else sizes[channel],
        channel == 0,
        told=told,
        segments=_segments(header, where),
    )


def header_for(geometry: Geometry, shape: Shape, dtype: DTypeLike) -> bytes:
    """Make the header of a label map, compressed by gzip, in ITK's world.

    Parameters
    ----------
    shape : (D, H, W).
    """
    lps = np.diag([-1.0, -1, 1, 1]) @ geometry.ras
    directions = " ".join(_vector(lps[:3, k]) for k in range(3))
    lines = [
        "NRRD0004",
        f"type: {np.dtype(dtype).name}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, shape[::-1]))}",
        f"space directions: {directions}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    return "\n".join([*lines, "", ""]).encode()


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(v + 0.0) for v in values.tolist()) + ")"


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """Read the fields of a header, and where the voxels of an attached one begin."""
    try:
        import nrrd
    except ImportError:
        raise missing_extra("pynrrd") from None
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(b"NRRD000"):
        raise damaged(path, f"it is not NRRD: it begins with {head[:8]!r}", "pass .nrrd files")
    end = re.search(rb"\r?\n\r?\n", head)
    text = head[: end.start() if end else len(head)].decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = nrrd.read_header([f"{line}\n" for line in text.splitlines()])
        return cast("Mapping[str, Any]", found), end.end() if end else len(head)
    except Exception as error:  # noqa: BLE001 - pynrrd raises anything for a damaged header
        raise damaged(path, f"its header is invalid ({error})") from None


def _axes(header: Mapping[str, Any], sizes: Sequence[int], where: str) -> tuple[list[Any] | None, int | None]:
    """Return the directions of x, y and z, and which axis is that of classes, the first or the last."""
    rows = header.get("space directions")
    every = None if rows is None else [None if r is None or np.isnan(r).all() else np.asarray(r, float) for r in rows]
    kinds = [str(kind).casefold() for kind in header.get("kinds", [])]
    if every is not None and len(every) == len(sizes):
        others = [k for k, row in enumerate(every) if row is None]
    elif len(kinds) == len(sizes):
        others = [k for k, kind in enumerate(kinds) if kind not in {"domain", "space", "???", "none"}]
    else:
        others = []
    if len(sizes) - len(others) != 3 or len(others) > 1 or (others and others[0] not in {0, len(sizes) - 1}):
        item = f"{where} has the sizes {' x '.join(map(str, sizes))}, {3 - len(sizes) + len(others)} short of x, y, z"
        if len(sizes) - len(others) > 3:
            item = f"{where} has the sizes {' x '.join(map(str, sizes))}, and does not say which axis is not x, y or z"
        fix = "save a volume of the axes x, y, z, or one whose first or last axis, of kind list, has a class each"
        raise MismatchError("volume-axes", WHAT, item=item, fix=fix)
    directions = None if every is None else [row for row in every if row is not None]
    return directions, others[0] if others else None


def _geometry(
    header: Mapping[str, Any], directions: list[Any] | None, where: str
) -> tuple[Geometry | None, tuple[str, ...]]:
    """Return where a volume lies, and what of it was assumed."""
    space = str(header.get("space", "")).casefold()
    words = [_SHORT.get(c.upper(), "") for c in space] if len(space) == 3 else space.split("-")
    pairs = [{"right", "left"}, {"anterior", "posterior"}, {"superior", "inferior"}]
    known = len(words) == 3 and all(w in pair for w, pair in zip(words, pairs, strict=True))
    if directions is None or not known or header.get("space origin") is None:
        return None, (f"it does not say where it lies (space {space or 'none'!r})",)
    units = {str(u) for u in header.get("space units", ["mm"])}
    if len(units) != 1 or not units <= set(_MM):
        raise damaged(where, f"its space units are {sorted(units)}", f"write mm; or {HEADER_FIX}")
    unit = units.pop()
    affine = np.eye(4)
    try:
        affine[:3, :3], affine[:3, 3] = np.array(directions, float).T, header["space origin"]
    except ValueError:
        raise damaged(where, f"its space directions are {directions}") from None
    signs = np.diag([*(_RAS[w] * _MM[unit] for w in words), 1.0])
    return geometry_of(signs @ affine, "RAS", where), () if unit == "mm" else (f"its unit is {unit}",)


def _voxels(
    path: Path, header: Mapping[str, Any], begin: int, spatial: Sequence[int], dtype: np.dtype[Any]
) -> tuple[Any, tuple[int, bool]]:
    """Return what opens the voxels, and the bytes of their file and whether it is compressed."""
    encoding = str(header.get("encoding", "")).casefold()
    beside = header.get("data file", header.get("datafile"))
    source = path
    if beside is not None:
        if str(beside).split()[0] == "LIST" or "%" in str(beside):
            item, fix = f"{path}: its voxels are in several files", "save it as one file .nrrd"
            raise UsageError("format-unread", WHAT, item=item, fix=fix)
        source, begin = voxels_beside(path, str(beside)), 0
    if int(header.get("line skip", header.get("lineskip", 0))):
        raise UsageError("format-unread", WHAT, item=f"{path}: it skips lines", fix="save it as one file .nrrd")
    skip, size = int(header.get("byte skip", header.get("byteskip", 0))), source.stat().st_size
    if encoding == "raw":
        need = int(np.prod([*spatial, dtype.itemsize], dtype=object))
        begin = max(size - need, 0) if skip == -1 else begin + max(skip, 0)
        return partial(open_at, source, begin, False), (max(size - begin, 0), False)
    if encoding not in _GZIP | _BZIP or skip:
        item, fix = f"{path}: its voxels are encoded as {encoding!r}", "save it with the encoding gzip or raw"
        raise UsageError("format-unread", WHAT, item=item, fix=fix)
    return partial(_open_behind, source, begin, encoding in _BZIP), (size * _PACKED.get(encoding, 1), True)


@contextmanager
def _open_behind(path: Path, begin: int, bzip: bool) -> Iterator[IO[bytes]]:
    """Open compressed voxels that begin somewhere in a file."""
    with path.open("rb") as file:
        file.seek(begin)
        with bz2.BZ2File(file) if bzip else gzip.GzipFile(fileobj=file) as opened:
            yield cast("IO[bytes]", opened)


def _dtype(header: Mapping[str, Any], where: str) -> np.dtype[Any]:
    kind = str(_field(header, "type", where)).casefold()
    code = next((code for code, names in _TYPES.items() if kind in names), None)
    if code is None:
        raise damaged(where, f"its type of voxels is {kind!r}")
    order = str(header.get("endian", "little")).casefold()
    if order not in {"little", "big"}:
        raise damaged(where, f"its byte order is {order!r}")
    return np.dtype(code).newbyteorder("<" if order == "little" else ">")


def _segments(header: Mapping[str, Any], where: str) -> tuple[Segment, ...]:
    """Return the segments of 3D Slicer, by their numbers."""
    numbers = sorted({int(m[1]) for key in header if (m := re.fullmatch(r"Segment([0-9]{1,6})_Name", key))})
    try:
        return tuple(
            Segment(
                str(header[f"Segment{k}_Name"]),
                int(header.get(f"Segment{k}_Layer", 0)),
                int(header.get(f"Segment{k}_LabelValue", 1)),
            )
            for k in numbers
        )
    except ValueError:
        raise damaged(where, "the layer or the value of a segment is not a whole number") from None


def _field(header: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in header:
        raise damaged(where, f"its header has no {name!r}")
    return header[name]
