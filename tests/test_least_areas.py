"""The best threshold and least area of a class together, against every pair of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kit.kernels import least_areas, lost_pixels, reference_areas, runs
from ensemble_kit.kernels.arguments import Score
from ensemble_kit.spec.scoring import Convention, Measure, overlap
from ensemble_kit.tuning.areas import AreaCurve
from ensemble_kit.tuning.class_statistics import ClassStatistics

EMPTY = (1, 0, "skip")


def random_table(rng: np.random.Generator, samples: int, void: bool) -> least_areas.AreaTable:
    """Counts of a few samples at a few levels, some without truth, some without a pixel, some with void pixels."""
    rows, offsets = [], [0]
    above = rng.integers(0, 4, samples) * (rng.random(samples) < 0.4)
    above_tp = np.array([rng.integers(0, a + 1) for a in above], np.int64)
    above_void = rng.integers(0, 3, samples) * void
    truth = np.where(rng.random(samples) < 0.6, rng.integers(1, 40, samples), 0).astype(np.int64)
    for s in range(samples):
        n = int(rng.integers(0, 9))
        levels = np.sort(rng.choice(np.arange(100, 130), n, replace=False))
        more, hits, void_more = rng.integers(0, 6, n), rng.integers(0, 2, n), rng.integers(0, 3, n) * void
        hits = np.minimum(hits, more) if truth[s] else np.zeros(n, np.int64)
        if not truth[s]:
            above_tp[s] = 0
        pred = above[s] + more[::-1].cumsum()[::-1]
        tp = above_tp[s] + hits[::-1].cumsum()[::-1]
        area = pred + above_void[s] + void_more[::-1].cumsum()[::-1]
        truth[s] = max(truth[s], tp.max(initial=above_tp[s]))
        rows.append((levels, pred, tp, area))
        offsets.append(offsets[-1] + n)
    levels, pred, tp, area = (np.concatenate(v) for v in zip(*rows, strict=True))
    return least_areas.AreaTable(
        np.array(offsets), levels.astype(np.uint16), pred.astype(np.uint32), tp.astype(np.uint32),
        area.astype(np.uint32), above.astype(np.int64), above_tp, (above + above_void).astype(np.int64), truth,
    )  # fmt: skip


def at(table: least_areas.AreaTable, level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, pixels and areas of every sample at a level, int64 (samples,)."""
    out = np.stack([table.above_tp, table.above, table.above_area])
    for s in range(table.truth.size):
        own = slice(table.offsets[s], table.offsets[s + 1])
        k = int(np.searchsorted(table.levels[own], level))
        if k < own.stop - own.start:
            out[:, s] = table.tp[own][k], table.pred[own][k], table.area[own][k]
    return out[0], out[1], out[2]


@given(st.integers(0, 2**32), st.sampled_from(EMPTY), st.sampled_from([0.0, 1e-4, 1.0]), st.booleans(), st.booleans())
def test_the_kernel_is_every_least_area_at_every_level(
    seed: int, empty: Any, eps: float, pooled: bool, void: bool
) -> None:
    rng = np.random.default_rng(seed)
    samples = int(rng.integers(1, 9))
    table = random_table(rng, samples, void)
    use = (rng.random((samples, 3)) < 0.7).astype(np.float64)
    use[:, 0] = 1
    skip = empty == "skip"
    score = Score(2.0, 1.0, 0.0, eps, 0.0 if skip else float(empty), skip)
    units = rng.choice([1.0, 100.0, 400.0], samples)
    sizes = np.append(table.area / np.repeat(units, np.diff(table.offsets)), table.above_area / units)
    most = float(rng.choice([np.inf, sizes.max()]))
    form = np.zeros((3, 2))
    if pooled:
        form[:, 0] = table.truth @ use
        form[:, 1] = form[:, 0] + eps
    ends = np.unique(np.append(table.levels, 130)).astype(np.int64)
    none = np.full(3, -1.0)
    found = least_areas.best_by_level(ends, table, units, most, use, form, none, score, pooled)
    convention = Convention(eps, empty)
    for row, level in enumerate(ends.tolist()):
        tp, pred, area = at(table, level)
        size = area / units
        for j in range(3):
            own = use[:, j] > 0
            if pooled:
                counts = np.stack([tp, pred, table.truth])
                nothing = 1.0 if skip else float(empty)
                best = reference_areas.best_pooled_over_least_areas(counts, size, own, most, eps, nothing)
            else:
                kept, without = (overlap(t, p, table.truth, convention) for t, p in ((tp, pred), (0 * tp, 0 * pred)))
                best = reference_areas.best_over_least_areas(kept, without, size, own, most)
            assert found[j, row] == pytest.approx(best, abs=1e-13)
    floor = rng.uniform(0, 1, 3) * found.max(axis=1)
    again = least_areas.best_by_level(ends, table, units, most, use, form, floor, score, pooled)
    told = (found >= floor[:, None]) | (again >= 0)
    assert np.array_equal(again[told], found[told])


