"""Counts of samples, gathered some at a time, against those gathered all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.tuning import gathered_counts
from ensemble_kit.tuning.gathered_counts import GatheredCounts


def row(rng: np.random.Generator, classes: int) -> LevelCounts:
    sizes = rng.integers(0, 4, classes)
    n = int(sizes.sum())
    levels = [np.sort(rng.choice(50, size, replace=False)) for size in sizes.tolist()]
    by_level = (rng.integers(0, 99, n).astype(np.uint32) for _ in range(2))
    above = (rng.integers(0, 9, classes) for _ in range(2))
    return LevelCounts(np.cumsum([0, *sizes]), np.concatenate(levels).astype(np.uint16), *by_level, *above)


@pytest.mark.parametrize("at_once", [0, 100, 10**6], ids=["each sample", "some samples", "all at once"])
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_a_class_has_what_its_samples_have(at_once: int, seed: int, samples: int) -> None:
    rng, before = np.random.default_rng(seed), gathered_counts._AT_ONCE
    gathered_counts._AT_ONCE = at_once
    try:
        rows, gathered = [row(rng, 3) for _ in range(samples)], GatheredCounts(3)
        for own in rows:
            gathered.add(own)
        for k in range(3):
            found = gathered.take(k)
            for s, own in enumerate(rows):
                for mine, theirs in zip(found.of(s), own.of(k), strict=True):
                    assert np.array_equal(mine, theirs)
            assert found.levels.dtype == np.uint16
            assert found.pred.dtype == np.uint32
    finally:
        gathered_counts._AT_ONCE = before
