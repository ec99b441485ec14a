"""Counts of samples, gathered some at a time, against those gathered all at once."""

from __future__ import annotations

import resource
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.spec.scoring import Measure, Objective
from ensemble_kit.tuning import class_statistics, counting, gathered_counts
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.gathered_counts import GatheredCounts
from ensemble_kit.tuning.statistics import Statistics


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
    rng, before = np.random.default_rng(seed), gathered_counts.AT_ONCE
    gathered_counts.AT_ONCE = at_once
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
        gathered_counts.AT_ONCE = before


def test_counts_in_a_file_are_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [row(rng, 3) for _ in range(40)]
    monkeypatch.setattr(gathered_counts, "AT_ONCE", 200)
    monkeypatch.setattr(gathered_counts, "HELD", 400)
    gathered = gather(rows)
    for k, counts in enumerate(plain(rows)):
        found, mapped = gathered.placed(k)
        assert mapped is not None
        for _ in range(2):
            for mine, theirs in zip(found, counts, strict=True):
                assert np.array_equal(mine, theirs)
            mapped.release()  # it is read again


@pytest.mark.parametrize("room", [0, 20, 6000, 40000, 55000, 61440], ids=str)
def test_without_room_for_a_file_counts_stay_in_memory(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning, or as of the class or the sample that finds none."""
    rng = np.random.default_rng(1)
    rows = [row(rng, 3) for _ in range(400)]
    monkeypatch.setattr(gathered_counts, "AT_ONCE", 200)
    monkeypatch.setattr(gathered_counts, "HELD", 400)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # beyond it the system takes no byte
        gathered = gather(rows)
        found = [gathered.placed(k) for k in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for (mine, mapped), theirs in zip(found, plain(rows), strict=True):
        assert (mapped is not None) == (room == 61440)
        assert all(map(np.array_equal, mine, theirs))


def test_counts_of_a_very_large_image_among_others_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pixels are of another type."""
    rng = np.random.default_rng(2)
    rows = [row(rng, 3) for _ in range(40)]
    rows[20] = rows[20]._replace(pred=rows[20].pred.astype(np.int64) + (1 << 40), tp=rows[20].tp.astype(np.int64))
    monkeypatch.setattr(gathered_counts, "AT_ONCE", 200)
    monkeypatch.setattr(gathered_counts, "HELD", 400)
    gathered = gather(rows)
    for k, counts in enumerate(plain(rows)):
        found, mapped = gathered.placed(k)
        assert mapped is None
        assert found.pred.dtype == np.int64
        assert all(map(np.array_equal, found, counts))


def gather(rows: list[LevelCounts]) -> GatheredCounts:
    """Gather them, in a file where there are many."""
    gathered = GatheredCounts(3, lambda: 4 * len(rows))
    for own in rows:
        gathered.add(own)
    return gathered


def plain(rows: list[LevelCounts]) -> list[LevelCounts]:
    """Gather them in memory."""
    gathered = GatheredCounts(3)
    for own in rows:
        gathered.add(own)
    return [gathered.take(k) for k in range(3)]


@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_a_set_tuned_from_counts_in_a_file_is_the_same(
    objective: Objective, make_store: Callable[..., ek.LogitStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few samples of it are looked at at a time."""
    rng, image = np.random.default_rng(0), (30, 40)
    logits = {f"s{k}": smooth_logits(rng, (2, 12, 15), 3).astype(np.float16) for k in range(12)}
    ens = ek.Ensemble([make_store(logits, image, ("x", "y"))])
    truth = ek.MaskSet({(s, c): ek.encode(rng.random(image) < 0.3) for s in ens.samples for c in ens.classes})
    measure, split = Measure(objective), counting.folds_of(ens.samples, 3, None, 0)[0]

    def counted() -> Statistics:
        return counting.gather(ens, truth, [measure], split, counting.unions_of(split))

    whole = counted()
    monkeypatch.setattr(gathered_counts, "AT_ONCE", 10_000)
    monkeypatch.setattr(gathered_counts, "HELD", 20_000)
    monkeypatch.setattr(class_statistics, "LOOKED_AT", 20_000)
    filed = counted()
    assert [table.mapped is None for table in filed.tables] == [False, False]
    assert len(list(filed.tables[0].in_turn(split[0]))) > 1
    one, other = (tune_from(found, ens, measure, folds=3).to_dict() for found in (whole, filed))
    assert one == other
