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

from ensemble_kit.errors import UsageError
from ensemble_kit.formats.class_folders import Kind, find, lay_out
from ensemble_kit.formats.classes import assemble
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.png_codec import read_mask
from ensemble_kit.formats.png_rows import SIGNATURE
from ensemble_kit.formats.png_writing import height_of_bands, write_png
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import draw_bands
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample

_KIND = Kind("PNG", (".png",), (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"))


def read(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of binary PNGs.

    Raises
    ------
    DamagedError
        A file that is not a whole PNG, not grey, or holds other values.
    IncompleteError
        A sample lacks a class that another has.
    """
    found, masks = find(folder, classes, _KIND), {}
    for key in product(found.samples, found.classes):
        path = folder / found.files[key]
        masks[key] = read_mask(path)
        sizes.of(key[0], masks[key].shape, str(path))
    return assemble(found.samples, found.classes, masks)


def build(masks: Masks, folder: Path) -> None:
    """Write one binary PNG a (sample, class), 8-bit grey with the values 0 and 255."""
    files = lay_out(masks, folder, "png", ".png")
    for piece, sample in by_sample(masks):
        for name in masks.classes:
            where, size = piece.indices((sample,), (name,))[0], piece.image_size(sample)
            bands = draw_bands(piece.packed, where, Runs.empty(size), ([255], 0, 0), height_of_bands(size[1]))
            write_png(files[sample, name], bands, size, np.dtype(np.uint8))


def _sniff(contents: Contents) -> bool:
    if contents.head.startswith(SIGNATURE):
        item, fix = f"{contents.path} is a single PNG", "pass the folder that holds it"
        raise UsageError("format-unknown", "cannot read masks", item=item, fix=fix)
    return any("/" in file for file in contents.files(".png"))


FORMAT = MaskFormat("png", read, sniff=_sniff, build=build, in_pieces=always, is_folder=True)
