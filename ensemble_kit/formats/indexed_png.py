"""Masks as indexed PNGs, one a sample: `<folder>/<sample>.png`, palette or 8-bit grey; value k is the k-th class.

Value 0 is no class. A folder that the kit wrote has an `index.json` with the names, the order and the sizes; for one
made by hand the classes have to be passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble_kit.errors import DamagedError, MismatchError, UsageError
from ensemble_kit.formats.classes import assemble, need_classes, order_classes
from ensemble_kit.formats.index import Index, files_under, index_of, no_files
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.png_codec import read_png, write_png
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.runs import Runs, encode

_MOST_CLASSES = 255


def read(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of indexed PNGs; `classes` names the values 1, 2, … unless an index does.

    Raises
    ------
    UsageError
        The classes have no names.
    DamagedError
        A file that is not a whole PNG, not indexed or grey, or holds a value without a class.
    """
    index = Index.load(folder)
    if index is None:
        stored = names = need_classes(classes, str(folder))
        files = {file: file for file in files_under(folder, ".png")}
        if not files:
            raise no_files(folder, "PNG")
    else:
        stored = tuple(n for n, _ in index.classes)
        names = order_classes(stored, classes, str(folder))
        files = {s: f for s, f, _ in index.samples}
        index.check_files(folder, files.values(), ".png")
    masks: dict[Key, Runs] = {}
    for sample, file in files.items():
        bitmap = read_png(folder / file, palette=True)
        sizes.of(sample, bitmap.shape, str(folder / file))
        most = int(bitmap.max())
        if most > len(stored):
            item = f"{folder / file} holds the value {most}, there are {len(stored)} classes"
            fix = "name the class of every value, in order (--classes FILE, classes=[…])"
            raise DamagedError("mask-values", "cannot read an indexed mask", item=item, fix=fix)
        masks |= {(sample, name): encode(bitmap == k) for k, name in enumerate(stored, 1)}
    return assemble(files, names, masks)


def build(masks: MaskSet, folder: Path) -> None:
    """Write one indexed PNG a sample; the k-th class has the value k.

    Raises
    ------
    MismatchError
        Two classes of a sample overlap: an indexed PNG holds one class a pixel.
    """
    if len(masks.classes) > _MOST_CLASSES:
        item = f"{len(masks.classes)} classes, {_MOST_CLASSES} fit"
        raise UsageError("classes-too-many", "cannot write an indexed PNG", item=item, fix="pass --format png")
    index = index_of("indexed-png", masks, ".png")
    index.save(folder)
    for sample, file, size in index.samples:
        bitmap = np.zeros(math.prod(size), np.uint8)
        for k, name in enumerate(masks.classes, 1):
            runs = masks[sample, name]
            for start, end in zip(runs.starts.tolist(), runs.ends.tolist(), strict=True):
                under = bitmap[start:end]
                if under.any():
                    other = masks.classes[int(under[under > 0][0]) - 1]
                    what = "cannot write an indexed PNG: it holds one class a pixel"
                    item = f"sample {sample!r}: classes {other!r} and {name!r} overlap"
                    fix = "pass --format png, which holds a file for each class"
                    raise MismatchError("classes-overlap", what, item=item, fix=fix)
                under[:] = k
        write_png(folder / file, bitmap.reshape(size), _palette())


def _palette() -> bytes:
    """Colours that tell neighbouring classes apart (the bit-reversed palette of PASCAL VOC)."""
    colours = np.zeros((256, 3), np.uint8)
    for k in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[k, channel] |= ((k >> bit) & 1 if bit % 3 == channel else 0) << (7 - bit // 3)
    return colours.tobytes()


FORMAT = MaskFormat(
    "indexed-png",
    read,
    sniff=lambda contents: any("/" not in file for file in contents.files(".png")),
    build=build,
    is_folder=True,
)
