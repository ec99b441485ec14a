"""A volume a class: `SAMPLE/CLASS.nii.gz` as TotalSegmentator writes them, also `SAMPLE/segmentations/CLASS.nii.gz`.

Read from NIfTI, NRRD or MetaImage; written as NIfTI. Classes may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, differ, some
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.index import INDEX, Index, index_of, no_files
from ensemble_kit.formats.label_meaning import LabelMaps
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, Telling, always
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.volume import Volume
from ensemble_kit.formats.volume_files import (
    SUFFIXES,
    binary,
    label_maps,
    name_of,
    open_volume,
    volumes_under,
    with_geometries,
)
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.formats.volume_writing import write_volume
from ensemble_kit.masks.labelmaps import draw_slices
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.geometry import as_text

_WHAT = "cannot read a folder of volumes"
_INNER = "segmentations"
"""Folder of the masks of a sample in the training data of TotalSegmentator, beside its image."""


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of samples with a volume a class, or the folder of one sample.

    Raises
    ------
    DamagedError
        A file that is not a whole volume, or holds other values than those of a mask.
    IncompleteError
        A sample lacks a class that another has.
    MismatchError
        Volumes of one sample that differ in size or geometry.
    """
    index = Index.load(path)
    if index is None:
        files, told = _by_name(path)
        where = f"{path}, whose folders are read as samples and whose files as classes,"
        names = order_classes(dict.fromkeys(name for _, name in files), classes, where)
        samples = tuple(dict.fromkeys(sample for sample, _ in files))
    else:
        names, told = order_classes((n for n, _ in index.classes), classes, str(path)), ""
        samples, folders = tuple(s for s, _, _ in index.samples), dict(index.classes)
        files = {(s, n): path / f / folders[n] for s, f, _ in index.samples for n in folders}
        index.check_files(path, [f.relative_to(path).as_posix() for f in files.values()], _SUFFIX)
    if missing := [key for key in product(samples, names) if key not in files]:
        item = f"{path}: {len(missing)} of {len(samples) * len(names)} (sample, class): {some(missing, 10)}"
        fix = "write one volume for every sample and class, also for empty masks; --classes names the classes"
        raise IncompleteError("files-missing", "cannot read masks: files are missing", item=item, fix=fix)
    masks: dict[Key, Runs] = {}
    firsts: dict[str, Volume] = {}
    for sample, name in product(samples, names):
        volume = open_volume(files[sample, name])
        _check_same(firsts.setdefault(sample, volume), volume)
        sizes.of(sample, volume.shape, volume.where)
        masks[sample, name] = binary(label_maps(volume)[0], volume.where)
    return with_geometries(assemble(samples, names, masks, told or None), firsts)


def _by_name(path: Path) -> tuple[dict[Key, Path], str]:
    """Return the file of each sample and class by the names of folders and files; and what was left out, in words."""
    found = volumes_under(path)
    if not found:
        raise no_files(path, "volume")
    inner = [file for file in found if Path(file).parent.name == _INNER and file.count("/") == 2]
    told = (
        f"{some(sorted(set(found) - set(inner)), 3)} left out, beside {_INNER}"
        if inner and len(found) > len(inner)
        else ""
    )
    kept = inner or found
    depths = {file.count("/") for file in kept}
    if not inner and depths not in ({0}, {1}):
        item = f"{path} holds {some(kept)}"
        fix = "pass a folder of folders, one a sample, with a volume a class: SAMPLE/CLASS.nii.gz"
        raise DamagedError("folder-mixed", _WHAT, item=item, fix=fix)
    files: dict[Key, Path] = {}
    for file in kept:
        key = (Path(file).parts[0] if "/" in file else path.absolute().name, name_of(Path(file).name))
        if key in files:
            item, fix = f"{files[key]} and {path / file}", "keep one file a class"
            raise DamagedError("folder-mixed", _WHAT, item=item, fix=fix)
        files[key] = path / file
    return files, told


def _check_same(first: Volume, other: Volume) -> None:
    """Refuse volumes of one sample that differ in size or geometry, or hold several channels."""
    if other.channels > 1 or other.segments:
        item, fix = f"{other.where} has channels or segments of its own", "pass it to --from nifti or nrrd"
        raise MismatchError("volume-axes", _WHAT, item=item, fix=fix)
    fix = "write all classes of a sample on the grid of its image"
    if first.shape != other.shape:
        ours, theirs = f"{as_text(first.shape)} in {first.where}", f"{as_text(other.shape)} in {other.where}"
        raise differ(_WHAT, "the sizes z, y, x", ours, theirs, fix, "image-size-differs")
    a, b = first.geometry, other.geometry
    if a is not None and b is not None and not a.is_near(b, first.shape):
        ours, theirs = f"{a.as_text()} in {first.where}", f"{b.as_text()} in {other.where}"
        raise differ(_WHAT, f"their {a.apart(b)}", ours, theirs, fix, "geometry-differs")


_SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class _Writing:
    geometries: Geometries

    def check(self, masks: Masks) -> None:
        self.geometries.check(masks)

    def telling(self, masks: Masks, _: Path | None = None) -> Telling:
        """Say what files hold, and how volumes come to lie where they do."""
        return Telling("; ".join(filter(None, ("a volume of 0 and 1 for each class", self.geometries.told(masks)))))

    def build(self, masks: Masks, folder: Path) -> None:
        """Write one volume a (sample, class), of the values 0 and 1."""
        files = file_names(masks.classes, _SUFFIX, taken=[INDEX], flat=True)
        geometries = {sample: self.geometries.of(masks, sample) for sample in masks.samples}
        index = index_of("class-volumes", masks, "", [files[name] for name in masks.classes])
        index = replace(
            index, samples=tuple((sample, file, geometries[sample].shape) for sample, file, _ in index.samples)
        )
        index.save(folder)
        folders = {sample: folder / file for sample, file, _ in index.samples}
        for piece, sample in by_sample(masks):
            folders[sample].mkdir(parents=True, exist_ok=True)
            for name in masks.classes:
                with (folders[sample] / files[name]).open("wb") as out:
                    where, none = piece.indices((sample,), (name,))[0], Runs.empty(piece.image_size(sample))
                    slices = draw_slices(piece.packed, where, none, ([1], 0, 1))
                    write_volume(out, _SUFFIX, geometries[sample], np.dtype(np.uint8), slices)


def labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that writes volumes where the user says."""
    if replace(options, like_image=None, spacing=None) != LabelMaps():
        item = "--labels, --first-value, --void or --paint with the format 'class-volumes'"
        fix = "leave it out: each file is the mask of a class; label maps are --format nifti"
        raise UsageError("option-idle", "cannot use options of label maps", item=item, fix=fix)
    how = _Writing(Geometries(options.like_image, options.spacing))
    return replace(FORMAT, build=how.build, check=how.check, telling=how.telling)


def _sniff(contents: Contents) -> bool:
    """Tell a folder with volumes, none of which lies flat in it."""
    files = [file for suffix in SUFFIXES for file in contents.files(suffix)]
    return bool(files) and all("/" in file for file in files)


_PLAIN = _Writing(Geometries())
FORMAT = MaskFormat(
    "class-volumes",
    read,
    sniff=_sniff,
    build=_PLAIN.build,
    in_pieces=always,
    check=_PLAIN.check,
    telling=_PLAIN.telling,
    is_folder=True,
    labelled=labelled,
    ranks=frozenset({3}),
    keeps_geometry=EITHER,
)
