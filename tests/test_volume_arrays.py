"""Arrays of volumes that another pipeline dumped, beside the files of their images."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.dumping.cases import dump_cases
from ensemble_kit.dumping.volume_arrays import AXES, volume_arrays

nib = pytest.importorskip("nibabel")
CLASSES = ("organ", "lesion")
AFFINE = np.array([[-0.7, 0.1, 0, 9], [0, 0.8, 0.2, 8], [0, 0, 3, 7], [0, 0, 0, 1.0]])
SHAPES = {"a": (6, 10, 8), "b": (5, 8, 9)}
"""(D, H, W) of each image."""


def logits(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (2, *shape)).astype(np.float32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, shape in SHAPES.items():
        voxels = np.zeros(shape[::-1], np.int16)  # a file has x, y, z
        nib.save(nib.Nifti1Image(voxels, AFFINE), folder / f"{name}.nii.gz")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return folder


def saved(folder: Path, axes: str, suffix: str, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Path:
    """Save each sample's logits with axes in another order."""
    folder.mkdir()
    for seed, (name, shape) in enumerate(shapes.items()):
        array = logits(shape, seed).transpose(np.argsort(AXES[axes]))
        if suffix == ".npy":
            np.save(folder / f"{name}.npy", array)
        else:
            np.savez_compressed(folder / f"{name}.nii.gz.npz", logits=array)
    return folder


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("axes", AXES)
def test_the_axes_are_those_of_the_images(images: Path, tmp_path: Path, axes: str, suffix: str) -> None:
    said: list[str] = []
    arrays = saved(tmp_path / "arrays", axes, suffix)
    dump_cases(volume_arrays(arrays, images, CLASSES, said.append), tmp_path / "m.zarr")
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert any(axes in line for line in said)
    assert store.samples == ("a", "b") and store.activation == "sigmoid" and store.provenance["axes"] == axes
    for seed, (name, shape) in enumerate(SHAPES.items()):
        assert np.array_equal(store.read(name), logits(shape, seed).astype(np.float16))
        assert store.placement(name).image == shape
        geometry = store.geometry(name)
        assert geometry is not None and geometry.world == "RAS"
        assert np.allclose(geometry.matrix, AFFINE, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("axes", ["cdhw", "whdc"])
def test_a_batch_of_one_volume_is_a_volume_and_it_is_said(images: Path, tmp_path: Path, axes: str, suffix: str) -> None:
    said: list[str] = []
    arrays = saved(tmp_path / "arrays", axes, suffix)
    for file in arrays.iterdir():
        array = np.load(file) if suffix == ".npy" else np.load(file)["logits"]
        np.save(file, array[None]) if suffix == ".npy" else np.savez_compressed(file, logits=array[None])
    dump_cases(volume_arrays(arrays, images, CLASSES, said.append), tmp_path / "m.zarr")
    assert any("2 of 2 arrays have five axes" in line for line in said)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        assert np.array_equal(ek.LogitStore(tmp_path / "m.zarr").read(name), logits(shape, seed).astype(np.float16))


def test_a_coarser_grid_needs_its_axes_named(images: Path, tmp_path: Path) -> None:
    small = {"a": (3, 5, 4), "b": (3, 4, 4)}
    arrays = saved(tmp_path / "arrays", "cwhd", ".npy", small)
    with pytest.raises(ek.MismatchError, match="3") as caught:
        volume_arrays(arrays, images, CLASSES)
    assert caught.value.code == "array-axes" and "--axes cdhw or cwhd" in caught.value.fix
    dump_cases(volume_arrays(arrays, images, CLASSES, axes="cwhd"), tmp_path / "m.zarr")
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert np.array_equal(store.read("a"), logits((3, 5, 4), 0).astype(np.float16))
    assert store.placement("a").grid == (3, 5, 4) and store.image_size("a") == (6, 10, 8)


@pytest.mark.parametrize(
    ("shape", "classes", "code"),
    [
        ((7, 6, 10, 8), CLASSES, "array-shape"),
        ((6, 10, 8), CLASSES, "array-shape"),
        ((2, 2, 6, 10, 8), CLASSES, "array-shape"),
    ],
    ids=["other classes", "three axes", "a batch of two"],
)
def test_what_is_no_volume_of_these_classes_is_refused(
    images: Path, tmp_path: Path, shape: tuple[int, ...], classes: tuple[str, ...], code: str
) -> None:
    (tmp_path / "arrays").mkdir()
    for name in SHAPES:
        np.save(tmp_path / "arrays" / f"{name}.npy", np.zeros(shape, np.float32))
    with pytest.raises(ek.MismatchError) as caught:
        volume_arrays(tmp_path / "arrays", images, classes)
    assert caught.value.code == code and "a.npy" in caught.value.item


def test_images_beside_volumes_are_two_kinds_of_samples(images: Path, tmp_path: Path) -> None:
    arrays = saved(tmp_path / "arrays", "cdhw", ".npy")
    (images / "x.png").write_bytes(b"")
    with pytest.raises(ek.UsageError, match=r"x\.png") as caught:
        volume_arrays(arrays, images, CLASSES)
    assert caught.value.code == "folder-mixed"


@pytest.mark.slow
def test_a_user_dumps_and_votes(images: Path, tmp_path: Path) -> None:
    saved(tmp_path / "arrays", "cwhd", ".npy")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return warm.ensk(*words, cwd=tmp_path)

    base = (
        "dump-logits",
        "arrays",
        "--images",
        "images",
        "--classes",
        "classes.txt",
        "--out",
        "m.zarr",
        "--id",
        "stem",
    )
    assert json.loads(run(*base, "--json").stdout)["written"] == 2
    assert json.loads(run(*base, "--json").stdout)["resumed"] == 2
    refused = run(*base[:-1], "n.zarr", "--size", "64")
    assert refused.returncode == 2 and "error[option-idle]" in refused.stderr
    refused = run("dump-logits", "net:unet", *base[2:-1], "n.zarr")
    assert refused.returncode == 2 and "error[model-volumes]" in refused.stderr
    assert (
        run("vote", "m.zarr", "--out", "answer", "--format", "class-volumes", "--like-image", "images").returncode == 0
    )
    answer = nib.load(next((tmp_path / "answer").rglob("*a*organ*.nii.gz"), None) or tmp_path / "answer/a/organ.nii.gz")
    assert np.allclose(answer.affine, AFFINE, atol=1e-5)
    wanted = logits(SHAPES["a"], 0)[0].astype(np.float16) >= 0
    assert (np.asarray(answer.dataobj).transpose(2, 1, 0) != wanted).mean() < 0.01


@pytest.mark.parametrize(
    ("spoiled", "what", "fix"),
    [
        (lambda a: 1 / (1 + np.exp(-a)), "cannot take an array for logits", "--domain probabilities"),
        (lambda a: np.where(a == a.max(), np.nan, a), "cannot store NaN", "run the command again"),
    ],
    ids=["probabilities", "nan"],
)
def test_what_is_wrong_with_all_arrays_is_said_with_what_mends_it(
    images: Path, tmp_path: Path, spoiled: Callable[[np.ndarray], np.ndarray], what: str, fix: str
) -> None:
    (tmp_path / "arrays").mkdir()
    for seed, (name, shape) in enumerate(SHAPES.items()):
        np.save(tmp_path / "arrays" / f"{name}.npy", spoiled(logits(shape, seed)))
    with pytest.raises(ek.DamagedError, match="cannot read 2 of 2 samples") as caught:
        dump_cases(volume_arrays(tmp_path / "arrays", images, CLASSES), tmp_path / "m.zarr")
    assert caught.value.item.count(what) == 2 and fix in caught.value.fix


def test_a_grid_of_another_shape_is_said_to_cover_the_whole_image(images: Path, tmp_path: Path) -> None:
    """Such as 5 slices of 6: a crop would be stretched, which nothing in an array tells."""
    cut = {"a": (5, 10, 8), "b": SHAPES["b"]}
    arrays, said = saved(tmp_path / "arrays", "cdhw", ".npy", cut), list[str]()
    with pytest.raises(ek.MismatchError, match="5 x 10 x 8") as caught:
        volume_arrays(arrays, images, CLASSES)
    assert "window=" in caught.value.fix
    volume_arrays(arrays, images, CLASSES, said.append, axes="cdhw")
    assert len(said) == 1 and "1 of 2" in said[0] and "'a': 5 x 10 x 8 over 6 x 10 x 8" in said[0]
    volume_arrays(saved(tmp_path / "whole", "cdhw", ".npy"), images, CLASSES, said.append, axes="cdhw")
    assert len(said) == 1
