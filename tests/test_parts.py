"""`--part i/n` and `auto`: shares of the samples, and what says which is whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution.parts import Part, joined
from trying import ensk, refused


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_all_and_disjoint(items: int, parts: int) -> None:
    shares = [Part(k, parts).share(range(items)) for k in range(1, parts + 1)]
    assert sorted(x for share in shares for x in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert joined(shares) == list(range(items))


ENVIRONMENTS: dict[str, tuple[dict[str, int], str]] = {
    "a Slurm array from 1": (
        {"SLURM_ARRAY_TASK_ID": 3, "SLURM_ARRAY_TASK_COUNT": 4, "SLURM_ARRAY_TASK_MIN": 1},
        "3/4",
    ),
    "one from 0": ({"SLURM_ARRAY_TASK_ID": 0, "SLURM_ARRAY_TASK_COUNT": 4, "SLURM_ARRAY_TASK_MIN": 0}, "1/4"),
    "one in steps": (
        {
            "SLURM_ARRAY_TASK_ID": 9,
            "SLURM_ARRAY_TASK_COUNT": 3,
            "SLURM_ARRAY_TASK_MIN": 5,
            "SLURM_ARRAY_TASK_STEP": 2,
        },
        "3/3",
    ),
    "one whose tasks are one process each": (
        {
            "SLURM_ARRAY_TASK_ID": 2,
            "SLURM_ARRAY_TASK_COUNT": 2,
            "SLURM_ARRAY_TASK_MIN": 1,
            "SLURM_PROCID": 0,
            "SLURM_NTASKS": 1,
        },
        "2/2",
    ),
    "srun": ({"SLURM_PROCID": 1, "SLURM_NTASKS": 3}, "2/3"),
    "torchrun": ({"RANK": 0, "WORLD_SIZE": 2}, "1/2"),
    "Open MPI": ({"OMPI_COMM_WORLD_RANK": 4, "OMPI_COMM_WORLD_SIZE": 5}, "5/5"),
    "torchrun in one task of Slurm": ({"RANK": 1, "WORLD_SIZE": 2, "SLURM_PROCID": 0, "SLURM_NTASKS": 1}, "2/2"),
    "two that agree": ({"RANK": 1, "WORLD_SIZE": 2, "SLURM_PROCID": 1, "SLURM_NTASKS": 2}, "2/2"),
    "one process": ({"RANK": 0, "WORLD_SIZE": 1}, "1/1"),
}


@pytest.mark.parametrize(("environment", "told"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_auto_reads_what_started_the_process(environment: dict[str, int], told: str) -> None:
    assert str(Part.parse("auto", {k: str(v) for k, v in environment.items()})) == told


UNKNOWN: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "no SLURM_ARRAY_TASK_ID"),
    "two that differ": (
        {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        r"SLURM_PROCID=1 \(2/2\) and RANK=0 \(1/2\)",
    ),
    "an array of several processes a task": (
        {
            "SLURM_ARRAY_TASK_ID": "1",
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_ARRAY_TASK_MIN": "1",
            "SLURM_PROCID": "1",
            "SLURM_NTASKS": "2",
        },
        "disagree",
    ),
    "text": ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one'"),
    "half of an array": ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is not set"),
    "a task that the array has not": (
        {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"},
        "task 7 of an array of 2 from 1",
    ),
}


@pytest.mark.parametrize(("environment", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_auto_cannot_tell_is_refused(environment: dict[str, str], told: str) -> None:
    with pytest.raises(ek.UsageError, match=told) as caught:
        Part.parse("auto", environment)
    assert caught.value.code == "part-unknown"
    assert "--part" in caught.value.fix


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1 / 2"])
def test_no_part(text: str) -> None:
    with pytest.raises(ek.UsageError, match="--part"):
        Part.parse(text, {})


@pytest.mark.parametrize("kind", ["store", "npz"])
def test_parts_of_a_fusion_are_the_whole(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """Every order of them, one of them twice, and into a folder that another process has just begun."""
    ids = [f"s{k}" for k in range(7)]
    stores = [tmp_path / f"m{k}.zarr" for k in range(2)]
    for path in stores:
        write_store(path, {s: smooth_logits(rng, (2, 8, 8)) for s in ids}, (16, 16), ("a", "b"))

    def fuse(out: str, *options: str) -> None:
        ensk("fuse", *stores, "--out", tmp_path / out, "--format", kind, *options)

    def values(out: str) -> list[bytes]:
        if kind == "store":
            return [ek.LogitStore(tmp_path / out).read(s).tobytes() for s in ids]
        return [p.read_bytes() for p in sorted((tmp_path / out).iterdir())]

    fuse("whole")
    if kind == "store":
        fuse("parts", "--part", "3/3")
        with refused(ek.IncompleteError, "store-incomplete", "5 of 7 samples are missing", "run the same `ensk fuse"):
            ensk("verify", tmp_path / "parts")
    for part in ("3/3", "1/3", "1/3", "2/3"):
        fuse("parts", "--part", part)
    assert values("parts") == values("whole")
    with pytest.raises(ek.UsageError, match="without --force"):
        fuse("parts", "--part", "1/3", "--force")
    with refused(ek.UsageError, "part-empty", "--part 8/9", "7 samples"):
        fuse("more", "--part", "8/9")
    assert not (tmp_path / "more").exists()
