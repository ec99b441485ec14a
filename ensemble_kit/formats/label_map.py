"""Label maps, one class a pixel: PNG and TIFF of 8 or 16 bits, indexed, grey or by colours, and NumPy arrays.

Read from a folder of images or `.npy`, one a sample, from one `.npy` or one `.npz`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from ensemble_kit.errors import DamagedError, IncompleteError, UsageError, check_number, some
from ensemble_kit.formats import npz
from ensemble_kit.formats.classes import ONLY_CLASS, check_wanted, need_classes, order_classes
from ensemble_kit.formats.index import Index, files_under, no_files
from ensemble_kit.formats.label_images import SUFFIXES, check_numbered, read_arrays, read_image, total
from ensemble_kit.formats.label_presets import VOID
from ensemble_kit.formats.label_tables import load_table
from ensemble_kit.formats.label_writing import Drawing
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import LabelMap, classes_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import LabelTable, by_order, counted, is_background

_CITYSCAPES = ("_color", "_instanceIds", "_labelIds", "_labelTrainIds", "_instanceTrainIds")
"""What the stems of an image's files end in: colours and instances beside labels."""

_IMAGES = [suffix for suffix in SUFFIXES if suffix != ".npy"]  # a folder of arrays may hold masks, or logits

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
        for value in self.void or ():
            check_number("void", value, "pass values of a label map, whole numbers", whole=True)
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
        how = Drawing(self.table, self.paint)
        own = replace(FORMAT, read=partial(read, options=self), write=how.write, build=how.build)
        return replace(own, check=how.values, telling=how.telling)


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
    index = says_values(path)
    alone = options == _DEFAULT and (classes is None or (len(classes) == 1 and not is_background(classes[0])))
    maps = _read_maps(path, index, options.table if index is None else None, alone)
    for sample, m in maps.items():
        sizes.of(sample, m.shape, str(path))
    counts = total(maps)
    table = _table(path, index, classes, counts, options)
    fix = "name them in --labels FILE, or pass --void VALUES where they are to be ignored"
    table.check(counts, str(path), fix)
    _check_void(table, classes, str(path))
    names = order_classes(table.classes, classes, str(path))
    return MaskSet.trusted(*classes_of(maps, replace(table, classes=names)), exclusive=True)


def says_values(path: Path) -> Index | None:
    """Return what label maps say of their values themselves; None where they say nothing."""
    return Index.load(path) if path.is_dir() else npz.labels_index(path) if npz.holds_labels(path) else None


def _check_void(table: LabelTable, classes: Sequence[str] | None, where: str) -> None:
    """Refuse a table whose row `void` means "ignore" where a class of that name is wanted."""
    wanted = [name for name in classes or () if name.strip().casefold() == VOID and name not in table.classes]
    if wanted and table.void and not set(table.classes) - set(classes or ()):
        item = f"{where}: the row 'void' of {table.source} is ignored, and {wanted[0]!r} is a class that is wanted"
        fix = "leave --labels out, so that the list of classes names the values; --void VALUES then ignores them"
        raise IncompleteError("classes-missing", "cannot read void as a class", item=item, fix=fix)


def _read_maps(path: Path, index: Index | None, table: LabelTable | None, binary: bool) -> dict[str, LabelMap]:
    if not path.is_dir():
        if path.suffix.lower() not in {".npy", ".npz"}:
            fix = "pass the folder that holds it, an .npy or an .npz; a CSV or JSON has no label maps"
            raise UsageError("format-unfit", "cannot read label maps", item=f"{path} is one file", fix=fix)
        check_numbered(table, str(path))
        maps = read_arrays(path)
        if not maps:
            raise no_files(path, "array")
        return maps
    if index is not None:
        files = {s: f for s, f, _ in index.samples}
        index.check_files(path, files.values(), ".png")
    else:
        files = _files(path)
    return {sample: read_image(path / file, table, binary) for sample, file in files.items()}


def _files(folder: Path) -> dict[str, str]:
    """Find the label maps of a folder made by hand: a sample is called as its file, an array without the suffix."""
    found = {suffix: files_under(folder, suffix) for suffix in SUFFIXES}
    kinds = [suffix for suffix, files in found.items() if files]
    if not kinds:
        if jpegs := [f for suffix in (".jpg", ".jpeg") for f in files_under(folder, suffix)]:
            item, fix = f"{folder} holds {some(jpegs)}", "write label maps as PNG: JPEG changes the values of pixels"
            raise DamagedError("folder-mixed", "cannot read label maps", item=item, fix=fix)
        raise no_files(folder, "PNG, TIFF or .npy")
    if ".npy" in kinds and len(kinds) > 1:
        item, fix = f"{folder} holds {some(kinds)}", "keep label maps of one kind in the folder"
        raise DamagedError("folder-mixed", "cannot read a folder of masks", item=item, fix=fix)
    names = sorted(f for files in found.values() for f in files)
    if len(several := [kind for kind in _CITYSCAPES if any(Path(f).stem.endswith(kind) for f in names)]) > 1:
        item = f"{folder} holds several files an image, *{', *'.join(several)}, as Cityscapes has them"
        fix = "copy those of one kind to a folder of their own, such as *_labelIds.png, and pass that"
        raise DamagedError("folder-mixed", "cannot read a folder of masks", item=item, fix=fix)
    return {f.removesuffix(".npy"): f for f in names}


