"""Masks in and out: one module a format, and the two verbs that choose among them.

CSV           handbone, kaggle, severstal, … (`dialects.PRESETS`), or a `Dialect` of one's own
folders       png, indexed-png, labelme, npy
files         coco, npz, npy
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ensemble_kit.errors import DamagedError, UsageError, some
from ensemble_kit.files import atomic_folder, atomic_write, blamed, check_name
from ensemble_kit.formats import coco, labelme, png, stacks, submission
from ensemble_kit.formats.classes import order_classes, read_classes
from ensemble_kit.formats.dialects import PRESETS, Dialect
from ensemble_kit.formats.index import INDEX, Index, files_under
from ensemble_kit.formats.sizes import ImageSize, ImageSizes, parse_image_size
from ensemble_kit.masks.maskset import MaskSet

if TYPE_CHECKING:
    import os

__all__ = [
    "FORMATS",
    "PRESETS",
    "Dialect",
    "fits",
    "is_folder",
    "kind_of_output",
    "parse_image_size",
    "read_classes",
    "read_masks",
    "recognise",
    "rehearse",
    "write_masks",
    "write_to",
]

Format = str | Dialect

_READERS: dict[str, Callable[[Path, ImageSizes, Sequence[str] | None], MaskSet]] = {
    "png": png.read_binary,
    "indexed-png": png.read_indexed,
    "coco": coco.read,
    "labelme": labelme.read,
    "npz": stacks.read_npz,
    "npy": stacks.read_npy,
}
_FILES: dict[str, Callable[[MaskSet, BinaryIO], None]] = {
    "coco": coco.write,
    "npz": stacks.write_npz,
    "npy": stacks.write_npy,
}
_FOLDERS: dict[str, tuple[Callable[[MaskSet, Path], None], str]] = {  # and the file that marks such a folder
    "png": (png.build_binary, INDEX),
    "indexed-png": (png.build_indexed, INDEX),
    "labelme": (labelme.build, labelme.INDEX),
    "npy": (stacks.build_npy, INDEX),
}
_SUFFIXES = {".csv": "csv", ".json": "coco", ".npz": "npz", ".npy": "npy"}

FORMATS: tuple[str, ...] = (*PRESETS, *_READERS)
"""Every name that `format` takes."""

_DEFAULT_DIALECT = "handbone"  # has a column for each name, so nothing is lost


def read_masks(
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - the contract's name
    image_size: ImageSize | None = None,
    classes: Sequence[str] | None = None,
) -> MaskSet:
    r"""Read masks from a file or a folder.

    Parameters
    ----------
    path : a CSV, COCO JSON, `.npz`, `.npy`, or a folder of PNGs, polygon JSON or `.npy`.
    format : one of `FORMATS`, or a `Dialect`; without it the path's contents tell, where they are unambiguous.
    image_size : (H, W) of all samples, or a mapping of sample to (H, W). Needed where the file does not say it
        (CSV); elsewhere it is compared.
    classes : the classes to expect, in the order to return them. Needed where the file does not name them (joined
        ids, indexed PNGs and stacks made by hand); elsewhere they must be the file's.

    Raises
    ------
    UsageError
        The path, its format, its sizes or its classes are not known.
    DamagedError
        Anything in the file that is not as the format has it, named by place.
    IncompleteError
        A sample lacks a class.
    MismatchError
        Other classes or sizes than wanted.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "val.csv")
    >>> _ = path.write_text("image_name,class,rle\na.png,bone,1 2 5 1\n")
    >>> read_masks(path, image_size=(2, 4))["a.png", "bone"].area
    3
    """
    source = Path(path)
    chosen = recognise(source) if format is None else _named(format)
    sizes = ImageSizes(image_size)
    if isinstance(chosen, Dialect):
        _check_kind(source, "a CSV file", folder=False)
        return submission.read(source, chosen, sizes, classes)
    _check_kind(
        source, f"masks as {chosen}", folder={"png": True, "indexed-png": True, "coco": False, "npz": False}.get(chosen)
    )
    return _READERS[chosen](source, sizes, classes)


def write_masks(
    masks: MaskSet,
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - the contract's name
    like: str | os.PathLike[str] | None = None,
    force: bool = True,
    classes: Sequence[str] | None = None,
) -> None:
    """Write masks to a file or a folder; at the end it is there whole, or what was there before still is.

    Parameters
    ----------
    masks : what to write.
    path : where to; `-` writes a CSV to the standard output.
    format : one of `FORMATS`, or a `Dialect`. Without it the name tells: `.csv` (the dialect of `like`, else
        handbone), `.json` (COCO), `.npz`, `.npy`, and a folder of binary PNGs where there is no suffix.
    like : a sample submission: its header, and the order of its rows; it must name the same (sample, class) pairs.
    force : replace what is there. A folder that holds other things is never replaced.
    classes : the order of the classes; for an indexed PNG the k-th has the value k.

    Raises
    ------
    UsageError
        The path cannot be written, or exists and `force` is false.
    IncompleteError, MismatchError
        The masks do not fit `like` or the format.
    UnsafeError
        A sample's id would leave the folder.
    """
    target = Path(path)
    check_name(target)
    chosen = kind_of_output(target, like) if format is None else _named(format)
    if str(path) == "-":
        with blamed(Path("standard output")):
            write_to(masks, sys.stdout.buffer, chosen, like, classes)
            sys.stdout.buffer.flush()
    elif isinstance(chosen, str) and is_folder(chosen, target):
        build, mark = _FOLDERS[chosen]
        ordered = _ordered(masks, like, classes)
        with atomic_folder(target, force=force, mark=mark) as folder:
            build(ordered, folder)
    else:
        with atomic_write(target, force=force) as out:
            write_to(masks, out, chosen, like, classes)


def rehearse(
    names: MaskSet,
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - as in `write_masks`
    like: str | os.PathLike[str] | None = None,
) -> None:
    """Refuse, before any work, what `write_masks` would refuse at its end; nothing is written.

    Parameters
    ----------
    names : empty masks of the samples and classes to come.
    """
    target = Path(path)
    check_name(target)
    chosen = kind_of_output(target, like) if format is None else _named(format)
    if isinstance(chosen, str) and is_folder(chosen, target):
        _ordered(names, like, None)
    else:
        write_to(names, io.BytesIO(), chosen, like)


def write_to(
    masks: MaskSet,
    out: BinaryIO,
    chosen: Format,
    like: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write masks to an open binary file, in a format that is one file."""
    chosen = _named(chosen)
    _check_names(masks)
    if isinstance(chosen, Dialect):
        order = submission.read_order(_existing(like), chosen, masks) if like is not None else None
        submission.write(_reordered(masks, masks.samples, classes), out, chosen, order)
    elif chosen in _FILES:
        _FILES[chosen](_ordered(masks, like, classes), out)
    else:
        raise UsageError(
            "format-unfit",
            "cannot write a folder as one file",
            item=f"format {chosen!r}",
            fix="pass --format with a CSV dialect, or the path of a folder",
        )


