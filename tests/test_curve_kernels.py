"""Sums by segment, and what was found best of them, against plain NumPy."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kit.kernels import counts, reference_curves
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.curve import Curve


@given(hnp.arrays(np.uint16, st.integers(0, 50)))
def test_levels_that_occur_are_marked(levels: np.ndarray) -> None:
    seen = np.zeros(65536, np.bool_)
    counts.mark_levels(levels, seen)
    assert np.array_equal(np.flatnonzero(seen), np.unique(levels))


@given(st.data())
def test_means_of_folds_are_the_oracles(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    folds, n = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 9))
    top = rng.random((folds, n))
    foot = rng.integers(0, 3, (folds, data.draw(st.sampled_from([1, n]))))
    which = data.draw(st.lists(st.integers(0, folds - 1), unique=True, min_size=1).map(sorted))
    out = np.empty(n)
    counts.mean_of_folds(np.array(which), top, foot, out)
    assert np.array_equal(out, reference_curves.mean_of_folds(which, top, foot))


@given(st.data())
def test_segments_are_added_where_they_lie(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    columns = np.unique(rng.integers(0, 40, data.draw(st.integers(1, 12))))
    first = data.draw(st.integers(0, int(columns[-1])))
    out = rng.random(data.draw(st.integers(0, int(columns[-1]) + 1 - first)))
    values = rng.random(columns.size)
    wanted = out + reference_curves.spread(values, columns, first, out.size)
    counts.add_segments(values, columns, first, out)
    assert np.array_equal(out, wanted)


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0])))
def test_groups_near_the_largest_are_the_oracles(values: np.ndarray) -> None:
    firsts, lasts = (np.empty(values.size, np.int64) for _ in range(2))
    found = counts.near_groups(values, 0.08, firsts, lasts)
    own = list(zip(firsts[:found].tolist(), lasts[:found].tolist(), strict=True))
    assert own == reference_curves.near_groups(values, 0.08)


def test_what_was_found_of_a_class_belongs_to_its_counts_alone() -> None:
    """A table with other counts is solved anew, and a curve of other folds or another measure is another."""
    levels, pred = np.array([10, 20, 10, 20], np.uint16), np.array([9, 3, 9, 4], np.uint32)
    tp, none = np.array([3, 3, 4, 4], np.uint32), np.zeros(2, np.int64)
    table = ClassStatistics(0, 30, np.array([0, 2, 4]), levels, pred, tp, none, none, np.array([3, 4]))
    two, both = [np.array([0]), np.array([1])], [np.array([0, 1])]
    curve = Curve(table, Measure(), two)
    assert curve.best((0,)).score == 1.0
    assert Curve(table, Measure(), two).best((0,)) is curve.best((0,))
    assert Curve(table, Measure("pooled"), two).best((0,)) is not curve.best((0,))
    other = replace(table, tp=np.array([0, 0, 4, 4], np.uint32))
    assert Curve(other, Measure(), two).best((0,)).score == 0.0
    assert Curve(other, Measure(), both).best().score == 0.5
    curve.release()
    assert curve.nbytes == 0
    assert curve.scores((0, 1))[10] == np.mean([2 * 3 / 12, 2 * 4 / 13])
    assert curve.nbytes > 0
