"""Where volumes that are written lie in the world: as their images say, as the masks do, or at a spacing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.errors import IncompleteError, UsageError, check_number, differ, some
from ensemble_kit.formats import nifti
from ensemble_kit.formats.volume_files import SUFFIXES, name_of, open_volume, suffix_of, volumes_under
from ensemble_kit.masks.alignment import Extent, check_same_geometry
from ensemble_kit.masks.idforms import in_form
from ensemble_kit.masks.stream import Masks
from ensemble_kit.once import once
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHAT = "cannot write a volume"


class Turn(NamedTuple):
    """How the axes of an array become those of another: which comes where, and which are flipped."""

    axes: tuple[int, ...]
    flips: tuple[int, ...]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array (D, H, W); nothing is copied."""
        return np.flip(array.transpose(self.axes), self.flips)


_AS_IT_IS = Turn((0, 1, 2), ())


class Written(NamedTuple):
    """How a volume is written to lie in the world."""

    geometry: Geometry | None
    header: Any
    """Of its image, where that is NIfTI; None: the geometry makes one."""
    shape: Shape
    turn: Turn


@dataclass(frozen=True)
class Geometries:
    """What says where volumes lie that are written.

    Parameters
    ----------
    like : the folder of their images, or the image of one.
    spacing : millimetres along z, y, x, for volumes without a geometry; their axes then point right, anterior,
        superior.
    """

    like: Path | None = None
    spacing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.like is not None and self.spacing is not None:
            item = f"--like-image {self.like} and --spacing {'x'.join(map(str, self.spacing))}"
            raise UsageError("option-idle", _WHAT, item=item, fix="leave --spacing out: the images say it")
        for value in self.spacing or ():
            check_number("--spacing", value, "pass millimetres along z, y, x, such as 5x0.8x0.8", above=0)
        if self.spacing is not None and len(self.spacing) != 3:
            item = f"--spacing {'x'.join(map(str, self.spacing))}"
            fix = "pass millimetres along z, y, x, such as 5x0.8x0.8"
            raise UsageError("option-invalid", _WHAT, item=item, fix=fix)

    def check(self, masks: Masks) -> None:
        """Refuse masks of which a sample has no geometry, or another than its image.

        Raises
        ------
        UsageError
            Nothing says where a sample lies.
        IncompleteError
            A sample has no image.
        MismatchError
            Its image is of another size, or lies elsewhere.
        """
        for sample in masks.samples:
            self.of(masks, sample)

    def told(self, masks: Masks) -> str:
        """Say how masks come to lie where they are written; "" where they say it themselves."""
        unknown = [sample for sample in masks.samples if masks.geometry(sample) is None]
        turned = [] if self.like is None else [s for s in masks.samples if self.of(masks, s).turn != _AS_IT_IS]
        words = []
        if turned:
            words.append(f"{len(turned)} of {len(masks.samples)} samples are turned to the axes of their images")
        if unknown and self.like is not None:
            which = f"{len(unknown)} of {len(masks.samples)} samples do not say where they lie"
            words.append(f"{which}: their voxels are taken to be those of the images, axis by axis")
        if unknown and self.spacing is not None:
            words.append("axes x, y, z to RAS, first voxel at (0, 0, 0): only the spacing was said")
        return "; ".join(words)

    def of(self, masks: Masks, sample: str) -> Written:
        """Return where a sample is written to lie; raise as `check` does."""
        size, known = masks.image_size(sample), masks.geometry(sample)
        own = known if isinstance(known, Geometry) else None
        if self.like is not None:
            return _as_image(sample, self._image(self.like, sample), size, own)
        if own is not None and self.spacing is not None:
            item = f"--spacing {'x'.join(map(str, self.spacing))}: sample {sample!r} has {own.as_text()}"
            raise UsageError("option-idle", _WHAT, item=item, fix="leave --spacing out, or pass --drop-geometry too")
        if own is None and self.spacing is None:
            item = f"nothing says where sample {sample!r} ({as_text(size)}) lies: its spacing, its axes and its origin"
            fix = (
                "pass --like-image with the folder of its image (like_image=…), or --spacing with the millimetres "
                "along z, y, x, such as --spacing 5x0.8x0.8 (spacing=(5, 0.8, 0.8)), where only the spacing matters"
            )
            raise UsageError("geometry-missing", "cannot write a volume without its geometry", item=item, fix=fix)
        return Written(own or Geometry.of(np.diag([*(self.spacing or ())[::-1], 1.0])), None, size, _AS_IT_IS)

    def _image(self, like: Path, sample: str) -> Path:
        """Return the image of a sample: a file of its name, also with nnU-Net's number of a channel."""
        if not like.is_dir():
            if not suffix_of(like.name):
                item = f"--like-image {like} is neither a file of a volume nor a folder"
                fix = f"pass a folder of images, or one, {', '.join(SUFFIXES)}"
                raise UsageError("option-invalid", _WHAT, item=item, fix=fix)
            return like
        stem = in_form(sample, "stem")
        names = (stem, f"{stem}_0000", in_form(sample, "path"))
        if (found := next((self._images[name] for name in names if name in self._images), None)) is None:
            item = f"sample {sample!r} has none in {like}, which has {some(self._images) or 'no volume'}"
            fix = f"pass the folder of the images that the masks are of, called {stem}.nii.gz or {stem}_0000.nii.gz"
            raise IncompleteError("like-image-missing", "cannot find the image of a sample", item=item, fix=fix)
        return like / found

    @once
    def _images(self) -> Mapping[str, str]:
        assert self.like is not None
        return {name_of(file): file for file in volumes_under(self.like)}


