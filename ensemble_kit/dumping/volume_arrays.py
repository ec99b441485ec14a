"""Volumes that another pipeline dumped: an array (C, D, H, W) for each, beside the file of its image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.dumping.arrays import DEFAULT_LIMIT, ArrayForm, match
from ensemble_kit.dumping.cases import Case
from ensemble_kit.dumping.images import SUFFIXES, identify
from ensemble_kit.dumping.npz_slabs import NpzVolume, without_batch
from ensemble_kit.dumping.run import MAX_READERS
from ensemble_kit.dumping.sources import digest_of
from ensemble_kit.errors import MismatchError, UsageError, check_choice, some
from ensemble_kit.execution.cores import cores
from ensemble_kit.formats.volume_files import open_volume, volumes_under
from ensemble_kit.logits.plausible import Domain, settle_activation
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.spec.geometry import Placement, Shape, as_text
from ensemble_kit.spec.labels import check_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation

AXES = {"cdhw": (0, 1, 2, 3), "cwhd": (0, 3, 2, 1), "dhwc": (3, 0, 1, 2), "whdc": (3, 2, 1, 0)}
"""Which axes of an array are classes, z, y, x: as nnU-Net has them, as MONAI and nibabel, classes last."""

SLAB = 1 << 24
"""Most bytes of a slab, but for one slice of all classes."""


@dataclass(frozen=True)
class Named:
    """Classes that the user names: `Heads` of `cases.py`."""

    classes: tuple[str, ...]
    activation: Activation
    painting: str = ""


class VolumeArrays:
    """A folder of `.npy` or `.npz` arrays of four axes, one for each file of volumes of another folder.

    Arrays of five axes, the first of which is 1, are batches of one volume.

    Parameters
    ----------
    folder : of the arrays, named after their images.
    images : path of each sample's image, whose header gives size and geometry.
    root : the folder of images.
    dataset : the classes, in the order of the arrays.
    domain : what the values are.
    key, scale, axes : as in `Recipe`; axes are one of `AXES`, or None where the sizes of the images settle them.
    limit : most bytes that an array may decode to that cannot be read slab by slab.
    jobs : threads that decode an array.

    Raises
    ------
    IncompleteError
        An image has no array.
    """

    def __init__(
        self,
        folder: Path,
        images: Mapping[str, Path],
        root: Path,
        dataset: Named,
        domain: Domain,
        key: str | None = None,
        scale: float | None = None,
        axes: str | None = None,
        limit: int = DEFAULT_LIMIT,
        jobs: int = 1,
    ) -> None:
        if axes is not None:
            check_choice("axes", axes, tuple(AXES))
        self.dataset, self.domain, self.samples = dataset, domain, list(images)
        self.member = folder.resolve().name
        self._folder, self._images, self._arrays = folder, images, match(images, folder, root)
        self._jobs = jobs
        self._form, self._given = ArrayForm(dataset.classes, key, scale, limit=limit), axes
        self.axes = axes or self._settled()

    def record(self) -> dict[str, Any]:
        """Return what is read."""
        out: dict[str, Any] = {"model": f"arrays in {self._folder.resolve().name}", "axes": self.axes}
        given = {"key": self._form.key, "scale": self._form.scale}
        return out | {k: v for k, v in given.items() if v is not None}

    def digest(self, sample: str) -> str:
        """Digest the file of a sample's array."""
        return digest_of(self._arrays[sample])

    def grid(self, sample: str) -> Shape:
        """Return (D, H, W) of a sample's array, by its header."""
        return self._grid(sample, self._shape(sample), self.axes)

    def _shape(self, sample: str) -> tuple[int, ...]:
        return without_batch(self._form.declared(self._arrays[sample]))

    def read(self, sample: str) -> Case:
        """Open a sample's array; its values are read slab by slab, but for compressed ones of other axes than cdhw.

        Raises
        ------
        DamagedError
            A file is no array of numbers, or no volume.
        MismatchError
            The array has other classes or axes.
        """
        image = open_volume(self._images[sample])
        grid = self.grid(sample)
        return Case(self._slabs(sample, grid), Placement.of(grid, image.shape), image.geometry)

    def coarser(self) -> str:
        """Name the arrays that are of another size than their images, whose whole they are taken to cover."""
        found = []
        for sample in self.samples:
            grid, image = self.grid(sample), open_volume(self._images[sample]).shape
            if grid != image:
                found.append(f"{sample!r}: {as_text(grid)} over {as_text(image)}")
        return f"{len(found)} of {len(self.samples)}, such as {found[0]}" if found else ""

    def batches(self) -> int:
        """Count the arrays that are a batch of one volume, (1, C, D, H, W)."""
        return sum(len(self._form.declared(self._arrays[sample])) == 5 for sample in self.samples)

    def _settled(self) -> str:
        """Find the order of z, y, x: the one in which grids are as large as images, where it is only one."""
        fits = [name for name in AXES if all(self._fits(sample, name) for sample in self.samples)]
        first, shape = self.samples[0], self._shape(self.samples[0])
        if len(fits) == 1:
            return fits[0]
        may = fits or [name for name in AXES if len(shape) == 4 and shape[AXES[name][0]] == len(self.dataset.classes)]
        if not may:
            raise self._other_classes(self._arrays[first], shape)
        size = open_volume(self._images[first]).shape
        item = f"{str(self._arrays[first])!r} is {as_text(shape)}, its image {as_text(size)} (z, y, x)"
        fix = f"pass --axes {' or '.join(may)}: where classes (c), z (d), y (h) and x (w) stand; "
        fix += "MONAI and nibabel have cwhd, nnU-Net and SimpleITK cdhw"
        if not fits:
            fix += "; arrays of another size are taken to cover the whole image; write crops by LogitWriter, window="
        raise MismatchError("array-axes", "cannot tell the axes of an array", item=item, fix=fix)

    def _fits(self, sample: str, axes: str) -> bool:
        shape = self._shape(sample)
        if len(shape) != 4 or shape[AXES[axes][0]] != len(self.dataset.classes):
            return False
        return self._grid(sample, shape, axes) == open_volume(self._images[sample]).shape

    def _grid(self, sample: str, shape: Sequence[int], axes: str) -> Shape:
        if len(shape) != 4 or shape[AXES[axes][0]] != len(self.dataset.classes):
            raise self._other_classes(self._arrays[sample], shape)
        return tuple(shape[k] for k in AXES[axes][1:])

    def _other_classes(self, path: Path, shape: Sequence[int]) -> MismatchError:
        return MismatchError(
            "array-shape",
            "cannot take an array for the classes of a volume",
            item=f"{str(path)!r} is {as_text(shape)}; four axes, one of {len(self.dataset.classes)}, are wanted",
            fix="pass the class list that the arrays were made with, and arrays (C, D, H, W)",
        )

    def _slabs(self, sample: str, grid: Shape) -> Iterator[NDArray[Any]]:
        path, classes = self._arrays[sample], len(self.dataset.classes)
        if path.suffix.lower() == ".npz" and self.axes == "cdhw" and self._form.scale is None:
            yield from NpzVolume.open(path, self._form.key_in(path)).slabs(SLAB, self._jobs)
            return
        raw = self._form.numbers(path)
        values = raw.reshape(without_batch(raw.shape)).transpose(AXES[self.axes])
        step = max(1, SLAB // (4 * classes * math.prod(grid[1:])))
        for first in range(0, grid[0], step):
            slab = values[:, first : first + step].astype(np.float32)
            yield slab if self._form.scale is None else slab / np.float32(self._form.scale)


def volume_arrays(
    folder: Path,
    images: Path,
    classes: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
    *,
    activation: Activation | None = None,
    domain: Domain = "logits",
    key: str | None = None,
    scale: float | None = None,
    axes: str | None = None,
    ids: IdForm = "name",
    memory: int | None = None,
    jobs: int | None = None,
) -> VolumeArrays:
    """Find the arrays of a folder of volumes; what is assumed of their axes is said.

    Raises
    ------
    UsageError
        `folder` is none: networks are not run on volumes.
    """
    if not folder.is_dir():
        item = f"{str(folder)!r} is not a folder of arrays, and {str(images)!r} holds volumes"
        fix = "run the network in its own framework, and save its logits by ensemble_kit.trainers, or an array a volume"
        raise UsageError("model-volumes", "cannot run a network on volumes", item=item, fix=fix)
    flat = [p for p in images.rglob("*") if p.suffix.lower() in SUFFIXES]
    if flat:
        item = f"{str(images)!r} holds volumes, and images: {some(p.name for p in flat)}"
        raise UsageError("folder-mixed", "cannot tell what samples are", item=item, fix="keep the two in folders apart")
    names = check_names("classes", classes)
    heads = Named(names, settle_activation(activation, names))
    paths = identify([images / file for file in volumes_under(images)], images, ids)
    threads = jobs or min(cores(), MAX_READERS)
    found = VolumeArrays(folder, paths, images, heads, domain, key, scale, axes, memory or DEFAULT_LIMIT, threads)
    if batches := found.batches():
        say(f"{folder}: {batches} of {len(paths)} arrays have five axes: taken for batches of one volume, 1 c d h w")
    if axes is None:
        say(f"{folder}: arrays are {found.axes}, since their sizes are those of the images (c d h w: classes, z, y, x)")
    elif coarser := found.coarser():
        say(
            f"{folder}: arrays cover the whole of their images, of another size ({coarser}): they are interpolated; "
            "a crop is written by LogitWriter, with window="
        )
    return found
