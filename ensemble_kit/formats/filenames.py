"""File names of samples and classes: the id wherever it is a plain name, and one that is safe everywhere else.

An id that is not a plain name (a newline, 300 characters, `CON`, two ids that differ in case only) becomes `id-` and a
digest, and the folder's index keeps the id. So no id is lost, and none leaves the folder: an absolute id, or one with
`..` or NUL, is refused.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from ensemble_kit.errors import UnsafeError

_PLAIN = re.compile(r'[^\x00-\x1f\x7f\\/:*?"<>|]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows
_LONGEST = 200  # bytes of a name, or of one of the folders that it names


def file_names(ids: Iterable[str], suffix: str, taken: Iterable[str] = (), flat: bool = False) -> dict[str, str]:
    """Give every id a file name of its own, safe on every file system.

    Parameters
    ----------
    ids : names of samples, or of classes with `suffix=""`.
    suffix : such as ".png"; appended unless the id ends in it.
    taken : names that other files have.
    flat : whether an id with `/` gets a safe name instead of a folder.

    Raises
    ------
    UnsafeError
        An id that would leave the folder.
    """
    used = {_folded(name) for name in taken}
    folders: set[str] = set()
    out = {}
    for name in ids:
        check_inside(name)
        file = name if name.lower().endswith(suffix) else name + suffix
        parents = _parents(file)
        free = _folded(file) not in used | folders and not used.intersection(parents)
        if not free or not _is_plain(file, flat):
            file, parents = f"id-{hashlib.sha256(name.encode()).hexdigest()[:32]}{suffix}", []
        used.add(_folded(file))
        folders.update(parents)
        out[name] = file
    return out


def check_inside(name: str) -> None:
    """Refuse a name that would leave its folder."""
    if "\0" in name or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        fix = "rename it without a leading slash, '..' and NUL, or write a CSV, which takes any name"
        what, item = "cannot use a name as a file's name", f"{name[:200]!r} leaves the folder"
        raise UnsafeError("path-outside", what, item=item, fix=fix)


def _is_plain(file: str, flat: bool) -> bool:
    names = file.split("/")
    return (not flat or len(names) == 1) and all(
        _PLAIN.fullmatch(n)
        and n[0] not in ". "
        and n[-1] not in ". "
        and not _RESERVED.fullmatch(n)
        and len(n.encode()) <= _LONGEST
        and not n.startswith("id-")
        and n.isprintable()
        for n in names
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _parents(file: str) -> list[str]:
    names = _folded(file).split("/")
    return ["/".join(names[:k]) for k in range(1, len(names))]
