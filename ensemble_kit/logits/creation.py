"""How a store comes to be: made whole beside its place and renamed, joined, or replaced."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
)
from ensemble_kit.logits import chunkfile, layout, manifest
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, Layout, StoreSpec

PathLike = str | os.PathLike[str]


def resolve(path: PathLike) -> Path:
    """Return the store's own folder, whatever links lead to it."""
    text = os.fspath(path)
    if "\0" in text or not text:
        raise UsageError("path-invalid", "cannot use a path", item=repr(text), fix="pass a path without NUL")
    return Path(os.path.realpath(text))


def describe(root: Path) -> tuple[StoreSpec, Layout]:
    """Read what a store says about itself."""
    if not root.exists():
        raise IncompleteError(
            "store-missing",
            "cannot open a store: there is nothing",
            item=str(root),
            fix="check the path, or make the store with `ensk dump-logits`",
        )
    for inside in (root / ARRAY, root / ARRAY / MANIFEST):
        if inside.is_symlink():
            raise UnsafeError(
                "store-link",
                "refuse to follow a link out of a store",
                item=str(inside),
                fix="put the folder itself in its place",
            )
    try:
        group = chunkfile.read_small(root / META, layout.MAX_META)
        array = chunkfile.read_small(root / ARRAY / META, layout.MAX_META)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(
            "store-foreign",
            "cannot open what is no store of logits, or has lost its description",
            item=f"{root}: no {os.path.relpath(error.filename or root, root)}",
            fix=f"run `ensk repair {root}`, or make the store with `ensk dump-logits`",
        ) from None
    return layout.parse(group, array, root)


def join_or_create(root: Path, wanted: StoreSpec, overwrite: bool) -> StoreSpec:
    """Open the store for writing, or be the one of many processes that makes it."""
    with _Creating(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and _occupied(root):
            _replace(root, wanted)
        elif not _occupied(root):
            aside = _build(root, wanted)
            try:
                aside.rename(root)  # fails where another process was faster: its folder is not empty
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
                if not _occupied(root):
                    raise
        spec, how = describe(root)
        layout.check_same(spec, wanted, root)
        if not how.ours:
            raise MismatchError(
                "store-layout",
                "cannot go on with a store of another layout",
                item=str(root),
                fix="write to another path, or replace it with overwrite=True (--force)",
            )
        fsync_folder(root)
        fsync_folder(root.parent)  # also where another process made it: it may not have come to this yet
    return spec


class _Creating:
    """Turn the system's errors on the way to a store into ours."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, EnskError):
            if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ}:
                raise UsageError(
                    "path-invalid", "cannot use a path", item=str(error), fix="pass a shorter name"
                ) from None
            raise no_resource(error, self._root.parent, "a new store") from None


def _occupied(root: Path) -> bool:
    """Tell whether something is there; a file is refused, an empty folder is nothing."""
    if root.exists() and not root.is_dir():
        raise UsageError(
            "path-is-file",
            "cannot make a store where a file is",
            item=str(root),
            fix="pass the path of a folder that does not exist yet",
        )
    return root.is_dir() and any(root.iterdir())


def _build(root: Path, spec: StoreSpec) -> Path:
    """Make an empty store beside its final place, synced."""
    group, array = spec.group_json(), spec.array_json()
    _sweep_beside(root)
    aside = _beside(root, "new")
    parts = aside / ARRAY / MANIFEST
    try:
        parts.mkdir(parents=True)
        files = {
            aside / META: group,
            aside / ARRAY / META: array,
            parts / manifest.COPY: manifest.to_copy(group, array),
            parts / manifest.LOCK: b"",
        }
        for path, content in files.items():
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in (parts, aside / ARRAY, aside):
            fsync_folder(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _beside(root: Path, kind: str) -> Path:
    return root.parent / f".{root.name[:200]}.{secrets.token_hex(8)}.{kind}"


def _replace(root: Path, spec: StoreSpec) -> None:
    """Put an empty store in the place of one that nobody writes to."""
    if not (root / ARRAY / MANIFEST).is_dir():
        raise UsageError(
            "store-foreign",
            "refuse to replace a folder that is no store of logits",
            item=str(root),
            fix="pass another path, or remove the folder yourself",
        )
    parts = root / ARRAY / MANIFEST
    if manifest.live_parts(parts):
        raise manifest.busy(parts)
    aside, old = _build(root, spec), _beside(root, "old")
    try:
        (parts / manifest.LOCK).touch()
        with manifest.committing(parts, wait=False):
            if manifest.live_parts(parts):
                raise manifest.busy(parts)
            root.rename(old)
            aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync_folder(root.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what dead writers left half written."""
    with os.scandir(folder) as entries:
        left = [e.path for e in entries if e.name.startswith(".") and e.name.endswith(".tmp")]
    alive = manifest.live_parts(folder / MANIFEST) if left else set()
    for path in map(Path, left):
        if path.name.split(".")[-2] not in alive:
            path.unlink(missing_ok=True)


def _sweep_beside(root: Path) -> None:
    """Remove stores half made or half removed more than a day ago."""
    for kind in ("new", "old"):
        for path in root.parent.glob(f".{root.name[:200]}.{'[0-9a-f]' * 16}.{kind}"):
            with suppress(FileNotFoundError):  # another process has just made it the store
                if time.time() - path.stat().st_mtime > 86400:
                    shutil.rmtree(path, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def no_resource(error: OSError, path: Path, item: str) -> ResourceError:
    """Say in our words what the system refused."""
    try:
        free = f", {shutil.disk_usage(path if path.exists() else path.parent).free} bytes free"
    except OSError:
        free = ""
    fix = {
        errno.ENOSPC: "make room and run again; what is committed is kept",
        errno.EDQUOT: "make room in the quota and run again; what is committed is kept",
        errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
        errno.EFBIG: "raise the limit of a file's size (ulimit -f), then run again",
    }.get(error.errno or 0, "check the path, its permissions and the disk, then run again")
    return ResourceError(
        "store-write", "cannot write to a store", item=f"{item} in {path}: {error.strerror or error}{free}", fix=fix
    )
