"""Folders of one binary image a (sample, class): which file is whose, by the index or by the names of folders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ensemble_kit.errors import DamagedError, IncompleteError, some
from ensemble_kit.formats.classes import ONLY_CLASS, check_wanted, order_classes
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.index import INDEX, Index, files_under, index_of, no_files
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.stream import Masks


class Kind(NamedTuple):
    """The files of a format.

    Parameters
    ----------
    name : what messages call them.
    suffixes : theirs; the first is written.
    others : of images that are refused beside them.
    """

    name: str
    suffixes: tuple[str, ...]
    others: tuple[str, ...]


class ClassFiles(NamedTuple):
    """The files of a folder."""

    classes: tuple[str, ...]
    samples: tuple[str, ...]
    files: dict[Key, str]
    """The file of each (sample, class), relative to the folder."""


def find(folder: Path, classes: Sequence[str] | None, kind: Kind) -> ClassFiles:
    """Find the file of every (sample, class) of a folder.

    Raises
    ------
    DamagedError
        The folder holds other images, or files beside folders.
    IncompleteError
        A sample lacks a class that another has.
    """
    index = Index.load(folder)
    if index is None:
        names, samples, files = _by_name(folder, classes, kind)
    else:
        names = order_classes((n for n, _ in index.classes), classes, str(folder))
        folders = dict(index.classes)
        samples = tuple(s for s, _, _ in index.samples)
        files = {(s, n): f"{folders[n]}/{f}" for s, f, _ in index.samples for n in folders}
        index.check_files(folder, files.values(), kind.suffixes[0])
    if missing := [key for key in product(samples, names) if key not in files]:
        what = "cannot read masks: files are missing"
        if len(files) == len(samples) > len(names) > 1:
            item = f"{folder}: no file name stands in two of its folders, {some(names)}, so they are not classes"
            fix = (
                f"if each folder holds a sample's objects, write the maximum of its masks as one {kind.name} a sample, "
                f"into one folder; if each {kind.name} holds labels, pass --format label-map"
            )
            raise IncompleteError("files-missing", what, item=item, fix=fix)
        item = f"{folder}: {len(missing)} of {len(samples) * len(names)} (sample, class): {some(missing, 10)}"
        fix = f"write one {kind.name} for every sample and class, also for empty masks"
        raise IncompleteError("files-missing", what, item=item, fix=fix)
    return ClassFiles(names, samples, files)


def lay_out(masks: Masks, folder: Path, name: str, suffix: str) -> dict[Key, Path]:
    """Write the index of a folder, and return where the file of each (sample, class) is to be written."""
    folders = file_names(masks.classes, "", taken=[INDEX], flat=True)
    index = index_of(name, masks, suffix, [folders[n] for n in masks.classes])
    index.save(folder)
    return {(s, n): folder / folders[n] / file for s, file, _ in index.samples for n in masks.classes}


def _by_name(folder: Path, classes: Sequence[str] | None, kind: Kind) -> ClassFiles:
    """Read classes and samples off the names of folders and files; a flat folder holds one class."""
    files: dict[Key, str] = {}
    flat = {file: file for file in _under(folder, kind) if "/" not in file}
    if flat:
        only = check_wanted(classes) if classes is not None else (ONLY_CLASS,)
        names = order_classes(only[:1], classes, str(folder))
        files = {(sample, names[0]): file for sample, file in flat.items()}
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    nested = {name: _under(folder / name, kind) for name in inside}
    if flat and any(nested.values()):
        raise _mixed(f"{folder} holds both {kind.name}s and folders of {kind.name}s", "keep one or the other")
    if not flat:
        names = order_classes((n for n, found in nested.items() if found), classes, str(folder))
        files = {(sample, name): f"{name}/{sample}" for name in names for sample in nested[name]}
    odd = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in kind.others)
    if odd:
        item = f"{folder}: {len(odd)} files are not {kind.name}: {some(odd)}"
        raise _mixed(item, f"save masks as {kind.name}; keep images elsewhere")
    if not files:
        raise no_files(folder, kind.name)
    return ClassFiles(names, tuple(sorted({sample for sample, _ in files})), files)


def _under(folder: Path, kind: Kind) -> list[str]:
    return sorted(file for suffix in kind.suffixes for file in files_under(folder, suffix))


def _mixed(item: str, fix: str) -> DamagedError:
    return DamagedError("folder-mixed", "cannot read a folder of masks", item=item, fix=fix)