@given(
    st.integers(0, 2**32),
    st.sampled_from(EMPTY),
    st.sampled_from([0.0, 1e-4]),
    st.sampled_from(["mean", "pooled"]),
    st.booleans(),
    st.booleans(),
)
def test_no_level_and_no_least_area_scores_higher(
    seed: int, empty: Any, eps: float, objective: Any, void: bool, varied: bool
) -> None:
    rng = np.random.default_rng(seed)
    samples = int(rng.integers(2, 9))
    t = random_table(rng, samples, void)
    table = ClassStatistics(100, 130, *t[:4], *t[5:7], t.truth, *((t.area, t.above_area) if void else ()))
    folds = [np.arange(0, samples, 2), np.arange(1, samples, 2)]
    images = rng.choice([100, 400] if varied else [400], samples)
    images = np.maximum(images, np.maximum(t.area.max(initial=0), t.above_area.max()))
    measure = Measure(objective, "dice", Convention(eps, empty))
    curve = AreaCurve(table, measure, folds, [[0, 1], [0]], images)
    for which in ([0, 1], [0]):
        own = np.concatenate([folds[k] for k in which])
        found = curve.gated(which)
        value = curve.score(found, which)
        best, without = -1.0, -1.0
        for level in range(100, 130 if t.above.any() else 131):
            tp, pred, area = at(t, level)
            shares = [Fraction(a, i) for a, i in zip(area.tolist(), images.tolist(), strict=True)]
            limits = sorted({shares[s] for s in own} | {Fraction(1) if varied else Fraction(2)})
            for k, limit in enumerate([Fraction(0), *limits]):
                stays = np.array([share >= limit for share in shares])
                score = measure.of_class((tp * stays)[own], (pred * stays)[own], t.truth[own])
                score = 1.0 if np.isnan(score) else score
                best, without = max(best, score), max(without, score) if k == 0 else without
        told = 1.0 if np.isnan(value) else value
        assert told == pytest.approx(best, abs=1e-12)
        assert (found.least is None) == (best <= without + 1e-15)
        tp, pred, area = at(t, found.level)
        stays = area >= found.pixels(images)
        again = measure.of_class((tp * stays)[own], (pred * stays)[own], t.truth[own])
        assert np.array_equal(value, again, equal_nan=True)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_lost_pixels_are_those_below_each_ratio(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, size)) < 0.5
    positions = np.flatnonzero(masks[0])
    own, found = (rng.integers(0, 9, positions.size).astype(np.uint16) for _ in range(2))
    tops = (own + rng.integers(1, 6, positions.size)).astype(np.uint16)
    ratios = np.sort(rng.choice([0, 1, 20000, 32768, 52429, 65536], int(rng.integers(1, 5))))
    high = int(rng.integers(1, 10))
    levels = np.unique(np.append(found[found < high], rng.integers(0, high, 2))).astype(np.uint16)
    edges = [edge for mask in masks[1:] for edge in runs.encode_bytes(mask.view(np.uint8))]
    counted = lost_pixels.lost(positions, found, own, tops, ratios, *edges, levels, high)
    for r, ratio in enumerate(ratios.tolist()):
        for k, level in enumerate([*levels.tolist(), high]):
            wanted = reference_areas.lost(found, own, tops, masks[1:, positions], ratio, level)
            assert np.array_equal(counted[r, :, k], wanted)
