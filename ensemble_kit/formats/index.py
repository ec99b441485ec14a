"""The index of a folder of masks, and the file names that samples and classes get.

A file's name is the sample's id wherever that is a plain name. Where it is not (a newline, 300 characters, `CON`, two
ids that differ in case only), it is `id-` and a digest, and `index.json` tells the id. So no id is lost, and none
leaves the folder: an id with `..`, an absolute one or one with NUL is refused.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UnsafeError, some
from ensemble_kit.formats.sizes import declared_size
from ensemble_kit.masks.maskset import MaskSet

INDEX = "index.json"
_MARK = "ensk.masks/1"
_PLAIN = re.compile(r'[^\x00-\x1f\x7f\\/:*?"<>|]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows
_LONGEST = 200  # bytes of one part


@dataclass(frozen=True)
class Index:
    """What a folder of masks holds.

    Parameters
    ----------
    kind : the format's name.
    classes : (name, folder), in order; the folder is "" where classes share files.
    samples : (id, file, (H, W)), in order; the file is relative to the folder (of the class).
    """

    kind: str
    classes: tuple[tuple[str, str], ...]
    samples: tuple[tuple[str, str, tuple[int, int]], ...]

    def save(self, folder: Path, name: str = INDEX) -> None:
        """Write the index into the folder."""
        (folder / name).write_bytes(
            strict_json.dump(
                {
                    "format": _MARK,
                    "kind": self.kind,
                    "classes": [{"name": n, "folder": f} for n, f in self.classes],
                    "samples": [{"id": i, "file": f, "height": H, "width": W} for i, f, (H, W) in self.samples],
                }
            )
        )

    @classmethod
    def load(cls, folder: Path, name: str = INDEX) -> Index | None:
        """Read the index of a folder; None where there is none of ours.

        Raises
        ------
        DamagedError
            It is no strict JSON, or holds something else than an index.
        UnsafeError
            It names a file outside the folder.
        """
        path = folder / name
        value = strict_json.load(path) if path.is_file() else None
        if not isinstance(value, dict) or value.get("format") != _MARK:
            return None
        try:
            classes = tuple((_text(c["name"]), _text(c["folder"])) for c in value["classes"])
            samples = tuple(
                (_text(s["id"]), _text(s["file"]), declared_size(s["height"], s["width"], f"{path}, {s['id']!r}"))
                for s in value["samples"]
            )
            index = cls(_text(value["kind"]), classes, samples)
        except (KeyError, TypeError) as error:
            raise _damaged(path, f"a key is missing or of another type ({error})") from None
        for names in ([n for n, _ in classes], [i for i, _, _ in samples], [f for _, f, _ in samples]):
            if len(set(names)) != len(names):
                raise _damaged(path, "a name stands in it twice")
        for file in [f for _, f in classes if f] + [f for _, f, _ in samples]:
            check_inside(file)
        return index

    def check_files(self, folder: Path, files: Iterable[str], suffix: str) -> None:
        """Refuse a folder that lacks a file of its index, or has one more."""
        wanted = set(files)
        have = set(files_under(folder, suffix))
        if wanted - have:
            raise IncompleteError(
                "files-missing",
                "cannot read masks: files are missing",
                item=f"{folder}: {len(wanted - have)} of {len(wanted)} that {INDEX} names: "
                f"{some(sorted(wanted - have), 10)}",
                fix="bring the files back, or write the folder again",
            )
        if have - wanted:
            raise MismatchError(
                "files-extra",
                "cannot read masks: there are files that the index does not name",
                item=f"{folder}: {len(have - wanted)}: {some(sorted(have - wanted), 10)}",
                fix=f"remove them, or delete {INDEX} to read the folder by its file names",
            )


def index_of(kind: str, masks: MaskSet, suffix: str, folders: Sequence[str] = ()) -> Index:
    """Build the index of masks that are about to be written."""
    files = file_names(masks.samples, suffix)
    classes = tuple(zip(masks.classes, folders or [""] * len(masks.classes), strict=True))
    return Index(kind, classes, tuple((s, files[s], masks.image_size(s)) for s in masks.samples))


def files_under(folder: Path, suffix: str) -> list[str]:
    """List the files of one kind, relative, sorted; hidden ones are left out."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() == suffix]
    return sorted(
        path.as_posix() for path in found if not any(p.startswith(".") for p in path.parts) and path.name != INDEX
    )


def file_names(ids: Iterable[str], suffix: str, taken: Iterable[str] = (), flat: bool = False) -> dict[str, str]:
    """Give every id a file name of its own, safe on every file system.

    Parameters
    ----------
    ids : names of samples, or of classes with `suffix=""`.
    suffix : ".png": appended unless the id ends in it.
    taken : names that are not free.
    flat : `/` makes no folder.

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
        raise UnsafeError(
            "path-outside",
            "cannot use a name as a file's name",
            item=f"{name[:200]!r} leaves the folder",
            fix="rename it: no leading slash, no part '..', no NUL; a CSV takes any name",
        )


def _is_plain(file: str, flat: bool) -> bool:
    parts = file.split("/")
    return (not flat or len(parts) == 1) and all(
        _PLAIN.fullmatch(p)
        and p[0] not in ". "
        and p[-1] not in ". "
        and not _RESERVED.fullmatch(p)
        and len(p.encode()) <= _LONGEST
        and not p.startswith("id-")
        and p.isprintable()
        for p in parts
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _parents(file: str) -> list[str]:
    parts = _folded(file).split("/")
    return ["/".join(parts[:k]) for k in range(1, len(parts))]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "index-invalid",
        "cannot read the index of a folder of masks",
        item=f"{path}: {why}",
        fix="write the folder again, or delete the index to go by the file names",
    )
