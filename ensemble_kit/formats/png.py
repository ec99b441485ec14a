"""Masks as binary PNGs, one a (sample, class): `<folder>/<class>/<sample>.png`, 8-bit or 1-bit grey.

The values are {0, 255} or {0, 1}. A folder that the kit wrote has an `index.json` with the names, the order and the
sizes. A folder made by hand needs none: then the sample is the file's name with its extension, and the class is its
folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, UsageError, some
from ensemble_kit.formats.bitmaps import runs_of_bitmap
from ensemble_kit.formats.classes import ONLY_CLASS, assemble, check_wanted, order_classes
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.index import INDEX, Index, files_under, index_of, no_files
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.png_codec import read_png, write_png
from ensemble_kit.formats.png_rows import SIGNATURE
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.stream import Masks, by_sample

_LOSSY = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def read(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of binary PNGs.

    Raises
    ------
    DamagedError
        A file that is not a whole PNG, not grey, or holds other values.
    IncompleteError
        A sample lacks a class that another has.
    """
    index = Index.load(folder)
    if index is None:
        names, samples, files = _by_name(folder, classes)
    else:
        names = order_classes((n for n, _ in index.classes), classes, str(folder))
        folders = dict(index.classes)
        samples = tuple(s for s, _, _ in index.samples)
        files = {(s, n): f"{folders[n]}/{f}" for s, f, _ in index.samples for n in folders}
        index.check_files(folder, files.values(), ".png")
    if missing := [key for key in product(samples, names) if key not in files]:
        what = "cannot read masks: files are missing"
        if len(files) == len(samples) > len(names) > 1:
            item = f"{folder}: no file name stands in two of its folders, {some(names)}, so they are not classes"
            fix = (
                "if each folder holds a sample's objects, write the maximum of its masks as one PNG a sample, into one "
                "folder; if each PNG holds labels, pass --format label-map"
            )
            raise IncompleteError("files-missing", what, item=item, fix=fix)
        item = f"{folder}: {len(missing)} of {len(samples) * len(names)} (sample, class): {some(missing, 10)}"
        fix = "write one PNG for every sample and class, also for empty masks"
        raise IncompleteError("files-missing", what, item=item, fix=fix)
    masks = {}
    for key in product(samples, names):
        path = folder / files[key]
        masks[key] = runs_of_bitmap(read_png(path), str(path))
        sizes.of(key[0], masks[key].shape, str(path))
    return assemble(samples, names, masks)


def build(masks: Masks, folder: Path) -> None:
    """Write one binary PNG a (sample, class), 8-bit grey with the values 0 and 255."""
    folders = file_names(masks.classes, "", taken=[INDEX], flat=True)
    index = index_of("png", masks, ".png", [folders[n] for n in masks.classes])
    index.save(folder)
    for (_, file, _), (piece, sample) in zip(index.samples, by_sample(masks), strict=True):
        for name in masks.classes:
            write_png(folder / folders[name] / file, piece[sample, name].decode().view(np.uint8) * np.uint8(255))


def _by_name(folder: Path, classes: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...], dict[Key, str]]:
    """Read classes and samples off the names of folders and files; a flat folder holds one class."""
    files: dict[Key, str] = {}
    flat = {file: file for file in files_under(folder, ".png") if "/" not in file}
    if flat:
        only = check_wanted(classes) if classes is not None else (ONLY_CLASS,)
        names = order_classes(only[:1], classes, str(folder))
        files = {(sample, names[0]): file for sample, file in flat.items()}
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    nested = {name: files_under(folder / name, ".png") for name in inside}
    if flat and any(nested.values()):
        raise _mixed(f"{folder} holds both PNGs and folders of PNGs", "keep one or the other")
    if not flat:
        names = order_classes((n for n, found in nested.items() if found), classes, str(folder))
        files = {(sample, name): f"{name}/{sample}" for name in names for sample in nested[name]}
    lossy = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in _LOSSY)
    if lossy:
        item = f"{folder}: {len(lossy)} files are not PNG: {some(lossy)}"
        raise _mixed(item, "save masks as PNG; keep images elsewhere")
    if not files:
        raise no_files(folder, "PNG")
    return names, tuple(sorted({sample for sample, _ in files})), files


def _mixed(item: str, fix: str) -> DamagedError:
    return DamagedError("folder-mixed", "cannot read a folder of masks", item=item, fix=fix)


def _sniff(contents: Contents) -> bool:
    if contents.head.startswith(SIGNATURE):
        item, fix = f"{contents.path} is a single PNG", "pass the folder that holds it"
        raise UsageError("format-unknown", "cannot read masks", item=item, fix=fix)
    return any("/" in file for file in contents.files(".png"))


FORMAT = MaskFormat("png", read, sniff=_sniff, build=build, in_pieces=always, is_folder=True)
