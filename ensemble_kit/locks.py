"""Temporary files and folders: locked while their process lives, and removed by another one when it is gone."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path


def lock_new(handle: int) -> bool:
    """Lock what was just made under a temporary name; false where another process's sweep removed it just before."""
    with suppress(OSError):  # a file system without locks: nothing is swept there either
        fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def lock_folder(folder: Path) -> int | None:
    """Lock a folder that was just made, until the handle is closed; None where a sweep removed it just before."""
    with suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if lock_new(handle):
            return handle
        os.close(handle)
    return None


def sweep(folder: Path, name: re.Pattern[str], ours: Path) -> None:
    """Remove what killed processes left in a folder under names of this form, but for ours and what is in use."""
    for path in folder.iterdir():
        if name.fullmatch(path.name) and path != ours:
            with suppress(OSError):  # in use, or removed meanwhile
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
