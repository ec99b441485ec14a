"""The networks of an nnU-Net model, run on images that are named as nnU-Net names them: `CASE_0000.nii.gz`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.dumping.cases import Case
from ensemble_kit.dumping.images import image_size
from ensemble_kit.dumping.nnunet_exports import FLAT
from ensemble_kit.dumping.sources import digest_of
from ensemble_kit.errors import IncompleteError, some
from ensemble_kit.formats.nnunet_dataset import Dataset
from ensemble_kit.formats.volume_files import open_volume
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Box, Placement, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.trainers.nnunet import FoldNetwork


class Networks:
    """Cases of a folder of images, which the network of one fold runs on.

    Parameters
    ----------
    folder : of the model, `TRAINER__PLANS__CONFIGURATION`.
    fold : which network; None where there is one fold only.
    stem : whether an image of two axes is called `case_1` in place of `case_1.png`; volumes always are.

    Raises
    ------
    IncompleteError
        The folder is no model's, or a case lacks a channel.
    UsageError
        Several folds, and none was chosen.
    """

    domain: Domain = "logits"

    def __init__(self, folder: Path, images: Path, network: FoldNetwork, fold: str, stem: bool = False) -> None:
        self.folder, self.fold, self._network = folder, fold, network
        self.dataset = Dataset.load(folder)
        about = strict_json.load(folder / "dataset.json")
        channels = len(about.get("channel_names") or about.get("modality") or [None])
        self._files = cases_of(images, self.dataset.ending, channels, stem or self.dataset.ending not in FLAT)
        self.samples, self.member = list(self._files), f"{folder.resolve().name}-fold_{fold}"
        self._reader = str(strict_json.load(folder / "plans.json").get("image_reader_writer"))

    def record(self) -> dict[str, Any]:
        """Return which network runs."""
        return {"model": self.folder.resolve().name, "fold": self.fold, **self._network.record()}

    def digest(self, sample: str) -> str:
        """Digest the images of a case."""
        return hashlib.sha256("".join(map(digest_of, self._files[sample])).encode()).hexdigest()[:32]

    def grid(self, sample: str) -> Shape:
        """Return the grid that a case would be resampled to if nothing were cropped; of images of two axes theirs."""
        first = self._files[sample][0]
        if self.dataset.ending in FLAT:
            return image_size(first)
        found = open_volume(first)
        return self._network.grid(found.shape, found.geometry.spacing) if found.geometry else found.shape

    def read(self, sample: str) -> Case:
        """Run the network on a case."""
        files = self._files[sample]
        values, placement = self._network.logits(files)
        if self.dataset.ending in FLAT and placement.image[0] == 1:
            return Case([values[:, 0]], flat(placement), None)
        found = open_volume(files[0])
        if "Reorient" in self._reader and found.geometry is not None:
            values, placement = turned(values, placement, found.geometry)
        return Case([values], placement, found.geometry)


def cases_of(images: Path, ending: str, channels: int, stem: bool = False) -> dict[str, list[Path]]:
    """Find the files of each case, one a channel, by its id.

    Raises
    ------
    IncompleteError
        No file is named as nnU-Net names images, or a case lacks a channel.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(images.iterdir()) if images.is_dir() else ():
        if match := re.fullmatch(r"(.+)_(\d{4})" + re.escape(ending), path.name):
            found.setdefault(match[1], {})[int(match[2])] = path
    lacking = [case for case, files in found.items() if sorted(files) != list(range(channels))]
    if lacking or not found:
        item = f"{str(images)!r} holds no CASE_0000{ending}"
        if lacking:
            item = f"{some(lacking)} in {str(images)!r} have not just the channels 0000 to {channels - 1:04}"
        fix = f"name images CASE_0000{ending}, a file a channel, as nnUNetv2_predict takes them"
        raise IncompleteError("nnunet-images", "cannot find the images of nnU-Net's cases", item=item, fix=fix)
    return {case + ("" if stem else ending): [files[k] for k in sorted(files)] for case, files in found.items()}


def folds_of(folder: Path, checkpoint: str, fold: str | None) -> list[str]:
    """Return the folds of a model that have a checkpoint, or the one that is asked for.

    Raises
    ------
    IncompleteError
        There is none.
    """
    found = [p.parent.name.removeprefix("fold_") for p in sorted(folder.glob(f"fold_{fold or '*'}/{checkpoint}"))]
    if not found:
        item = f"{str(folder)!r} holds no fold_{fold or '*'}/{checkpoint}"
        fix = "pass the folder TRAINER__PLANS__CONFIGURATION of nnUNet_results, or another --weights or --fold"
        raise IncompleteError("nnunet-folder", "cannot find networks of nnU-Net", item=item, fix=fix)
    return found


def flat(placement: Placement) -> Placement:
    """Return the placement of an image of two axes, which nnU-Net keeps as one slice."""
    box, window = (Box(*b.start[1:], *b.stop[1:]) for b in (placement.box, placement.covered))
    return Placement(placement.grid[1:], box, placement.image[1:], window, placement.kinds[1:])


def turned(values: NDArray[Any], placement: Placement, geometry: Geometry) -> tuple[NDArray[Any], Placement]:
    """Bring logits and their placement from the axes RAS, to which nnU-Net turned an image, to those of its file."""
    letters = geometry.orientation[::-1]  # of the array's axes z, y, x
    order = ["SI", "AP", "RL"]
    axes = [next(k for k, pair in enumerate(order) if letter in pair) for letter in letters]
    flips = [k for k, letter in enumerate(letters) if letter in "LPI"]
    out = np.flip(values.transpose(0, *(k + 1 for k in axes)), tuple(k + 1 for k in flips))
    image, window = [placement.image[k] for k in axes], placement.covered
    edges = [(window.start[k], window.stop[k]) for k in axes]
    edges = [(n - b, n - a) if k in flips else (a, b) for k, (n, (a, b)) in enumerate(zip(image, edges, strict=True))]
    start, stop = zip(*edges, strict=True)
    return out, Placement.of(out.shape[1:], image, window=(*start, *stop), axes=[placement.kinds[k] for k in axes])
