"""Files and folders that appear whole or not at all.

A final name has the complete new content, or the old, or none: content is written to a sibling that only its owner can
read, synced to the disk, and renamed; then the folder's entry is synced too. A link at the
final name is replaced, never followed. What a killed process left behind is removed by the next write to the same
name: a sibling in use is locked, and the kernel drops the lock of a process that is gone. Behind a URL
a file is put when it is complete (`remote/uploads.py`), and no folder is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ensemble_kit.errors import EnskError, ResourceError, UsageError
from ensemble_kit.locks import lock_folder, lock_new, sweep
from ensemble_kit.remote.uploads import check_object, folder_refused, try_upload, uploading
from ensemble_kit.remote.urls import url_of

_NAME_LIMIT = 255  # bytes of one name, on every file system in use
_BLOCK, _SPOOL = 1 << 16, 1 << 26
_SYNCED_AT_ONCE = 16
_STREAMS = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+")
_WRITE_FIX = "free space or pass another path; what was there before is untouched"


@contextmanager
def atomic_write(path: str | os.PathLike[str], force: bool = True) -> Iterator[BinaryIO]:
    """Give a binary file that becomes `path` when the block ends, and vanishes when it fails.

    A device or a pipe is written to when the block ends: it has no old content to keep.

    Raises
    ------
    UsageError
        `path` is a folder, its folder is missing, or it exists and `force` is false.
    ResourceError
        The disk is full or fails, or the server of a URL.
    """
    if (url := url_of(path)) is not None:
        with uploading(url, force) as out:
            yield out
        return
    target = Path(path)
    if is_stream(target):
        with blamed(target), target.open("wb") as stream, spooled(stream) as out:
            yield out
        return
    check_target(target, force=force, folder=False)
    with blamed(target):
        temporary, handle = _reserve(target)
        try:
            with os.fdopen(handle, "wb") as out:
                yield out
                out.flush()
                os.fchmod(handle, 0o666 & ~_umask())
                os.fsync(handle)
                _sweep(target, temporary)  # before the target is there: whoever finds it need not come back
                temporary.replace(target)
            sync_folder(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Give a binary file whose content is sent to a stream when the block ends, and nowhere when it fails.

    What is beyond 64 MB waits in a temporary file, so memory does not grow with what is written.
    """
    with tempfile.SpooledTemporaryFile(_SPOOL) as held:
        yield cast("BinaryIO", held)
        held.seek(0)
        shutil.copyfileobj(held, stream, _BLOCK)
        stream.flush()


