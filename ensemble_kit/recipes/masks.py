"""Read masks for a vote or a tuning, with sizes and class names from wherever they are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import EnskError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats import tiff_tags
from ensemble_kit.formats.dialects import PRESETS
from ensemble_kit.formats.index import INDEX
from ensemble_kit.formats.label_meaning import LabelMaps, check_void, says_values
from ensemble_kit.formats.maskformat import OPTION_OF, Annotations, MaskFormat
from ensemble_kit.formats.reading import kind_of, read_masks, recognise
from ensemble_kit.formats.registry import FORMATS, Format, named, with_labels
from ensemble_kit.formats.row_order import samples_listed
from ensemble_kit.formats.size_table import read_sizes
from ensemble_kit.formats.sizes import ImageSize
from ensemble_kit.formats.submission import CSV
from ensemble_kit.formats.volume_files import suffix_of
from ensemble_kit.logits.open import is_store
from ensemble_kit.logits.packed import is_packed
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, MaskStream
from ensemble_kit.remote.copies import local
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.label_table import is_background

M = TypeVar("M", MaskSet, MaskStream, Masks)

_ARRAYS = {"npy", "npz"}  # of masks or of label maps: the options say which
_OTHERS = {"classes-missing", "classes-differ"}  # codes for other classes than were named
_LACKS = {"image-size-missing", "classes-needed", "format-ambiguous"}  # codes for what another file may provide


def truth_for(
    ensemble: Ensemble,
    path: Path,
    format: Format | None = None,  # noqa: A002 - the option's name
    image_size: ImageSize | None = None,
    classes: Sequence[str] | None = None,
    keep: Callable[[MaskSet], MaskSet] | None = None,
    background: str | None = None,
    id: IdForm | None = None,  # noqa: A002 - the option's name
) -> MaskSet:
    """Read the truth of an ensemble's samples; sizes and class names come from the ensemble.

    Parameters
    ----------
    classes : of the file, where they are not those of the ensemble.
    keep : leaves classes out that the ensemble does not have.
    background : a class that the truth may lack.
    id : the form in which the file's ids are those of the ensemble.

    Raises
    ------
    UsageError
        The path is a store of logits.
    MismatchError
        Images of other sizes than the ensemble's; only the background of the ensemble is missing.
    """
    refuse_store(path, "the truth")
    sizes = image_size or {s: ensemble.image_size(s) for s in ensemble.samples}
    names = classes if classes is not None or keep is not None else ensemble.classes
    try:
        truth = read_masks(path, format=format, image_size=sizes, classes=names, id=id)
    except UsageError as error:
        if keep is None or classes is not None or error.code != "classes-needed":
            raise
        truth = read_masks(path, format=format, image_size=sizes, classes=ensemble.classes, id=id)
    except MismatchError as error:
        if image_size is not None or error.code != "image-size-differs":
            raise
        item = error.item.replace("was passed", "is the image's size in the stores")
        fix = "write the truth at the size of its images; ensk inspect STORE shows the sizes that a store has"
        if any(len(ensemble.image_size(s)) == 3 for s in ensemble.samples[:1]):
            fix += "; volumes in other axes are turned: ensk convert TRUTH --like-image IMAGES --out FOLDER"
        raise MismatchError(error.code, "cannot compare with the truth", item=item, fix=fix) from None
    truth = truth if id is None else truth.renamed(id, ensemble.samples)
    truth = truth if keep is None else keep(truth)
    lacking = [name for name in ensemble.classes if name not in truth.classes and name != background]
    if len(lacking) == 1 and is_background(lacking[0]) and set(truth.classes) < set(ensemble.classes):
        item = f"the stores have the class {lacking[0]!r}, the truth has {some(truth.classes, 40)}"
        how = f"tune argmax with --background {lacking[0]}"
        fix = f"name it first in --classes FILE where it is the value 0 of the truth; or {how}"
        raise MismatchError("classes-differ", "cannot compare with the truth", item=item, fix=fix)
    return truth


def annotated(paths: Sequence[Path], formats: Sequence[Format | None], options: Annotations) -> list[Format | None]:
    """Tell how each path is read, with the options of annotations for those that take them.

    Raises
    ------
    UsageError
        None of them takes one of the options.
    """
    if not options.given:
        return list(formats)
    found = [_kind(path) if how is None else named(how) for path, how in zip(paths, formats, strict=True)]
    if idle := [name for name in options.given if not any(known and name in known.takes for known in found)]:
        takers = [known.name for known in FORMATS.values() if idle[0] in known.takes]
        item = f"{OPTION_OF[idle[0]]}: none of {some(map(str, paths))} is of {' or '.join(takers)}"
        fix = "leave it out, or name the format (--from)"
        raise UsageError("option-idle", "cannot use options of annotations", item=item, fix=fix)
    return [
        how if known is None or not known.takes else known.reading(options.only(known.takes))
        for how, known in zip(formats, found, strict=True)
    ]


def renamed(masks: M, form: IdForm | None, like: Path | None, target: Format | None) -> M:
    """Bring masks that are written to the ids of a sample submission, or to a form of their own.

    Parameters
    ----------
    form : None: ids stay as they are.
    target : the format that is written.
    """
    if form is None:
        return masks
    if like is None:
        return masks.renamed(form)
    dialect = None if target is None else PRESETS.get(named(target).name)
    return masks.renamed(form, samples_listed(like, masks.classes, dialect))


def _kind(path: Path) -> MaskFormat | None:
    """Tell the format of masks; None of a store, and of a folder that can be of several."""
    try:
        return None if is_store(path) else kind_of(path)
    except UsageError as error:
        if error.code not in {"format-ambiguous", "format-unknown"}:
            raise
        return None


def formats_for(
    paths: Sequence[Path], formats: Sequence[Format | None], options: LabelMaps, needed: bool = True
) -> list[Format | None]:
    """Tell how each path is read, with the options of label maps for those that need them.

    Those are folders of label maps, or without any arrays; one that says its values itself needs no first value where
    another takes it.

    Parameters
    ----------
    needed : whether options that no path can take are refused.

    Raises
    ------
    UsageError
        None of them does, and there are options.
    """
    if options == LabelMaps():
        return list(formats)
    found = [
        given if given is not None or is_store(path) else _recognised(path)
        for path, given in zip(paths, formats, strict=True)
    ]
    folders = [k for k, f in enumerate(found) if f is None or named(f).has_values]
    arrays = [k for k, f in enumerate(found) if formats[k] is None and f is not None and named(f).name in _ARRAYS]
    takers = folders or arrays
    if needed and not takers:
        with_labels(found[0], options)
    told = [k for k in takers if says_values(paths[k]) is not None]
    own = replace(options, first_value=None) if len(told) < len(takers) else options
    if options.void is not None:
        check_void([paths[k] for k in told], options.void, [paths[k] for k in takers if k not in told])
    return [
        with_labels(None if k in arrays else f, own if k in told else options) if k in takers else f
        for k, f in enumerate(found)
    ]


def _recognised(path: Path) -> str | None:
    try:
        return recognise(path).name
    except UsageError as error:
        if error.code not in {"format-ambiguous", "format-unknown"}:
            raise
        return None


def read_together(
    paths: Sequence[Path],
    formats: Sequence[Format | None] | None = None,
    image_size: ImageSize | None = None,
    classes: Sequence[str] | None = None,
    known: Sequence[MaskSet] = (),
    differ: bool = False,
    flags: Sequence[Mapping[str, str]] = (),
    id: IdForm | None = None,  # noqa: A002 - the option's name
) -> list[MaskSet]:
    """Read mask files of the same samples; sizes and class names that one of them lacks are taken from another.

    Parameters
    ----------
    formats : of each file; None is recognised.
    image_size, classes : what the user passes; takes precedence over what files say.
    known : mask sets that are read already and provide sizes and class names too.
    differ : whether a file may have other classes than the others, since the caller chooses among them.
    flags : of each file, what the options are called that an error tells to pass, where not `--from` and `--from-csv`.
    id : the form in which ids are compared; masks take those of `known`, or else this form of their own.

    Raises
    ------
    UsageError
        A store of logits among the files; sizes or class names that no file provides.
    """
    names = tuple(classes) if classes is not None else next((m.classes for m in known), None)
    in_order = names is not None  # not that of a file's rows or folders, by which values would be read at random
    sizes: dict[str, Shape] = {s: m.image_size(s) for m in known for s in m.samples}
    formats = formats or [None] * len(paths)
    read: dict[int, MaskSet] = {}
    while len(read) < len(paths):
        before, missing = len(read), None
        for k, path in enumerate(paths):
            if k in read:
                continue
            refuse_store(path, "masks")
            try:
                own = names if in_order or len(names or ()) < 2 or not _by_order(path, formats[k]) else None
                masks = _read(path, formats[k], image_size or sizes or None, own, differ, id)
            except EnskError as error:
                told = _with_flags(error, flags[k] if flags else {})
                if not isinstance(told, UsageError) or told.code not in _LACKS:
                    raise told from None
                missing = missing or told
                continue
            read[k] = masks = masks if id is None else masks.renamed(id, tuple(sizes))
            if names is None or (not in_order and _declares(path)):
                names, in_order = masks.classes, _declares(path)
            sizes.update({s: masks.image_size(s) for s in masks.samples})
        if len(read) == before and missing is not None:
            raise missing
    return [read[k] for k in range(len(paths))]


def _with_flags(error: EnskError, flags: Mapping[str, str]) -> EnskError:
    """Name the options that mend an error as they are called for this file."""
    fix = error.fix
    for usual, own in flags.items():
        fix = fix.replace(f"{usual} ", f"{own} ")
    return error.with_fix(fix)


def _by_order(path: Path, how: Format | None) -> bool:
    """Tell whether the values of masks mean classes by the order in which they are passed."""
    if how is None and (path.is_dir() or suffix_of(path.name) or path.suffix.lower() in tiff_tags.SUFFIXES):
        how = _recognised(path)
    return how is not None and named(how).has_values


def _declares(path: Path) -> bool:
    """Tell whether masks list their classes, so that their order means something."""
    listed = path.suffix.lower() == ".npz" or (path / INDEX).is_file()
    return listed or (path.suffix.lower() == ".json" and _recognised(path) == "coco")


def _read(
    path: Path,
    how: Format | None,
    sizes: ImageSize | None,
    names: Sequence[str] | None,
    differ: bool,
    form: IdForm | None,
) -> MaskSet:
    """Read masks of the classes named, or where those may differ of the file's own."""
    try:
        return read_masks(path, how, sizes, names, id=form)
    except (IncompleteError, MismatchError) as error:
        if not differ or error.code not in _OTHERS:
            raise
    return read_masks(path, how, sizes, id=form)


