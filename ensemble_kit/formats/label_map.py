"""Label maps, one class a pixel: PNG and TIFF of 8 or 16 bits, indexed, grey or by colours, and NumPy arrays.

Read from a folder of images or `.npy`, one a sample, from one `.npy` or one `.npz`; written as a folder of indexed
PNGs, or 16-bit grey ones, with an `index.json` that keeps names, order, sizes and values.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import ONLY_CLASS, check_wanted, need_classes, order_classes
from ensemble_kit.formats.index import Index, files_under, index_of, no_files
from ensemble_kit.formats.label_images import SUFFIXES, read_arrays, read_image, total
from ensemble_kit.formats.label_presets import VOID, voc_colour
from ensemble_kit.formats.label_tables import load_table
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.png_codec import write_png
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import LabelMap, classes_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import LabelTable, by_order, counted, drawn_values, is_background

OLD = "indexed-png"
"""What folders are called whose values count from 1, whatever the first class is; written by versions before this."""


@dataclass(frozen=True)
class LabelMaps:
    """How label maps are read and written; what is not given follows from the classes and from the values.

    Parameters
    ----------
    labels : what each value means: a JSON or CSV file, the name of a preset, or names by value.
    first_value : 0 or 1, the value of the first class, where neither a table nor the folder's own index says it.
    void : values that count neither as prediction nor as truth, in place of 255 and of the table's.
    paint : on writing, the value of each class; where classes overlap the one that is named later is drawn over.
    """

    labels: str | os.PathLike[str] | Mapping[int, str] | LabelTable | None = None
    first_value: int | None = None
    void: tuple[int, ...] | None = None
    paint: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", load_table(self.labels))
        if self.labels is not None and self.first_value is not None:
            item = f"--labels {self.table.source} and --first-value {self.first_value}" if self.table else ""
            fix = "pass one of the two: a table says the class of every value"
            raise UsageError("option-idle", "cannot read label maps by two tables", item=item, fix=fix)

    @property
    def table(self) -> LabelTable | None:
        """The table that was passed."""
        return self.labels if isinstance(self.labels, LabelTable) else None

    def format(self) -> MaskFormat:
        """Return the format that reads and writes so."""
        taken, made = partial(read, options=self), partial(build, options=self)
        return replace(FORMAT, read=taken, build=made, check=partial(_values_for, options=self))


_DEFAULT = LabelMaps()


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps = _DEFAULT) -> MaskSet:
    """Read label maps; `.rule` says what each value means.

    Raises
    ------
    UsageError
        Classes without names, values that can be read in two ways, or colours without a table.
    DamagedError
        A file that is not whole, or of another kind.
    MismatchError
        Values or colours that nobody named, classes of a table that are not wanted, or background that is not first.
    """
    index = Index.load(path) if path.is_dir() else None
    maps = _read_maps(path, index, options.table if index is None else None)
    for sample, m in maps.items():
        sizes.of(sample, m.shape, str(path))
    counts = total(maps)
    table = _table(path, index, classes, counts, options)
    fix = "name them in --labels FILE, or pass --void VALUES where they are to be ignored"
    table.check(counts, str(path), fix)
    _check_void(table, classes, str(path))
    names = order_classes(table.classes, classes, str(path))
    return MaskSet.trusted(*classes_of(maps, replace(table, classes=names)), exclusive=True)


def _check_void(table: LabelTable, classes: Sequence[str] | None, where: str) -> None:
    """Refuse a table whose row `void` means "ignore" where a class of that name is wanted."""
    wanted = [name for name in classes or () if name.strip().casefold() == VOID and name not in table.classes]
    if wanted and table.void and not set(table.classes) - set(classes or ()):
        item = f"{where}: the row 'void' of {table.source} is ignored, and {wanted[0]!r} is a class that is wanted"
        fix = "leave --labels out, so that the list of classes names the values; --void VALUES then ignores them"
        raise IncompleteError("classes-missing", "cannot read void as a class", item=item, fix=fix)


def _read_maps(path: Path, index: Index | None, table: LabelTable | None) -> dict[str, LabelMap]:
    if not path.is_dir():
        if path.suffix.lower() not in {".npy", ".npz"}:
            fix = "pass the folder that holds it, an .npy or an .npz; a CSV or JSON has no label maps"
            raise UsageError("format-unfit", "cannot read label maps", item=f"{path} is one file", fix=fix)
        maps = read_arrays(path)
        if not maps:
            raise no_files(path, "array")
        return maps
    if index is not None:
        files = {s: f for s, f, _ in index.samples}
        index.check_files(path, files.values(), ".png")
    else:
        files = _files(path)
    return {sample: read_image(path / file, table) for sample, file in files.items()}


def _files(folder: Path) -> dict[str, str]:
    """Find the label maps of a folder made by hand: a sample is called as its file, an array without the suffix."""
    found = {suffix: files_under(folder, suffix) for suffix in SUFFIXES}
    kinds = [suffix for suffix, files in found.items() if files]
    if not kinds:
        raise no_files(folder, "PNG, TIFF or .npy")
    if ".npy" in kinds and len(kinds) > 1:
        item, fix = f"{folder} holds {some(kinds)}", "keep label maps of one kind in the folder"
        raise DamagedError("folder-mixed", "cannot read a folder of masks", item=item, fix=fix)
    return {f.removesuffix(".npy"): f for f in sorted(f for files in found.values() for f in files)}


def _table(
    path: Path, index: Index | None, classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps
) -> LabelTable:
    """Tell what each value means: by the folder's own index, the table passed, or the order of the classes."""
    if index is not None:
        if options.first_value is not None:
            item = f"--first-value {options.first_value}: {path} says its values in index.json"
            fix = "leave --first-value out, or rename index.json to read the folder by the order of the classes"
            raise UsageError("option-idle", "cannot read label maps by two tables", item=item, fix=fix)
        names = tuple(name for name, _ in index.classes)
        own = dict(zip(index.values or range(1, len(names) + 1), names, strict=True))
        rest = [c for c in classes or () if c not in names]
        if 0 not in own and len(rest) == 1 and is_background(rest[0]):  # what was written as no class
            names, own = (rest[0], *names), {0: rest[0], **own}
        empty: dict[int, str | None] = {} if 0 in own else {0: None}
        return LabelTable(names, empty | own, source=f"{path.name}/index.json").with_void(options.void)
    if options.table is not None:
        return options.table.with_void(options.void)
    if _is_binary(classes, counts, options):
        only = check_wanted(classes) if classes is not None else (ONLY_CLASS,)
        return LabelTable(only, {0: None, 255: only[0]}, source="one class and the values 0 and 255: binary masks")
    _check_binary(path, classes, counts, options)
    return by_order(need_classes(classes, str(path)), counts, str(path), options.first_value, options.void)