def recognise(path: str | os.PathLike[str]) -> Format:
    """Tell the format of a file or folder by its contents.

    Raises
    ------
    UsageError
        Nothing is there, or it can be more than one format.
    """
    source = _existing(path)
    if source.is_dir():
        return _recognise_folder(source)
    with source.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04") or source.suffix.lower() == ".npz":
        return "npz"
    if head.startswith(b"\x89PNG"):
        raise UsageError(
            "format-unknown", "cannot read masks", item=f"{source} is a single PNG", fix="pass the folder that holds it"
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"["}:
        return _recognise_json(source)
    return submission.recognise(source)


def kind_of_output(path: Path, like: str | os.PathLike[str] | None = None) -> Format:
    """Tell the format to write by the path's name."""
    if str(path) == "-" or (not path.suffix and path.exists() and not path.is_dir()):
        kind: str | None = "csv"  # a stream, or an old file
    else:
        kind = "png" if path.is_dir() or not path.suffix else _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            "format-unknown",
            "cannot tell the format to write",
            item=f"{path}",
            fix=f"pass --format, one of {', '.join(FORMATS)}",
        )
    if kind != "csv":
        return kind
    return submission.recognise(_existing(like)) if like is not None else PRESETS[_DEFAULT_DIALECT]


def fits(chosen: Format, path: Path) -> bool:
    """Tell whether a path's name goes with a format to write."""
    chosen = _named(chosen)
    suffix = path.suffix.lower()
    if isinstance(chosen, Dialect):
        return not path.is_dir() and _SUFFIXES.get(suffix, "csv") == "csv"
    if str(path) == "-":
        return False
    return suffix not in _SUFFIXES or {"coco": ".json", "npz": ".npz", "npy": ".npy"}.get(chosen) == suffix


