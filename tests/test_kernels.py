"""Every kernel against its plain NumPy oracle, bit for bit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ensemble_kit.kernels import counts, fuse, reference, runs, tables

ALL_FP16 = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
FINITE = ~np.isnan(ALL_FP16)

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 23), st.integers(1, 37)))
pairs = st.tuples(st.integers(1, 13), st.integers(1, 17)).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)


def encoded(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return runs.encode_bytes(np.ascontiguousarray(mask).reshape(-1).view(np.uint8))


def same(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


@pytest.mark.parametrize("temperature", [1.0, 0.37, 2.5, 100.0])
def test_tables_state_the_arithmetic(temperature: float) -> None:
    assert np.array_equal(tables.fp16_levels(temperature)[FINITE], reference.level(ALL_FP16[FINITE], temperature))
    assert np.array_equal(tables.fp16_q(temperature)[FINITE], reference.q(ALL_FP16[FINITE], temperature))


def test_table_of_q_and_its_order() -> None:
    assert np.array_equal(tables.q_levels(), reference.level_of_q(np.arange(65536, dtype=np.uint16)))
    in_order = tables.fp16_codes_in_order().view(np.float16)
    kept = in_order[~np.isnan(in_order)].astype(np.float64)
    assert np.all(np.diff(kept) >= 0)
    assert np.all(np.diff(tables.q_levels().astype(int)) >= 0)


def test_known_levels() -> None:
    z = np.array([0, -0.0, np.inf, -np.inf, 8.5], np.float16)
    assert reference.level(z).tolist() == [32768, 32768, 65535, 0, 65522]
    assert reference.q(z).tolist() == [32768, 32768, 65535, 0, 50175]


@given(st.integers(1, 40), st.integers(1, 90))
def test_axis(n_in: int, n_out: int) -> None:
    i, f = tables.axis(n_in, n_out)
    assert list(zip(i.tolist(), f.tolist(), strict=True)) == reference.axis(n_in, n_out)


@given(masks)
def test_encode(mask: np.ndarray) -> None:
    assert same(encoded(mask), reference.encode(mask))


@given(pairs)
def test_combine_and_overlap(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    for table, wanted in ((8, a & b), (14, a | b), (6, a ^ b), (2, a & ~b)):
        assert same(runs.combine(*encoded(a), *encoded(b), table), reference.encode(wanted))
    assert runs.overlap(*encoded(a), *encoded(b)) == (a & b).sum()


@given(masks)
def test_transpose(mask: np.ndarray) -> None:
    assert same(runs.transpose(*encoded(mask), *mask.shape), reference.encode(np.ascontiguousarray(mask.T)))


@given(masks, st.sampled_from([0, 1]), st.booleans())
def test_text_both_ways(mask: np.ndarray, base: int, relative: bool) -> None:
    written = runs.format_text(*encoded(mask), base, relative)
    assert written.tobytes().decode() == reference.text(mask, "C", base, relative)
    starts, ends, fault, _ = runs.parse_text(written, mask.size, base, relative)
    assert fault == runs.OK
    assert same((starts, ends), encoded(mask))


@given(st.data())
def test_weighted_vote(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
    members = data.draw(st.lists(hnp.arrays(np.bool_, shape), min_size=1, max_size=6))
    weights = data.draw(st.lists(st.integers(0, 5), min_size=len(members), max_size=len(members)))
    need = data.draw(st.integers(1, max(1, sum(weights))))
    parts = [encoded(m) for m in members]
    voted = runs.weighted_vote(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.cumsum([0, *(p[0].size for p in parts)]),
        np.array(weights, np.int64),
        need,
    )
    assert same(voted, reference.encode(reference.weighted_vote(members, weights, need)))


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.integers(1, 40), st.integers(1, 40))
def test_resample(grid: np.ndarray, height: int, width: int) -> None:
    (rows, fy), (cols, fx) = tables.axis(grid.shape[0], height), tables.axis(grid.shape[1], width)
    out = np.empty((height, width), np.uint16)
    fuse.resample(grid, rows, fy, grid.shape[0] - 1, cols, fx, grid.shape[1] - 1, out)
    assert np.array_equal(out, reference.rounded(reference.interpolate(grid, (height, width))))


@given(
    hnp.arrays(
        np.float16, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.floats(-65504, 65504, width=16)
    ),
    st.sampled_from([1.0, 0.5, 3.0]),
)
def test_softmax_levels(z: np.ndarray, temperature: float) -> None:
    out = np.empty(z.shape, np.uint16)
    fuse.softmax_levels(z.astype(np.float32), temperature, out)
    assert np.array_equal(out, reference.softmax_level(z, temperature))


@given(st.data())
def test_scores_and_counts_at_every_level(data: st.DataObject) -> None:
    levels = data.draw(hnp.arrays(np.uint16, st.tuples(st.just(6), st.just(7)), elements=st.integers(0, 40)))
    truth = data.draw(hnp.arrays(np.bool_, (6, 7)))
    low, high = data.draw(st.sampled_from([(0, 41), (5, 30), (0, 12)]))
    eps, empty, skip = data.draw(st.sampled_from([(0.0, 1.0, False), (1e-4, 0.0, False), (0.0, 0.0, True)]))
    own = np.unique(levels[(levels >= low) & (levels < high)])
    pred = np.array([(levels >= level).sum() for level in own], np.int64)
    tp = np.array([truth[levels >= level].sum() for level in own], np.int64)
    above, above_tp = int((levels >= high).sum()), int(truth[levels >= high].sum())
    total, counted = np.zeros(high - low + 1), np.zeros(high - low + 1, np.int64)
    counts.add_scores(
        own, pred, tp, above, above_tp, int(truth.sum()), low, high, 2.0, 1.0, 0.0, eps, empty, skip, total, counted
    )
    sums = np.zeros((2, high - low + 1), np.int64)
    counts.add_counts(own, pred, tp, above, above_tp, low, high, sums[0], sums[1])
    at = np.zeros((2, 1), np.int64)
    one = np.array([above]), np.array([above_tp])
    for level in range(low, high + 1):
        mask = levels >= level
        nothing = not mask.any() and not truth.any()
        assert counted[level - low] == (0 if nothing and skip else 1)
        assert total[level - low] == (0 if nothing and skip else reference.dice(mask, truth, eps, empty))
        assert sums[:, level - low].tolist() == [mask.sum(), (mask & truth).sum()]
        counts.counts_at(level, np.array([0, own.size]), own, pred, tp, *one, at[0], at[1])
        assert at[:, 0].tolist() == [(mask & truth).sum(), mask.sum()]


def test_every_kernel_stands_behind_the_fence() -> None:
    for module in (runs, fuse, counts, tables, reference):
        source = inspect.getsource(module)
        imported = {
            line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
        }
        assert imported <= {"numpy", "numba", "functools", "ensemble_kit"}, module.__name__
        assert "fastmath" not in source
        assert "parallel" not in source