def _is_binary(classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps) -> bool:
    """Tell whether a flat folder holds binary masks of one class, which is not the background."""
    if options.first_value is not None or options.void is not None or not {255} <= set(counts) <= {0, 255}:
        return False
    return classes is None or (len(classes) == 1 and not is_background(classes[0]))


def _check_binary(path: Path, classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps) -> None:
    """Refuse masks of background and one class that hold 0 and 255 only: 255 can be the class, or void."""
    if classes is None or len(classes) != 2 or not is_background(classes[0]) or set(counts) != {0, 255}:
        return
    if options.first_value is None and options.void is None:
        what = "cannot tell the classes of a label map"
        item = f"{path} has the values {counted(counts)}: 255 can be {classes[1]!r}, or void"
        fix = f"pass --void 255, or --labels FILE with the rows 0,{classes[0]} and 255,{classes[1]} below value,name"
        raise UsageError("label-ambiguous", what, item=item, fix=fix)


def build(masks: MaskSet, folder: Path, options: LabelMaps = _DEFAULT) -> None:
    """Write one indexed PNG a sample, or 16-bit grey where a value is above 255, with the index.

    Raises
    ------
    MismatchError
        Two classes of a sample overlap, or the table lacks a class.
    """
    values = _values_for(masks, options)
    index = replace(index_of(FORMAT.name, masks, ".png"), values=tuple(values[name] for name in masks.classes))
    index.save(folder)
    palette = _palette(options.table)
    for sample, file, _ in index.samples:
        labels = masks.labels(sample, values, paint=options.paint is not None)
        write_png(folder / file, labels, palette if labels.dtype == np.uint8 else None)


def _values_for(masks: MaskSet, options: LabelMaps = _DEFAULT) -> dict[str, int]:
    """Return the value of each class, in the order in which they are drawn."""
    if options.paint is not None:
        if set(options.paint) != set(masks.classes):
            item = f"--paint names {some(options.paint)}, the classes are {some(masks.classes, 40)}"
            fix = "name every class once, as CLASS=VALUE,CLASS=VALUE; --only CLASSES leaves classes out"
            raise MismatchError("paint-classes", "cannot draw a label map", item=item, fix=fix)
        if len(set(drawn_values(tuple(options.paint), options.paint)[0])) < len(options.paint):
            item, fix = f"--paint {dict(options.paint)}: two classes have one value", "give every class its own value"
            raise UsageError("label-map-invalid", "cannot draw a label map", item=item, fix=fix)
        return dict(options.paint)
    if options.table is None:
        return dict(zip(masks.classes, drawn_values(masks.classes)[0], strict=True))
    found = {name: options.table.value_of(name) for name in masks.classes}
    if lacking := [name for name, value in found.items() if value is None]:
        item = f"{options.table.source} has no value for {some(lacking)}"
        fix = "add a row for each class, or pass another --labels"
        raise MismatchError("classes-differ", "cannot write label maps by a table", item=item, fix=fix)
    return {name: value for name, value in found.items() if value is not None}


def _palette(table: LabelTable | None) -> bytes:
    """256 colours: the table's, and PASCAL VOC's for values without one."""
    known = table.colours if table is not None else {}
    return bytes(part for value in range(256) for part in known.get(value, voc_colour(value)))


FORMAT = MaskFormat(
    "label-map",
    read,
    sniff=lambda contents: any("/" not in file for file in contents.files(".png")),
    build=build,
    check=_values_for,
    holds_void=True,
)
