"""Geometries of volumes: spacing, orientation, equality across worlds, refusals."""

from __future__ import annotations

import math
import pickle

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kit.errors import DamagedError
from ensemble_kit.spec.affine import Geometry

OBLIQUE = np.array([[-1.2, 0.3, 0.5, 10], [0.2, -1.3, 2.0, -20], [-0.4, 0.1, -9.0, 30], [0, 0, 0, 1]])


def test_orientation_agrees_with_nibabel() -> None:
    orientations = pytest.importorskip("nibabel.orientations")
    for affine in (np.eye(4), np.diag([-1, 1, 1, 1]), OBLIQUE, OBLIQUE[:, [2, 0, 1, 3]], OBLIQUE[[1, 0, 2, 3]]):
        assert Geometry.of(affine).orientation == "".join(orientations.aff2axcodes(affine))


def test_lps_is_ras_with_two_signs_flipped() -> None:
    one, other = Geometry.of(OBLIQUE), Geometry.of(np.diag([-1, -1, 1, 1]) @ OBLIQUE, "LPS")
    assert one.is_near(other, (9, 20, 30)) and one.orientation == other.orientation == "LPI"
    assert not one.is_near(Geometry.of(OBLIQUE, "LPS"), (9, 20, 30))
    assert pickle.loads(pickle.dumps(other)) == other


@given(st.integers(0, 2), st.floats(0.011, 5), st.integers(2, 9))
def test_what_moves_a_corner_is_told(axis: int, share: float, n: int) -> None:
    one, moved = Geometry.of(np.diag([0.5, 2, 7, 1])), np.diag([0.5, 2, 7, 1.0])
    moved[axis, 3] += 0.5 * share
    assert not one.is_near(Geometry.of(moved), (n, n, n))
    stretched = np.diag([0.5, 2, 7, 1.0])
    stretched[axis, axis] *= 1 + 1e-7  # as float32 rounds it
    assert one.is_near(Geometry.of(stretched), (n, n, n))


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 50))
def test_a_volume_in_mm3_is_the_least_number_of_voxels(mm3: float, spacing: float) -> None:
    geometry = Geometry.of(np.diag([spacing, 1, 1, 1]))
    n = geometry.voxels(mm3)
    assert n * spacing >= mm3 - 1e-6 * spacing and (n - 1) * spacing < mm3
    assert Geometry.of(np.diag([0.1, 0.1, 0.1, 1])).voxels(1) == 1000
    assert math.isclose(geometry.voxel_volume, spacing)


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), np.nan),
        np.diag([1, 1, 0, 1]),
        np.eye(3),
        [[1, 0], [0, 1]],
        7,
        "abcd",
        np.diag([1, np.inf, 1, 1]),
    ],
    ids=["nan", "flat", "three", "ragged", "number", "text", "infinite"],
)
def test_what_is_no_affine_is_refused(affine: object) -> None:
    with pytest.raises(DamagedError) as caught:
        Geometry.of(affine)  # type: ignore[arg-type]
    assert caught.value.code == "affine-invalid"


@pytest.mark.parametrize("code", ["RAS", "LAS", "PSR", "IRA", "SLP"])
def test_a_volume_that_was_turned_has_the_same_voxels(code: str) -> None:
    """The oracle is nibabel's reorientation."""
    orientations = nibabel.orientations
    image = nibabel.Nifti1Image(np.zeros((4, 5, 7), np.uint8), OBLIQUE)
    steps = orientations.ornt_transform(orientations.io_orientation(OBLIQUE), orientations.axcodes2ornt(code))
    turned = image.as_reoriented(steps)
    one, other = Geometry.of(OBLIQUE), Geometry.of(turned.affine)
    assert other.orientation == code
    assert one.has_voxels_of(other, (7, 5, 4), turned.shape[::-1])
    assert not one.has_voxels_of(other, (7, 5, 4), (7, 5, 3))
    moved = turned.affine.copy()
    moved[:3, 3] += 1
    assert not one.has_voxels_of(Geometry.of(moved), (7, 5, 4), turned.shape[::-1])


def test_an_array_is_refused_with_what_takes_one() -> None:
    with pytest.raises(DamagedError, match=r"Geometry\.of\(affine, world\) takes an array") as caught:
        Geometry(np.eye(4))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert Geometry.of(np.eye(4)).spacing == (1.0, 1.0, 1.0)
