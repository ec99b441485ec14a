"""Scenes of remote sensing: label maps as GeoTIFFs, a folder of them or one file, georeferenced.

Read and written by bands of rows (extra `geo`, rasterio), so that no bitmap of a scene is ever held. A file that is
written keeps the names and values of its classes in its metadata, and a folder in its `index.json`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, MismatchError, UsageError, some
from ensemble_kit.formats import rasters, tiff_tags
from ensemble_kit.formats.index import Index, files_under, index_of, no_files
from ensemble_kit.formats.label_meaning import NOTHING_SAID, LabelMaps, masks_of, table_of, total
from ensemble_kit.formats.label_writing import Drawing, palette_of
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, always
from ensemble_kit.formats.scene_references import SceneReferences
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import kind_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.georeference import GeoReference
from ensemble_kit.spec.label_table import drawn_values

_TAG = "ENSEMBLE_KIT"
"""The metadata that names a file's sample and classes."""


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps = NOTHING_SAID) -> MaskSet:
    """Read label maps with their georeferences; `.rule` says what each value means.

    Pixels of the value that a file calls nodata are void.

    Raises
    ------
    UsageError
        Classes without names, values that can be read in two ways, or nodata that is a class too.
    DamagedError
        A file that is not whole, or holds no label map.
    MismatchError
        A file that is not georeferenced, values that nobody named, or files with different values for nodata.
    """
    index, files = _files(path)
    found = {sample: rasters.read_labels(file) for sample, file in files.items()}
    maps = {sample: one.map for sample, one in found.items()}
    options = _with_nodata(path, index, found, classes, options)
    return masks_of(maps, path, index, sizes, classes, options).with_geometry(
        {s: one.reference for s, one in found.items()}
    )


def _files(path: Path) -> tuple[Index | None, dict[str, Path]]:
    """Find the files of a folder, or the one file, by sample; and what they say of their classes."""
    if not path.is_dir():
        own = _said(path)
        return own, {path.name if own is None else own.samples[0][0]: path}
    index = Index.load(path)
    if index is not None:
        index.check_files(path, [file for _, file, _ in index.samples], ".tif")
        return index, {sample: path / file for sample, file, _ in index.samples}
    names = sorted(file for suffix in tiff_tags.SUFFIXES for file in files_under(path, suffix))
    if not names:
        raise no_files(path, "GeoTIFF")
    return None, {name: path / name for name in names}


def _said(path: Path) -> Index | None:
    """Read what a file that the kit wrote says of its sample and classes."""
    text = rasters.tag_of(path, _TAG)
    if text is None:
        return None
    try:
        own = strict_json.parse(text)
        classes = tuple((str(name), "") for name in own["values"])
        values = tuple(int(value) for value in own["values"].values())
        return Index("geotiff", classes, ((str(own["sample"]), path.name, (1, 1)),), values)
    except (KeyError, TypeError, ValueError, AttributeError):
        item, fix = f"{path}: {text[:80]!r}", f"write it again, or remove {_TAG} (gdal_edit.py -unsetmd FILE)"
        raise DamagedError("tiff-invalid", "cannot read the classes of a GeoTIFF", item=item, fix=fix) from None


def _with_nodata(
    path: Path,
    index: Index | None,
    found: Mapping[str, rasters.Labels],
    classes: Sequence[str] | None,
    options: LabelMaps,
) -> LabelMaps:
    """Return the options by which pixels of nodata are void, unless the user says which values are."""
    held = {s: one.nodata for s, one in found.items() if one.nodata is not None and one.nodata in one.map.values}
    if options.void is not None or not held:
        return options
    what, values = "cannot tell which pixels are void", sorted(set(held.values()))
    if len(values) > 1:
        pair = [next(s for s, v in held.items() if v == value) for value in values[:2]]
        item = f"{path}: nodata is {values[0]} in {pair[0]!r} and {values[1]} in {pair[1]!r}"
        fix = f"pass --void with the values that count neither way, such as --void {values[0]},{values[1]}"
        raise MismatchError("nodata-differs", what, item=item, fix=fix)
    table = table_of(path, index, classes, total({s: one.map for s, one in found.items()}), options)
    if (name := table.values.get(values[0])) is not None:
        item = f"{path}: the value {values[0]} is its nodata, and the class {name!r}"
        usual = next(v for v in (255, 254) if v != values[0])
        fix = f"pass --void {values[0]} where such pixels do not count, or --void {usual} where they are {name!r}"
        raise UsageError("label-ambiguous", what, item=item, fix=fix)
    return replace(options, void=tuple(sorted(table.void | {values[0]})))


