"""What the values of label maps mean, by what the user says, what the files say, and the values that occur."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble_kit.errors import DamagedError, IncompleteError, UsageError, check_number
from ensemble_kit.formats import npz
from ensemble_kit.formats.classes import ONLY_CLASS, check_wanted, need_classes, order_classes
from ensemble_kit.formats.index import Index
from ensemble_kit.formats.label_presets import VOID
from ensemble_kit.formats.label_tables import load_table
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import LabelMap, classes_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import LabelTable, by_order, counted, is_background


@dataclass(frozen=True)
class LabelMaps:
    """How label maps are read and written; what is not given follows from the classes and from the values.

    Parameters
    ----------
    labels : what each value means: a JSON or CSV file, the name of a preset, or names by value.
    first_value : 0 or 1, the value of the first class, where neither a table nor the folder's own index says it.
    void : values that count neither as prediction nor as truth, in place of 255 and of the table's.
    paint : on writing, the value of each class; where classes overlap the one that is named later is drawn over.
    like_image : on writing volumes or scenes, the folder of their images (or the image of one), whose headers are kept.
    spacing : on writing volumes without a geometry, millimetres between voxels along z, y, x.
    """

    labels: str | os.PathLike[str] | Mapping[int, str] | LabelTable | None = None
    first_value: int | None = None
    void: tuple[int, ...] | None = None
    paint: Mapping[str, int] | None = None
    like_image: Path | None = None
    spacing: tuple[float, ...] | None = None

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
    def of_volumes(self) -> LabelMaps:
        """What is said of volumes alone."""
        return LabelMaps(like_image=self.like_image, spacing=self.spacing)

    @property
    def table(self) -> LabelTable | None:
        """The table that was passed."""
        return self.labels if isinstance(self.labels, LabelTable) else None


NOTHING_SAID = LabelMaps()


def masks_of(
    maps: Mapping[str, LabelMap],
    path: Path,
    index: Index | None,
    sizes: ImageSizes,
    classes: Sequence[str] | None,
    options: LabelMaps,
) -> MaskSet:
    """Make masks of the label maps that were read from a path; `.rule` says what each value means.

    Parameters
    ----------
    index : what the path says of its values itself, as `says_values` reads it.

    Raises
    ------
    UsageError
        Classes without names, or values that can be read in two ways.
    MismatchError
        Values that nobody named, classes of a table that are not wanted, or background that is not first.
    """
    for sample, m in maps.items():
        sizes.of(sample, m.shape, str(path))
    counts = total(maps)
    table = table_of(path, index, classes, counts, options)
    table.check(counts, str(path), "name them in --labels FILE, or pass --void VALUES where they are to be ignored")
    _check_void(table, classes, str(path))
    names = order_classes(table.classes, classes, str(path))
    return MaskSet.trusted(*classes_of(maps, replace(table, classes=names)), exclusive=not table.regions)


def total(maps: Mapping[str, LabelMap]) -> Counter[int]:
    """Count the pixels of each value in a set."""
    return sum((m.counts() for m in maps.values()), Counter[int]())


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


def table_of(
    path: Path, index: Index | None, classes: Sequence[str] | None, counts: Counter[int], options: LabelMaps
) -> LabelTable:
    """Tell what each value means: by the folder's own index, the table passed, or the order of the classes."""
    if options.table is not None and options.table.regions:
        return options.table.with_void(options.void)  # an index has one class of each value: which was painted last
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
