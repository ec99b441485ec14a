"""The fast way of argmax, on grids wide enough for it, against the oracle: the same label at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores import argmax
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean
from test_exclusive import HOSTILE, Drawn, oracle, oracle_label

NAMES = tuple(f"c{k:02}" for k in range(40))
FUSIONS = [("logits", "probability"), ("logits", "logit"), ("scores", "probability"), ("scores", "logit")]


def laid(inputs: Inputs, factors: list[int], least: int) -> argmax.Laid | None:
    scales, of_logits = np.array(factors), inputs.fusion.mean.of_logits
    offsets = np.array([ref.offset(f / 65536) if of_logits else 0 for f in factors])
    given = np.ones_like(scales) if of_logits else scales
    return argmax.contest(
        inputs, "a", [m.placement("a") for m in inputs.members], inputs.fusion.upsample, given, offsets, least
    )


def inputs_of(
    logits: list[np.ndarray], image: tuple[int, int], upsample: Any = "logits", mean: str = "probability",
    weights: Any = None, temperatures: Any = None, box: Any = None, orders: Any = None,
) -> Inputs:  # fmt: skip
    classes, M = NAMES[: logits[0].shape[0]], len(logits)
    orders = [np.arange(len(classes))] * M if orders is None else orders
    members = tuple(
        Drawn(
            f"m{k}",
            tuple(classes[c] for c in own),
            "softmax",
            np.ascontiguousarray(z),
            Placement.of(z.shape[1:], image, box),
        )
        for k, (z, own) in enumerate(zip(logits, orders, strict=True))
    )
    names = tuple(m.member for m in members)
    row = integer_weights(weights or [1] * M, names)
    fusion = Fusion(Mean.of(mean), upsample, names, (row,) * len(classes), tuple(temperatures or [1.0] * M))
    return Inputs(members, classes, fusion)


def check(inputs: Inputs, factors: list[int], least: int = 0) -> None:
    values, C = oracle(inputs), len(inputs.classes)
    label = oracle_label(inputs, values, factors, least)
    decided = FusedSample(inputs, "a").winners(factors, least or None).masks(label.shape)
    assert decided == [ek.encode(label == c) for c in range(C)]


@st.composite
def wide(draw: st.DrawFn) -> Inputs:
    upsample, mean = draw(st.sampled_from(FUSIONS))
    C, M = draw(st.sampled_from([1, 2, 3, 7, 16, 19, 33])), draw(st.integers(1, 4))
    grid = draw(st.integers(1, 7)), draw(st.integers(32, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    box = None
    if draw(st.booleans()):
        y, x = int(rng.integers(0, grid[0])), int(rng.integers(0, grid[1] - 31))
        box = (y, x, int(rng.integers(y + 1, grid[0] + 1)), int(rng.integers(x + 32, grid[1] + 1)))
    h, w = grid if box is None else (box[2] - box[0], box[3] - box[1])
    image = draw(st.sampled_from([(h, w), (2 * h, 2 * w), (4 * h, 4 * w), (1, 3 * w), (3 * h, 7), (5, 5), (17, 131)]))
    scale = draw(st.sampled_from([1e-3, 0.3, 6.0, 60.0]))
    alike, noise = draw(st.booleans()), draw(st.sampled_from([0, 1e-3, 0.3]))
    base = smooth_logits(rng, (C, *grid), scale)
    logits = []
    for _ in range(M):
        z = base if alike else smooth_logits(rng, (C, *grid), scale)
        z = (z + noise * rng.normal(size=z.shape)).astype(np.float16)
        hostile = rng.random(z.shape) < draw(st.sampled_from([0, 0, 0.02, 0.5]))
        z[hostile] = rng.choice(HOSTILE, int(hostile.sum()))
        if draw(st.integers(0, 9)) == 0:
            z[:] = z[:1]  # equal logits
        if upsample == "scores":  # stores hold no infinities of a softmax
            z = np.clip(z, -65504, 65504)
        logits.append(z)
    orders = [rng.permutation(C) for _ in range(M)]
    weights = [1, *draw(st.lists(st.integers(0, 4), min_size=M - 1, max_size=M - 1))]
    temperatures = [draw(st.sampled_from([1.0, 0.3, 2.5])) for _ in range(M)]
    return inputs_of(logits, image, upsample, mean, weights, temperatures, box, orders)


@pytest.mark.slow
@given(wide(), st.data())
def test_labels_are_the_oracles(inputs: Inputs, data: st.DataObject) -> None:
    C = len(inputs.classes)
    some = st.sampled_from([65536, 65536, 512, 40000, 70000, 8388608])
    factors = data.draw(st.one_of(st.just([65536] * C), st.lists(some, min_size=C, max_size=C)))
    least = data.draw(st.sampled_from([0, 0, 1, 20000, 32768, 60000, 65535, 65536]))
    fast = least == 0 or (not inputs.fusion.mean.of_logits and least < 65536)
    if fast and factors == [65536] * C:
        assert laid(inputs, factors, least) is not None
    check(inputs, factors, least)


CASES: dict[str, tuple[float, tuple[int, int], tuple[int, int]]] = {
    "pixels between cells": (6.0, (12, 70), (50, 280)),
    "image as the grid": (6.0, (20, 70), (20, 70)),
    "far larger image": (6.0, (3, 33), (90, 990)),
    "one row": (6.0, (1, 64), (1, 400)),
    "logits nearly equal": (1e-3, (8, 40), (32, 160)),
}


@pytest.mark.parametrize("fusion", FUSIONS, ids=[f"{u} {m}" for u, m in FUSIONS])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases(case: Any, fusion: tuple[str, str], rng: np.random.Generator) -> None:
    scale, grid, image = case
    for M in (1, 3):
        inputs = inputs_of([smooth_logits(rng, (5, *grid), scale) for _ in range(M)], image, *fusion)
        assert laid(inputs, [65536] * 5, 0) is not None
        check(inputs, [65536] * 5)
        check(inputs, [65536, 40000, 70000, 65536, 98304])


def test_a_third_class_wins_between_two_that_are_far_apart() -> None:
    """Neither corner shows it: there the third lies 3, 6 or 10 logits below the largest."""
    for depth in (3, 6, 10):
        z = np.zeros((4, 6, 40), np.float16)
        z[0, :, 1::2], z[1, :, 0::2] = -3 * depth, -3 * depth
        z[2:] = -depth
        for M in (1, 2):
            for fusion in FUSIONS:
                inputs = inputs_of([z] * M, (24, 160), *fusion)
                check(inputs, [65536] * 4)
        label = oracle_label(inputs_of([z], (24, 160)), oracle(inputs_of([z], (24, 160))), [65536] * 4, 0)
        assert 2 in label


def test_what_has_no_fast_way_is_decided_all_the_same(rng: np.random.Generator) -> None:
    logits, image = [smooth_logits(rng, (3, 6, 40)) for _ in range(2)], (18, 120)
    narrow = inputs_of([z[:, :, :31] for z in logits], image)
    powered = inputs_of(logits, image, mean="power:0.5")
    for inputs in (narrow, powered):
        assert laid(inputs, [65536] * 3, 0) is None
        check(inputs, [65536] * 3)
    both = inputs_of(logits, image, mean="logit")
    assert laid(both, [65536] * 3, 40000) is None
    check(both, [65536] * 3, 40000)
