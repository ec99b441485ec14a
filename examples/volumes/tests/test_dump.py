"""Stores of exported probabilities and of networks hold what nnU-Net put out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit import LogitStore

MODELS = ("Dataset001_Toy/3d_fullres", "Dataset001_Toy/2d", "Dataset002_ToyRegions/3d_fullres")


def ensk(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ensemble_kit", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def dump(*arguments: object) -> str:
    done = ensk("dump-logits", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def probabilities(store: LogitStore, sample: str) -> np.ndarray:
    z = store.read(sample).astype(np.float64)
    if store.activation == "sigmoid":
        return 1 / (1 + np.exp(np.clip(-z, None, 700)))
    e = np.exp(z - z.max(0))
    return e / e.sum(0)


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_of_validation_are_one_store(name: str, model: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "oof.zarr"
    told = dump(f"nnunet:{model(name)}", "--out", out)
    store = LogitStore(out)
    assert store.samples == tuple(f"case_{k:02}" for k in range(6)) and not store.missing
    regions = "Regions" in name
    assert store.activation == ("sigmoid" if regions else "softmax")
    assert store.classes == (
        ("whole_organ", "tumour", "kidney") if regions else ("background", "organ", "tumour", "kidney")
    )
    assert ("--paint whole_organ=1,tumour=2,kidney=3" in told) == regions
    for sample in store.samples:
        (file,) = model(name).glob(f"fold_*/validation/{sample}.npz")
        wanted = np.load(file)["probabilities"]
        found = probabilities(store, sample)
        assert store.image_size(sample) == wanted.shape[1:] == found.shape[1:]
        assert np.abs(found - wanted).max() < 2e-3


def test_the_geometry_is_the_answers(model: Callable[[str], Path], tmp_path: Path) -> None:
    import nibabel

    dump(f"nnunet:{model(MODELS[0])}", "--out", tmp_path / "oof.zarr")
    store = LogitStore(tmp_path / "oof.zarr")
    affine = nibabel.load(model(MODELS[0]) / "fold_0/validation/case_00.nii.gz").affine
    geometry = store.geometry("case_00")
    assert geometry is not None and np.allclose(geometry.ras, affine, atol=1e-4)


def test_several_folds_are_several_stores(toy: Path, model: Callable[[str], Path], tmp_path: Path) -> None:
    images = toy / "raw" / "Dataset001_Toy" / "imagesTs"
    arguments = [f"nnunet:{model(MODELS[0])}", "--images", images, "--trust", "--tta", "none"]
    refused = ensk("dump-logits", *arguments, "--out", tmp_path / "net.zarr")
    assert refused.returncode == 2 and "error[nnunet-folds]" in refused.stderr and "--fold 0" in refused.stderr
    dump(*arguments, "--out", tmp_path / "net_{fold}.zarr")
    stores = [LogitStore(tmp_path / f"net_{k}.zarr") for k in (0, 1)]
    assert [s.provenance["fold"] for s in stores] == ["0", "1"] and stores[0].fingerprint != stores[1].fingerprint
    assert stores[0].samples == ("case_06", "case_07")


def test_a_checkpoint_is_not_loaded_without_trust(toy: Path, model: Callable[[str], Path], tmp_path: Path) -> None:
    images = toy / "raw" / "Dataset001_Toy" / "imagesTs"
    arguments = ["dump-logits", f"nnunet:{model(MODELS[0])}", "--images", images, "--fold", 0]
    done = ensk(*arguments, "--out", tmp_path / "net.zarr")
    assert done.returncode == 7 and "error[model-can-run-code]" in done.stderr
    assert not (tmp_path / "net.zarr").exists()


def test_the_answer_is_one_json_object_on_stdout(toy: Path, model: Callable[[str], Path], tmp_path: Path) -> None:
    images = toy / "raw" / "Dataset002_ToyRegions" / "imagesTs"
    arguments = [f"nnunet:{model(MODELS[2])}", "--images", images, "--fold", 1, "--trust", "--tta", "none"]
    done = ensk("dump-logits", *arguments, "--out", tmp_path / "net.zarr", "--json")
    assert json.loads(done.stdout)["written"] == 2
