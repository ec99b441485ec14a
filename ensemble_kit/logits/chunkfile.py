"""A sample's chunk file: the payload as it is in memory, then zarr's `crc32c` of it, and nothing else.

A payload begins at byte 0, so a file can be mapped and handed to a kernel without a copy. Its checksum is kept
*running*: one value after each class, of which the last is zarr's own. One pass over the bytes verifies a sample,
and where it fails, the damaged classes are known.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError, ResourceError, UnsafeError

try:
    from fastcrc import crc32
except ImportError:  # conda-forge has no fastcrc; zarr brings google-crc32c everywhere, whose values are the same
    import google_crc32c

    def _extend(block: NDArray[np.uint8] | bytes, start: int) -> int:
        return int(google_crc32c.extend(start, block))

else:
    _extend = crc32.iscsi  # type: ignore[assignment]  # NumPy says that it has a buffer from Python 3.12 on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.body import Body

TRAILER = 4
_BLOCK = 1 << 19  # fits the second-level cache: read, then checked while it is there
_CLOEXEC_READ = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Stamp(NamedTuple):
    """What tells whether a file is still the one that was verified."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    """Of the last change of anything; a program can put the other times back, not this."""


def crc(block: NDArray[np.uint8] | bytes, start: int = 0) -> int:
    """Extend a CRC-32C over a block of bytes: 60 GB/s in the second-level cache, google-crc32c 20."""
    return _extend(block, start)


def running_crcs(payload: NDArray[np.uint8], classes: int) -> bytes:
    """Return the CRC-32C of the payload up to the end of each class, 4 big-endian bytes each; the last is zarr's."""
    out, value = bytearray(), 0
    for one in payload.reshape(classes, -1):
        value = crc(one, value)
        out += value.to_bytes(TRAILER, "big")
    return bytes(out)


def damaged_classes(payload: NDArray[np.uint8], crcs: Sequence[int]) -> list[int]:
    """Tell which classes differ from what was written, by their running checksums."""
    rows = zip(payload.reshape(len(crcs), -1), (0, *crcs[:-1]), crcs, strict=True)
    return [k for k, (one, before, after) in enumerate(rows) if crc(one, before) != after]


def write(path: Path, *parts: bytes | memoryview) -> int:
    """Write a new file of some parts and start its way to the disk; return its open descriptor, not yet synced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, flags, 0o666)
    try:
        left = [memoryview(part) for part in parts]
        while left:
            done = os.writev(fd, left)
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if left:
                left[0] = left[0][done:]
        # begins to write the pages back without waiting, so that the group's fsync finds most of them done:
        # 1.9 GB/s against 1.4 for a durable dump. Dirty pages stay cached.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except BaseException:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def open_file(path: Path) -> tuple[int, Stamp]:
    """Open a regular file for reading, never through a link.

    Raises
    ------
    FileNotFoundError
        There is none.
    UnsafeError
        It is a symbolic link.
    DamagedError
        It is a folder, a pipe or a device.
    ResourceError
        It may not be read.
    """
    try:
        fd = os.open(path, _CLOEXEC_READ)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link(path) from None
        if error.errno == errno.EACCES:
            item, fix = f"{path} as uid {os.getuid()}", "give this user the right to read it"
            raise ResourceError("permission", "cannot read a file", item=item, fix=fix) from None
        raise
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        os.close(fd)
        fix = "run `ensk repair` on the store, which moves it aside, then the same dump again"
        raise DamagedError("store-foreign", "cannot read what is not a regular file", item=str(path), fix=fix)
    return fd, Stamp(state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns)


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a path below a folder that leads through a link."""
    parent = path.parent
    while parent != folder and parent.is_relative_to(folder):
        if parent.is_symlink():
            raise link(parent)
        parent = parent.parent


def link(path: Path) -> UnsafeError:
    """Say that a path inside a store is a symbolic link."""
    fix = "replace the link by the file or folder itself"
    return UnsafeError("store-link", "refuse to follow a link out of a store", item=str(path), fix=fix)


def changed(store: object, code: str = "store-changed") -> DamagedError:
    """Say that a store is not the one that was opened; what is there now may well be sound."""
    what = "cannot read a store that was replaced or moved while it was open"
    return DamagedError(code, what, item=str(store), fix="open it again")


def read_small(path: Path, limit: int) -> bytes:
    """Read a small file whole, never through a link; a file above `limit` bytes is refused."""
    fd, stamp = open_file(path)
    with os.fdopen(fd, "rb") as file:
        if stamp.size > limit:
            raise too_large(f"{path}: {stamp.size} bytes, at most {limit}")
        return file.read()


def too_large(item: str, what: str = "refuse to read a file of metadata") -> UnsafeError:
    """Say that a size in a store is beyond what can be true."""
    return UnsafeError("store-too-large", what, item=item, fix="restore it from a copy, or dump (or pack) it again")


def read_payload(body: Body, out: NDArray[np.uint8], check: bool) -> tuple[int, int]:
    """Read a chunk of `out.size` payload bytes into `out`.

    Returns the checksum of what was read (0 without `check`) and the one that stands after it. Each block is read
    and then checked while it is in the cache.
    """
    value = 0
    for at in range(0, out.size, _BLOCK):
        block = out[at : at + _BLOCK]
        body.read_into(block, at)
        if check:
            value = crc(block, value)
    return value, read_trailer(body, out.size)


def read_trailer(body: Body, size: int) -> int:
    """Read the checksum that stands after a payload of `size` bytes."""
    trailer = np.empty(TRAILER, np.uint8)
    body.read_into(trailer, size)
    return int.from_bytes(trailer.tobytes(), "little")
