"""What surrounds networks of nnU-Net: names of images, folds, axes; the networks themselves run in examples/volumes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.dumping.nnunet_networks import cases_of, flat, folds_of, turned
from ensemble_kit.errors import IncompleteError, UnsafeError
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.trainers.nnunet import FoldNetwork


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_images_are_grouped_by_case_and_channel(tmp_path: Path) -> None:
    names = ["b_0001.nii.gz", "b_0000.nii.gz", "a_1_0000.nii.gz", "a_1_0001.nii.gz", "notes.txt", "a_1.nii.gz"]
    found = cases_of(touched(tmp_path, *names), ".nii.gz", 2, stem=True)
    assert {case: [p.name for p in files] for case, files in found.items()} == {
        "a_1": ["a_1_0000.nii.gz", "a_1_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }
    assert list(cases_of(touched(tmp_path / "png", "x_0000.png"), ".png", 1)) == ["x.png"]


LACKING = {
    "a channel": ["a_0000.nii.gz"],
    "the first": ["a_0001.nii.gz"],
    "all": ["a.nii.gz"],
    "other suffix": ["a_0000.mha"],
}


@pytest.mark.parametrize("names", LACKING.values(), ids=LACKING)
def test_images_that_lack_something_are_named(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(IncompleteError, match="CASE_0000"):
        cases_of(touched(tmp_path, *names), ".nii.gz", 2)


def test_folds_are_those_that_have_the_checkpoint(tmp_path: Path) -> None:
    for fold in ("0", "2", "all"):
        touched(tmp_path / f"fold_{fold}", "checkpoint_final.pth")
    touched(tmp_path / "fold_1", "checkpoint_best.pth")
    assert folds_of(tmp_path, "checkpoint_final.pth", None) == ["0", "2", "all"]
    assert folds_of(tmp_path, "checkpoint_best.pth", "1") == ["1"]
    with pytest.raises(IncompleteError, match="fold_1"):
        folds_of(tmp_path, "checkpoint_final.pth", "1")


def test_a_checkpoint_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match="pickle") as found:
        FoldNetwork(tmp_path, "0")
    assert found.value.code == "model-can-run-code" and "--trust" in found.value.fix


def test_an_image_of_two_axes_loses_its_slice() -> None:
    placed = Placement.of((1, 8, 9), (1, 20, 30), window=(0, 2, 3, 1, 18, 27), axes=("nearest", "linear", "linear"))
    assert flat(placed) == Placement.of((8, 9), (20, 30), window=(2, 3, 18, 27))


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    crop=st.tuples(*[st.integers(0, 2)] * 6),
)
def test_axes_are_turned_back_as_nibabel_turns_them(
    order: list[int], signs: tuple[float, ...], crop: tuple[int, ...]
) -> None:
    """An image is reoriented as NibabelIOWithReorient does; turning its own voxels back gives the file's."""
    affine = np.zeros((4, 4))
    for k, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, k] = sign * (k + 1)
    affine[3, 3] = 1
    file = nibabel.Nifti1Image(np.arange(7 * 8 * 9, dtype=np.float32).reshape(7, 8, 9), affine)
    closest = file.as_reoriented(nibabel.io_orientation(affine))
    canonical = closest.get_fdata().transpose(2, 1, 0)
    start, stop = crop[:3], tuple(n - c for n, c in zip(canonical.shape, crop[3:], strict=True))
    window = (*start, *stop)
    inside = canonical[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))][None]
    kinds = cast("tuple", ("nearest", "linear", "linear"))
    placed = Placement.of(inside.shape[1:], canonical.shape, window=window, axes=kinds)
    values, found = turned(inside, placed, Geometry.of(affine))
    wanted = file.get_fdata().transpose(2, 1, 0)
    assert found.image == wanted.shape and np.array_equal(values[0], wanted[found.covered.slices])
    superior = 2 - order.index(2)  # the array axis of the file along which z of RAS runs
    assert [k for k, kind in enumerate(found.kinds) if kind == "nearest"] == [superior]
