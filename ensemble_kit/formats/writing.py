"""`write_masks`: write masks to a file or a folder, whose name tells the format."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.files import atomic_folder, atomic_write, blamed, check_name, check_target, is_stream, spooled
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.csv_options import CsvOptions
from ensemble_kit.formats.label_meaning import LabelMaps
from ensemble_kit.formats.maskformat import MaskFormat, Telling, existing, suffix_of
from ensemble_kit.formats.registry import FORMATS, Format, named, with_csv, with_labels
from ensemble_kit.formats.row_order import read_order, settled_order
from ensemble_kit.formats.submission import CSV
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, MaskStream
from ensemble_kit.remote.copies import as_path
from ensemble_kit.spec.geometry import as_text
from ensemble_kit.spec.label_table import in_pixels

_FILES = {
    ".csv",
    ".json",
    ".npy",
    ".npz",
    ".png",
    ".tif",
    ".tiff",
    ".jpg",
    ".jpeg",
    ".zip",
    ".nii",
    ".gz",
    ".nrrd",
    ".mha",
}
"""Suffixes that no folder of masks has."""

_STREAM = ".csv"
"""What the standard output, and a path that is a file already and has no suffix, is written as."""


def write_masks(
    masks: Masks,
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - the contract's name
    like: str | os.PathLike[str] | None = None,
    force: bool = True,
    classes: Sequence[str] | None = None,
    labels: str | os.PathLike[str] | Mapping[int, str] | None = None,
    paint: Mapping[str, int] | None = None,
    csv: CsvOptions | Mapping[str, Any] | str | None = None,
    like_image: str | os.PathLike[str] | None = None,
    spacing: Sequence[float] | None = None,
) -> None:
    """Write masks to a file or a folder. A failure leaves there what was there before.

    Parameters
    ----------
    masks : the masks to write. A `MaskStream` is made while it is written, where the format takes masks piece by piece.
    path : where to write; `-` is a CSV on the standard output.
    format : the name of a format (`handbone`, `kaggle`, `png`, `coco`, …), or a `Dialect` of CSV. Default: told by
        the path's name: `.csv` (the dialect of `like`, else handbone), `.json` (COCO), `.npz`, `.npy`, or a folder of
        binary PNGs where it has no suffix.
    like : a sample submission, whose header and order of rows are kept. It must name the same (sample, class) pairs.
    force : whether to replace what is there. A folder that holds other things is never replaced.
    classes : the order of the classes, by which label maps number them.
    labels : of label maps, a table of values and colours, as for `read_masks`.
    paint : of label maps, the value of each class; where classes overlap the one that is named later is drawn over.
    csv : of a CSV, what differs from the preset, or the whole dialect, as for `read_masks`.
    like_image : of volumes and GeoTIFFs, the folder of their images, or the image of one, whose headers are kept.
        Default: they lie where the masks do.
    spacing : of volumes without a geometry, millimetres between voxels along z, y, x.

    Raises
    ------
    UsageError
        The path cannot be written, or exists and `force` is false.
    IncompleteError, MismatchError
        The masks do not fit `like` or the format.
    UnsafeError
        The id of a sample would leave the folder.
    """
    target = as_path(path)
    like = None if like is None else existing(like)
    images, steps = None if like_image is None else existing(like_image), None if spacing is None else tuple(spacing)
    wanted = for_labels(target, format, like, LabelMaps(labels, paint=paint, like_image=images, spacing=steps))
    chosen = _chosen(target, for_csv(target, wanted, like, CsvOptions.of(csv)), like)
    if str(path) == "-":
        with blamed(Path("standard output")), spooled(sys.stdout.buffer) as out:
            write_to(masks, out, chosen, like, classes)
    elif build := chosen.builder(target):
        ordered = _ready(masks, chosen, like, classes)
        with atomic_folder(target, force=force, mark=chosen.index) as folder:
            build(ordered, folder)
    else:
        with atomic_write(target, force=force) as out:
            write_to(masks, out, chosen, like, classes)


def rehearse(
    names: Masks,
    path: str | os.PathLike[str],
    format: Format | None = None,  # noqa: A002 - as in `write_masks`
    like: str | os.PathLike[str] | None = None,
    force: bool = True,
) -> None:
    """Refuse before any work what `write_masks` would refuse at its end; nothing is written.

    Parameters
    ----------
    names : of the samples and classes to come; no mask is made.
    path, format, like, force : as for `write_masks`.
    """
    target = as_path(path)
    like = None if like is None else existing(like)
    chosen = _chosen(target, format, like)
    builds = chosen.builder(target) is not None
    if str(path) != "-" and not is_stream(target):
        check_target(target, force=force, folder=builds, mark=chosen.index)
    if builds:
        ordered = _ordered(names, like, None)
        _check_rank(ordered, chosen)
        chosen.check(ordered)
    else:
        write_to(_without_a_mask(names, chosen), io.BytesIO(), chosen, like)


def telling_of(masks: Masks, chosen: MaskFormat, like: Path | None) -> Telling | None:
    """Return what says how masks are written, once `add` has seen them all; None where a format has nothing to say."""
    if chosen.telling is None:
        return None
    return chosen.telling(_ordered(masks, None if chosen.write_like is not None else like, None), like)


def write_to(
    masks: Masks,
    out: BinaryIO,
    chosen: Format,
    like: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write masks to an open binary file, in a format that is one file."""
    known = named(chosen)
    if known.write is None:
        item, fix = f"format {known.name!r}", "pass --format with a CSV dialect, or the path of a folder"
        raise UsageError("format-unfit", "cannot write a folder as one file", item=item, fix=fix)
    if like is not None and known.write_like is not None:
        known.write_like(_ready(masks, known, None, classes), out, existing(like))
    else:
        known.write(_ready(masks, known, like, classes), out)


