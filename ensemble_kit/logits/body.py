"""Bodies: the stored bytes of one key, in a file or in memory, read or mapped."""

from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POPULATE_READ = 22  # of madvise, since Linux 5.14; Python has no name for it
_BLOCK = 1 << 19
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay", "bcachefs"}


class Body(Protocol):
    """The stored bytes of one key."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    @property
    def stamp(self) -> Hashable:
        """A value that changes when the bytes do; None where that is not known."""

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:
        """Map the first `size` bytes, read-only; None where that cannot be, or with `cached` needs the disk."""

    def close(self) -> None:
        """Release what was opened; memory that was mapped stays valid."""


class FileBody:
    """A range of an open file."""

    def __init__(self, fd: int, stamp: Hashable, size: int, offset: int = 0) -> None:
        self.size, self.stamp = size, stamp
        self._fd, self._offset = fd, offset

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""
        done = 0
        while done < out.size:
            got = os.preadv(self._fd, [out[done:].data], self._offset + at + done)
            if got == 0:
                raise OSError(errno.EIO, "the file ended early")
            done += got

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:
        """Map the first `size` bytes; None where they begin at an odd offset, or there are too many mappings.

        With `cached` also None unless the system has all of them in memory, so that a bad disk cannot show.
        """
        if self._offset % 2 or (cached and not is_cached(self._fd, size, self._offset)):
            return None
        try:
            os.close(free := os.dup(self._fd))  # a mapping keeps a descriptor of its own: leave half of them to others
            if free >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
                return None
            return _mapped(self._fd, size, self._offset, cached)
        except OSError:
            return None  # too many open files or mappings, or an old kernel: memory of our own does as well

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class HeldBody:
    """Bytes in memory."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.size, self.stamp, self._content = content.size, None, content

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""
        out[:] = self._content[at : at + out.size]

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:  # noqa: ARG002 - it always is
        """Return the memory itself."""
        out = self._content[:size]
        out.flags.writeable = False
        return out

    def close(self) -> None:
        """Do nothing: the memory is freed with its last reference."""


def is_cached(fd: int, size: int, offset: int = 0) -> bool:
    """Tell whether the system seems to have a range in memory: a byte of each block is asked for, without waiting."""
    try:
        return all(
            os.preadv(fd, [bytearray(1)], offset + at, os.RWF_NOWAIT) for at in (*range(0, size, _BLOCK), size - 1)
        )
    except OSError:  # not there, or a file system that cannot tell
        return False


def _mapped(fd: int, size: int, offset: int, cached: bool) -> NDArray[np.uint8]:
    """Map a range of a file; the array keeps the mapping alive, and is read-only.

    With `cached` all its pages are brought in now: a disk that fails then is an OSError, where a page that is first
    touched later would be a SIGBUS.
    """
    ahead = offset % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(fd, ahead + size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=offset - ahead)
    if cached:
        mapped.madvise(_POPULATE_READ)
    return np.frombuffer(mapped, np.uint8)[ahead:]


def available_memory() -> int:
    """Return the machine's free memory in bytes; 0 where it is not known."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def is_local(root: Path) -> bool:
    """Tell whether a path is on a disk of this machine, where a mapping does not fault."""
    return file_system(root) in _LOCAL


def file_system(root: Path) -> str:
    """Name the file system of a path; empty where it is not known."""
    best, kind = "", ""
    try:
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, name, *_ = line.split(" ")
            inside = root.is_relative_to(point.replace("\\040", " "))
            if inside and len(point) >= len(best):
                best, kind = point, name
    except (OSError, ValueError):
        return ""
    return kind
