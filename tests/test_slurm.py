"""The lines that a dry run prints for Slurm: an `sbatch` that runs tasks here checks and runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from conftest import smooth_logits, write_store
from ensemble_kit.cli import slurm
from ensemble_kit.cli.app import _run
from trying import ensk

SBATCH = """#!{python}
import argparse, os, subprocess, sys
p = argparse.ArgumentParser(allow_abbrev=False)
p.add_argument("--parsable", action="store_true")
p.add_argument("--array")
p.add_argument("--cpus-per-task", type=int)
p.add_argument("--dependency")
p.add_argument("--wrap", required=True)
given = p.parse_args()
if given.dependency:
    assert given.dependency == "afterok:4711", given.dependency
first, last = map(int, (given.array or "0-0").split("-"))
tasks = []
for k in range(first, last + 1):
    array = dict(SLURM_ARRAY_TASK_ID=k, SLURM_ARRAY_TASK_COUNT=last - first + 1, SLURM_ARRAY_TASK_MIN=first)
    env = {{**os.environ, **({{n: str(v) for n, v in array.items()}} if given.array else {{}})}}
    tasks.append(subprocess.Popen(["sh", "-c", given.wrap], env=env, stdout=sys.stderr))
codes = [task.wait() for task in tasks]
if given.parsable:
    print(4711)
sys.exit(max(codes))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member whose name a shell would split, its truth, and an `sbatch`."""
    tmp, rng = tmp_path_factory.mktemp("slurm"), np.random.default_rng(0)
    write_store(tmp / "a b.zarr", {f"s{k}": smooth_logits(rng, (2, 8, 8)) for k in range(7)}, (16, 16), ("x", "y"))
    ek.Ensemble(tmp / "a b.zarr").vote(0.4).write(tmp / "val.csv")
    (tmp / "bin").mkdir()
    (tmp / "bin" / "sbatch").write_text(SBATCH.format(python=sys.executable))
    (tmp / "bin" / "sbatch").chmod(0o755)
    return tmp


COMMANDS: dict[str, tuple[list[str], str]] = {
    "vote": (["vote", "a b.zarr", "--out", "OUT/masks.csv"], "masks.csv"),
    "tune-thresholds": (
        ["tune-thresholds", "a b.zarr", "--val", "val.csv", "--folds=3", "--choose", "own", "--out", "OUT/set.json"],
        "set.json",
    ),
    "score": (["score", "val.csv", "--val", "val.csv", "--image-size", "16x16", "--out", "OUT/s.json"], "s.json"),
    "score, and every pair": (
        [
            "score",
            "val.csv",
            "--val",
            "val.csv",
            "--image-size",
            "16x16",
            "--out",
            "OUT/s.json",
            "--by-sample=OUT/s.csv",
        ],
        "s.csv",
    ),
    "what is replaced": (["vote", "a b.zarr", "--force", "--out", "OUT/masks.csv"], "masks.csv"),
    "fuse": (["fuse", "a b.zarr", "--format", "npz", "--out", "OUT/fused"], "fused"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "made"), COMMANDS.values(), ids=COMMANDS)
def test_the_lines_of_a_dry_run_give_the_wholes_bytes(
    folder: Path, tmp_path: Path, words: list[str], made: str
) -> None:
    """As two processes at a time, and what depends on them, by a shell."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()

    def run(where: str, *more: str) -> str:
        command = [w.replace("OUT", str(tmp_path / where)) for w in words]
        process = warm.ensk(*command, *more, cwd=folder)
        assert process.returncode == 0, process.stderr
        return process.stdout

    run("whole")
    if "--force" in words:
        (tmp_path / "parts" / made).write_text("of another run")
    lines = json.loads(run("parts", "--dry-run", "--part", "1/2", "--json"))["sbatch"]
    assert [p.name for p in (tmp_path / "parts").iterdir()] == [made] * ("--force" in words)
    env = {**os.environ, "PATH": os.pathsep.join([str(folder / "bin"), str(warm.commands()), os.environ["PATH"]])}
    ran = subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr

    def content(where: str) -> dict[str, bytes]:
        path = tmp_path / where / made
        return {p.name: p.read_bytes() for p in (path.iterdir() if path.is_dir() else [path])}

    assert content("parts") == content("whole")


def test_what_parts_cannot_count_has_no_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    tune = ["tune-thresholds", "a b.zarr", "--val", "val.csv", "--out", "set.json", "--dry-run"]
    ensk(*tune)
    assert "sbatch" in capsys.readouterr().out
    ensk(*tune, "--search", "least-area")
    assert "sbatch" not in capsys.readouterr().out


WHOLE: dict[str, list[str]] = {
    "to a pipe": ["vote", "a b.zarr", "--out", "-"],
    "to a device": ["vote", "a b.zarr", "--out", "/dev/null"],
    "in place of a store": ["fuse", "a b.zarr", "--out", "fused.zarr", "--force"],
    "counts that are there": ["tune-thresholds", "a b.zarr", "--val", "val.csv", "--statistics", "COUNTS"],
}


@pytest.mark.parametrize("words", WHOLE.values(), ids=WHOLE)
def test_what_tasks_would_refuse_has_no_lines(
    folder: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    counts = tmp_path / "counts.npz"
    if "COUNTS" in words:
        tune = ["tune-thresholds", "a b.zarr", "--val", "val.csv", "--out", str(tmp_path / "set.json")]
        ensk(*tune, "--statistics", counts)
        capsys.readouterr()
    ensk(*[w.replace("COUNTS", str(counts)) for w in words], "--dry-run")
    told = capsys.readouterr().out
    assert "would" in told
    assert "sbatch" not in told


def test_the_counts_of_a_set_without_a_name_need_no_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of sets is made by the command that writes a set."""
    monkeypatch.chdir(tmp_path)
    ensk("tune-thresholds", folder / "a b.zarr", "--val", folder / "val.csv", "--dry-run", "--json")
    count = json.loads(capsys.readouterr().out)["sbatch"][0]
    assert "--statistics a b.json.counts.npz --part" in count.replace("'", "").replace('"', "")


def test_a_dry_run_asks_no_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command of a task is tried where no task runs."""
    monkeypatch.chdir(folder)
    ensk("vote", "a b.zarr", "--out", "masks.csv", "--part", "auto", "--dry-run")
    assert "--array=1-2" in capsys.readouterr().out
    with pytest.raises(ek.UsageError, match="which part this is"):
        ensk("vote", "a b.zarr", "--out", "masks.csv", "--part", "auto")


def test_a_command_is_typed_until_it_ends() -> None:
    """A page that another caller of this process made showed it as the command of that page."""
    assert _run(["explain", "usage"]) == 0
    assert slurm.TYPED.get(()) == ()
