"""A finished store in one uncompressed `.zip`, for carrying: read in place, written whole or not at all.

Members are stored, never deflated, so that a sample is a range of the file and can be mapped like a chunk file. Their
checksums are the store's own; zip's crc32 is written for others and not needed here.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, UnsafeError, some
from ensemble_kit.files import atomic_write
from ensemble_kit.logits import chunkfile, coordinates, description
from ensemble_kit.logits.body import Body, FileBody
from ensemble_kit.logits.layout import (
    ARRAY,
    FORMER_META,
    MANIFEST,
    MANIFEST_JSON,
    MAX_META,
    META,
    Layout,
    StoreSpec,
)
from ensemble_kit.logits.manifest import HeldManifest, Manifest
from ensemble_kit.logits.records import SUFFIX, Record, to_segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOCAL = struct.Struct("<4s5H3I2H")
_ALIGN, _PADDING = 64, 0xD935  # the extra field in which others (zipalign) pad, too
_PACK_AGAIN = "take an undamaged copy, or pack the store again: ensk convert STORE --out FILE.zip"
_UNPACK = "unpack it, and pass the file or folder that was inside"


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a file that may hold a packed store."""
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


class _Member(NamedTuple):
    name: str
    header: int
    size: int


class Packed:
    """A store in a `.zip`, at its top or in the one folder that it holds; read only."""

    def __init__(self, path: Path) -> None:
        self.name, self.folder = str(path), path.parent
        self._path = path
        fd, self.stamp = chunkfile.open_file(path)
        with os.fdopen(fd, "rb") as file:
            self._members = _members(file, path, self.stamp.size)
        self._prefix = _prefix(self._members)

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Read the two `zarr.json` members."""
        try:
            group, array = (self._small(key, MAX_META) for key in (META, f"{ARRAY}/{META}"))
        except FileNotFoundError as error:
            if any(self._prefix + name in self._members for name in FORMER_META):
                raise description.former(self.name) from None
            fix = _PACK_AGAIN if any(ARRAY in key for key in self._members) else _UNPACK
            raise description.not_a_store(f"{self.name}: no {error.filename} in it", fix) from None
        return description.parse(group, array, self.name)

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Open the segments that were packed."""
        folder = f"{ARRAY}/{MANIFEST}/"
        names = [k.removeprefix(folder) for k in self._keys() if k.startswith(folder) and k.endswith(SUFFIX)]
        segments = {n: self._small(folder + n, self.stamp.size) for n in names}
        return HeldManifest(f"{self.name}/{folder[:-1]}", spec, segments)

    def open(self, key: str) -> Body:
        """Open a member's range of the file."""
        member = self._members.get(self._prefix + key)
        if member is None:
            raise FileNotFoundError(2, "no such member", key)
        try:
            fd, stamp = chunkfile.open_file(self._path)
        except FileNotFoundError:
            raise chunkfile.changed(self.name, "zip-changed") from None
        try:
            if stamp[:3] != self.stamp[:3]:  # a new link to it is not another file
                raise chunkfile.changed(self.name, "zip-changed")
            return FileBody(fd, (stamp, member.header), member.size, self._begin(fd, member))
        except BaseException:
            os.close(fd)
            raise

    def entries(self) -> Sequence[str]:
        """Name what is in the array's folder."""
        return sorted({k.split("/")[1] for k in self._keys() if k.startswith(f"{ARRAY}/")})

    def mend(self, keys: Sequence[str]) -> str:
        """Say that a packed store is not repaired but packed again."""
        del keys
        return _PACK_AGAIN

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""
        import zarr
        from zarr.storage import ZipStore

        return zarr.open_array(ZipStore(self._path, mode="r"), path=f"{self._prefix}{ARRAY}", mode="r")

    def _keys(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._members)

    def _small(self, key: str, limit: int) -> bytes:
        body = self.open(key)
        try:
            if body.size > limit:
                raise chunkfile.too_large(f"{self.name}, {key}: {body.size} bytes, at most {limit}")
            out = np.empty(body.size, np.uint8)
            body.read_into(out, 0)
            return out.tobytes()
        finally:
            body.close()

    def _begin(self, fd: int, member: _Member) -> int:
        """Return where a member's bytes begin: only its local header knows."""
        raw = os.pread(fd, _LOCAL.size, member.header)
        fields = _LOCAL.unpack(raw) if len(raw) == _LOCAL.size else (b"",) * 11
        sound = fields[0] == b"PK\3\4" and fields[3] == zipfile.ZIP_STORED and not fields[2] & 1
        begin = member.header + _LOCAL.size + (fields[9] + fields[10] if sound else 0)
        name = os.pread(fd, fields[9], member.header + _LOCAL.size) if sound else b""
        if not sound or name != member.name.encode() or begin + member.size > self.stamp.size:
            raise _damaged(self._path, f"the header of {member.name!r} does not fit the directory")
        return begin


