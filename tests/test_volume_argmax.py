"""Exclusive classes of volumes, slab by slab, against the oracle: the same label at every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import generated_volumes as volumes
import volume_oracle as oracle
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores import volume_argmax
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.scores.volume_sample import VolumeSample
from ensemble_kit.spec.geometry import Placement
from test_exclusive import HOSTILE

FUSIONS = [("logits", "probability"), ("logits", "logit"), ("scores", "probability"), ("scores", "logit")]


def laid(inputs: Inputs, factors: list[int], least: int) -> volume_argmax.Laid | None:
    of_logits = inputs.fusion.mean.of_logits
    offsets = np.array([ref.offset(f / 65536) if of_logits else 0 for f in factors])
    scales = np.ones_like(offsets) if of_logits else np.array(factors)
    places = [m.placement("a") for m in inputs.members]
    return volume_argmax.contest(inputs, "a", places, inputs.fusion.upsample, scales, offsets, least)


def check(inputs: Inputs, factors: list[int], least: int = 0) -> volume_argmax.Looked | None:
    """Compare runs and slices with the oracle; None where there is no fast way."""
    own, parts = laid(inputs, factors, least), []
    if own is None:
        return None
    runs, looked = volume_argmax.winners(own, lambda first, labels: parts.append((first, labels)))
    wanted = oracle.label(inputs, factors, least)
    found = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    assert [first for first, _ in parts] == np.cumsum([0, *(len(labels) for _, labels in parts[:-1])]).tolist()
    np.testing.assert_array_equal(np.where(found == 255, -1, found), wanted)
    masks = runs.masks(wanted.shape)
    for c, mask in enumerate(masks):
        starts, ends = ref.encode(wanted == c)
        np.testing.assert_array_equal(mask.starts, starts)
        np.testing.assert_array_equal(mask.ends, ends)
    return looked


def smooth(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Logits (C, d, h, w) with regions and boundaries."""
    coarse = rng.normal(size=(shape[0], *(n // 4 + 2 for n in shape[1:]))) * scale
    for axis, n in enumerate(shape[1:], 1):
        at = np.linspace(0, coarse.shape[axis] - 1.001, n)
        f = (at % 1).reshape([-1 if k == axis else 1 for k in range(4)])
        coarse = (1 - f) * coarse.take(at.astype(int), axis) + f * coarse.take(at.astype(int) + 1, axis)
    return coarse.astype(np.float16)


def drawn_box(draw: st.DrawFn, grid: tuple[int, ...]) -> tuple[int, ...] | None:
    if draw(st.booleans()):
        return None
    starts = [draw(st.integers(0, n - 1)) for n in grid]
    return (*starts, *(draw(st.integers(a + 1, n)) for a, n in zip(starts, grid, strict=True)))


@st.composite
def drawn_inputs(draw: st.DrawFn, grids: int) -> Inputs:
    """Members on up to so many grids."""
    upsample, mean = draw(st.sampled_from(FUSIONS if grids == 1 else FUSIONS[:2]))
    C, M = draw(st.sampled_from([1, 2, 3, 7, 16, 19])), draw(st.integers(min(grids, 2), 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [tuple(draw(st.integers(1, most)) for most in (4, 6, 60)) for _ in range(grids)]
    kinds = st.lists(st.sampled_from(["linear", "nearest"]), min_size=3, max_size=3)
    axes = [draw(st.one_of(st.none(), st.just(("nearest", "linear", "linear")), kinds)) for _ in shapes]
    boxes = [drawn_box(draw, shape) for shape in shapes]
    d, h, w = Placement.of(shapes[0], (1, 1, 1), boxes[0]).box.shape
    image = draw(
        st.sampled_from([(d, h, w), (2 * d, 2 * h, 2 * w), (7, h, 3 * w), (3 * d, 5, w), (1, 1, 90), (9, 7, 5)])
    )
    scale, alike, seed = draw(st.sampled_from([1e-3, 0.3, 6.0, 60.0])), draw(st.booleans()), int(rng.integers(2**32))
    noise, hostile = draw(st.sampled_from([0, 1e-3, 0.3])), draw(st.sampled_from([0, 0, 0.02, 0.5]))
    logits, places = [], []
    for m in range(M):
        k = draw(st.integers(0, grids - 1))
        z = smooth(np.random.default_rng(seed if alike else seed + m), (C, *shapes[k]), scale)
        z = (z + noise * rng.normal(size=z.shape)).astype(np.float16)
        bad = rng.random(z.shape) < hostile
        z[bad] = rng.choice(HOSTILE, int(bad.sum()))
        if draw(st.integers(0, 9)) == 0:
            z[:] = z[:1]  # equal logits
        logits.append(np.clip(z, -65504, 65504) if upsample == "scores" else z)
        places.append(Placement.of(shapes[k], image, boxes[k], axes=axes[k]))
    weights: Any = [1, *draw(st.lists(st.integers(0, 4), min_size=M - 1, max_size=M - 1))]
    if draw(st.booleans()):
        weights = np.maximum(rng.integers(0, 4, (C, M)), np.eye(1, M, dtype=int)).tolist()
    temperatures = [draw(st.sampled_from([1.0, 0.3, 2.5])) for _ in range(M)]
    orders = [rng.permutation(C) for _ in range(M)]
    return oracle.inputs_of(logits, places, upsample, mean, weights, temperatures, orders)


@pytest.mark.slow
@pytest.mark.parametrize("grids", [1, 2, 3], ids=["one grid", "two grids", "three grids"])
@given(data=st.data())
def test_labels_are_the_oracles(grids: int, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(grids))
    C = len(inputs.classes)
    some = st.sampled_from([65536, 65536, 512, 40000, 70000, 8388608])
    factors = data.draw(st.one_of(st.just([65536] * C), st.lists(some, min_size=C, max_size=C)))
    least = data.draw(st.sampled_from([0, 0, 1, 20000, 32768, 60000, 65535, 65536]))
    looked = check(inputs, factors, least)
    assert looked is not None or least == 65536 or factors != [65536] * C


CASES: dict[str, tuple[float, tuple[int, ...], tuple[int, ...], Any]] = {
    "voxels between cells": (6.0, (4, 6, 40), (9, 15, 100), None),
    "image as the grid": (6.0, (5, 9, 40), (5, 9, 40), None),
    "z nearest": (6.0, (4, 6, 40), (13, 12, 80), ("nearest", "linear", "linear")),
    "one slice": (6.0, (1, 6, 40), (1, 12, 80), None),
    "one slice, many of the image": (6.0, (1, 6, 40), (7, 12, 80), None),
    "narrow": (6.0, (4, 6, 5), (9, 12, 10), None),
    "far larger image": (6.0, (2, 3, 33), (10, 15, 165), None),
    "logits nearly equal": (1e-3, (3, 6, 40), (7, 12, 80), None),
}


@pytest.mark.parametrize("fusion", FUSIONS, ids=[f"{u} {m}" for u, m in FUSIONS])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases(case: Any, fusion: tuple[str, str], rng: np.random.Generator) -> None:
    scale, grid, image, axes = case
    for M in (1, 3):
        logits, place = [smooth(rng, (5, *grid), scale) for _ in range(M)], Placement.of(grid, image, axes=axes)
        inputs = oracle.inputs_of(logits, [place] * M, *fusion)
        for factors in ([65536] * 5, [65536, 40000, 70000, 65536, 98304]):
            assert check(inputs, factors) is not None


@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_members_of_several_grids(mean: str, rng: np.random.Generator) -> None:
    image, grids = (10, 16, 90), [(5, 8, 40), (3, 4, 20), (5, 8, 40), (10, 16, 90)]
    nearest = [None, ("nearest", "linear", "linear")] * 2
    places = [Placement.of(grid, image, axes=axes) for grid, axes in zip(grids, nearest, strict=True)]
    for scale in (1e-3, 6.0):
        logits = [smooth(np.random.default_rng(1), (5, *grid), scale) for grid in grids]
        inputs = oracle.inputs_of(logits, places, mean=mean, weights=[1, 2, 3, 4])
        assert check(inputs, [65536] * 5) is not None
        assert check(inputs, [65536, 40000, 70000, 65536, 98304], 30000) is not None


def test_nothing_is_looked_at_where_members_agree() -> None:
    """Two members that are sure; of equal logits every voxel takes integers, but of slices that repeat others."""
    place, z = Placement.of((3, 8, 40), (9, 16, 80)), np.zeros((3, 3, 8, 40), np.float16)
    z[1] = 9
    assert check(oracle.inputs_of([z, z], [place] * 2), [65536] * 3) == (0, 0)
    looked = check(oracle.inputs_of([0 * z, 0 * z], [place] * 2), [65536] * 3)
    assert looked is not None
    assert looked.exact == 7 * 16 * 80  # the first two slices are one, and the last two


def test_slices_one_by_one_or_all_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many slices of the image are decided together changes nothing."""
    grid, image = (7, 6, 40), (30, 12, 80)
    logits = [volumes.logits_of(grid, 6, m) for m in range(3)]
    inputs = oracle.inputs_of(logits, [Placement.of(grid, image)] * 3)
    for together in (1, 1 << 12, 1 << 30):
        monkeypatch.setattr(volume_argmax, "TOGETHER", together)
        assert check(inputs, [65536] * 6) is not None


@pytest.mark.parametrize("kind", ["organs", "rough", "noise"])
def test_generated_volumes(kind: Any) -> None:
    logits = [volumes.logits_of((10, 20, 40), 15, m, kind=kind) for m in range(5)]
    inputs = oracle.inputs_of(logits, [Placement.of((10, 20, 40), (15, 40, 80))] * 5)
    looked = check(inputs, [65536] * 15)
    assert looked is not None
    assert looked.exact < 100


@pytest.mark.slow
def test_slices_that_are_entered_some_rows_at_a_time(rng: np.random.Generator) -> None:
    """Of a grid of 64 cells a row 64 rows are entered at a time; another has rows that no flock ends with."""
    shapes, image = [(2, 140, 40), (3, 90, 64)], (4, 200, 70)
    logits = [smooth(rng, (3, *shape), 3.0) for shape in shapes]
    inputs = oracle.inputs_of(logits, [Placement.of(shape, image) for shape in shapes])
    looked = check(inputs, [65536] * 3)
    assert looked is not None and looked.strips > 0


def test_what_has_no_fast_way(rng: np.random.Generator) -> None:
    grid, image = (3, 6, 40), (5, 12, 80)
    logits, place = [smooth(rng, (3, *grid), 6.0)] * 2, Placement.of(grid, image)
    window = Placement.of(grid, image, window=(0, 0, 0, 5, 12, 40))
    half = Placement.of((3, 3, 20), image)
    for inputs in (
        oracle.inputs_of(logits, [place] * 2, mean="power:0.5"),
        oracle.inputs_of(logits, [place, window]),
        oracle.inputs_of([logits[0], logits[0][:, :, ::2, ::2]], [place, half], "scores"),
        oracle.inputs_of(logits, [place] * 2, activation="sigmoid"),
    ):
        assert laid(inputs, [65536] * 3, 0) is None


def test_volumes_that_all_saw_whole_are_decided_so(rng: np.random.Generator) -> None:
    """By `open_sample`, and inside a window that all saw; it gives the runs of the exact engine."""
    grid, image, window = (3, 8, 40), (9, 20, 100), (2, 1, 5, 8, 17, 85)
    logits = [smooth(rng, (4, *grid), 6.0) for _ in range(2)]
    for activation in ("softmax", "sigmoid"):
        for place in (Placement.of(grid, image), Placement.of(grid, image, window=window)):
            inputs = oracle.inputs_of(logits, [place] * 2, activation=activation)
            fast, exact = open_sample(inputs, "a"), FusedSample(inputs, "a")
            assert isinstance(fast._inside if place.window else fast, VolumeSample)  # type: ignore[attr-defined]
            for found, wanted in (
                (fast.winners([65536] * 4), exact.winners([65536] * 4)),
                (fast.decide({2: 30000, 0: 20000}), exact.decide({2: 30000, 0: 20000})),
            ):
                for a, b in zip(found, wanted, strict=True):
                    np.testing.assert_array_equal(a, b)
