"""Pixels that a class has for certain: decisions are those of every pixel's values, which leads of cells only shorten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.kernels import tables
from ensemble_kit.scores import leads
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.geometry import Placement
from volume_oracle import inputs_of

IMAGE = (5, 14, 33)
WINDOWS = (None, (0, 2, 3, 5, 12, 30), (1, 0, 8, 4, 14, 33))


def regions(rng: np.random.Generator, grid: tuple[int, ...], classes: int, spread: float) -> np.ndarray:
    """Logits of a member that is sure of blocks of cells and less so at their edges."""
    blocks = rng.integers(0, classes, [-(-n // 3) for n in grid])
    labels = blocks
    for axis, n in enumerate(grid):
        labels = labels.repeat(3, axis).take(range(n), axis)
    logits = rng.normal(0, 1, (classes, *grid)) + spread * (np.arange(classes).reshape(-1, 1, 1, 1) == labels)
    return logits.astype(np.float16)


@st.composite
def samples(draw: st.DrawFn) -> Any:
    """An opened sample, and the generator that made it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes, members = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    grids = [tuple(rng.integers((2, 3, 4), (7, 15, 20)).tolist()) for _ in range(members)]
    if draw(st.booleans()):
        grids = [grids[0]] * members
    windows = [draw(st.sampled_from(WINDOWS)) for _ in range(members)]
    axes = draw(st.sampled_from([(), ("nearest", "linear", "linear")]))
    spread = draw(st.sampled_from([1.0, 6.0, 12.0, 30.0]))
    same = regions(np.random.default_rng(7), grids[0], classes, spread)
    logits = [
        same + rng.normal(0, 0.5, same.shape).astype(np.float16) if grid == grids[0] and draw(st.booleans())
        else regions(rng, grid, classes, spread)
        for grid in grids
    ]  # fmt: skip
    places = [Placement.of(g, IMAGE, window=w, axes=axes) for g, w in zip(grids, windows, strict=True)]
    mean = draw(st.sampled_from(["probability", "logit", "power:0.5", "power:0"]))
    weights = draw(st.sampled_from([None, "members", "classes"]))
    given = rng.integers(1, 5, (classes, members) if weights == "classes" else members).tolist() if weights else None
    upsample = draw(st.sampled_from(["logits", "scores"]))
    return FusedSample(inputs_of(logits, places, upsample, mean, given), "a"), rng


def pixels(found: Any, classes: int) -> np.ndarray:
    return np.stack([found.mask(c, IMAGE).decode() for c in range(classes)])


@settings(deadline=None, max_examples=60)
@given(samples(), st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([0.0, 0.3, 0.9]))
def test_winners_are_those_of_every_pixels_values(made: Any, spread: float, least: float) -> None:
    sample, rng = made
    C, fusion = len(sample.inputs.classes), sample.inputs.fusion
    factors = np.floor(65536 * 2 ** rng.uniform(-spread, spread, C) + 0.5).astype(np.int64)
    level = int(65535 * least)
    found = pixels(sample.winners(factors.tolist(), level), C)
    values = sample.values(0, sample.rows).reshape(C, *IMAGE)
    scales, offsets = sample._scales(factors.tolist())
    scores = values * scales.reshape(-1, 1, 1, 1) + offsets.reshape(-1, 1, 1, 1)
    won = scores.argmax(0)
    heard = values.any(0)
    rounded = np.take_along_axis((values + (32768 if sample._scoring.interpolate_members else 0)) >> 16, won[None], 0)[
        0
    ]
    if fusion.mean.of_logits:
        q = (values + 32768) >> 16
        e = tables.exponentials()[q + 65535 - q.max(0)]
        rounded = (131070 * np.take_along_axis(e, won[None], 0)[0] + e.sum(0)) // (2 * e.sum(0))
    on = heard & (rounded >= level)
    assert np.array_equal(found, (np.arange(C).reshape(-1, 1, 1, 1) == won) & on)


@settings(deadline=None, max_examples=60)
@given(samples(), st.booleans())
def test_thresholds_and_claims_are_those_of_every_pixels_values(made: Any, claims: bool) -> None:
    sample, rng = made
    C = len(sample.inputs.classes)
    levels = rng.choice([0, 1, 9000, 32768, 50000, 65000, 65535, 65536], C)
    values = sample.values(0, sample.rows).reshape(C, *IMAGE)
    half = 32768 if sample._scoring.interpolate_members else 0
    reached = (values + half) >> 16 >= levels.reshape(-1, 1, 1, 1)
    if not claims:
        heard = values.any(0) | (levels.reshape(-1, 1, 1, 1) > 0)
        found = pixels(sample.decide(dict(enumerate(levels.tolist()))), C)
        assert np.array_equal(found & heard, reached & heard)
        return
    reached &= values.any(0)  # where no member has a say no class reaches any level
    best = np.where(reached, values, -1).argmax(0)
    wanted = (np.arange(C).reshape(-1, 1, 1, 1) == best) & reached.any(0)
    assert np.array_equal(pixels(sample.claims(levels.tolist()), C), wanted)


@pytest.mark.parametrize("mean", ["probability", "power:0.5"])
def test_where_members_are_sure_nothing_is_evaluated(mean: str) -> None:
    """Bounds are found for members that are sure, and none for overlapping classes."""
    grid, image = (4, 6, 8), (8, 12, 16)
    logits = np.full((3, *grid), -9, np.float16)
    logits[1] = 9
    places = [Placement.of(grid, image)] * 2
    sample = open_sample(inputs_of([logits] * 2, places, "logits", mean), "a")
    first, stop = next(iter(sample._raster.slabs()))
    laid = sample._raster.laid(first, stop)
    leading = laid.leading(sample._bounds_of_leads)
    assert (leading.classes == 1).all() and leading.low[leading.strengths.min()] > 65000
    overlapping = open_sample(inputs_of([logits] * 2, places, "logits", mean, activation="sigmoid"), "a")
    assert overlapping._bounds_of_leads is None


@pytest.mark.parametrize("share", [1, 20000, 32768, 60000, 65535])
def test_a_lead_is_enough_for_a_share(share: int) -> None:
    lead, table = leads.lead_of_share(share, 4), tables.exponentials()
    assert lead is not None
    q = [65535, *[65535 - (lead - 2)] * 3]
    own = (131070 * table[q[0]] + table[q].sum()) // (2 * table[q].sum())
    assert own >= share
