"""Overlapping classes of volumes, slab by slab, against the oracle: the same mask, run by run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import generated_volumes as volumes
import volume_oracle as oracle
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores import volume_thresholds
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.geometry import Placement
from test_exclusive import HOSTILE
from test_volume_argmax import drawn_box, smooth

FUSIONS = [("logits", "probability"), ("logits", "logit"), ("scores", "probability"), ("logits", "power:0.5")]


def check(inputs: Inputs, levels: list[int]) -> None:
    laid = volume_thresholds.lay(inputs, "a", [m.placement("a") for m in inputs.members], inputs.fusion.upsample)
    assert laid is not None
    found = volume_thresholds.decide(laid, dict(enumerate(levels)))
    for c, mask in enumerate(oracle.decided(inputs, levels)):
        starts, ends = ref.encode(mask)
        np.testing.assert_array_equal(found.mask(c, mask.shape).starts, starts)
        np.testing.assert_array_equal(found.mask(c, mask.shape).ends, ends)


@st.composite
def drawn_inputs(draw: st.DrawFn) -> Inputs:
    upsample, mean = draw(st.sampled_from(FUSIONS))
    C, M = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    grid = tuple(draw(st.integers(1, most)) for most in (4, 6, 70))
    box = drawn_box(draw, grid)
    d, h, w = Placement.of(grid, (1, 1, 1), box).box.shape
    image = draw(st.sampled_from([(d, h, w), (2 * d, 2 * h, 2 * w), (7, h, 2 * w), (3 * d, 5, w + 3), (2, 3, 2 * w)]))
    axes = draw(st.sampled_from([None, ("nearest", "linear", "linear"), ("linear", "nearest", "nearest")]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale, hostile = draw(st.sampled_from([0.3, 6.0])), draw(st.sampled_from([0, 0.02, 0.5]))
    logits, seed, alike = [], int(rng.integers(2**32)), draw(st.booleans())
    for m in range(M):
        z = smooth(np.random.default_rng(seed if alike else seed + m), (C, *grid), scale)
        bad = rng.random(z.shape) < hostile
        z[bad] = rng.choice(HOSTILE, int(bad.sum()))
        logits.append(z)
    place = Placement.of(grid, image, box, axes=axes)
    weights = [1, *draw(st.lists(st.integers(0, 4), min_size=M - 1, max_size=M - 1))]
    temperatures = [draw(st.sampled_from([1.0, 2.5])) for _ in range(M)]
    orders = [rng.permutation(C) for _ in range(M)]
    return oracle.inputs_of(logits, [place] * M, upsample, mean, weights, temperatures, orders, "sigmoid")


@pytest.mark.slow
@given(inputs=drawn_inputs(), data=st.data())
def test_masks_are_the_oracles(inputs: Inputs, data: st.DataObject) -> None:
    level = st.sampled_from([0, 1, 6000, 20000, 32768, 60000, 65535, 65536])
    check(inputs, data.draw(st.lists(level, min_size=len(inputs.classes), max_size=len(inputs.classes))))


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Any]] = {
    "voxels between cells": ((5, 20, 70), (9, 33, 150), None),
    "image as the grid": ((5, 20, 70), (5, 20, 70), None),
    "z nearest": ((4, 20, 70), (13, 40, 140), ("nearest", "linear", "linear")),
    "one slice": ((1, 20, 70), (3, 40, 140), None),
    "fewer slices than the grid": ((9, 20, 70), (4, 12, 140), None),
}


@pytest.mark.parametrize("fusion", FUSIONS, ids=[f"{u} {m}" for u, m in FUSIONS])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases(case: Any, fusion: tuple[str, str]) -> None:
    grid, image, axes = case
    for M in (1, 3):
        logits = [volumes.logits_of(grid, 3, m, background=False) for m in range(M)]
        places = [Placement.of(grid, image, axes=axes)] * M
        check(oracle.inputs_of(logits, places, *fusion, activation="sigmoid"), [32768, 20000, 60000])


def test_what_has_no_fast_way(rng: np.random.Generator) -> None:
    grid, image = (3, 6, 40), (5, 12, 80)
    logits, place = [smooth(rng, (3, *grid), 6.0)] * 2, Placement.of(grid, image)
    window = Placement.of(grid, image, window=(0, 0, 0, 5, 12, 40))
    for given_, places, activation in (
        (logits, [place] * 2, "softmax"),
        (logits, [place, window], "sigmoid"),
        ([logits[0], logits[0][:, :, ::2, ::2]], [place, Placement.of((3, 3, 20), image)], "sigmoid"),
        (logits, [Placement.of(grid, (5, 12, 20))] * 2, "sigmoid"),
    ):
        inputs = oracle.inputs_of(list(given_), places, activation=activation)
        assert volume_thresholds.lay(inputs, "a", places, "logits") is None
