"""The index of a folder of masks: names, order and sizes, which file names alone would lose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.filenames import check_inside, file_names
from ensemble_kit.formats.sizes import declared_depth, declared_size
from ensemble_kit.masks.stream import Masks
from ensemble_kit.spec.geometry import AXES, Shape
from ensemble_kit.spec.georeference import WorldGeometry, fields_of, geometry_of

INDEX = "index.json"
_KIND = "ensk.masks/"
_MARK = f"{_KIND}1"


@dataclass(frozen=True)
class Index:
    """What a folder of masks holds.

    Parameters
    ----------
    kind : the format's name.
    classes : (name, folder), in order; the folder is "" where classes share files.
    values : of the classes, where files hold values; empty where they do not.
    samples : (id, file, size of the image), in order; the file is relative to the folder (of the class).
    geometries : where samples lie in the world or on the Earth, where that is known and files do not say it.
    """

    kind: str
    classes: tuple[tuple[str, str], ...]
    samples: tuple[tuple[str, str, Shape], ...]
    values: tuple[int, ...] = ()
    geometries: Mapping[str, WorldGeometry] = field(default_factory=dict)

    def save(self, folder: Path, name: str = INDEX) -> None:
        """Write the index into the folder."""
        geometries = {i: fields_of(self.geometries[i]) if i in self.geometries else {} for i, _, _ in self.samples}
        values = [{"value": v} for v in self.values] or [{}] * len(self.classes)
        (folder / name).write_bytes(
            strict_json.dump(
                {
                    "format": _MARK,
                    "kind": self.kind,
                    "classes": [{"name": n, "folder": f} | v for (n, f), v in zip(self.classes, values, strict=True)],
                    "samples": [{"id": i, "file": f} | _as_keys(size) | geometries[i] for i, f, size in self.samples],
                }
            )
        )

    @classmethod
    def load(cls, folder: Path, name: str = INDEX) -> Index | None:
        """Read the index of a folder; None where the kit wrote none.

        Raises
        ------
        DamagedError
            It is not strict JSON, or not an index.
        UnsafeError
            It names a file outside the folder.
        UsageError
            Its version is not known.
        """
        path = folder / name
        value = strict_json.load(path) if path.is_file() else None
        if not isinstance(value, dict) or not str(mark := value.get("format")).startswith(_KIND):
            return None
        if mark != _MARK:
            item = f"{path}: {mark!r:.40}, this ensk reads {_MARK}"
            fix = "install the ensk that wrote it, or a newer one"
            raise UsageError("index-version", "cannot read a folder of masks of another version", item=item, fix=fix)
        try:
            classes = tuple((_text(c["name"]), _text(c["folder"])) for c in value["classes"])
            samples = tuple(
                (_text(s["id"]), _text(s["file"]), _size(s, f"{path}, {s['id']!r}")) for s in value["samples"]
            )
            values = tuple(_value(c["value"]) for c in value["classes"] if "value" in c)
            geometries = {s["id"]: own for s in value["samples"] if (own := geometry_of(s)) is not None}
            index = cls(_text(value["kind"]), classes, samples, values, geometries)
        except (KeyError, TypeError) as error:
            raise _damaged(path, f"a key is missing or of another type ({error})") from None
        if values and (len(values) != len(classes) or len(set(values)) != len(values)):
            raise _damaged(path, "not every class has a value of its own")
        for names in ([n for n, _ in classes], [i for i, _, _ in samples], [f for _, f, _ in samples]):
            if len(set(names)) != len(names):
                raise _damaged(path, "a name stands in it twice")
        for file in [f for _, f in classes if f] + [f for _, f, _ in samples]:
            check_inside(file)
        return index

    def check_files(self, folder: Path, files: Iterable[str], suffix: str) -> None:
        """Refuse a folder that lacks a file of its index, or has another one."""
        wanted, have = set(files), set(files_under(folder, suffix))
        missing, extra = sorted(wanted - have), sorted(have - wanted)
        if missing:
            what = "cannot read masks: files are missing"
            item = f"{folder}: {len(missing)} of {len(wanted)} that {INDEX} names: {some(missing, 10)}"
            fix = "bring the files back, or write the folder again"
            raise IncompleteError("files-missing", what, item=item, fix=fix)
        if extra:
            what = "cannot read masks: there are files that the index does not name"
            item = f"{folder}: {len(extra)}: {some(extra, 10)}"
            fix = f"move them out of the folder, or rename {INDEX} to read the folder by its file names"
            raise MismatchError("files-extra", what, item=item, fix=fix)


def index_of(
    kind: str, masks: Masks, suffix: str, folders: Sequence[str] = (), *, keeps_geometry: bool = False
) -> Index:
    """Build the index of masks that are about to be written; `keeps_geometry`: with where they lie."""
    files = file_names(masks.samples, suffix)
    classes = tuple(zip(masks.classes, folders or [""] * len(masks.classes), strict=True))
    samples = tuple((s, files[s], masks.image_size(s)) for s in masks.samples)
    return Index(kind, classes, samples, geometries=masks.extent.geometry if keeps_geometry else {})


def files_under(folder: Path, suffix: str) -> list[str]:
    """List the files of one kind, relative, sorted; hidden ones are left out, and folders that are called as files."""
    named = (path for path in folder.rglob("*") if path.name.lower().endswith(suffix))
    found = [path.relative_to(folder) for path in named if not path.is_dir()]
    return sorted(
        path.as_posix() for path in found if not any(p.startswith(".") for p in path.parts) and path.name != INDEX
    )


def _as_keys(size: Shape) -> dict[str, int]:
    """Name the sizes of an image's axes."""
    return dict(zip([word for _, word in AXES[-len(size) :]], size, strict=True))


def _size(sample: dict[str, Any], where: str) -> Shape:
    """Read what `_as_keys` wrote."""
    return (*declared_depth(sample.get("depth"), where), *declared_size(sample["height"], sample["width"], where))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not text")
    return value


def _value(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 65536:
        raise TypeError(f"{str(value)[:40]!r} is not a value from 0 to 65535")
    return value


def no_files(folder: Path, kind: str) -> IncompleteError:
    """Make the error of a folder without files of a kind."""
    what, item = "cannot read masks: there are no files", f"{folder} holds no {kind}"
    return IncompleteError("files-missing", what, item=item, fix="pass the folder that holds the masks")


def _damaged(path: Path, why: str) -> DamagedError:
    fix = "write the folder again, or rename the index to go by the file names"
    return DamagedError("index-invalid", "cannot read the index of a folder of masks", item=f"{path}: {why}", fix=fix)
