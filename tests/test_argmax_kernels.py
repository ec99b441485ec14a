"""The fast way of argmax, of members on one grid or several, against the oracle: the same label at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import argmax as kernels
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores import argmax, layouts
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
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
    weights: Any = None, temperatures: Any = None, boxes: Any = None, orders: Any = None,
) -> Inputs:  # fmt: skip
    """Members of these logits; `weights` are one for each member, or (C, M)."""
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
        for k, (z, own, box) in enumerate(zip(logits, orders, boxes or [None] * M, strict=True))
    )
    names = tuple(m.member for m in members)
    by_class = np.broadcast_to(np.array(weights or [1] * M), (len(classes), M)).tolist()
    rows = tuple(integer_weights(row, names) for row in by_class)
    fusion = Fusion(Mean.of(mean), upsample, names, rows, tuple(temperatures or [1.0] * M))
    return Inputs(members, classes, fusion)


def check(inputs: Inputs, factors: list[int], least: int = 0) -> None:
    values, C = oracle(inputs), len(inputs.classes)
    label = oracle_label(inputs, values, factors, least)
    decided = open_sample(inputs, "a").winners(factors, least or None).masks(label.shape)
    assert decided == [ek.encode(label == c) for c in range(C)]


def hostile_logits(draw: st.DrawFn, rng: np.random.Generator, base: np.ndarray, upsample: str) -> np.ndarray:
    z = (base + draw(st.sampled_from([0, 1e-3, 0.3])) * rng.normal(size=base.shape)).astype(np.float16)
    hostile = rng.random(z.shape) < draw(st.sampled_from([0, 0, 0.02, 0.5]))
    z[hostile] = rng.choice(HOSTILE, int(hostile.sum()))
    if draw(st.integers(0, 9)) == 0:
        z[:] = z[:1]  # equal logits
    if upsample == "scores":  # stores hold no infinities of a softmax
        z = np.clip(z, -65504, 65504)
    return z


def drawn_box(draw: st.DrawFn, grid: tuple[int, int]) -> tuple[int, ...] | None:
    if draw(st.booleans()):
        return None
    starts = [draw(st.integers(0, n - 1)) for n in grid]
    y1, x1 = (draw(st.integers(start + 1, n)) for start, n in zip(starts, grid, strict=True))
    return (*starts, y1, x1)


@st.composite
def drawn_inputs(draw: st.DrawFn, grids: int) -> Inputs:
    """Members on up to so many grids."""
    upsample, mean = draw(st.sampled_from(FUSIONS if grids == 1 else FUSIONS[:2]))
    C, M = draw(st.sampled_from([1, 2, 3, 7, 16, 19, 33])), draw(st.integers(min(grids, 2), 4))
    shapes = [(draw(st.integers(1, 7)), draw(st.integers(1, 80))) for _ in range(grids)]
    own = [(shape, drawn_box(draw, shape)) for shape in shapes]
    of = [draw(st.integers(0, grids - 1)) for _ in range(M)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    (h, w), box = own[0]
    h, w = (h, w) if box is None else (box[2] - box[0], box[3] - box[1])
    image = draw(st.sampled_from([(h, w), (2 * h, 2 * w), (4 * h, 4 * w), (1, 3 * w), (3 * h, 7), (5, 5), (17, 131)]))
    scale, alike = draw(st.sampled_from([1e-3, 0.3, 6.0, 60.0])), draw(st.booleans())
    seed = int(rng.integers(2**32))
    logits = []
    for m in range(M):
        drawn = np.random.default_rng(seed if alike else seed + m)
        base = smooth_logits(drawn, (C, *own[of[m]][0]), scale)
        logits.append(hostile_logits(draw, rng, base, upsample))
    orders = [rng.permutation(C) for _ in range(M)]
    weights: Any = [1, *draw(st.lists(st.integers(0, 4), min_size=M - 1, max_size=M - 1))]
    if draw(st.booleans()):
        by_class = rng.integers(0, 4, (C, M))
        by_class[by_class.max(axis=1) == 0] = 1
        weights = by_class.tolist()
    temperatures = [draw(st.sampled_from([1.0, 0.3, 2.5])) for _ in range(M)]
    return inputs_of(logits, image, upsample, mean, weights, temperatures, [own[k][1] for k in of], orders)


@pytest.mark.slow
@pytest.mark.parametrize("grids", [1, 2, 3], ids=["one grid", "two grids", "three grids"])
@given(data=st.data())
def test_labels_are_the_oracles(grids: int, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(grids))
    C = len(inputs.classes)
    some = st.sampled_from([65536, 65536, 512, 40000, 70000, 8388608])
    factors = data.draw(st.one_of(st.just([65536] * C), st.lists(some, min_size=C, max_size=C)))
    least = data.draw(st.sampled_from([0, 0, 1, 20000, 32768, 60000, 65535, 65536]))
    if least < 65536 and factors == [65536] * C:
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


GRIDS: dict[str, tuple[list[tuple[int, int]], tuple[int, int]]] = {
    "a half and a quarter": ([(24, 64), (12, 32), (24, 64)], (48, 128)),
    "as wide as the image, and narrow": ([(40, 60), (10, 15)], (40, 60)),
    "of no common factor": ([(13, 37), (9, 41), (11, 23)], (50, 200)),
    "one cell": ([(1, 1), (6, 40)], (12, 90)),
    "larger than the image": ([(40, 90), (20, 45)], (10, 22)),
    "one row": ([(1, 64), (3, 33)], (1, 400)),
}


@pytest.mark.parametrize("mean", ["probability", "logit"])
@pytest.mark.parametrize("case", GRIDS.values(), ids=GRIDS)
def test_members_of_several_grids(case: Any, mean: str, rng: np.random.Generator) -> None:
    grids, image = case
    for scale in (1e-3, 6.0):
        logits = [smooth_logits(np.random.default_rng(1), (5, *grid), scale) for grid in grids]
        for weights in (None, rng.integers(0, 3, (5, len(grids))) + 1):
            inputs = inputs_of(logits, image, mean=mean, weights=None if weights is None else weights.tolist())
            assert laid(inputs, [65536] * 5, 0) is not None
            check(inputs, [65536] * 5)
            check(inputs, [65536, 40000, 70000, 65536, 98304], 30000)


def test_the_kernel_counts_what_it_looks_at_and_what_takes_integers(rng: np.random.Generator) -> None:
    """Where two members agree and are sure nothing is looked at; of equal logits everything takes integers."""
    z = np.zeros((3, 8, 40), np.float16)
    z[1] = 9
    for grid in ((8, 40), (4, 20)):
        small = np.ascontiguousarray(z[:, : grid[0], : grid[1]])
        for logits, strips, pixels in (([z, small], 0, 0), ([0 * z, 0 * small], None, 32 * 160)):
            own = laid(inputs_of(logits, (32, 160)), [65536] * 3, 0)
            assert own is not None
            starts, ends, _, undecided, exact = kernels.decide(own.contest, own.exactly, own.grids)
            every = (own.grids.row_at.size - 1) * (own.grids.col_at.size - 1)
            assert undecided == (every if strips is None else strips)
            assert exact == pixels
            assert (ends - starts).sum() == 32 * 160


def test_strips_and_bands_lie_between_the_cells_of_every_box() -> None:
    grids = layouts.grids(((5, 40), (3, 7)), (11, 90))
    for g, (h, w) in enumerate(((5, 40), (3, 7))):
        rows, cols = ref.axis(h, 11), ref.axis(w, 90)
        bands = np.repeat(np.arange(grids.row_at.size - 1), np.diff(grids.row_at))
        assert [r for r, _ in rows] == grids.upper[g][bands].tolist()
        assert all(f == 0 or grids.lower[g][b] == r + 1 for (r, f), b in zip(rows, bands, strict=True))
        assert [c for c, _ in cols] == grids.cols[g][grids.strip_of].tolist() == grids.left[g, :90].tolist()
        assert [f for _, f in cols] == grids.fractions[g, :90].tolist()


def test_what_has_no_fast_way_is_decided_all_the_same(rng: np.random.Generator) -> None:
    logits, image = [smooth_logits(rng, (3, 6, 40)) for _ in range(2)], (18, 120)
    powered = inputs_of(logits, image, mean="power:0.5")
    coarse = inputs_of([logits[0], logits[1][:, :3, :20]], image, "scores")
    for inputs in (powered, coarse):
        assert laid(inputs, [65536] * 3, 0) is None
        check(inputs, [65536] * 3)
