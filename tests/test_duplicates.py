"""`duplicates="first"`: what any process has committed is kept, and skipped; behind folders and URLs."""

from __future__ import annotations

import multiprocessing as mp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import LockedError, MismatchError, UsageError
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.spec.affine import Geometry

IDS = [f"img_{k}.png" for k in range(6)]


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(6, 2, 4, 5)).astype(np.float16)


def writer(path: object, **options: Any) -> LogitWriter:
    return LogitWriter(path, ["a", "b"], IDS, (4, 5), duplicates="first", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_what_is_there_is_skipped_and_counted(tmp_path: Path, place: str) -> None:
    path = f"memory://duplicates/{tmp_path.name}.zarr" if place == "memory" else tmp_path / "m.zarr"
    with writer(path) as out:
        out.write(IDS[:4], values(0)[:4], (8, 10))
        out.write([IDS[4], IDS[0], IDS[1]], values(1)[[4, 0, 1]], (8, 10))
        assert out.skipped == 2
    with writer(path) as out:  # another run: what the former one wrote stays
        out.write(IDS[0], values(0)[0], (8, 10))  # equal bytes count, too
        out.write([IDS[5], IDS[5], IDS[4]], values(2)[[5, 0, 4]], (8, 10))
        assert (out.skipped, out.missing) == (3, [])
    store = LogitStore(path)
    wanted = [*values(0)[:4], values(1)[4], values(2)[5]]
    assert all(np.array_equal(store.read(s), v) for s, v in zip(IDS, wanted, strict=True))
    assert store.verify().sound


def test_slabs_are_not_taken_of_what_is_there(tmp_path: Path) -> None:
    with LogitWriter(tmp_path / "m.zarr", ["a"], ["v"], duplicates="first") as out:
        out.write_slabs("v", [np.full((1, 2, 3, 4), -2.0), np.full((1, 1, 3, 4), 3.0)], (3, 3, 4), (6, 6, 8))
        out.write_slabs("v", iter(lambda: pytest.fail("a slab was taken"), None), (3, 3, 4), (6, 6, 8))
        assert out.skipped == 1
        out.write("v", np.full((1, 3, 3, 4), -5.0), (6, 6, 8), again=True)
    assert LogitStore(tmp_path / "m.zarr").read("v").max() == -5


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_copy_of_another_image_is_refused(tmp_path: Path, place: str) -> None:
    path = f"memory://copies/{tmp_path.name}.zarr" if place == "memory" else tmp_path / "m.zarr"
    with LogitWriter(path, ["a"], IDS, duplicates="first") as out:
        out.write(IDS[0], -np.ones((1, 4, 5)), (8, 10))
        for shape, place_, told in (
            ((4, 5), {"image_size": (9, 9)}, ["an image of 8 x 10", "an image of 9 x 9"]),
            ((5, 4), {"image_size": (8, 10)}, ["a grid of 4 x 5", "a grid of 5 x 4"]),
            ((4, 5), {"image_size": (8, 10), "box": (0, 0, 4, 4)}, ["box (0, 0, 4, 5)", "box (0, 0, 4, 4)"]),
            ((4, 5), {"image_size": (8, 10), "window": (1, 0, 8, 10)}, ["window None", "window (1, 0, 8, 10)"]),
        ):
            with pytest.raises(MismatchError) as caught:
                out.write(IDS[0], -np.ones((1, *shape)), **place_)
            assert caught.value.code == "duplicate-differs"
            assert all(words in str(caught.value) for words in (*told, repr(IDS[0])))
        assert (out.skipped, out.differing) == (0, [])
        out.write(IDS[0], -np.ones((1, 4, 5)), (8, 10))
        assert out.skipped == 1
    geometry = [Geometry.of(np.diag([1.0, 1, z, 1]), "RAS") for z in (2, 3)]
    with LogitWriter(tmp_path / "v.zarr", ["a"], ["v"], duplicates="first") as out:
        out.write("v", -np.ones((1, 3, 4, 5)), (3, 4, 5), geometry=geometry[0])
        with pytest.raises(MismatchError, match="of another image"):
            out.write("v", -np.ones((1, 3, 4, 5)), (3, 4, 5), geometry=geometry[1])
        out.write("v", -np.ones((1, 3, 4, 5)), (3, 4, 5), geometry=geometry[0])
        assert out.skipped == 1


def test_other_logits_are_named_and_rounding_is_not(tmp_path: Path) -> None:
    """The same network on another batch differs by rounding, in bf16 too; two images of one id differ by far more."""
    rng = np.random.default_rng(3)
    logits = np.stack([np.abs(np.linspace(-2, 2, 20 * 30)).reshape(20, 30) * 3 - 4 + 2 * k for k in range(2)])
    logits = (logits + rng.normal(0, 1, logits.shape)).astype(np.float32)
    bf16 = (logits.view(np.uint32) & 0xFFFF0000).view(np.float32)
    with LogitWriter(tmp_path / "m.zarr", ["a", "b"], ["x"], (20, 30), duplicates="first") as out:
        out.write("x", logits, (40, 60))
        for copy in (logits, bf16, logits + rng.normal(0, 0.02, logits.shape)):
            out.write("x", copy, (40, 60))
        assert (out.skipped, out.differing) == (3, [])
        out.write("x", logits[:, ::-1], (40, 60))
        assert (out.skipped, out.differing) == (4, ["x"])
    store = LogitStore(tmp_path / "m.zarr")
    assert np.array_equal(store.read("x"), logits.astype(np.float16))


def test_a_lost_file_is_no_duplicate(tmp_path: Path) -> None:
    with writer(tmp_path / "m.zarr") as out:
        out.write(IDS, values(0), (8, 10))
    (tmp_path / "m.zarr/logits/c.3.0.0.0").unlink()
    with writer(tmp_path / "m.zarr") as out:
        out.write(IDS, values(1), (8, 10))
        assert (out.skipped, out.missing) == (5, [])
    assert np.array_equal(LogitStore(tmp_path / "m.zarr").read(IDS[3]), values(1)[3])


def test_other_words_and_a_doubled_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'refuse' or 'first'"):
        LogitWriter(tmp_path / "m.zarr", ["a"], IDS, (4, 5), duplicates="last")  # type: ignore[arg-type]
    with writer(tmp_path / "m.zarr") as out, pytest.raises(UsageError, match="twice in one batch"):
        out.write([IDS[0], IDS[0]], values(0)[:2], (8, 10), again=True)
    with LogitWriter(tmp_path / "n.zarr", ["a", "b"], IDS, (4, 5)) as out:
        out.write(IDS[0], values(0)[0], (8, 10))
        with pytest.raises(LockedError):
            out.write(IDS[0], values(1)[0], (8, 10))
        assert out.skipped == 0


def share(path: str, seed: int, results: Any) -> None:
    """Write all samples, whoever else does too; say how many were skipped."""
    with writer(path) as out:
        for k, name in enumerate(IDS):
            out.write(name, values(seed)[k], (8, 10))
        results.put(out.skipped)


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False], ids=["equal bytes", "other bytes"])
def test_a_race_is_counted_not_raised(tmp_path: Path, same: bool) -> None:
    spawn = mp.get_context("spawn")
    results = spawn.Queue()
    ranks = [spawn.Process(target=share, args=(str(tmp_path / "m.zarr"), 0 if same else k, results)) for k in range(3)]
    [p.start() for p in ranks]
    skipped = [results.get(timeout=60) for _ in ranks]
    [p.join(60) for p in ranks]
    assert [p.exitcode for p in ranks] == [0] * 3
    assert sum(skipped) == 2 * len(IDS)  # of three writers of each sample, two came later
    store = LogitStore(tmp_path / "m.zarr")
    assert store.complete and store.verify().sound


def test_a_race_in_one_process(tmp_path: Path) -> None:
    """Another writer commits while a sample is encoded: what was looked up before says nothing then."""
    with writer(tmp_path / "m.zarr") as one, writer(tmp_path / "m.zarr") as other:

        class Late:
            """An array that another writer is faster with."""

            shape = (2, 4, 5)

            def __array__(self, *_: object, **__: object) -> np.ndarray:
                return values(1)[0]

        look = one.sink.committed

        def late(sample: str) -> Record | None:
            one.sink.committed = look  # type: ignore[method-assign]
            there = look(sample)
            other.write(sample, values(0)[0], (8, 10))
            return there

        one.sink.committed = late  # type: ignore[method-assign]
        one.write(IDS[0], Late(), (8, 10))
        assert (one.skipped, other.skipped) == (1, 0)
    assert np.array_equal(LogitStore(tmp_path / "m.zarr").read(IDS[0]), values(0)[0])