def is_folder(chosen: Format, path: Path) -> bool:
    """Tell whether a format at this path is a folder; npy is a file where the path ends in `.npy`."""
    if isinstance(chosen, Dialect) or chosen not in _FOLDERS:
        return False
    return chosen != "npy" or path.suffix.lower() != ".npy" or path.is_dir()


def _named(chosen: Format) -> Format:
    if isinstance(chosen, str) and chosen in PRESETS:
        return PRESETS[chosen]
    if isinstance(chosen, Dialect) or chosen in _READERS:
        return chosen
    raise UsageError(
        "format-unknown",
        "cannot use a format of masks",
        item=f"--format {chosen!r}",
        fix=f"pass one of {', '.join(FORMATS)}",
    )


def _existing(path: str | os.PathLike[str]) -> Path:
    source = Path(path)
    if "\0" in str(source) or not source.exists():
        raise UsageError(
            "input-missing", "cannot read masks", item=f"there is no file or folder {source}", fix="check the path"
        )
    return source


def _check_kind(path: Path, what: str, folder: bool | None) -> None:
    _existing(path)
    if folder is not None and path.is_dir() != folder:
        raise UsageError(
            "format-unfit",
            f"cannot read {what}",
            item=f"{path} is {'a file' if folder else 'a folder'}",
            fix=f"pass {'a folder' if folder else 'a file'}, or another --format",
        )


def _recognise_folder(folder: Path) -> str:
    for name in (INDEX, labelme.INDEX):
        index = Index.load(folder, name)
        if index is not None:
            if index.kind not in _FOLDERS:
                raise DamagedError(
                    "index-invalid",
                    "cannot read the index of a folder of masks",
                    item=f"{folder / name} says {index.kind[:80]!r}, which is no format of folders",
                    fix=f"delete it and pass --format, one of {', '.join(_FOLDERS)}",
                )
            return index.kind
    pngs = files_under(folder, ".png")
    found = [
        name
        for name, there in (
            ("png", any("/" in f for f in pngs)),
            ("indexed-png", any("/" not in f for f in pngs)),
            ("labelme", bool(files_under(folder, ".json"))),
            ("npy", bool(files_under(folder, ".npy"))),
        )
        if there
    ]
    if len(found) != 1:
        raise UsageError(
            "format-unknown" if not found else "format-ambiguous",
            "cannot tell the format of a folder",
            item=f"{folder} can be {some(found)}" if found else f"{folder} holds no PNG, JSON or .npy",
            fix=f"pass --format, one of {', '.join(_FOLDERS)}",
        )
    return found[0]


def _recognise_json(path: Path) -> str:
    from ensemble_kit import strict_json

    value = strict_json.load(path)
    keys = set(value) if isinstance(value, dict) else set()
    if {"images", "categories"} <= keys:
        return "coco"
    if keys & {"annotations", "shapes"}:
        return "labelme"
    raise UsageError(
        "format-unknown",
        "cannot tell the format of a JSON file",
        item=f"{path} has neither COCO's images and categories nor polygons",
        fix="pass a COCO file, or polygon JSON with annotations or shapes",
    )


def _ordered(masks: MaskSet, like: str | os.PathLike[str] | None, classes: Sequence[str] | None) -> MaskSet:
    """Put masks in the order of a sample submission, for a format that has no rows."""
    _check_names(masks)
    samples = masks.samples
    if like is not None:
        order = submission.read_order(_existing(like), submission.recognise(Path(like)), masks)
        samples = tuple(dict.fromkeys(s for s, _ in order.keys))
        classes = classes if classes is not None else tuple(dict.fromkeys(c for _, c in order.keys))
    return _reordered(masks, samples, classes)


def _reordered(masks: MaskSet, samples: Sequence[str], classes: Sequence[str] | None) -> MaskSet:
    names = order_classes(masks.classes, classes, "the mask set")
    return masks.arranged(samples, names)


def _check_names(masks: MaskSet) -> None:
    """Refuse what no file can hold: no mask at all, a blank name, half a surrogate pair."""
    if not masks:
        raise UsageError("masks-none", "cannot write masks", item="the mask set is empty", fix="pass at least one mask")
    for name in (*masks.samples, *masks.classes):
        why = "is blank" if not name else "is no Unicode text" if any("\ud800" <= c <= "\udfff" for c in name) else ""
        if why:
            raise UsageError(
                "name-invalid", "cannot write a name", item=f"{name!r} {why}", fix="give every sample and class a name"
            )
