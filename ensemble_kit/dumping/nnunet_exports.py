"""Probabilities that nnU-Net exported: folders of --save_probabilities, and the validation cases of a model's folds.

A case is `CASE.npz` beside the answer `CASE.nii.gz`, which has the geometry; dataset.json names the classes. The .pkl
beside them is never opened: unpickling runs code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.dumping.cases import Case
from ensemble_kit.dumping.npz_slabs import NpzVolume
from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, some
from ensemble_kit.formats.nnunet_dataset import Dataset
from ensemble_kit.formats.volume_files import open_volume
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement, Shape, as_text

KEY = "probabilities"
FLAT = (".png", ".bmp", ".tif")
"""Files of images of two axes, whose arrays have one slice."""


class Exports:
    """The exported cases of a folder.

    Parameters
    ----------
    folder : of `nnUNetv2_predict --save_probabilities` or `nnUNetv2_ensemble --save_npz`; a model's folder, whose
        folds' validation cases are taken; or one of these.
    fold : of a model's folder: only this one's cases.
    stem : whether an image of two axes is called `case_1` in place of `case_1.png`; volumes always are.
    jobs : threads that decode a case.

    Raises
    ------
    IncompleteError
        No case was exported, or dataset.json is missing.
    MismatchError
        Two folds validated one case.
    """

    domain: Domain = "probabilities"

    def __init__(self, folder: Path, fold: str | None = None, stem: bool = False, jobs: int = 1) -> None:
        self.folder, self._jobs = folder, jobs
        root = next((f for f in (folder, *folder.resolve().parents[:2]) if (f / "dataset.json").is_file()), folder)
        self.dataset = Dataset.load(root)
        plans = root / "plans.json"
        self._reader = str(strict_json.load(plans).get("image_reader_writer")) if plans.is_file() else ""
        ending = self.dataset.ending if self.dataset.ending in FLAT and not stem else ""
        self._paths: Mapping[str, Path] = {p.stem + ending: p for p in self._files(fold)}
        self.samples = list(self._paths)
        self.member = root.resolve().name

    def _files(self, fold: str | None) -> list[Path]:
        folds = sorted(self.folder.glob("fold_*" if fold is None else f"fold_{fold}"))
        found = [p for f in folds for p in (f / "validation").glob("*.npz")] or (
            list(self.folder.glob("*.npz")) if fold is None else []
        )
        if not found:
            what, item = "cannot find probabilities of nnU-Net", f"{str(self.folder)!r} holds no CASE.npz"
            fix = "predict with nnUNetv2_predict … --save_probabilities"
            if folds or fold is not None:
                item = f"{str(self.folder)!r} holds no fold_{fold or '*'}/validation/CASE.npz"
                fix = "validate its folds with nnUNetv2_train … --val --npz, or pass --images to run its networks"
            raise IncompleteError("nnunet-folder", what, item=item, fix=fix)
        by_name: dict[str, Path] = {}
        for path in found:
            if (other := by_name.setdefault(path.stem, path)) is not path:
                item = f"case {path.stem!r} is in {other.parent.parent.name} and in {path.parent.parent.name}"
                raise MismatchError(
                    "nnunet-case-twice",
                    "cannot tell which fold's probabilities of a case are meant",
                    item=item,
                    fix="pass --fold with one of them, to a store of its own",
                )
        return [by_name[name] for name in sorted(by_name)]

    @property
    def bare(self) -> list[str]:
        """Answers beside the probabilities that have none themselves, by their files' names."""
        folders = dict.fromkeys(path.parent for path in self._paths.values())
        answers = [p for f in folders for p in sorted(f.glob(f"*{self.dataset.ending}"))]
        known = {path.with_suffix(self.dataset.ending) for path in self._paths.values()}
        return [p.name for p in answers if p not in known]

    def record(self) -> dict[str, Any]:
        """Return what is read."""
        return {"model": f"probabilities exported by nnU-Net in {self.folder.resolve().name}"}

    def digest(self, sample: str) -> str:
        """Return checksum and size of a case's array, as its file says them; reading compares them."""
        try:
            entry = NpzVolume.open(self._paths[sample], KEY).entry
        except DamagedError:
            return ""
        return f"{entry.CRC:08x}-{entry.file_size}"

    def grid(self, sample: str) -> Shape:
        """Return the size of the image, on which probabilities are exported."""
        return self._shape(NpzVolume.open(self._paths[sample], KEY))

    def read(self, sample: str) -> Case:
        """Open a case; its values are read slab by slab.

        Raises
        ------
        IncompleteError
            The answer beside it, which has the geometry, is missing.
        MismatchError
            Another number of classes, another size than the answer's, or arrays that were reoriented.
        """
        volume = NpzVolume.open(self._paths[sample], KEY)
        shape = self._shape(volume)
        if volume.shape[0] != len(self.dataset.classes):
            item = f"{str(volume.path)!r} has {volume.shape[0]}, dataset.json {len(self.dataset.classes)}: "
            item += some(self.dataset.classes)
            fix = "put the dataset.json of the model that predicted beside them"
            raise MismatchError("nnunet-classes", "cannot take probabilities of other classes", item=item, fix=fix)
        placement = Placement.of(shape, shape)
        slabs = volume.slabs(jobs=self._jobs)
        if len(shape) == 2:
            return Case((slab[:, 0] for slab in slabs), placement, None)
        return Case(slabs, placement, self._geometry(volume.path, shape))

    def _shape(self, volume: NpzVolume) -> Shape:
        shape = volume.shape[1:]
        return shape[1:] if self.dataset.ending in FLAT and shape[0] == 1 else shape

    def _geometry(self, path: Path, shape: Shape) -> Geometry | None:
        """Read where a case lies from the answer beside it, whose size is compared."""
        answer = path.with_name(path.stem + self.dataset.ending)
        if not answer.is_file():
            item = f"{str(path)!r} has no {answer.name!r} beside it"
            fix = "copy it there from where nnU-Net wrote both: it says where the volume lies in the world"
            raise IncompleteError(
                "nnunet-answer", "cannot tell where probabilities lie in the world", item=item, fix=fix
            )
        found = open_volume(answer)
        axes = found.geometry.orientation if "Reorient" in self._reader and found.geometry else "RAS"
        if found.shape != shape or axes != "RAS":
            item = f"{str(path)!r} has {as_text(shape)} voxels, {answer.name!r} {as_text(found.shape)}"
            item += f"; {self._reader} turned axes from {axes} to RAS" if axes != "RAS" else ""
            fix = "dump the networks themselves: pass the model's folder with --images"
            raise MismatchError("nnunet-turned", "cannot place probabilities on their image", item=item, fix=fix)
        return found.geometry
