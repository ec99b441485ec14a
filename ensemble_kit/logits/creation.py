"""Creating a store's folder: built beside its path and renamed, joined where another process was faster, replaced."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ensemble_kit.errors import EnskError, ResourceError, UsageError
from ensemble_kit.files import sync_folder
from ensemble_kit.logits import coordinates, description, layout, segments, spare
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, StoreSpec

_BLOCKED = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
"""Of a rename to where something else stands."""
_LEFT, _STAGED = re.compile(r"\..*\.tmp"), re.compile(r"\.\d+\.\d+\.[0-9a-f]{16}\.tmp")


def join_or_create(root: Path, wanted: StoreSpec, overwrite: bool) -> StoreSpec:
    """Open a store for writing, or be the one of many processes that makes it."""
    _check_outside(root)
    with _reporting(root):
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
        spec, how = description.describe(root)
        layout.check_resumable(spec, how, wanted, root)
        sync_folder(root)
        sync_folder(root.parent)  # also where another process made it: it may not have come to this yet
    return spec


def _check_outside(root: Path) -> None:
    """Refuse a path inside another store, whose folders hold nothing else."""
    around = next(
        (p for p in root.absolute().parents if (p / ARRAY / MANIFEST).is_dir() and (p / META).is_file()), None
    )
    if around is not None:
        item, fix = f"{root} lies in the store {around}", "pass a path beside that store"
        raise UsageError("path-inside-store", "cannot make a store inside another one", item=item, fix=fix)


@contextmanager
def _reporting(root: Path) -> Iterator[None]:
    """Turn the system's errors on the way to a store into ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EnskError):
            raise
        if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ}:
            item, fix = str(error), "pass a shorter name"
            raise UsageError("path-invalid", "cannot use a path", item=item, fix=fix) from None
        raise no_resource(error, root.parent, "a new store") from None


def _occupied(root: Path) -> bool:
    """Tell whether something is there; a file is refused, an empty folder counts as nothing."""
    if root.exists() and not root.is_dir():
        fix = "pass the path of a folder that does not exist yet"
        raise UsageError("path-is-file", "cannot make a store where a file is", item=str(root), fix=fix)
    return root.is_dir() and any(root.iterdir())


def _build(root: Path, spec: StoreSpec) -> Path:
    """Make an empty store beside its final path, synced."""
    group, array = spec.group_json(), spec.array_json()
    _sweep_beside(root)
    aside = _beside(root, "new")
    folder = aside / ARRAY / MANIFEST
    try:
        folder.mkdir(parents=True)
        files = {
            aside / META: group,
            aside / ARRAY / META: array,
            folder / spare.COPY: spare.to_copy(group, array),
            folder / segments.LOCK: b"",
        }
        if spec.own:
            files[folder / META] = layout.MANIFEST_JSON
        for path, content in files.items():
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for key, content in coordinates.files(spec).items():  # not synced: nothing of ours reads them
            (aside / key).parent.mkdir(exist_ok=True)
            (aside / key).write_bytes(content)
        for made in (folder, aside / ARRAY, aside):
            sync_folder(made)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _beside(root: Path, kind: str) -> Path:
    return root.parent / f".{root.name[:200]}.{secrets.token_hex(8)}.{kind}"


def _replace(root: Path, spec: StoreSpec) -> None:
    """Replace a store that nobody writes to by an empty one."""
    folder = root / ARRAY / MANIFEST
    if not folder.is_dir():
        what, fix = (
            "refuse to replace a folder that is not a store of logits",
            "pass another path",
        )
        raise UsageError("store-foreign", what, item=str(root), fix=fix)
    if segments.living(folder):
        raise segments.busy(folder)
    aside, old = _build(root, spec), _beside(root, "old")
    try:
        (folder / segments.LOCK).touch()
        with segments.committing(folder, wait=False):
            if segments.living(folder):
                raise segments.busy(folder)
            root.rename(old)
            aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(root.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what dead writers left half written: beside the manifest, and of older versions beside the samples."""
    left = list[str]()
    for inside, form in ((folder, _LEFT), (folder / MANIFEST, _STAGED)):
        with os.scandir(inside) as entries:
            left += [e.path for e in entries if form.fullmatch(e.name)]
    alive = segments.living(folder / MANIFEST) if left else set()
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
        **dict.fromkeys(
            _BLOCKED, f"run `ensk repair {shlex.quote(str(path))}`, which moves aside what stands there; then again"
        ),
    }.get(error.errno or 0, "check the path, its permissions and the disk, then run again")
    named = os.path.relpath(error.filename2 or error.filename or path, path) if (error.errno or 0) in _BLOCKED else ""
    item = f"{item} in {path}: {named}{': ' * bool(named)}{error.strerror or error}{free}"
    return ResourceError("store-write", "cannot write to a store", item=item, fix=fix)
