"""Scenes whose classes may overlap: one binary GeoTIFF a (sample, class), `<folder>/<class>/<sample>.tif`.

The values are {0, 1} or {0, 255}; pixels of another value that the file calls nodata are void. Written are 0, 1 and,
as nodata, 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np

from ensemble_kit.errors import DamagedError, UsageError, differ, some
from ensemble_kit.formats import rasters, tiff_tags
from ensemble_kit.formats.class_folders import Kind, find, lay_out
from ensemble_kit.formats.label_meaning import LabelMaps
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, always
from ensemble_kit.formats.scene_references import SceneReferences
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import LabelMap, draw_bands
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.georeference import GeoReference

_KIND = Kind("GeoTIFF", tiff_tags.SUFFIXES, (".jpg", ".jpeg", ".webp", ".bmp", ".png", ".gif"))
_VOID = 255


def read(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of binary GeoTIFFs.

    Raises
    ------
    DamagedError
        A file that is not a whole GeoTIFF of one channel, or holds other values.
    IncompleteError
        A sample lacks a class that another has.
    MismatchError
        Files of one sample have two georeferences, or differ in size or in what is void.
    """
    found = find(folder, classes, _KIND)
    masks: dict[Key, Runs] = {}
    void: dict[str, Runs] = {}
    references: dict[str, GeoReference] = {}
    for sample, name in product(found.samples, found.classes):
        path = folder / found.files[sample, name]
        own = rasters.read_labels(path)
        sizes.of(sample, own.map.shape, str(path))
        masks[sample, name], ignored = _binary(own, str(path))
        reference = references.setdefault(sample, own.reference)
        first = (folder / found.files[sample, found.classes[0]]).name
        what, which = "cannot read the classes of a scene", f"sample {sample!r}, {found.files[sample, name]}"
        if not own.reference.is_near(reference, own.map.shape):
            fix = "write the masks of all classes on the pixels of one scene"
            raise differ(
                what, which, own.reference.as_text(), f"{reference.as_text()} in {first}", fix, "geometry-differs"
            )
        known = void.setdefault(sample, ignored)
        if known.shape == ignored.shape and known != ignored:
            ours, theirs = f"{ignored.area} pixels of nodata", f"{known.area} others in {first}"
            fix = "give all classes of a scene the same pixels of nodata"
            raise differ(what, which, ours, theirs, fix, "void-differs")
    return MaskSet(masks, void={s: own for s, own in void.items() if own.area}).with_geometry(references)


def _binary(own: rasters.Labels, where: str) -> tuple[Runs, Runs]:
    """Return the pixels of a class, and those that are void."""
    nodata = own.nodata or None  # 0 is off
    held = sorted(set(own.map.counts()) - ({nodata} if nodata is not None else set()))
    if not any(set(held) <= {0, top} for top in (1, 255)):
        item = f"{where} holds the values {some(held, 12)}; those of one class are 0 and 1, or 0 and 255"
        fix = "write 0 and 1; if its folder holds label maps, one a scene, pass --format geotiff"
        raise DamagedError("mask-values", "cannot read the mask of a class", item=item, fix=fix)
    return _runs(own.map, [v for v in held if v]), _runs(own.map, [] if nodata is None else [nodata])


def _runs(found: LabelMap, values: Sequence[int]) -> Runs:
    from ensemble_kit.kernels import labels as kernels

    owners = np.where(np.isin(found.values, values), 0, -1)
    size = found.shape[0] * found.shape[1]
    starts, ends, _ = kernels.runs_of(found.edges, owners, size, 1)
    return Runs.trusted((starts, ends), found.shape)


@dataclass(frozen=True)
class _ClassScenes:
    """How masks become binary GeoTIFFs, each with its scene's georeference."""

    references: SceneReferences = field(default_factory=SceneReferences)

    def build(self, masks: Masks, folder: Path) -> None:
        """Write one binary GeoTIFF a (sample, class); raise as `SceneReferences.check` does."""
        self.references.check(masks)
        files = lay_out(masks, folder, "class-geotiffs", ".tif")
        for piece, sample in by_sample(masks):
            reference, size = self.references.of(masks, sample), masks.image_size(sample)
            for name in masks.classes:
                files[sample, name].parent.mkdir(parents=True, exist_ok=True)
                where, values = piece.indices((sample,), (name,))[0], ([1], 0, _VOID)
                bands = draw_bands(piece.packed, where, piece.void(sample), values, rasters.BLOCK)
                rasters.write_labels(files[sample, name], bands, size, np.dtype(np.uint8), _VOID, reference)


def _sniff(contents: Contents) -> bool:
    files = [file for suffix in tiff_tags.SUFFIXES for file in contents.files(suffix) if "/" in file]
    return bool(files) and tiff_tags.is_georeferenced(contents.path / min(files))


def _labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that georeferences scenes as the user says.

    Raises
    ------
    UsageError
        Options of label maps.
    """
    if options != LabelMaps(like_image=options.like_image):
        item, fix = "--labels, --first-value, --void, --paint or --spacing with 'class-geotiffs'", "leave it out"
        raise UsageError("option-idle", "cannot use options of label maps", item=item, fix=fix)
    how = _ClassScenes(SceneReferences(options.like_image))
    return replace(FORMAT, build=how.build, check=how.references.check)


FORMAT = MaskFormat(
    "class-geotiffs",
    read,
    sniff=_sniff,
    build=_ClassScenes().build,
    in_pieces=always,
    check=SceneReferences().check,
    is_folder=True,
    holds_void=True,
    labelled=_labelled,
    keeps_geometry=EITHER,
)