@dataclass(frozen=True)
class _Scenes:
    """How masks become GeoTIFFs: as `Drawing` draws label maps, each with its georeference."""

    drawing: Drawing = field(default_factory=Drawing)
    references: SceneReferences = field(default_factory=SceneReferences)

    def check(self, masks: Masks) -> None:
        """Refuse masks without values or georeference; raise as `Drawing.values` and `SceneReferences.check` do."""
        self.drawing.values(masks)
        self.references.check(masks)

    def build(self, masks: Masks, folder: Path) -> None:
        """Write a GeoTIFF a sample, with the index.

        Raises
        ------
        MismatchError
            Two classes of a sample overlap; or as `check` does.
        """
        self.check(masks)
        values = self.drawing.values(masks)
        index = replace(index_of("geotiff", masks, ".tif"), values=tuple(values[name] for name in masks.classes))
        index.save(folder)
        for (_, file, _), (piece, sample) in zip(index.samples, by_sample(masks), strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            self._draw(folder / file, piece, sample, self.references.of(masks, sample))

    def write(self, masks: Masks, out: BinaryIO) -> None:
        """Write the GeoTIFF of the only sample; raise as `build` does.

        Raises
        ------
        UsageError
            There are several samples.
        """
        if len(masks.samples) != 1:
            item = f"{len(masks.samples)} samples: {some(masks.samples)}"
            fix = "pass a folder as --out, with --format geotiff"
            raise UsageError("format-unfit", "cannot write several scenes as one GeoTIFF", item=item, fix=fix)
        self.check(masks)
        for piece, sample in by_sample(masks):
            with tempfile.TemporaryDirectory() as folder:  # GDAL writes to a file of its own only
                made = Path(folder) / "scene.tif"
                self._draw(made, piece, sample, self.references.of(masks, sample))
                with made.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)

    def _draw(self, path: Path, masks: MaskSet, sample: str, reference: GeoReference) -> None:
        values = self.drawing.values(masks)
        drawn = drawn_values(tuple(values), values)
        kind = kind_of(drawn)
        bands = masks.label_bands(sample, values, self.drawing.paint is not None, rasters.BLOCK)
        palette = palette_of(self.drawing.table) if kind == np.uint8 else None
        said = {"sample": sample, "values": {name: values[name] for name in masks.classes}}
        tags = {_TAG: strict_json.dump(said).decode().strip()}
        rasters.write_labels(path, bands, masks.image_size(sample), kind, drawn[2], reference, palette, tags)


def _sniff(contents: Contents) -> bool:
    is_tiff = contents.head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
    return (contents.is_folder or is_tiff) and tiff_tags.holds_scenes(contents.path)


def labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that reads and writes by what the user says.

    Raises
    ------
    UsageError
        A spacing, which scenes do not take.
    """
    if options.spacing is not None:
        item, fix = "--spacing with the format 'geotiff'", "pass --like-image with the scene, or its folder"
        raise UsageError("option-idle", "cannot georeference scenes by a spacing", item=item, fix=fix)
    how = _Scenes(Drawing(options.table, options.paint), SceneReferences(options.like_image))
    own = replace(FORMAT, read=partial(read, options=options), write=how.write, build=how.build)
    return replace(own, check=how.check, telling=how.drawing.telling)


_PLAIN = _Scenes()

FORMAT = MaskFormat(
    "geotiff",
    read,
    sniff=_sniff,
    write=_PLAIN.write,
    build=_PLAIN.build,
    in_pieces=always,
    check=_PLAIN.check,
    telling=_PLAIN.drawing.telling,
    suffix=".tif",
    holds_void=True,
    labelled=labelled,
    keeps_geometry=EITHER,
)