def kind_of_output(path: Path, like: str | os.PathLike[str] | None = None) -> MaskFormat:
    """Tell the format to write by the path's name.

    Raises
    ------
    UsageError
        No format has its suffix.
    """
    if str(path) == "-" or (not path.suffix and path.exists() and not path.is_dir()):
        suffix = _STREAM  # or an old file, or a device
    else:
        suffix = "" if path.is_dir() else suffix_of(path, _suffixes())
    found = next((known for known in FORMATS.values() if known.writes and known.suffix == suffix), None)
    if found is None:
        fix = f"pass --format, one of {', '.join(_written())}"
        raise UsageError("format-unknown", "cannot tell the format to write", item=f"{path}", fix=fix)
    if like is not None and found.write_like is not None:
        return CSV
    return found


def for_labels(
    path: Path, chosen: Format | None, like: str | os.PathLike[str] | None, options: LabelMaps
) -> Format | None:
    """Return the format to write, with options of label maps, which a path with another format's suffix refuses.

    Raises
    ------
    UsageError
        There are options, and the format or the path's name is another one's.
    """
    if chosen is None and options != LabelMaps():
        check_name(path)
        chosen = kind_of_output(path, like) if path.suffix and not path.is_dir() else None
    return with_labels(chosen, options)


def for_csv(
    path: Path, chosen: Format | None, like: str | os.PathLike[str] | None, options: CsvOptions
) -> Format | None:
    """Return the format to write, with what the user says of a CSV, which a path of another format refuses.

    Raises
    ------
    UsageError
        There are options, and the format or the path's name is another one's.
    """
    if chosen is None and options:
        check_name(path)
        kind = kind_of_output(path, like)
        chosen = None if kind.suffix == CSV.suffix else kind.name
    return with_csv(chosen, options)


def fits(chosen: Format, path: Path) -> bool:
    """Tell whether a path's name goes with a format to write."""
    own, suffix = named(chosen).suffix, suffix_of(path, _suffixes())
    if str(path) == "-":
        return own == _STREAM
    if own == _STREAM and path.is_dir():
        return False
    return suffix == own or suffix not in _suffixes()


def _written() -> list[str]:
    return [known.name for known in FORMATS.values() if known.writes]


def _suffixes() -> set[str]:
    return {known.suffix for known in FORMATS.values() if known.suffix}


