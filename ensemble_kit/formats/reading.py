"""`read_masks`: read masks from a file or a folder, whose contents tell the format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ensemble_kit.access import reading
from ensemble_kit.errors import Caution, DamagedError, UsageError, some, warn
from ensemble_kit.formats.csv_options import CsvOptions
from ensemble_kit.formats.index import Index
from ensemble_kit.formats.label_meaning import LabelMaps
from ensemble_kit.formats.maskformat import Annotations, Contents, MaskFormat, existing
from ensemble_kit.formats.registry import FORMATS, FORMER, Format, named, with_csv, with_labels
from ensemble_kit.formats.settling import recognise as recognise_dialect
from ensemble_kit.formats.sizes import ImageSize, ImageSizes
from ensemble_kit.formats.submission import CSV
from ensemble_kit.formats.unread import refuse_unread
from ensemble_kit.masks.idforms import IdForm, check_form
from ensemble_kit.masks.maskset import MaskSet

_WHAT = "cannot read masks"


def read_masks(
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - the contract's name
    image_size: ImageSize | None = None,
    classes: Sequence[str] | None = None,
    labels: str | os.PathLike[str] | Mapping[int, str] | None = None,
    first_value: int | None = None,
    void: int | Sequence[int] | None = None,
    csv: CsvOptions | Mapping[str, Any] | str | None = None,
    id: IdForm | None = None,  # noqa: A002 - the option's name
    images: str | os.PathLike[str] | None = None,
    score: float | None = None,
    skip_empty: bool = False,
    paint: bool = False,
) -> MaskSet:
    r"""Read masks from a file, a folder, or a file behind a URL.

    Parameters
    ----------
    path : a CSV, a file of annotations (COCO, CVAT, Label Studio, …), `.npz`, `.npy`, or a folder of PNGs, polygon JSON
        or `.npy`: docs/formats.md lists all. A URL (`s3://…`, by the extra `remote`) is that of a file, as it is for
        `labels` and `images`.
    format : the name of a format (`handbone`, `kaggle`, `png`, `coco`, …), or a `Dialect` of CSV. Default: told by
        the contents of the path, where they can be of one format only.
    image_size : (H, W) of all samples, (D, H, W) of volumes, or a mapping of samples to these. Needed where the file
        does not say it (CSV); elsewhere the two are compared.
    classes : the classes to expect, in the order to return them. Needed where the file does not name them (joined
        ids, label maps and stacks made by hand); elsewhere they must be those of the file.
    labels : of label maps, what each value means: a JSON or CSV file of value, name and colour, a preset
        (`cityscapes`, `cityscapes-trainid`, `voc`, `ade20k`, `camvid`), or names by value. Without it the order of
        the classes tells; `.rule` of the masks says how they were read.
    first_value : of label maps without a table, the value of the first class, 0 or 1, where it is not clear.
    void : of label maps, values that count neither as prediction nor as truth. Default: 255 where no class has it.
    csv : of a CSV, what differs from the preset, or the whole dialect: a mapping, or text as `--csv` takes it, with
        some of order (C, F), base (0, 1), offsets (absolute, relative), id, class and rle (names of columns), template
        (`{image}_{class}`), empty, rows (mask, object). `.rule` of the masks says how the file was read.
    id : name (the last part of a path), stem (without its extension) or path: the form that samples' ids are brought
        to. Where `image_size` is a mapping, a sample takes the id there that is the same in this form. Default: ids as
        they are.
    images : the COCO file that lists images and categories, for a list of results (detectron2, mmdetection); for a
        COCO panoptic file the folder of its PNGs.
    score : the least score of a result that is read; 0 takes all.
    skip_empty : whether annotations without a mask, such as boxes, are left out; `.rule` of the masks counts them.
    paint : of LabelMe, CVAT and Label Studio, whether later shapes are drawn over earlier ones, so that a pixel has one
        class.

    Raises
    ------
    UsageError
        The path, its format, its sizes or its classes are not known.
    DamagedError
        Anything in the file that its format does not allow, named by where it stands.
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
    source = existing(path)
    with reading(source, _WHAT):
        ignored = (void,) if isinstance(void, int) else None if void is None else tuple(void)
        options = LabelMaps(labels, first_value, ignored)
        how = with_csv(with_labels(format or _holder(source, options), options), CsvOptions.of(csv))
        chosen = kind_of(source) if how is None else named(how)
        if isinstance(how, CsvOptions):
            check_csv(source, how)
        if not chosen.may_be(folder=source.is_dir()):
            found, wanted = ("a file", "a folder") if chosen.is_folder else ("a folder", "a file")
            item, fix = f"{source} is {found}", f"pass {wanted}, or another --format"
            raise UsageError("format-unfit", f"cannot read masks as {chosen.name}", item=item, fix=fix)
        annotations = Annotations(None if images is None else existing(images), score, skip_empty, paint)
        sizes = ImageSizes(image_size, None if id is None else check_form(id), chosen.ranks)
        masks = chosen.reading(annotations).read(source, sizes, classes)
    _check_names(source, masks)
    return masks if id is None else masks.renamed(id, tuple(image_size) if isinstance(image_size, Mapping) else None)