def _as_image(sample: str, path: Path, size: Shape, own: Geometry | None) -> Written:
    """Return where a sample's image lies, and how its masks are turned to it."""
    image = open_volume(path)
    header = nifti.header_of(path)[0] if suffix_of(path.name) in nifti.SUFFIXES else None
    if image.geometry is None and header is None:
        item = f"{path} does not say where it lies: {'; '.join(image.told)}"
        fix = "pass images that say it as --like-image"
        raise UsageError("geometry-missing", "cannot write a volume without its geometry", item=item, fix=fix)
    here = (f"the masks of {sample!r}", str(path))
    turn = _AS_IT_IS
    if own is not None and image.geometry is not None:
        turn = _turn(own, size, image.geometry, image.shape) or _AS_IT_IS
    if turn == _AS_IT_IS:
        if size != image.shape:
            ours, theirs = f"{as_text(size)} in {here[0]}", f"{as_text(image.shape)} in {here[1]}"
            raise differ(
                _WHAT, "the sizes z, y, x", ours, theirs, "pass the image that they are of", "image-size-differs"
            )
        if own is not None and image.geometry is not None:
            sides = [Extent((), {sample: size}, {sample: geometry}) for geometry in (own, image.geometry)]
            check_same_geometry(sides[0], sides[1], here, _WHAT)
    return Written(image.geometry, header, image.shape, turn)


def _turn(own: Geometry, size: Shape, other: Geometry, shape: Shape) -> Turn | None:
    """Find how an array is turned so that its voxels come to lie where those of another volume do."""
    for turn in _turns():
        if turn.of(np.empty(size, np.bool_)).shape == shape and _turned(own, size, turn).is_near(other, shape):
            return turn
    return None


def _turned(own: Geometry, size: Shape, turn: Turn) -> Geometry:
    """Return where an array lies that was turned."""
    steps = np.zeros((4, 4))  # from indices x, y, z of the turned array to those of the array
    steps[3, 3] = 1
    for new, old in enumerate(turn.axes):
        row, column = 2 - old, 2 - new
        steps[row, column] = -1 if new in turn.flips else 1
        steps[row, 3] = size[old] - 1 if new in turn.flips else 0
    return Geometry.of(own.ras @ steps)


def _turns() -> Iterator[Turn]:
    """List all 48 ways to turn an array, the one that changes nothing first."""
    for axes in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            yield Turn(axes, tuple(k for k in range(3) if flips[k]))