def _members(file: BinaryIO, path: Path, size: int) -> dict[str, _Member]:
    """Read the directory of a zip; refuse what could lead elsewhere or mean two things."""
    what = "cannot open a file as a packed store"
    fix = "pass a store's folder, or a file that `ensk convert STORE --out FILE.zip` packed"
    try:
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except EnskError:
        raise
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error, OverflowError, OSError):
        item = f"{path}: it is not a zip, or was cut ({size} bytes)"
        raise DamagedError("store-foreign", what, item=item, fix=fix) from None
    if path.suffix.lower() == ".npz":
        item = f"{path}: it holds arrays, such as masks ({some(info.filename for info in infos)})"
        raise DamagedError("store-foreign", what, item=item, fix=f"{fix}; masks are taken by ensk vote --hard")
    found: dict[str, _Member] = {}
    for info in infos:
        _check(info, path)
        if info.filename in found:
            raise _damaged(path, f"{info.filename!r} is in it twice")
        if not info.is_dir():
            if info.compress_size != info.file_size:
                raise _damaged(path, f"{info.filename!r} has {info.compress_size} and {info.file_size} bytes")
            found[info.filename] = _Member(info.filename, info.header_offset, info.file_size)
    laid = sorted(found.values(), key=lambda m: m.header)
    for one, other in pairwise(laid):
        if one.header + _LOCAL.size + one.size > other.header:
            raise _damaged(path, f"{one.name!r} and {other.name!r} overlap")
    return found


def _check(info: zipfile.ZipInfo, path: Path) -> None:
    name = info.orig_filename
    folders = name.removesuffix("/").split("/")
    if "\\" in name or "\0" in name or ":" in folders[0] or any(f in {"", ".", ".."} for f in folders):
        raise _unsafe("zip-name", path, f"the name {name!r} leads out of it")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _unsafe("zip-name", path, f"{name!r} is a symbolic link")
    if info.flag_bits & 1:
        raise _unsafe("zip-compressed", path, f"{name!r} is encrypted")
    if info.compress_type != zipfile.ZIP_STORED:
        raise _unsafe("zip-compressed", path, f"{name!r} is compressed, and nothing guards what it inflates to")


def _prefix(names: Mapping[str, object]) -> str:
    """Find the folder inside the zip that is the store: the top, or the only one there is."""
    tops = {name.partition("/")[0] for name in names}
    return "" if META in names or len(tops) != 1 else f"{tops.pop()}/"


def _unsafe(code: str, path: Path, why: str) -> UnsafeError:
    fix = "pack the store again without compression: ensk convert STORE --out FILE.zip, or zip -0 -r"
    return UnsafeError(code, "refuse to read a zip as a store", item=f"{path}: {why}", fix=fix)


def _damaged(path: Path, item: str) -> DamagedError:
    return DamagedError("zip-damaged", "cannot trust a packed store", item=f"{path}: {item}", fix=_PACK_AGAIN)


def pack(
    spec: StoreSpec,
    samples: Iterator[tuple[Record, Iterator[tuple[str, bytes | NDArray[np.uint8]]]]],
    out: str | os.PathLike[str],
    force: bool,
) -> int:
    """Write a packed store from key and stored bytes of every sample's files; return its size.

    Equal stores give equal bytes.

    Raises
    ------
    UsageError
        `out` exists and `force` is false, or its folder is missing.
    ResourceError
        The disk is full or fails; what was there before is untouched.
    """
    records = []
    with atomic_write(out, force) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as into:
            _add(into, file, META, spec.group_json())
            _add(into, file, f"{ARRAY}/{META}", spec.array_json())
            for key, text in coordinates.files(spec).items():
                _add(into, file, key, text)
            for record, files in samples:
                for key, content in files:
                    _add(into, file, key, content if isinstance(content, bytes) else content.data)
                records.append(record)
            if spec.own:
                _add(into, file, f"{ARRAY}/{MANIFEST}/{META}", MANIFEST_JSON)
            _add(into, file, f"{ARRAY}/{MANIFEST}/packed.jsonl", to_segment(spec.store, records))
        return file.tell()


def _add(into: zipfile.ZipFile, file: BinaryIO, name: str, content: bytes | memoryview) -> None:
    """Add a member whose bytes begin at a multiple of 64."""
    info = zipfile.ZipInfo(name)  # its date is 1980: the zip's bytes depend on nothing but the store
    info.external_attr = 0o644 << 16
    begin = file.tell() + _LOCAL.size + len(name.encode()) + 4
    gap = -begin % _ALIGN
    info.extra = struct.pack("<HH", _PADDING, gap) + bytes(gap)
    into.writestr(info, content)