def _holder(source: Path, options: LabelMaps) -> MaskFormat | None:
    """Return the format of the label maps that options are said of, where the contents tell one."""
    if options == LabelMaps():
        return None
    contents = Contents(source)
    found = [known for known in FORMATS.values() if known.has_values and known.sniff(contents)]
    return found[0] if len(found) == 1 else None


def _check_names(source: Path, masks: MaskSet) -> None:
    """Refuse names with a NUL, which no text that people write holds: the file was cut, or holds binary data.

    Classes whose names differ in what one does not see are warned of: they would be scored each by itself.
    """
    odd = [name for name in (*masks.samples, *masks.classes) if "\0" in name]
    if odd:
        item, fix = f"{source}: {some(odd)} holds a NUL", "take an undamaged copy; names are text"
        raise DamagedError("masks-name", _WHAT, item=item, fix=fix)
    written: dict[str, str] = {}
    for name in masks.classes:
        other = written.setdefault(name.strip().casefold(), name)
        if other != name:
            doubt = f"{source}: the classes {other!r} and {name!r} differ only in case or in blanks at their ends"
            warn(Caution(doubt, "give them one name in the file, if they are one class"))


def check_csv(path: Path, options: CsvOptions) -> None:
    """Refuse what the user says of a CSV where the path is of another format.

    Raises
    ------
    UsageError
        It is.
    """
    if (found := kind_of(path)) is not CSV:
        item, fix = f"--csv {options} for {path}, which is {found.name}", "leave it out"
        raise UsageError("option-idle", "cannot use options of CSV", item=item, fix=fix)


def recognise(path: str | os.PathLike[str]) -> MaskFormat:
    """Tell the format of a file or folder as `kind_of` does, and the preset of a CSV by its header and its rows.

    Raises
    ------
    UsageError
        Nothing is there, no format recognises it, or several do.
    """
    source = existing(path)
    found = kind_of(source)
    return FORMATS[recognise_dialect(source).name] if found is CSV else found


def kind_of(path: str | os.PathLike[str]) -> MaskFormat:
    """Tell the format of a file or folder by its contents: a file that no format recognises is a CSV of some dialect.

    Raises
    ------
    UsageError
        Nothing is there, no format recognises it, or several do.
    """
    contents = Contents(path)
    written = _by_index(contents.path) if contents.is_folder else None
    if written is not None:
        return written
    asked = (known for known in FORMATS.values() if known.sniff(contents))
    with reading(path, _WHAT):
        found = list(asked if contents.is_folder else islice(asked, 1))  # a folder may hold files of several
    if len(found) == 1:
        return found[0]
    if not found:
        refuse_unread(contents)
    if not contents.is_folder and not contents.is_json:
        return CSV
    what, possible = "cannot tell the format of masks", [f for f in FORMATS.values() if f.may_be(contents.is_folder)]
    fix = f"pass --format, one of {', '.join(f.name for f in possible)}"
    if found:
        item = f"{contents.path} can be {some(f.name for f in found)}"
        fix = f"pass --from {' or '.join(f.name for f in found)}; what is of the other is then left out"
        raise UsageError("format-ambiguous", what, item=item, fix=fix)
    raise UsageError("format-unknown", what, item=f"no format recognises {contents.path}", fix=fix)


def _by_index(folder: Path) -> MaskFormat | None:
    """Return the format that the index of a folder names; None where the kit did not write the folder."""
    for name in dict.fromkeys(known.index for known in FORMATS.values()):
        index = Index.load(folder, name)
        if index is not None:
            known = FORMATS.get(FORMER.get(index.kind, index.kind))
            if known is None or known.build is None:
                item = f"{folder / name} says {index.kind[:80]!r}, which is not a format of folders"
                folders = [f.name for f in FORMATS.values() if f.build is not None]
                fix = f"rename it and pass --format, one of {', '.join(folders)}"
                raise DamagedError("index-invalid", "cannot read the index of a folder of masks", item=item, fix=fix)
            return known
    return None
