"""Where threshold sets are found by name."""

from __future__ import annotations

from pathlib import Path

from ensemble_kit.errors import IncompleteError, some
from ensemble_kit.remote.copies import as_path
from ensemble_kit.remote.urls import url_of

FOLDER = Path("thresholds")
"""Where `tune-thresholds` writes by default and `vote` looks names up."""


def find(name: str) -> Path:
    """Find a set by path, by URL, or by name in the folder `thresholds/`.

    Raises
    ------
    IncompleteError
        There is none.
    """
    if url_of(name) is not None:
        return as_path(name)
    for path in (Path(name), FOLDER / name, FOLDER / f"{name}.json"):
        if path.is_file():
            return path
    known = sorted(p.stem for p in FOLDER.glob("*.json") if p.name != "schema.json")
    raise IncompleteError(
        "set-missing",
        "cannot find a threshold set",
        item=f"{name!r} is not a file, and {FOLDER!s}/ holds {some(known) if known else 'no set'}",
        fix="pass a path or a name of that folder; make one with ensk tune-thresholds",
    )
