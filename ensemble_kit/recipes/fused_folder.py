"""A folder of fused values: an `.npz` for each sample, as `numpy.load` reads it, and an index.

Files appear whole, one after the other; a second run writes those that are not there.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.dumping.resuming import differences
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.files import atomic_write, check_space, check_target
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.scores import disagreement, fused
from ensemble_kit.scores.inputs import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT, INDEX = "ensk.fused/1", "fused.json"
BESIDE, BESIDE_INDEX = "ensk.uncertainty/1", "uncertainty.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same values give the same bytes on any day


@dataclass(frozen=True)
class FusedFolder:
    """A folder to write; nothing is written yet.

    Parameters
    ----------
    ensemble : members, and how they are fused.
    path : of the folder.
    record : where the values come from.
    probabilities : whether averaged probabilities are written, and all at the image's size; else on the grid of fused
        logits, beside whose store the folder stands.
    uncertainty : whether variance and mutual information are written.
    overwrite : replace what is there.

    Raises
    ------
    UsageError
        The path is a file, or a folder of other things.
    MismatchError
        What is there was fused of other members, or in another way.
    """

    ensemble: Ensemble
    path: str | os.PathLike[str]
    record: Mapping[str, Any]
    probabilities: bool
    uncertainty: bool
    overwrite: bool

    @property
    def there(self) -> frozenset[str]:
        """The samples whose files are there."""
        folder, index = Path(self.path), self._index
        check_target(folder, force=True, folder=True, mark=index.name)
        if self.overwrite or not index.is_file():
            return frozenset()
        if apart := self.differences:
            raise MismatchError(
                "fused-differs",
                "cannot resume a folder of another fusion",
                item=f"{str(folder)!r}: {'; '.join(apart)}",
                fix="run with the options it was begun with, pass another --out, or replace it with --force",
            )
        return frozenset(s for s, file in self._files.items() if (folder / file).is_file())

    @property
    def differences(self) -> list[str]:
        """Where the folder's index, if there is one, differs from that of this fusion."""
        if not self._index.is_file():
            return []
        return differences(_by_id(strict_json.load(self._index)), _by_id(self._content()))

    def bytes_of(self, sample: str) -> int:
        """Return the bytes of a sample's arrays, before they are compressed."""
        e, place = self.ensemble, fused.placement(self.ensemble.inputs, sample)
        cells = int(np.prod(place.image if self.probabilities else place.grid))
        maps = len(e.classes) * self.probabilities
        if self.uncertainty:
            maps += len(e.classes) + (1 if e.activation == "softmax" else len(e.classes))
        return 4 * maps * cells

    def run(self, samples: Sequence[str], executor: Executor, listener: Listener) -> None:
        """Fuse and write those of some samples that are not there yet."""
        there, folder = self.there, Path(self.path)
        todo = [s for s in samples if s not in there]
        if not todo:
            return
        check_space(folder, sum(map(self.bytes_of, todo)), self.overwrite)
        folder.mkdir(exist_ok=True)
        if self.overwrite or not self._index.is_file():  # another process may have begun, and be at its first sample
            _empty(self._index)
            with atomic_write(self._index) as out:
                out.write(strict_json.dump(self._content()))
        files = tuple(sorted(self._files.items()))
        work = WriteFused(self.ensemble.inputs, str(folder.absolute()), files, self.probabilities, self.uncertainty)
        for _ in executor.map(work, Items(todo), "fusing" if self.probabilities else "comparing", listener):
            pass

    @property
    def _index(self) -> Path:
        return Path(self.path) / (INDEX if self.probabilities else BESIDE_INDEX)

    @property
    def _files(self) -> dict[str, str]:
        return file_names(self.ensemble.samples, ".npz", taken=[self._index.name], flat=True)

    def _content(self) -> dict[str, Any]:
        e = self.ensemble
        head: dict[str, Any] = {"format": FORMAT if self.probabilities else BESIDE, "fused": self.record}
        if self.probabilities and self.uncertainty:
            head["uncertainty"] = True
        samples = [{"id": s, "file": file, **self._place(s)} for s, file in self._files.items()]
        return {**head, "classes": list(e.classes), "samples": samples}

    def _place(self, sample: str) -> dict[str, Any]:
        """Say where an image lies on the grid, in a folder of grids."""
        if self.probabilities:
            return {}
        place = fused.placement(self.ensemble.inputs, sample)
        return {"box": list(place.box), "image": list(place.image)}


@dataclass(frozen=True)
class WriteFused:
    """The work of fusing one sample and writing its file; returns nothing."""

    inputs: Inputs
    folder: str
    files: tuple[tuple[str, str], ...]
    probabilities: bool
    uncertainty: bool

    def __call__(self, item: Item) -> None:
        """Write the sample's file, whole or not at all."""
        with (
            atomic_write(Path(self.folder) / dict(self.files)[item.sample]) as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            if self.probabilities:
                _put_codes(archive, "probabilities", *fused.probabilities(self.inputs, item.sample))
            if self.uncertainty:
                evaluate = disagreement.in_image if self.probabilities else disagreement.on_grid
                found, table = evaluate(self.inputs, item.sample), disagreement.bits(self.inputs)
                _put_codes(archive, "variance", found.variance, disagreement.variances())
                joint = self.inputs.activation == "softmax"
                _put_codes(archive, "mutual_information", found.information[0] if joint else found.information, table)
            names = np.array(self.inputs.classes, np.str_)
            _put(archive, "classes", names.shape, names.dtype, [names])


def _put_codes(archive: zipfile.ZipFile, name: str, codes: NDArray[np.uint16], table: NDArray[np.float32]) -> None:
    """Write what codes stand for, one of the first axis at a time."""
    _put(archive, name, codes.shape, table.dtype, (table[own] for own in codes))


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


def _by_id(content: Any) -> Any:
    """Key an index's samples by their ids, to compare it with another; what is no index stays as it is."""
    try:
        return {**content, "samples": {entry["id"]: entry for entry in content["samples"]}}
    except (KeyError, TypeError):
        return content


def _empty(index: Path) -> None:
    """Remove what an earlier fusion left in its folder: the files that its index names, and the index."""
    if index.is_file():
        for entry in strict_json.load(index)["samples"]:
            (index.parent / Path(entry["file"]).name).unlink(missing_ok=True)
        index.unlink()
