"""Label images of OME-Zarr 0.5, which napari opens: `<folder>/<sample>.ome.zarr/labels/<name>`.

Classes that lie apart in every sample share one label image, `classes`. Where two of them overlap anywhere, each class
is a label image of its own, of 0 and 1, in every sample; with background among them that is refused. An `index.json`
keeps names, order, sizes and where samples lie.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import UsageError
from ensemble_kit.formats.apart import ON, VOID, TogetherOrApart, overlaps, parted
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.index import Index, index_of
from ensemble_kit.formats.label_meaning import NOTHING_SAID, LabelMaps, masks_of
from ensemble_kit.formats.label_presets import voc_colour
from ensemble_kit.formats.label_writing import Drawing, palette_of
from ensemble_kit.formats.maskformat import EITHER, MaskFormat, Telling, always
from ensemble_kit.formats.ome_arrays import CHUNKS, META, LabelArray, describe, put_chunk, steps_of, write_pyramid
from ensemble_kit.formats.ome_metadata import colours, label_image, write_group
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.masks.labelmaps import draw_bands, kind_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.georeference import WorldGeometry
from ensemble_kit.spec.label_table import drawn_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".ome.zarr"
_TOGETHER = "classes"
"""The label image of all classes."""


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps = NOTHING_SAID) -> MaskSet:
    """Read a folder that the kit wrote; `.rule` says what each value means.

    Raises
    ------
    UsageError
        Another program wrote it.
    IncompleteError
        A file of it is missing.
    DamagedError
        A chunk is damaged.
    """
    index = Index.load(path)
    if index is None:
        item, fix = f"{path} has no index.json", "pass the folder that has one; save other labels as SAMPLE.npy"
        raise UsageError("format-unread", "cannot read an OME-Zarr of another program", item=item, fix=fix)
    folders = {sample: path / file / "labels" for sample, file, _ in index.samples}
    if index.values:
        maps = {sample: LabelArray(folder / _TOGETHER / "0").labels() for sample, folder in folders.items()}
        return masks_of(maps, path, index, sizes, classes, options).with_geometry(index.geometries)
    names, files = order_classes((n for n, _ in index.classes), classes, str(path)), dict(index.classes)
    masks: dict[Key, Runs] = {}
    void: dict[str, Runs] = {}
    for sample, folder in folders.items():
        for name in names:
            where = folder / files[name] / "0"
            found = LabelArray(where).labels()
            sizes.of(sample, found.shape, str(where))
            masks[sample, name], void[sample] = parted(found, str(where))
    return MaskSet(masks, void={s: own for s, own in void.items() if own.area}).with_geometry(index.geometries)


@dataclass(frozen=True)
class _Writing:
    """How masks become label images.

    Parameters
    ----------
    drawing : the value of each class where they share a label image.
    spacing : of volumes of which nothing says where they lie.
    """

    drawing: Drawing
    spacing: tuple[float, ...] | None = None

    def check(self, masks: Masks) -> None:
        """Refuse classes without a value, and a spacing for what has one; raise as `Drawing.values` does."""
        self.drawing.values(masks)
        if self.spacing is not None:
            for sample in masks.samples:
                own = masks.geometry(sample)
                if own is not None or len(masks.image_size(sample)) != 3:
                    what = f"has {own.as_text()}" if own is not None else "is an image"
                    item = f"--spacing {'x'.join(map(str, self.spacing))}: sample {sample!r} {what}"
                    fix = "leave --spacing out, or pass --drop-geometry too"
                    raise UsageError("option-idle", "cannot write OME-Zarr", item=item, fix=fix)

    def telling(self, masks: Masks, like: Path | None = None) -> Telling:
        """Say the values of the classes, or that each is a label image."""
        words = "classes overlap: a label image for each class, 1 where it is, void 255"
        return TogetherOrApart(self.drawing.telling(masks, like), words, self.drawing.paint is not None)

    def build(self, masks: Masks, folder: Path) -> None:
        """Write the label images of each sample; raise as `check` does."""
        self.check(masks)
        values = self.drawing.values(masks)
        _, none, ignored = drawn_values(tuple(values), values)
        one_image = self.drawing.paint is not None or none == ignored  # then no class and void are one value
        index, apart = index_of("ome-zarr", masks, SUFFIX, keeps_geometry=True), False
        names = file_names(masks.classes, "", taken=[META], flat=True)
        files = {sample: file for sample, file, _ in index.samples}
        geometries: dict[str, WorldGeometry] = {}
        for piece, sample in by_sample(masks):
            one = _Sample(folder / files[sample], piece.image_size(sample), self._place(piece, sample))
            if one.geometry is not None:
                geometries[sample] = one.geometry
            if not (apart or one_image) and overlaps(piece, sample):
                apart = True
                for earlier in masks.samples[: masks.samples.index(sample)]:
                    _take_apart(folder / files[earlier], names, values)
            if apart:
                self._write_apart(one, piece, sample, names)
            else:
                self._write_together(one, piece, sample, values)
        index = replace(index, geometries=geometries)
        if apart:
            replace(index, classes=tuple((name, names[name]) for name in masks.classes)).save(folder)
        else:
            replace(index, values=tuple(values[name] for name in masks.classes)).save(folder)

    def _place(self, masks: MaskSet, sample: str) -> WorldGeometry | None:
        if self.spacing is None:
            return masks.geometry(sample)
        return Geometry.of(np.diag([*self.spacing[::-1], 1.0]))

    def _write_together(self, one: _Sample, masks: MaskSet, sample: str, values: Mapping[str, int]) -> None:
        drawn = drawn_values(tuple(values), values)
        one.begin([_TOGETHER])
        bands = masks.label_bands(sample, values, self.drawing.paint is not None, one.height)
        palette = palette_of(self.drawing.table)
        shown = {v: _colour(palette, v) for v in (*drawn[0], drawn[2])}
        meanings = {values[name]: name for name in values} | {drawn[2]: "void"}
        about = colours(meanings, shown, drawn[1])
        one.write(_TOGETHER, bands, kind_of(drawn), drawn[1], about)

    def _write_apart(self, one: _Sample, masks: MaskSet, sample: str, names: Mapping[str, str]) -> None:
        one.begin([names[name] for name in masks.classes])
        void = masks.void(sample)
        for number, name in enumerate(masks.classes, 1):
            where = masks.indices((sample,), (name,))[0]
            bands: Iterator[NDArray[Any]] = iter(())
            if masks[sample, name].area or void.area:
                bands = draw_bands(masks.packed, where, void, ([ON], 0, VOID), one.height)
            one.write(names[name], bands, np.dtype(np.uint8), 0, _class_about(name, number))


def _class_about(name: str, number: int) -> dict[str, Any]:
    return colours({ON: name, VOID: "void"}, {ON: voc_colour(number), VOID: voc_colour(VOID)}, 0)


def _colour(palette: bytes, value: int) -> tuple[int, int, int]:
    own = palette[3 * value : 3 * value + 3]
    return (own[0], own[1], own[2]) if own else voc_colour(value)


class _Sample:
    """The group of one sample, whose label images have one shape and one pyramid."""

    def __init__(self, folder: Path, shape: Shape, geometry: WorldGeometry | None) -> None:
        self._labels, self._shape, self.geometry = folder / "labels", shape, geometry
        one = (1.0,) * len(shape)
        self._spacing = geometry.spacing if isinstance(geometry, Geometry) else geometry.pixel if geometry else one
        self._steps = steps_of(shape, self._spacing)
        self.height = CHUNKS[len(shape)][0]
        write_group(folder)

    def begin(self, names: Sequence[str]) -> None:
        """Name the label images."""
        write_group(self._labels, labels=list(names))

    def write(
        self, name: str, bands: Iterator[NDArray[Any]], kind: np.dtype[Any], fill: int, about: dict[str, Any]
    ) -> None:
        """Write a label image; without bands it holds the fill value."""
        described = label_image(name, self._spacing, self._steps, self.geometry)
        write_group(self._labels / name, **described, **about)
        write_pyramid(self._labels / name, bands, self._shape, kind, fill, self._steps)


def _take_apart(folder: Path, names: Mapping[str, str], values: Mapping[str, int]) -> None:
    """Make label images of the classes of one that holds them all, chunk by chunk: the bytes of `_write_apart`."""
    labels = folder / "labels"
    together = labels / _TOGETHER
    (multiscale,) = strict_json.load(together / META)["attributes"]["ome"]["multiscales"]
    void = drawn_values(tuple(values), values)[2]
    aside = together.rename(labels / f"{_TOGETHER}.together")
    write_group(labels, labels=[names[name] for name in names])
    for number, name in enumerate(names, 1):
        write_group(
            labels / names[name], multiscales=[multiscale | {"name": names[name]}], **_class_about(name, number)
        )
        for level in multiscale["datasets"]:
            old, new, written = LabelArray(aside / level["path"]), labels / names[name] / level["path"], 0
            new.mkdir()
            for where in old.grid():
                if (part := old.chunk_at(where)) is not None:
                    own = np.where(part == values[name], ON, np.where(part == void, VOID, 0)).astype(np.uint8)
                    written += put_chunk(new, where, own, old.chunk, np.dtype(np.uint8), 0)
            describe(new, old.shape, old.chunk, np.dtype(np.uint8), 0, written)
    shutil.rmtree(aside)


def labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that reads and writes by what the user says.

    Raises
    ------
    UsageError
        `like_image`, which it has no use for.
    """
    if options.like_image is not None:
        item, fix = f"--like-image {options.like_image} with the format 'ome-zarr'", "leave it out, or pass --spacing"
        raise UsageError("option-idle", "cannot use options of label maps", item=item, fix=fix)
    how = _Writing(Drawing(options.table, options.paint), Geometries(None, options.spacing).spacing)
    read_so = partial(read, options=options)
    return replace(FORMAT, read=read_so, build=how.build, check=how.check, telling=how.telling)


_PLAIN = _Writing(Drawing())
FORMAT = MaskFormat(
    "ome-zarr",
    read,
    build=_PLAIN.build,
    in_pieces=always,
    check=_PLAIN.check,
    telling=_PLAIN.telling,
    is_folder=True,
    holds_void=True,
    labelled=labelled,
    ranks=frozenset({2, 3}),
    keeps_geometry=EITHER,
)
