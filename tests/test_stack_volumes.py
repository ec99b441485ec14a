"""A second stage over volumes and over members that saw windows: a volume of one slice is the image, and what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import EXAMPLES, smooth_logits
from ensemble_kit.recipes.memory import held
from ensemble_kit.recipes.stack_fitting import fit_stack
from ensemble_kit.recipes.stack_store import equal
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.stacking.features import SampleFeatures
from ensemble_kit.stacking.rows import coverage
from windowed import WINDOWS, made

pytestmark = pytest.mark.filterwarnings("ignore:the stack")  # that it gains nothing on so little
CLASSES, SAMPLES = ("x", "y"), tuple(f"s{k}" for k in range(6))


def shares(n: int, cells: int) -> np.ndarray:
    """How much of each cell lies in each pixel of an axis, (cells, n), rows adding up to 1."""
    edges = np.arange(cells + 1) * n / cells
    low, high = np.maximum.outer(edges[:-1], np.arange(n)), np.minimum.outer(edges[1:], np.arange(n) + 1)
    return np.maximum(high - low, 0) * cells / n


@settings(max_examples=max(5, EXAMPLES // 2))
@given(image=st.tuples(*[st.integers(1, 7)] * 3), cells=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 99))
def test_coverage_of_a_volume_is_the_share_of_the_cell(image: Any, cells: Any, seed: int) -> None:
    mask = np.random.default_rng(seed).random(image) < 0.5
    wanted = np.einsum("az,by,cx,zyx->abc", *(shares(n, c) for n, c in zip(image, cells, strict=True)), mask)
    got = coverage(ek.encode(mask), cells)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_coverage_is_of_the_window() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:6] = True
    place = Placement.of((1, 2), (4, 6), window=(0, 2, 4, 6))
    assert coverage(ek.encode(mask), (1, 2), place).tolist() == [[0.5, 0.5]]


def stores(folder: Path, depth: int | None, samples: tuple[str, ...] = SAMPLES) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Two members of images, or of volumes whose slices are alike but for a shift."""
    folder.mkdir(exist_ok=True)
    paths, truth, grid = [], {}, (12, 12)
    rng = np.random.default_rng(5)
    for k in range(2):
        paths.append(folder / f"m{k}.zarr")
        with ek.LogitWriter(paths[k], CLASSES, samples, activation="sigmoid", member=f"m{k}") as out:
            for sample in samples:
                z, image = smooth_logits(rng, (2, *grid)), (24, 24)
                place = None if depth is None else Geometry.of(np.diag([1.0, 1, 3, 1]))
                if depth is not None:
                    z, image = np.stack([np.roll(z, s, axis=1) for s in range(depth)], axis=1), (depth, 24, 24)
                out.write(sample, z, image, geometry=place)
    ens = ek.Ensemble(paths)
    voted = ens.vote(0.3)
    for key, runs in voted.items():
        truth[key] = ek.encode(np.roll(runs.decode(), 1, axis=-1))
    return ens, ek.MaskSet(truth)


@pytest.mark.slow
def test_a_volume_of_one_slice_is_stacked_as_the_image(tmp_path: Path) -> None:
    made_of = {}
    for name, depth in (("flat", None), ("solid", 1)):
        ens, truth = stores(tmp_path / name, depth)
        stack = fit_stack(ens, truth, tmp_path / name / "out.zarr", folds=3)
        made_of[name] = ek.LogitStore(tmp_path / name / "out.zarr"), stack
    (flat, one), (solid, other) = made_of["flat"], made_of["solid"]
    np.testing.assert_allclose(one.model.of_all, other.model.of_all, rtol=1e-9, atol=1e-12)
    for sample in SAMPLES:
        np.testing.assert_allclose(flat.read(sample), solid.read(sample)[:, 0], atol=2e-3)
    assert one.scores is not None
    assert other.scores is not None
    assert one.scores.stack == pytest.approx(other.scores.stack, abs=1e-6)


@pytest.mark.slow
def test_volumes_are_stacked_and_keep_their_place(tmp_path: Path) -> None:
    ens, truth = stores(tmp_path, 3)
    stack = fit_stack(ens, truth, tmp_path / "out.zarr", folds=3, jobs=2)
    again = fit_stack(ens, truth, tmp_path / "again.zarr", folds=3, jobs=1, memory=int(held()) + 10**9)
    store = ek.LogitStore(tmp_path / "out.zarr")
    assert again.digest == stack.digest
    for sample in SAMPLES:
        assert store.read(sample).shape == (2, 3, 12, 12)
        assert store.geometry(sample) == ens.members[0].geometry(sample)
        assert np.array_equal(store.read(sample), ek.LogitStore(tmp_path / "again.zarr").read(sample))
    done = stack.apply(stores(tmp_path / "others", 2, ("t0", "t1"))[0], tmp_path / "applied.zarr")
    assert done.written == 2
    assert ek.LogitStore(done.path).read("t0").shape == (2, 2, 12, 12)
    assert stack.scores is not None
    assert stack.scores.stack == pytest.approx(ek.dice(ek.Ensemble(store).vote(), truth).mean)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3])
def test_where_a_member_has_no_say_the_others_stand_for_it(tmp_path: Path, rank: int) -> None:
    ens = equal(ek.Ensemble(made(tmp_path, rank, "sigmoid", WINDOWS["a crop"][rank])))
    seen, whole, crop = SampleFeatures(ens.inputs, "s"), *ens.members
    image = whole.image_size("s")
    assert seen.shape == image  # members of different windows meet at the image's size
    inside = np.zeros(image, bool)
    inside[crop.placement("s").covered.slices] = True
    features = list(seen.of(1))
    assert np.array_equal(features[1][~inside], seen.fused(1)[~inside])
    assert not np.array_equal(features[1][inside], seen.fused(1)[inside])
    alone = equal(ek.Ensemble(whole.path))
    own = SampleFeatures(alone.inputs, "s")
    assert np.abs(features[0]).max() <= 16
    assert own.shape == whole.placement("s").box.shape
