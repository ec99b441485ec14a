"""Open what is at a path: a folder, a packed file, or a store behind a URL."""

from __future__ import annotations

import os
from pathlib import Path

from ensemble_kit.access import reading
from ensemble_kit.errors import UsageError
from ensemble_kit.logits.layout import ARRAY, FORMER_META, MANIFEST, META
from ensemble_kit.logits.packed import Packed, is_packed
from ensemble_kit.logits.places import Folder, Place
from ensemble_kit.logits.remote import Remote
from ensemble_kit.remote.urls import url_of

OPENING = "cannot read a store"
"""What cannot be done where the system says no."""

PathLike = str | os.PathLike[str]


def find(path: PathLike) -> Place:
    """Tell where a store is."""
    found = locate(path)
    if isinstance(found, str):
        return Remote(found)
    return Packed(found) if found.is_file() else Folder(found)


def locate(path: PathLike) -> Path | str:
    """Return a path's URL, or the file or folder that it leads to."""
    url = url_of(path)
    return resolve(path) if url is None else url


def resolve(path: PathLike) -> Path:
    """Return the file or folder that a path leads to, whatever links there are on the way."""
    text = os.fspath(path)
    if "\0" in text or not text:
        raise UsageError("path-invalid", "cannot use a path", item=repr(text), fix="pass a path without NUL")
    return Path(os.path.realpath(text))


def is_store(path: PathLike) -> bool:
    """Tell whether a path looks like a store: a packed one, a folder with a `zarr.json` or what is left, or such a URL.

    A group of zarr 2 looks like one too: opening it says what to do.

    Raises
    ------
    ResourceError
        The folder may not be looked into, or the server of a URL fails.
    """
    if (url := url_of(path)) is not None:
        place = Remote(url)
        return any(place.shows(name) for name in (META, *FORMER_META))
    with reading(path, OPENING):
        if is_packed(path):
            return True
        folder = Path(path)
        marks = (folder / name for name in (META, *FORMER_META))
        return any(mark.exists() for mark in marks) or (folder / ARRAY / MANIFEST).is_dir()
