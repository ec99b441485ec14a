"""A folder of averaged probabilities: an `.npz` for each sample, as `numpy.load` reads it, and an index."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.execution.executor import Item
from ensemble_kit.files import atomic_write
from ensemble_kit.scores import fused
from ensemble_kit.scores.inputs import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX = "fused.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same probabilities give the same bytes on any day


@dataclass(frozen=True)
class Probabilities:
    """The work of fusing one sample at the image's size and writing it; returns nothing."""

    inputs: Inputs
    folder: str
    files: tuple[tuple[str, str], ...]

    def __call__(self, item: Item) -> None:
        """Write the sample's file, whole or not at all."""
        levels, table = fused.probabilities(self.inputs, item.sample)
        with (
            atomic_write(Path(self.folder) / dict(self.files)[item.sample]) as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            _put(archive, "probabilities", levels.shape, np.dtype(np.float32), (table[own] for own in levels))
            names = np.array(self.inputs.classes, np.str_)
            _put(archive, "classes", names.shape, names.dtype, [names])


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


def empty(folder: Path) -> None:
    """Remove what an earlier fusion left in its folder: the files that its index names, and the index."""
    index = folder / INDEX
    if index.is_file():
        for entry in strict_json.load(index)["samples"]:
            (folder / Path(entry["file"]).name).unlink(missing_ok=True)
        index.unlink()
