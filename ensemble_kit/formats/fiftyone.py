"""FiftyOne's dataset on disk (`fiftyone.types.FiftyOneDataset`): label maps as PNG under `fields/`, and two JSON files.

Classes that lie apart in every sample share the field `masks`. Where two of them overlap anywhere, each class has a
field of its own, `masks_<class>`, of 1 and void 255; with background among them that is refused. An `index.json` keeps
names, order, sizes and where samples lie. Images stay where they are: a sample names the path of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ensemble_kit.errors import IncompleteError, UsageError, some
from ensemble_kit.formats.apart import ON, VOID, TogetherOrApart, overlaps, parted
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.fiftyone_metadata import (
    FIELDS,
    TOGETHER,
    field_names,
    write_metadata,
    write_samples,
)
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.index import INDEX, Index, files_under, index_of
from ensemble_kit.formats.label_images import read_image
from ensemble_kit.formats.label_meaning import NOTHING_SAID, LabelMaps, masks_of
from ensemble_kit.formats.label_writing import Drawing
from ensemble_kit.formats.maskformat import EITHER, MaskFormat, Telling, always
from ensemble_kit.formats.png_codec import read_labels
from ensemble_kit.formats.png_writing import height_of_bands, write_png
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.idforms import IdForm, in_form
from ensemble_kit.masks.labelmaps import draw_bands, kind_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.once import once
from ensemble_kit.spec.label_table import drawn_values

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_FORMS: tuple[IdForm, ...] = ("path", "name", "stem")
"""Of ids, in which an image is looked for."""

_WHAT = "cannot write a dataset of FiftyOne"


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps = NOTHING_SAID) -> MaskSet:
    """Read a folder that the kit wrote; `.rule` says what each value means.

    Raises
    ------
    UsageError
        Another program wrote it.
    IncompleteError, DamagedError
        A file is missing, or not whole.
    """
    index = Index.load(path)
    if index is None:
        item = f"{path} has no {INDEX}, which ensk writes"
        fix = "export fiftyone.types.COCODetectionDataset with segmentations, and pass that"
        raise UsageError("format-unread", "cannot read a dataset of FiftyOne", item=item, fix=fix)
    fields = dict(index.classes) if not index.values else {"": TOGETHER}
    wanted = [f"{field}/{file}" for field in fields.values() for _, file, _ in index.samples]
    index.check_files(path / FIELDS, wanted, ".png")
    if index.values:
        maps = {sample: read_image(path / FIELDS / TOGETHER / file, None) for sample, file, _ in index.samples}
        return masks_of(maps, path, index, sizes, classes, options).with_geometry(index.geometries)
    names = order_classes((n for n, _ in index.classes), classes, str(path))
    masks: dict[Key, Runs] = {}
    void: dict[str, Runs] = {}
    for sample, file, _ in index.samples:
        for name in names:
            where = path / FIELDS / fields[name] / file
            found = read_image(where, None)
            sizes.of(sample, found.shape, str(where))
            masks[sample, name], void[sample] = parted(found, str(where))
    return MaskSet(masks, void={s: own for s, own in void.items() if own.area}).with_geometry(index.geometries)


@dataclass(frozen=True)
class _Writing:
    """How masks become a dataset.

    Parameters
    ----------
    drawing : the value of each class where they share a field.
    like : the folder of the images.
    """

    drawing: Drawing
    like: Path | None = None

    def check(self, masks: Masks) -> None:
        """Refuse classes without a value and samples without an image; raise as `Drawing.values` and `_media` do."""
        self.drawing.values(masks)
        self._media(masks)

    def telling(self, masks: Masks, like: Path | None = None) -> Telling:
        """Say the values of the classes, or that each has a field; and where the images are."""
        words = f"classes overlap: a field for each class, {ON} where it is, void {VOID}"
        also = "" if self.like is not None else "images are looked for in its folder data: --like-image names their own"
        return TogetherOrApart(self.drawing.telling(masks, like), words, self.drawing.paint is not None, also)

    def build(self, masks: Masks, folder: Path) -> None:
        """Write the PNGs of each sample, then the JSON; raise as `check` does."""
        values = self.drawing.values(masks)
        drawn = own, none, ignored = drawn_values(tuple(values), values)
        one_field = self.drawing.paint is not None or none == ignored  # then no class and void are one value
        index, apart = index_of("fiftyone", masks, ".png", keeps_geometry=True), False
        files = {sample: file for sample, file, _ in index.samples}
        fields = field_names(masks.classes)
        for piece, sample in by_sample(masks):
            if not (apart or one_field) and overlaps(piece, sample):
                apart = True
                for earlier in masks.samples[: masks.samples.index(sample)]:
                    _take_apart(folder / FIELDS, files[earlier], fields, values)
                shutil.rmtree(folder / FIELDS / TOGETHER, ignore_errors=True)
            size = piece.image_size(sample)
            height = height_of_bands(size[1])
            if apart:
                for name, field in fields.items():
                    where, void = piece.indices((sample,), (name,))[0], piece.void(sample)
                    bands = draw_bands(piece.packed, where, void, ([ON], 0, VOID), height)
                    write_png(folder / FIELDS / field / files[sample], bands, size, np.dtype(np.uint8))
            else:
                bands = piece.label_bands(sample, values, self.drawing.paint is not None, height)
                write_png(folder / FIELDS / TOGETHER / files[sample], bands, size, kind_of(drawn))
        if apart:
            targets = {field: {ON: name, VOID: "void"} for name, field in fields.items()}
            index = replace(index, classes=tuple(fields.items()))
        else:
            meanings = dict(zip(own, values, strict=True)) | {ignored: "void"}
            targets = {TOGETHER: dict(sorted(meanings.items()))}
            index = replace(index, values=tuple(values[name] for name in masks.classes))
        index.save(folder)
        write_samples(
            folder, [(sample, path, files[sample]) for sample, path in self._media(masks).items()], [*targets]
        )
        write_metadata(folder, targets)

    def _media(self, masks: Masks) -> dict[str, str]:
        """Return the path of each sample's image.

        Raises
        ------
        IncompleteError
            A sample has none in the folder.
        """
        if self.like is None:
            return {sample: f"data/{file}" for sample, file in file_names(masks.samples, "").items()}
        return {sample: str(self._image(self.like, sample)) for sample in masks.samples}

    def _image(self, like: Path, sample: str) -> Path:
        for names, form in zip(self._found, _FORMS, strict=True):
            if len(found := names.get(in_form(sample, form), [])) == 1:
                return (like / found[0]).absolute()
        what = "cannot find the image of a sample"
        if found := self._found[-1].get(in_form(sample, "stem"), []):
            item, fix = f"sample {sample!r} can be {some(found)} in {like}", "pass a folder with one image a sample"
            raise IncompleteError("like-image-missing", what, item=item, fix=fix)
        listed = some(sorted(file for own in self._found[-1].values() for file in own)) or "no image"
        item = f"sample {sample!r} has none in {like}, which has {listed}"
        fix = "pass the folder of the images that the masks are of, called as the samples are"
        raise IncompleteError("like-image-missing", what, item=item, fix=fix)

    @once
    def _found(self) -> tuple[Mapping[str, list[str]], ...]:
        """The images of the folder by their names in each form of ids."""
        assert self.like is not None
        if not self.like.is_dir():
            item, fix = f"--like-image {self.like} is a file", "pass the folder of the images"
            raise UsageError("option-invalid", _WHAT, item=item, fix=fix)
        out: tuple[dict[str, list[str]], ...] = tuple({} for _ in _FORMS)
        for file in sorted(file for suffix in _IMAGES for file in files_under(self.like, suffix)):
            for names, form in zip(out, _FORMS, strict=True):
                names.setdefault(in_form(file, form), []).append(file)
        return out


def _take_apart(fields: Path, file: str, names: Mapping[str, str], values: Mapping[str, int]) -> None:
    """Make the masks of each class of a label map that holds them all."""
    labels, _ = read_labels(fields / TOGETHER / file)
    void = drawn_values(tuple(values), values)[2]
    for name, field in names.items():
        own = np.where(labels == values[name], ON, np.where(labels == void, VOID, 0)).astype(np.uint8)
        write_png(fields / field / file, [own], own.shape, own.dtype)


def labelled(options: LabelMaps) -> MaskFormat:
    """Return the format that reads and writes by what the user says.

    Raises
    ------
    UsageError
        A spacing, which images do not have.
    """
    if options.spacing is not None:
        item, fix = "--spacing with the format 'fiftyone'", "leave it out: it holds images, not volumes"
        raise UsageError("option-idle", "cannot use options of label maps", item=item, fix=fix)
    how = _Writing(Drawing(options.table, options.paint), options.like_image)
    read_so = partial(read, options=options)
    return replace(FORMAT, read=read_so, build=how.build, check=how.check, telling=how.telling)


_PLAIN = _Writing(Drawing())
FORMAT = MaskFormat(
    "fiftyone",
    read,
    build=_PLAIN.build,
    in_pieces=always,
    check=_PLAIN.check,
    telling=_PLAIN.telling,
    is_folder=True,
    holds_void=True,
    labelled=labelled,
    keeps_geometry=EITHER,
)
