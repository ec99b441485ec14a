"""Where scenes that are written lie on the Earth: as their images say, or as the masks do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, differ, some
from ensemble_kit.formats import rasters, tiff_tags
from ensemble_kit.formats.index import files_under
from ensemble_kit.masks.alignment import Extent, check_same_geometry
from ensemble_kit.masks.idforms import in_form
from ensemble_kit.masks.stream import Masks
from ensemble_kit.once import once
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.georeference import GeoReference

_WHAT = "cannot write a GeoTIFF"


@dataclass(frozen=True)
class SceneReferences:
    """What says where scenes lie that are written.

    Parameters
    ----------
    like : the folder of their images, or the image of one.
    """

    like: Path | None = None

    def check(self, masks: Masks) -> None:
        """Refuse masks of which a sample has no georeference, or another than its image.

        Raises
        ------
        IncompleteError
            A sample has no image.
        MismatchError
            Nothing says where a sample lies, or its image is of another size, or lies elsewhere.
        UsageError
            One image for several samples.
        """
        for sample in masks.samples:
            self.of(masks, sample)

    def of(self, masks: Masks, sample: str) -> GeoReference:
        """Return where a sample is written to lie; raise as `check` does."""
        own = masks.geometry(sample)
        if self.like is not None:
            path = self._image(self.like, masks, sample)
            found = _read(path, sample, masks.image_size(sample))
            if own is not None:
                size = {sample: masks.image_size(sample)}
                sides = (f"the masks of {sample!r}", str(path))
                check_same_geometry(Extent((), size, {sample: own}), Extent((), size, {sample: found}), sides, _WHAT)
            return found
        if not isinstance(own, GeoReference):
            item = f"nothing says where sample {sample!r} lies: its reference system and its transform"
            fix = "pass --like-image with its scene, or the folder of scenes, such as --like-image scenes/"
            raise MismatchError("georeference-missing", _WHAT, item=item, fix=fix)
        return own

    def _image(self, like: Path, masks: Masks, sample: str) -> Path:
        """Return the image of a sample: a file of its name."""
        if not like.is_dir():
            if len(masks.samples) > 1:
                item = f"--like-image {like} for {len(masks.samples)} samples: {some(masks.samples)}"
                fix = "pass the folder of their images, called as the samples are"
                raise UsageError("option-invalid", _WHAT, item=item, fix=fix)
            return like
        names = (sample, in_form(sample, "name"), in_form(sample, "stem"))
        if (found := next((self._images[name] for name in names if name in self._images), None)) is None:
            item = f"sample {sample!r} has none in {like}, which has {some(self._images.values()) or 'no GeoTIFF'}"
            fix = f"pass the folder of the images that the masks are of, called {in_form(sample, 'stem')}.tif"
            raise IncompleteError("image-missing", "cannot find the image of a sample", item=item, fix=fix)
        return like / found

    @once
    def _images(self) -> Mapping[str, str]:
        """Return each file by its path, its name and its stem; what two files have in common names none of them."""
        assert self.like is not None
        files = [file for suffix in tiff_tags.SUFFIXES for file in files_under(self.like, suffix)]
        every = [{file, Path(file).name, Path(file).stem} for file in files]
        return {
            name: file
            for file, names in zip(files, every, strict=True)
            for name in names
            if name == file or sum(name in other for other in every) == 1
        }


def _read(path: Path, sample: str, size: Shape) -> GeoReference:
    """Read where the image of a sample lies."""
    with rasters.opened(path, "cannot use a reference scene") as raster:
        shape, found = raster.shape, raster.reference
    if found is None:
        item, fix = f"{path} has neither a transform nor a reference system", "pass the scene as its provider gives it"
        raise MismatchError("georeference-missing", _WHAT, item=item, fix=fix)
    if shape != size:
        ours, theirs = f"{as_text(size)} in the masks of {sample!r}", f"{as_text(shape)} in {path}"
        fix = "pass the scene that the masks are of, at its full size"
        raise differ(_WHAT, "the sizes of the image", ours, theirs, fix, "image-size-differs")
    return found
