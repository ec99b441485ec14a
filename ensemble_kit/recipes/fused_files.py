"""Files of one sample's fused values: an `.npz`, or of a volume a NIfTI for each class."""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.execution.executor import Item
from ensemble_kit.files import atomic_write, blamed
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.formats.volume_writing import write_volume
from ensemble_kit.masks.stream import MaskStream
from ensemble_kit.scores import disagreement, fused
from ensemble_kit.scores.inputs import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.masks.alignment import Extent
    from ensemble_kit.scores.fused import Room
    from ensemble_kit.spec.geometry import Shape

    Layer = tuple[str, NDArray[np.uint16], NDArray[np.float32]]

NIFTI = ".nii.gz"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same values give the same bytes on any day


@dataclass(frozen=True)
class Wanted:
    """What is kept of every sample.

    Parameters
    ----------
    probabilities : whether averaged probabilities are, and all at the image's size; else on the grid of fused logits.
    uncertainty : whether variance and mutual information are.
    """

    probabilities: bool
    uncertainty: bool

    def maps(self, inputs: Inputs) -> dict[str, Sequence[str]]:
        """Name the arrays, and for each the maps that it holds, such as its classes."""
        out: dict[str, Sequence[str]] = {"probabilities": inputs.classes} if self.probabilities else {}
        if self.uncertainty:
            joint = inputs.activation == "softmax"
            out["variance"] = [f"{name}.variance" for name in inputs.classes]
            all_together = ["mutual_information"]
            out["mutual_information"] = (
                all_together if joint else [f"{name}.mutual_information" for name in inputs.classes]
            )
        return out

    def layers(self, inputs: Inputs, sample: str, room: Room) -> Iterator[Layer]:
        """Evaluate a sample: yield the name of an array, its codes (maps, H, W), and what they stand for."""
        if self.probabilities:
            yield "probabilities", *fused.probabilities(inputs, sample, room)
        if self.uncertainty:
            evaluate = disagreement.in_image if self.probabilities else disagreement.on_grid
            found = evaluate(inputs, sample, room)
            yield "variance", found.variance, disagreement.variances()
            yield "mutual_information", found.information, disagreement.bits(inputs)


@dataclass(frozen=True)
class WriteArrays:
    """The work of fusing one sample and writing its `.npz`; returns nothing.

    Parameters
    ----------
    files : of each sample, in the folder.
    """

    inputs: Inputs
    wanted: Wanted
    folder: str
    files: tuple[tuple[str, str], ...]

    def __call__(self, item: Item) -> None:
        """Write the sample's file, whole or not at all."""
        joint = self.inputs.activation == "softmax"
        with (
            atomic_write(Path(self.folder) / dict(self.files)[item.sample]) as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            room = _room(self.folder, self.inputs, item.sample)
            for name, codes, table in self.wanted.layers(self.inputs, item.sample, room):
                shape = codes.shape[1:] if joint and name == "mutual_information" else codes.shape
                images = codes.reshape(-1, *codes.shape[-2:])
                _put(archive, name, shape, table.dtype, (table[one] for one in images))
            names = np.array(self.inputs.classes, np.str_)
            _put(archive, "classes", names.shape, names.dtype, [names])


@dataclass(frozen=True)
class WriteVolumes:
    """The work of fusing one volume and writing a NIfTI for each map; returns nothing.

    Parameters
    ----------
    files : of each sample the folder, and of each map the file in it.
    geometries : where volumes lie that are written.
    extent : the samples, with their sizes and geometries.
    """

    inputs: Inputs
    wanted: Wanted
    folder: str
    files: tuple[tuple[str, str], ...]
    geometries: Geometries
    extent: Extent

    def __call__(self, item: Item) -> None:
        """Write the sample's files, each whole or not at all."""
        folder, maps = Path(self.folder) / dict(self.files)[item.sample], self.wanted.maps(self.inputs)
        folder.mkdir(parents=True, exist_ok=True)
        place = self.geometries.of(MaskStream(self.extent, lambda _: iter(())), item.sample)
        room = _room(self.folder, self.inputs, item.sample)
        for name, codes, table in self.wanted.layers(self.inputs, item.sample, room):
            for one, file in zip(codes, files_of(maps, name), strict=True):
                with atomic_write(folder / file) as out:
                    write_volume(out, NIFTI, place, np.dtype(np.float32), (table[image] for image in one))


def files_of(maps: dict[str, Sequence[str]], name: str | None = None) -> list[str]:
    """Name the files of an array's maps; of all arrays by default."""
    files = file_names([one for own in maps.values() for one in own], NIFTI, flat=True)
    return [files[one] for own, kept in maps.items() if name in {None, own} for one in kept]


def _room(folder: str, inputs: Inputs, sample: str) -> Room:
    """Return what makes room for codes: of a volume in a file of the folder without a name, gone with the process."""

    def in_file(shape: Shape) -> NDArray[np.uint16]:
        with blamed(Path(folder)), tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # or a full disk would be told by a signal, in the middle of a kernel
                os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
            return np.memmap(file, np.uint16, "r+", shape=shape)

    return in_file if len(fused.placement(inputs, sample).grid) == 3 else fused.in_memory


def _put(
    archive: zipfile.ZipFile,
    name: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    parts: Iterator[NDArray[Any]] | Sequence[NDArray[Any]],
) -> None:
    """Write an array, part by part, as `numpy.load` reads it."""
    info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    with archive.open(info, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