def _ready(masks: Masks, chosen: MaskFormat, like: str | os.PathLike[str] | None, classes: Sequence[str] | None) -> Any:
    """Give masks as a format takes them: in order, without what it cannot hold, and whole where it needs them so."""
    ordered = _ordered(masks, like, classes)
    _check_rank(ordered, chosen)
    if not chosen.in_pieces(ordered, None):
        ordered = ordered.whole()
    return ordered if chosen.holds_void else ordered.watched(partial(_check_void, chosen=chosen))


def _without_a_mask(names: Masks, chosen: MaskFormat) -> Masks:
    extent = names.extent
    return MaskStream(extent, lambda _: iter(())) if chosen.in_pieces(names, None) else MaskSet.empty(extent)


def _check_rank(masks: Masks, chosen: MaskFormat) -> None:
    """Refuse volumes where a format holds images, and images where it holds volumes."""
    for sample in masks.samples:
        size = masks.image_size(sample)
        if len(size) not in chosen.ranks:
            volume = len(size) == 3
            item = f"sample {sample!r} is {as_text(size)}, {'a volume' if volume else 'an image'}"
            held = "images" if volume else "volumes"
            fix = f"pass --format {'nifti, nrrd, npz, npy or label-map' if volume else 'label-map, png, npz or a CSV'}"
            what = f"cannot write masks as {chosen.name}, which holds {held}"
            raise UsageError("format-unfit", what, item=item, fix=fix)


def _check_void(masks: MaskSet, chosen: MaskFormat) -> None:
    if masks.has_void:
        held = [sample for sample in masks.samples if masks.void(sample)]
        raise MismatchError(
            "void-unwritable",
            f"cannot write void pixels as {chosen.name}, which has none",
            item=f"{in_pixels(sum(masks.void(s).area for s in held))} of {len(held)} samples: {some(held)}",
            fix="pass --format label-map with a folder as --out, which keeps them, or --drop-void "
            "(masks.without_void()), so that they are pixels without a class",
        )


def _chosen(target: Path, chosen: Format | None, like: str | os.PathLike[str] | None) -> MaskFormat:
    check_name(target)
    found = kind_of_output(target, like) if chosen is None else named(chosen)
    if not found.writes:
        item, fix = f"the format {found.name!r} is only read", f"pass --format, one of {', '.join(_written())}"
        raise UsageError("format-unfit", "cannot write masks", item=item, fix=fix)
    if found.builder(target) and target.suffix.lower() in _FILES and not target.is_dir():
        item = f"{target} is named as a file, and {found.name} is written as a folder"
        fix = f"pass a path without {target.suffix}" + (f", or with {found.suffix}" if found.suffix else "")
        raise UsageError("output-kind", "cannot write", item=item, fix=fix)
    return found


def _ordered(masks: Masks, like: str | os.PathLike[str] | None, classes: Sequence[str] | None) -> Masks:
    """Put masks in the order of a sample submission, and their classes in the order that the user wants."""
    _check_names(masks)
    samples = masks.samples
    if like is not None:
        source = existing(like)
        dialect = settled_order(source, masks, CsvOptions(), "order").dialect
        order = read_order(source, dialect, masks)
        samples = tuple(dict.fromkeys(s for s, _ in order.keys))
        classes = classes if classes is not None else tuple(dict.fromkeys(c for _, c in order.keys))
    return masks.arranged(samples, order_classes(masks.classes, classes, "the mask set"))


def _check_names(masks: Masks) -> None:
    """Refuse what no file can hold: no mask at all, a blank name, half a surrogate pair."""
    if not (masks.samples and masks.classes):
        raise UsageError("masks-none", "cannot write masks", item="the mask set is empty", fix="pass at least one mask")
    for name in (*masks.samples, *masks.classes):
        why = "is blank" if not name else "is not Unicode text" if any("\ud800" <= c <= "\udfff" for c in name) else ""
        if why:
            fix = "give every sample and class a name"
            raise UsageError("name-invalid", "cannot write a name", item=f"{name!r} {why}", fix=fix)
