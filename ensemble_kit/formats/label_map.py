"""Label maps, one class a pixel: PNG and TIFF of 8 or 16 bits, indexed, grey or by colours, and NumPy arrays.

Read from a folder of images or `.npy`, one a sample, from one `.npy` or one `.npz`; and from volumes, which
`volume_formats.py` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from ensemble_kit.errors import DamagedError, UsageError, some
from ensemble_kit.formats import npz, tiff_tags, volume_files
from ensemble_kit.formats.index import Index, files_under, no_files
from ensemble_kit.formats.label_images import SUFFIXES, check_numbered, read_arrays, read_image
from ensemble_kit.formats.label_meaning import NOTHING_SAID, LabelMaps, masks_of, says_values
from ensemble_kit.formats.label_writing import Drawing
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, always
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.volume_labels import read_volumes
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import LabelTable, is_background

_CITYSCAPES = ("_color", "_instanceIds", "_labelIds", "_labelTrainIds", "_instanceTrainIds")
"""What the stems of an image's files end in: colours and instances beside labels."""

_IMAGES = [suffix for suffix in SUFFIXES if suffix != ".npy"]  # a folder of arrays may hold masks, or logits

OLD = "indexed-png"
"""What folders are called whose values count from 1, whatever the first class is; written by versions before this."""


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps = NOTHING_SAID) -> MaskSet:
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
    if _are_volumes(path, index):
        return read_volumes(path, sizes, classes, options, volume_files.SUFFIXES)
    alone = options == NOTHING_SAID and (classes is None or (len(classes) == 1 and not is_background(classes[0])))
    maps = _read_maps(path, index, options.table if index is None else None, alone, sizes)
    masks = masks_of(maps, path, index, sizes, classes, options)
    if path.suffix.lower() == ".npz":
        masks = masks.with_geometry(npz.geometries_in(path))
    elif index is not None:
        masks = masks.with_geometry(index.geometries)
    if path.suffix.lower() == ".npy" and path.is_file() and len(maps) > 1 and len(masks.image_size("0")) == 2:
        size = f"{len(maps)}x{'x'.join(map(str, masks.image_size('0')))}"
        masks.rule = f"{masks.rule}; {len(maps)} images: one volume is read by --image-size {size}"
    return masks


def _are_volumes(path: Path, index: Index | None) -> bool:
    """Tell whether label maps are those of volumes."""
    if not path.is_dir() or (index is not None and index.samples):
        listed = index.samples if index is not None else ()  # the index of an .npz lists none
        return bool(volume_files.suffix_of(listed[0][1] if listed else path.name))
    return not any(files_under(path, suffix) for suffix in SUFFIXES) and bool(volume_files.volumes_under(path))


def _read_maps(
    path: Path, index: Index | None, table: LabelTable | None, binary: bool, sizes: ImageSizes
) -> dict[str, LabelMap]:
    if not path.is_dir():
        if path.suffix.lower() not in {".npy", ".npz"}:
            fix = "pass the folder that holds it, an .npy or an .npz; a CSV or JSON has no label maps"
            raise UsageError("format-unfit", "cannot read label maps", item=f"{path} is one file", fix=fix)
        check_numbered(table, str(path))
        maps = read_arrays(path, sizes)
        if not maps:
            raise no_files(path, "array")
        return maps
    if index is not None:
        files = [file for _, file, _ in index.samples]
        index.check_files(path, files, ".npy" if all(file.endswith(".npy") for file in files) else ".png")
        return {sample: read_image(path / file, table, binary, len(size) == 3) for sample, file, size in index.samples}
    known = {sample: (file, sizes.known(sample)) for sample, file in _files(path).items()}
    return {
        sample: read_image(path / file, table, binary, None if size is None else len(size) == 3)
        for sample, (file, size) in known.items()
    }


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


def _sniff(contents: Contents) -> bool:
    """Tell an .npz of label maps, and a folder with flat images but for those beside a JSON, which were annotated."""
    if not contents.is_folder:
        return npz.holds_labels(contents.path)
    annotated = {PurePath(file).stem for file in contents.files(".json")}
    found = [PurePath(file) for suffix in _IMAGES for file in contents.files(suffix)]
    flat = sorted(file for file in found if len(file.parts) == 1 and file.stem not in annotated)
    scenes = [file for file in flat if file.suffix.lower() in tiff_tags.SUFFIXES]
    return len(flat) > (len(scenes) if scenes and tiff_tags.holds_scenes(contents.path) else 0)


def labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that reads and writes by what the user says."""
    how = Drawing(options.table, options.paint)
    own = replace(FORMAT, read=partial(read, options=options), write=how.write, build=how.build)
    return replace(own, check=how.values, telling=how.telling)


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
    labelled=labelled,
    ranks=frozenset({2, 3}),
    keeps_geometry=EITHER,
)
