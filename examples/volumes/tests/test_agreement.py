"""The kit's answers are nnU-Net's own, but for voxels where two classes tie to the precision of float16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ensemble_kit import Ensemble, LogitStore, MaskSet
from ensemble_kit.dumping.nnunet import dump_nnunet
from ensemble_kit.formats.nnunet_dataset import Dataset

NAMES = ("Dataset001_Toy/3d_fullres", "Dataset001_Toy/2d", "Dataset002_ToyRegions/3d_fullres")
NEAR = 4e-3
"""Largest difference of two probabilities that count as a tie: fp16 logits of 4 to 8 are 1/256 apart."""


def tie_of(stores: Sequence[Path]) -> float:
    """Return the largest difference of two probabilities that fp16 can turn round.

    nnU-Net adds its folds' logits in fp16, which is off by half of the spacing of a number of twice their size, then halves
    them, and rounds them once more after resampling: two logits of size x are each off by spacing(x) at most. Two
    probabilities near a half differ by half of what their logits differ by.
    """
    largest = max(np.abs(store.read(s)).max() for store in map(LogitStore, stores) for s in store.samples)
    return float(np.spacing(np.float16(largest)))


def answer(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def labelled(masks: MaskSet, sample: str, paint: Mapping[str, int]) -> np.ndarray:
    """Draw masks as nnU-Net does: regions later over earlier, labels by their order."""
    out = np.zeros(masks.image_size(sample), np.uint8)
    for name, value in (paint or {name: k for k, name in enumerate(masks.classes)}).items():
        out[masks[sample, name].decode()] = value
    return out


def check(masks: MaskSet, folder: Path, dataset: Dataset, near: float = NEAR) -> int:
    """Compare with the answers of a folder; return how many voxels differ, each of which must be a tie."""
    count = 0
    assert len(masks.samples) == 2
    for sample in masks.samples:
        wanted, found = answer(folder / f"{sample}.nii.gz"), labelled(masks, sample, dataset.paint)
        p = np.load(folder / f"{sample}.npz")["probabilities"]
        assert (wanted > 0).sum() > 300  # it found organs
        differ = wanted != found
        count += int(differ.sum())
        if dataset.paint:
            apart = np.abs(p - 0.5).min(0)
        else:
            first, second = np.sort(p, axis=0)[:-3:-1]
            apart = first - second
        assert (apart[differ] < near).all()
        assert (apart < near).mean() < 0.01  # ties are rare
    return count


@pytest.mark.parametrize("folds", [(0,), (0, 1)], ids=["one fold", "two folds"])
@pytest.mark.parametrize("name", NAMES)
def test_folds_decide_as_nnunet_predicts(
    name: str, folds: tuple[int, ...], toy: Path, model: Callable, predicted: Callable, tmp_path: Path
) -> None:
    images = toy / "raw" / name.split("/", maxsplit=1)[0] / "imagesTs"
    for fold in folds:
        list(dump_nnunet(model(name), str(tmp_path / f"{fold}.zarr"), images, fold=str(fold), trust=True))
    stores = [tmp_path / f"{fold}.zarr" for fold in folds]
    masks = Ensemble(stores, mean="logit").vote()
    assert check(masks, predicted(name, folds), Dataset.load(model(name)), tie_of(stores)) <= 5


def test_ensembles_of_probabilities_decide_as_nnunet_ensembles(
    predicted: Callable, model: Callable, tmp_path: Path
) -> None:
    from nnunetv2.ensembling.ensemble import ensemble_folders

    folders = [predicted(name, (0, 1)) for name in NAMES[:2]]
    ensemble_folders([str(f) for f in folders], str(tmp_path / "theirs"), True, num_processes=1)
    for k, folder in enumerate(folders):
        list(dump_nnunet(folder, str(tmp_path / f"{k}.zarr")))
    masks = Ensemble([tmp_path / f"{k}.zarr" for k in range(2)]).vote()
    assert check(masks, tmp_path / "theirs", Dataset.load(model(NAMES[0]))) <= 5


@pytest.mark.parametrize("name", NAMES)
def test_imported_probabilities_decide_as_their_answers(
    name: str, predicted: Callable, model: Callable, tmp_path: Path
) -> None:
    list(dump_nnunet(predicted(name, (0, 1)), str(tmp_path / "net.zarr")))
    masks = Ensemble([tmp_path / "net.zarr"]).vote()
    assert check(masks, predicted(name, (0, 1)), Dataset.load(model(name))) <= 5