def _table(
    path: Path, index: Index | None, classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps
) -> LabelTable:
    """Tell what each value means: by the folder's own index, the table passed, or the order of the classes."""
    if index is not None:
        if options.first_value is not None:
            item = f"--first-value {options.first_value}: {path} says its values itself"
            rename = ", or rename index.json to read the folder by the order of the classes"
            fix = f"leave --first-value out{rename if path.is_dir() else ''}"
            raise UsageError("option-idle", "cannot read label maps by two tables", item=item, fix=fix)
        names = tuple(name for name, _ in index.classes)
        own = dict(zip(index.values or range(1, len(names) + 1), names, strict=True))
        rest = [c for c in classes or () if c not in names]
        if 0 not in own and len(rest) == 1 and is_background(rest[0]):  # what was written as no class
            names, own = (rest[0], *names), {0: rest[0], **own}
        empty: dict[int, str | None] = {} if 0 in own else {0: None}
        source = f"{path.name}/index.json" if path.is_dir() else path.name
        table = LabelTable(names, empty | own, source=source).with_void(None)
        # what it was written as stays void: --void adds to it
        return table if options.void is None else table.with_void(table.void.union(options.void))
    if options.table is not None:
        return options.table.with_void(options.void)
    if _is_binary(classes, counts, options, str(path)):
        only = check_wanted(classes) if classes is not None else (ONLY_CLASS,)
        top = max(counts)
        return LabelTable(only, {0: None, top: only[0]}, source=f"one class and the values 0 and {top}: binary masks")
    _check_binary(path, classes, counts, options)
    return by_order(need_classes(classes, str(path)), counts, str(path), options.first_value, options.void)


def check_void(told: Sequence[Path], void: Collection[int], others: Sequence[Path]) -> None:
    """Refuse void values that several label maps would read as different classes.

    Parameters
    ----------
    told : label maps that say what their values mean.
    others : label maps that are read beside them, by another table.

    Raises
    ------
    UsageError
        A value is a class of one of them, and not said to be that class in every other.
    """
    own = {
        path: dict(zip(i.values, (name for name, _ in i.classes), strict=False))
        for path in told
        if (i := says_values(path))
    }
    for value in void:
        named = {path: values[value] for path, values in own.items() if value in values}
        apart = [path for path in (*own, *others) if path not in named]
        if named and (apart or len(set(named.values())) > 1):
            (path, name), *rest = named.items()
            other = (
                f"{rest[0][1]!r} in {rest[0][0]}" if len(set(named.values())) > 1 else f"{apart[0]} has another table"
            )
            item = f"--void {value}: it is {name!r} in {path}, and {other}"
            how = f"ensk convert --void {value} --format label-map"
            fix = f"write those whose {value} is void by {how}, and pass what it wrote, without --void"
            what = "cannot tell which pixels are void"
            raise UsageError("label-ambiguous", what, item=item, fix=fix)


def _is_binary(classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps, where: str) -> bool:
    """Tell whether a flat folder holds binary masks of one class, which is not the background."""
    if options.first_value is not None or options.void is not None or max(counts) not in {255, 65535}:
        return False
    alone = classes is None or (len(classes) == 1 and not is_background(classes[0]))
    if alone and classes is not None and set(counts) - {0, 1, max(counts)}:
        item = f"{where} has one class and the values {counted(counts)}"
        fix = "write 0 and 255 (threshold soft masks), or pass --labels FILE with the meaning of each value"
        raise DamagedError("mask-values", "cannot read binary masks", item=item, fix=fix)
    return alone and set(counts) <= {0, max(counts)}


def _check_binary(path: Path, classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps) -> None:
    """Refuse masks of background and one class that hold 0 and 255 only: 255 can be the class, or void."""
    if classes is None or len(classes) != 2 or not is_background(classes[0]) or set(counts) != {0, 255}:
        return
    if options.first_value is None and options.void is None:
        what = "cannot tell the classes of a label map"
        item = f"{path} has the values {counted(counts)}: 255 can be {classes[1]!r}, or void"
        fix = f"pass --void 255, or --labels FILE with the rows 0,{classes[0]} and 255,{classes[1]} below value,name"
        raise UsageError("label-ambiguous", what, item=item, fix=fix)


def _sniff(contents: Contents) -> bool:
    """Tell an .npz of label maps, and a folder with flat images but for those beside a JSON, which were annotated."""
    if not contents.is_folder:
        return npz.holds_labels(contents.path)
    annotated = {PurePath(file).stem for file in contents.files(".json")}
    found = [PurePath(file) for suffix in _IMAGES for file in contents.files(suffix)]
    return any(len(file.parts) == 1 and file.stem not in annotated for file in found)


FORMAT = MaskFormat(
    "label-map",
    read,
    sniff=_sniff,
    write=Drawing().write,
    build=Drawing().build,
    in_pieces=always,
    check=Drawing().values,
    telling=Drawing().telling,
    suffix=".npz",
    holds_void=True,
)
