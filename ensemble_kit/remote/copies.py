"""Files behind URLs, as paths that every reader can open: a copy on this machine, shown by its URL."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from glob import escape
from pathlib import Path
from typing import Any

from ensemble_kit.access import reading
from ensemble_kit.errors import IncompleteError, UsageError
from ensemble_kit.locks import lock_folder, sweep
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import split, url_of

PathLike = str | os.PathLike[str]
_WHAT = "cannot read a file behind a URL"
_PREFIX = "ensk-copy-"
_FOLDER = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")  # as `tempfile` calls it
_ends: list[weakref.finalize[Any, Any]] = []


class UrlPath(type(Path())):  # type: ignore[misc]  # PosixPath or WindowsPath
    """A path that messages show as its URL: of an object to be written, or of the copy of one."""

    url: str | None = None

    def __str__(self) -> str:
        return super().__str__() if self.url is None else self.url

    def __fspath__(self) -> str:
        return str(super().__str__())

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.url is None else (Path, (self.url,))  # elsewhere there is no copy


def as_path(path: PathLike) -> Path:
    """Return a path; a URL as one whose text has both slashes of `s3://`, which a plain path would lose."""
    url = url_of(path)
    if url is None:
        return path if isinstance(path, Path) else Path(path)
    return _shown(Path(url), url)


def local(path: PathLike) -> Path:
    """Return a path of this machine: of a URL that of a copy, fetched now and removed with the path that is returned.

    Raises
    ------
    UsageError
        The URL is that of a folder or a store, or names no object.
    IncompleteError
        There is no such object.
    ResourceError
        The object or the server may not be read, or the copy finds no room.
    """
    url = url_of(path)
    if url is None:
        return path if isinstance(path, Path) else Path(path)
    prefix, key = split(url)
    objects = Objects(prefix)
    with reading(tempfile.gettempdir(), _WHAT):
        folder, handle = _reserve()
        copy = _shown(folder / key, url)
        _ends[:] = [end for end in _ends if end.alive]
        _ends.append(weakref.finalize(copy, _remove, folder, handle))
        with copy.open("wb") as file:
            if objects.fetch(key, file):
                return copy
    if objects.has_under(f"{key}/"):
        item = f"{url} is a folder of objects, and one object is read by its URL"
        fix = "pass the URL of one file, or copy the folder to this machine and pass its path"
        raise UsageError("url-unfit", _WHAT, item=item, fix=fix)
    item, fix = f"{url} does not exist", "check the URL and the endpoint (AWS_ENDPOINT_URL)"
    raise IncompleteError("input-missing", _WHAT, item=item, fix=fix)


def here(path: PathLike, what: str) -> Path:
    """Return a path of this machine; refuse a URL, where more is done than one read or one write.

    Parameters
    ----------
    what : what cannot be done, such as "cannot run a model".

    Raises
    ------
    UsageError
        The path is a URL.
    """
    url = url_of(path)
    if url is not None:
        fix = "copy it to this machine, or write there, and pass a path of this machine"
        raise UsageError("url-unfit", what, item=f"{url} is a URL", fix=fix)
    return path if isinstance(path, Path) else Path(path)


def size_of(path: PathLike) -> int | None:
    """Return the bytes of a file, or of an object behind a URL; None where there is none."""
    url = url_of(path)
    if url is None:
        return Path(path).stat().st_size if Path(path).exists() else None
    prefix, key = split(url)
    return Objects(prefix).size(key)


def siblings(path: PathLike, beginning: str) -> list[Path]:
    """List the files beside a path, or the objects beside a URL's, whose names begin so."""
    url = url_of(path)
    if url is None:
        folder = Path(path).parent
        return sorted(folder / p.name for p in folder.absolute().glob(f"{escape(beginning)}*"))
    prefix, _ = split(url)
    return [as_path(f"{prefix}/{name}") for name in Objects(prefix).names() if name.startswith(beginning)]


def remove_copies() -> None:
    """Remove all copies, whoever still holds their paths: a signal ends a process without removing them."""
    while _ends:
        _ends.pop()()


def _reserve() -> tuple[Path, int]:
    """Make a locked folder for a copy; remove those of processes that were killed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if (handle := lock_folder(folder)) is not None:
            sweep(folder.parent, _FOLDER, folder)
            return folder, handle


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def _shown(path: Path, url: str) -> UrlPath:
    shown = UrlPath(path)
    shown.url = url
    return shown