@contextmanager
def atomic_folder(path: str | os.PathLike[str], force: bool = True, mark: str | None = None) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends, and vanishes when it fails.

    Parameters
    ----------
    path : the final name. It can be absent for a moment between two renames; it is never incomplete.
    force : replace the folder that is there.
    mark : name of a file that shows that a folder is of this kind. A folder that holds other things is never
        replaced, whatever `force` says: it may be somebody's work.

    Raises
    ------
    UsageError
        `path` is a file, its parent is missing, it exists and may not be replaced.
    ResourceError
        The disk is full or fails.
    """
    target = Path(path)
    check_target(target, force=force, folder=True, mark=mark)
    with blamed(target):
        temporary, handle = _reserve_folder(target)
        try:
            yield temporary
            _sync_tree(temporary)
            temporary.chmod(0o777 & ~_umask())
            _sweep(target, temporary)
            _swap(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(handle)


def check_name(target: Path) -> None:
    """Refuse a path whose name no file can have."""
    if "\0" in str(target) or len(os.fsencode(target.name)) > _NAME_LIMIT or not target.name:
        item = f"{str(target)[:80]!r} cannot be the name of a file"
        raise _refused("output-name", item, "pass a name of 1 to 255 bytes without NUL")


def check_target(target: Path, *, force: bool, folder: bool, mark: str | None = None) -> None:
    """Refuse a path that cannot be written, before any work is done for it; the arguments are those of `atomic_folder`.

    Parameters
    ----------
    folder : whether a folder is to be written there, not a file.
    """
    if (url := url_of(target)) is not None:
        if folder:
            raise folder_refused(url)
        check_object(url, force)
        return
    check_name(target)
    if not target.parent.is_dir():
        blocking = next(p for p in target.parents if p.exists())
        make = f"make it (mkdir -p {target.parent}) or pass another path"
        fix = make if blocking.is_dir() else f"pass a path that does not lead through the file {blocking}"
        raise _refused("output-folder-missing", f"{target}: {target.parent} is not a folder", fix)
    if target.is_dir() != folder and target.exists():
        found, wanted = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
        item = f"{target} is {found}, and {wanted} is to be written"
        raise _refused("output-kind", item, "pass another path, or another format")
    marked = mark is not None and (target / mark).is_file()
    if target.is_dir() and not marked and any(not _begun(p, mark) for p in target.iterdir()):
        item = f"{target} is a folder with files that this kit did not write"
        raise _refused("output-foreign", item, "pass the path of a new folder")
    if not force and (target.exists() or target.is_symlink()):
        fix = "pass --force (force=True) to replace it, or another path"
        raise _refused("output-exists", f"{target} exists", fix)


def _begun(path: Path, mark: str | None) -> bool:
    """Tell whether a path is the beginning of a mark, which another process is writing or was killed at."""
    return mark is not None and _siblings(mark).fullmatch(path.name) is not None


def try_target(target: Path) -> None:
    """Write a block beside a target and take it away again: what the disk refuses is refused before any work.

    Raises
    ------
    ResourceError
        The folder or the bucket may not be written to, is read only, or its disk is full.
    """
    if (url := url_of(target)) is not None:
        try_upload(url)
        return
    if is_stream(target):
        return
    with blamed(target):
        temporary, handle = _reserve(target)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(bytes(_BLOCK))
                out.flush()
                os.fsync(handle)
        finally:
            temporary.unlink(missing_ok=True)


def check_space(path: str | os.PathLike[str], needed: int, force: bool = False) -> None:
    """Refuse what does not fit on the disk before anything is written; a URL is not looked at.

    Raises
    ------
    ResourceError
        Fewer bytes are free than needed, and `force` is false.
    """
    if force or "://" in os.fspath(path):
        return
    there = Path(path).absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        item = f"{os.fspath(path)!r} needs {needed} bytes, {free} are free"
        fix = "free space, pass another --out, or --force to try"
        raise ResourceError("disk-full", "cannot write: not enough space", item=item, fix=fix)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_stream(target: Path) -> bool:
    """Tell whether this is a device, a pipe or an open descriptor, which a rename by root would replace."""
    if _STREAMS.fullmatch(str(target)):
        return True
    try:
        mode = target.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def blamed(target: Path) -> Iterator[None]:
    """Name the file in an error of the system that names no file, or the temporary sibling."""
    try:
        yield
    except (EnskError, BrokenPipeError):
        raise
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(target)[:100]):
            raise
        item = f"{target}: {error.strerror or error}"
        raise ResourceError("write-failed", "cannot write", item=item, fix=_WRITE_FIX) from error


def _refused(code: str, item: str, fix: str) -> UsageError:
    return UsageError(code, "cannot write", item=item, fix=fix)


def _sibling(target: Path) -> Path:
    stem = os.fsdecode(os.fsencode(target.name)[:200])
    return target.with_name(f"{stem}.tmp-{secrets.token_hex(8)}")


def _reserve(target: Path) -> tuple[Path, int]:
    """Create a locked sibling that only its owner can read."""
    while True:
        temporary = _sibling(target)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if lock_new(handle):
            return temporary, handle
        os.close(handle)


def _reserve_folder(target: Path) -> tuple[Path, int]:
    while True:
        temporary = _sibling(target)
        temporary.mkdir(mode=0o700)
        if (handle := lock_folder(temporary)) is not None:
            return temporary, handle


def _sweep(target: Path, ours: Path) -> None:
    """Remove the siblings that killed writers of the same target left, but for ours."""
    sweep(target.parent, _siblings(target.name), ours)


def _siblings(name: str) -> re.Pattern[str]:
    """The names that `_sibling` gives."""
    stem = os.fsdecode(os.fsencode(name)[:200])
    return re.compile(re.escape(stem) + r"\.tmp-[0-9a-f]{16}")


def _sync_tree(folder: Path) -> None:
    """Sync a folder's files to the disk, then the folders.

    Several files at once, since a journal writes what waits for it in one go: 4,000 files take 0.5 s, one by one 17 s.
    """
    from concurrent.futures import ThreadPoolExecutor

    folders, files = [], []
    for where, _, names in os.walk(folder):
        folders.append(Path(where))
        files += [Path(where, name) for name in names]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        for _ in pool.map(_sync_file, files):
            pass
    for path in folders:
        sync_folder(path)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(temporary: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which is removed last."""
    old = _sibling(target) if target.exists() or target.is_symlink() else None
    if old is not None:
        target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        if old is not None:
            old.rename(target)
        raise
    sync_folder(target.parent)
    if old is not None:
        with suppress(OSError):  # the new folder stands; what is left of the old one is swept later
            old.unlink() if old.is_symlink() else shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
