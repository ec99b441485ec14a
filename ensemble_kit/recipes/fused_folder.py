"""A folder of fused values: an `.npz` for each sample, as `numpy.load` reads it, or a folder of NIfTI, and an index.

Files appear whole, one after the other; a second run writes those that are not there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.dumping.resuming import differences
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, Items
from ensemble_kit.files import atomic_write, check_space, check_target
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.stream import MaskStream
from ensemble_kit.recipes.fused_files import Wanted, WriteArrays, WriteVolumes, files_of
from ensemble_kit.scores import fused
from ensemble_kit.spec.geometry import as_text

FORMAT, INDEX = "ensk.fused/1", "fused.json"
BESIDE, BESIDE_INDEX = "ensk.uncertainty/1", "uncertainty.json"


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
    geometries : volumes are written as NIfTI, where these say that they lie; None: arrays.

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
    geometries: Geometries | None = None

    def check(self) -> None:
        """Refuse what cannot be written as NIfTI.

        Raises
        ------
        UsageError
            An image, or a volume whose place nothing says.
        IncompleteError, MismatchError
            Images of the samples that are missing, or of other sizes or geometries.
        """
        if self.geometries is None:
            return
        for sample, size in self._extent.sizes.items():
            if len(size) != 3:
                item = f"sample {sample!r} is {as_text(size)}, an image"
                what, fix = "cannot write fused scores as NIfTI, which holds volumes", "pass --format npz, or store"
                raise UsageError("format-unfit", what, item=item, fix=fix)
        self.geometries.check(MaskStream(self._extent, lambda _: iter(())))

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
        return frozenset(s for s in self._files if all((folder / file).is_file() for file in self._files_of(s)))

    @property
    def differences(self) -> list[str]:
        """Where the folder's index, if there is one, differs from that of this fusion."""
        if not self._index.is_file():
            return []
        return differences(_by_id(strict_json.load(self._index)), _by_id(self._content()))

    def bytes_of(self, sample: str) -> int:
        """Return the bytes of a sample's arrays, before they are compressed."""
        place = fused.placement(self.ensemble.inputs, sample)
        cells = math.prod(place.image if self.probabilities else place.grid)
        return 4 * cells * sum(map(len, self._maps.values()))

    def run(self, samples: Sequence[str], executor: Executor, listener: Listener) -> None:
        """Fuse and write those of some samples that are not there yet."""
        there, folder = self.there, Path(self.path)
        todo = [s for s in samples if s not in there]
        if not todo:
            return
        check_space(folder, sum(map(self.bytes_of, todo)), self.overwrite)
        folder.mkdir(exist_ok=True)
        if self.overwrite:
            _empty(self._index)
        if not self._index.is_file():  # another process may have begun, and be at its first sample
            with atomic_write(self._index) as out:
                out.write(strict_json.dump(self._content()))
        inputs, files = self.ensemble.inputs, tuple(sorted(self._files.items()))
        where = inputs, self._wanted, str(folder.absolute()), files
        work = WriteArrays(*where) if self.geometries is None else WriteVolumes(*where, self.geometries, self._extent)
        for _ in executor.map(work, Items(todo), "fusing" if self.probabilities else "comparing", listener):
            pass

    @property
    def _wanted(self) -> Wanted:
        return Wanted(self.probabilities, self.uncertainty)

    @property
    def _maps(self) -> dict[str, Sequence[str]]:
        return self._wanted.maps(self.ensemble.inputs)

    @property
    def _extent(self) -> Extent:
        e = self.ensemble
        return e.inputs.extent(e.samples, e.classes)

    @property
    def _index(self) -> Path:
        return Path(self.path) / (INDEX if self.probabilities else BESIDE_INDEX)

    @property
    def _files(self) -> dict[str, str]:
        """The file of each sample, or its folder."""
        suffix = ".npz" if self.geometries is None else ""
        return file_names(self.ensemble.samples, suffix, taken=[self._index.name], flat=True)

    def _files_of(self, sample: str) -> list[str]:
        """Name a sample's files."""
        own = self._files[sample]
        return [own] if self.geometries is None else [f"{own}/{file}" for file in files_of(self._maps)]

    def _content(self) -> dict[str, Any]:
        e = self.ensemble
        head: dict[str, Any] = {"format": FORMAT if self.probabilities else BESIDE, "fused": self.record}
        if self.probabilities and self.uncertainty:
            head["uncertainty"] = True
        if self.geometries is not None:
            maps = [one for own in self._maps.values() for one in own]
            head["files"] = dict(zip(maps, files_of(self._maps), strict=True))
        samples = [{"id": s, "file": file, **self._place(s)} for s, file in self._files.items()]
        return {**head, "classes": list(e.classes), "samples": samples}

    def _place(self, sample: str) -> dict[str, Any]:
        """Say where an image lies on the grid, in a folder of grids."""
        if self.probabilities:
            return {}
        place = fused.placement(self.ensemble.inputs, sample)
        return {"box": list(place.box), "image": list(place.image)}


def _by_id(content: Any) -> Any:
    """Key an index's samples by their ids, to compare it with another; what is no index stays as it is."""
    try:
        return {**content, "samples": {entry["id"]: entry for entry in content["samples"]}}
    except (KeyError, TypeError):
        return content


def _empty(index: Path) -> None:
    """Remove what an earlier fusion left in its folder: the files that its index names, and the index."""
    if index.is_file():
        content = strict_json.load(index)
        inside = [Path(file).name for file in (content.get("files") or {}).values()]
        for entry in content["samples"]:
            own = index.parent / Path(entry["file"]).name
            for file in [own / name for name in inside] or [own]:
                file.unlink(missing_ok=True)
            if inside and own.is_dir() and not any(own.iterdir()):
                own.rmdir()
        index.unlink()
