"""A writer's own segment of the manifest, and the locks by which writers see each other.

A segment is locked by its writer for as long as that lives, and never shared. One more lock, of the store, is held
while a sample is committed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ensemble_kit.errors import LockedError
from ensemble_kit.logits.records import FORMAT, SUFFIX, Record, from_line, to_line

LOCK = "lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_NOFOLLOW = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


class SegmentWriter:
    """One writer's own segment: created, locked, appended to."""

    def __init__(self, folder: Path, store: str) -> None:
        self.token = secrets.token_hex(8)
        self.name = f"{self.token}{SUFFIX}"
        self.lines = self._samples = 0
        self._path = folder / self.name
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _NOFOLLOW, 0o666)
        lock(self.fd, wait=True)  # one who asks whether we live may hold it for a moment
        self._append({"format": FORMAT, "store": store, "host": socket.gethostname(), "pid": os.getpid()})

    def append(self, record: Record) -> None:
        """Append a sample's line."""
        self._append(record.to_json())
        self._samples += 1

    def mark(self) -> None:
        """Say that everything so far is on the disk; to be called when it is."""
        self._append({"sync": self._samples})

    def close(self) -> None:
        """Give up the lock."""
        os.close(self.fd)

    def _append(self, body: Mapping[str, Any]) -> None:
        raw, size = to_line(body), os.fstat(self.fd).st_size
        try:
            done = os.write(self.fd, raw)
            if done != len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError:
            os.ftruncate(self.fd, size)  # half a line must not stand before the next one
            raise
        self.lines += 1


def lock(fd: int, *, wait: bool) -> bool:
    """Lock a file for this process; False if another holds it. Where there are no locks, True."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextmanager
def committing(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the store's lock for as long as a commit takes (tens of microseconds, no data is written under it).

    A writer that is stopped while it holds the lock stops the others until it continues; with a dead one it vanishes.
    """
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | _NOFOLLOW)
    except FileNotFoundError:
        raise replaced(folder) from None
    try:
        if not lock(fd, wait=wait):
            raise busy(folder)
        if not _still_there(fd, folder / LOCK):
            raise replaced(folder)
        yield
    finally:
        os.close(fd)


def _still_there(fd: int, path: Path) -> bool:
    try:
        there, held = path.stat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (held.st_ino, held.st_dev)


def busy(folder: Path) -> LockedError:
    """Say that a store has a living writer."""
    what, item = "cannot replace a store that another process writes to", str(folder.parent.parent)
    fix = "wait until it ends, or end it; with many processes let one replace the store before the others open it"
    return LockedError("store-locked", what, item=item, fix=fix)


def replaced(folder: Path) -> LockedError:
    """Say that a store was taken away under its writer."""
    what, item = "cannot write: another process has replaced or removed the store", str(folder.parent.parent)
    fix = "let one process replace the store before the others open it, then run again"
    return LockedError("store-replaced", what, item=item, fix=fix)


def living(folder: Path) -> set[str]:
    """Return the tokens of the segments whose writers live."""
    out = set()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            fd = os.open(path, os.O_RDONLY | _NOFOLLOW)
        except OSError:
            continue
        try:
            if _lives(fd):
                out.add(path.name.removesuffix(SUFFIX))
        finally:
            os.close(fd)
    return out


def _lives(fd: int) -> bool:
    """Ask for a segment's lock, shared, so that two who ask never take each other for a writer.

    Where the file system has no locks, ask the process table; of another host's writer, expect that it lives.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        head = from_line(os.pread(fd, 4096, 0).split(b"\n")[0]) or {}
    if head.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(head.get("pid", 0)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True