def refuse_store(path: Path, wanted: str) -> None:
    """Refuse a store of logits where masks are wanted.

    Parameters
    ----------
    wanted : what cannot be read, such as "the truth".

    Raises
    ------
    UsageError
        The path is a store.
    """
    from ensemble_kit.logits.store import LogitStore

    if is_store(path):
        if is_packed(path):
            LogitStore(path)  # a zip of something else says so
        raise UsageError(
            "store-not-masks",
            f"cannot read {wanted}",
            item=f"{str(path)!r} is a store of logits",
            fix="pass a mask file or folder; ensk vote makes masks of stores",
        )


def sizes_from(path: Path) -> dict[str, Shape]:
    """Read the size of every image from a CSV, a store, a folder of images (by name and by stem) or masks.

    Raises
    ------
    UsageError
        The path is none of these.
    """
    from ensemble_kit.dumping.images import find_images, image_size
    from ensemble_kit.logits.store import LogitStore

    if is_store(path):
        store = LogitStore(path)
        return {s: store.image_size(s) for s in store.samples}
    path = local(path)
    indexed = (path / INDEX).is_file()  # masks of ours, whose index has the ids; names of files may be escaped
    if path.is_dir() and not indexed and (found := [p for p in find_images(path) if p.parent == path]):
        sizes = {p: image_size(p) for p in found}
        return {key: size for p, size in sizes.items() for key in (p.stem, p.name)}
    if path.is_file() and kind_of(path) is CSV:
        return read_sizes(path)
    skips = "skip_empty" in kind_of(path).takes  # what has no mask has an image of some size
    masks = read_masks(path, skip_empty=skips)
    return {s: masks.image_size(s) for s in masks.samples}
