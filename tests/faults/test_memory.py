"""`--memory`: refused before any work by a projection that lies above the peak that is measured, and not far above."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import harness as h
import numpy as np
import peaks
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.execution.events import Progress
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.recipes.tuning_memory import room_for_factors, room_for_thresholds
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning import counting
from ensemble_kit.tuning.exact import tune_from
from trying import ensk

PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.stderr.write(done.stderr)
"""
COMMANDS = {
    "vote": ["vote", "a.zarr", "b.zarr", "--out", "o.csv"],
    "vote, softmax": ["vote", "s.zarr", "--out", "o.csv"],
    "hard vote": ["vote", "a.zarr", "b.zarr", "val.csv", "--out", "o.csv"],
    "tune": ["tune-thresholds", "a.zarr", "--val", "val.csv", "--folds", "3", "--out", "t.json"],
    "tune, calibration": [
        "tune-thresholds",
        "a.zarr",
        "--val",
        "val.csv",
        "--folds",
        "0",
        "--calibration",
        "--out",
        "c.json",
    ],
    "score": ["score", "val.csv", "--val", "val.npz"],
    "convert": ["convert", "val.npz", "--out", "o.csv"],
    "pack": ["convert", "a.zarr", "--out", "a.zip"],
    "inspect masks": ["inspect", "val.npz"],
    "inspect": ["inspect", "a.zarr"],
    "verify": ["verify", "a.zarr"],
    "repair": ["repair", "a.zarr"],
    "fuse": ["fuse", "a.zarr", "b.zarr", "--out", "f.zarr"],
    "fuse, uncertainty": ["fuse", "a.zarr", "b.zarr", "--uncertainty", "--out", "u.zarr"],
    "review": ["review", "a.zarr", "b.zarr", "--out", "r.csv"],
    "report": ["report", "a.zarr", "b.zarr", "--val", "val.csv", "--out", "r.html"],
    "report, a part": ["report", "a.zarr", "b.zarr", "--val", "val.csv", "--part", "2/2", "--out", "p.html"],
    "merge, a page": ["merge", "m.html", "--out", "m.html"],
    "fuse, npz": ["fuse", "a.zarr", "b.zarr", "--format", "npz", "--out", "f"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores whose masks have very many runs, so that what grows with samples shows."""
    folder, rng = tmp_path_factory.mktemp("memory"), np.random.default_rng(3)
    classes, samples, grid = tuple(f"c{k}" for k in range(6)), [f"s{k}" for k in range(5)], (256, 256)
    for name, activation in (("a", "sigmoid"), ("b", "sigmoid"), ("s", "softmax")):
        with ek.LogitWriter(folder / f"{name}.zarr", classes, samples, grid, activation) as out:
            for s in samples:
                noise = rng.normal(size=(6, *grid)) if activation == "sigmoid" else 0
                out.write(s, (smooth_logits(rng, (6, *grid), 2) - 2 + noise).astype(np.float16), (1024, 1024))
    masks = ek.Ensemble([folder / "a.zarr"]).vote(0.5)
    masks.write(folder / "val.npz")
    masks.write(folder / "val.csv", format="handbone")
    ek.Ensemble([folder / "s.zarr"]).vote().write(folder / "one.npz")
    stores = (folder / "a.zarr", folder / "b.zarr")
    for k in (1, 2):
        ensk("report", *stores, "--val", folder / "val.npz", "--part", f"{k}/2", "--out", folder / "m.html", "-q")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_projection_lies_above_the_peak_and_its_fix_suffices(folder: Path, arguments: list[str]) -> None:
    """As a process of its own: what is refused with 1 KB runs with what the refusal says, within that."""
    out = folder / arguments[-1]
    if arguments[-2] == "--out":
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    done = h.spawn(*arguments, "--memory", "1KB", cwd=folder)
    h.judge(done, 5, "memory-budget", "--memory allows 1,000 bytes")
    if arguments[-2] == "--out":
        assert not out.exists()
    told = re.search(r"pass --memory (\d+)MB or more", done.stderr)
    assert told is not None or "pass several times that" in done.stderr  # the rest is projected when masks are read
    allowed = int(told[1]) if told is not None else 1500
    command = [*h.COMMAND, *arguments, "--memory", f"{allowed}MB"]
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *command], capture_output=True, text=True, cwd=folder, timeout=120
    )
    code, peak = ran.stdout.split()
    assert code == "0", ran.stderr
    assert int(peak) < allowed * 1e6
    assert told is None or int(peak) * 4 > allowed * 1e6


def test_counts_of_all_classes_are_refused_beyond_a_budget(folder: Path) -> None:
    ens, truth = ek.Ensemble([folder / "a.zarr"]), ek.read_masks(folder / "val.npz")
    assert room_for_thresholds(1 << 40, ens, truth, None, 1, Measure()).classes is None
    with pytest.raises(ek.ResourceError, match="MB are needed"):
        room_for_thresholds(1000, ens, truth, None, 1, Measure())


def test_a_tuning_gives_back_the_sums_of_every_class(folder: Path) -> None:
    """What the calibration of pooled pixels needs, too: of 3,000 classes it was a gigabyte."""
    ens, truth = ek.Ensemble([folder / "a.zarr"]), ek.read_masks(folder / "val.npz")
    split, _ = counting.folds_of(ens.samples, 3, None, 0)
    found = counting.gather(ens, truth, [Measure()], split, counting.unions_of(split))
    tune_from(found, ens, Measure(), folds=3)
    kept = [own for table in found.tables for own in table.solved.values()]
    assert len(kept) >= 2 * len(ens.classes)
    assert all(own.sums is None for own in kept)


def test_sums_by_level_are_projected_as_they_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few classes at a time: 300 classes with five folds were taken for 3.5 GB, and took 0.3."""
    monkeypatch.setattr(memory, "used", lambda: 100_000_000)
    names, ids, rng = tuple(f"c{k}" for k in range(300)), [f"s{k}" for k in range(10)], np.random.default_rng(0)
    with ek.LogitWriter(tmp_path / "many.zarr", names, ids, (16, 16), "sigmoid") as out:
        for s in ids:
            out.write(s, smooth_logits(rng, (300, 16, 16), 2).astype(np.float16), (32, 32))
    ens = ek.Ensemble([tmp_path / "many.zarr"])
    truth = ens.vote(0.4)
    room_for_thresholds(600_000_000, ens, truth, 5, 2, Measure())
    found = counting.gather(ens, truth, [Measure()], [np.arange(10)], [[0]])
    tables = sum(array.nbytes for table in found.tables for array in (table.levels, table.pred, table.tp))
    alone, searched = (least_budget(ens, truth, searches) for searches in (False, True))
    assert searched - alone > 2.5 * tables  # a search holds the counts of two more fusions, and of a fold


def least_budget(ens: ek.Ensemble, truth: ek.MaskSet, searches: bool) -> int:
    """Find the least budget that is not refused."""

    def fits(budget: int) -> bool:
        try:
            room_for_thresholds(budget, ens, truth, 5, 2, Measure(), searches=searches)
        except ek.ResourceError:
            return False
        return True

    budgets = range(0, 4 * 10**9, 10**6)
    return budgets[bisect_left(budgets, True, key=fits)]


@pytest.mark.slow
def test_rules_tuned_in_blocks_of_classes_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of competing classes each ratio is counted, and its tables are held: a pass counts some of them."""
    held = memory.used()
    monkeypatch.setattr(memory, "used", lambda: held)  # what other tests held may be freed meanwhile
    ens, truth = ek.Ensemble([folder / "a.zarr"]), ek.read_masks(folder / "val.npz")
    tuning = Tuning(ens, Measure(), folds=3, rules=parse_rules(["compete:0.8"]))
    whole = tuning.run(truth, jobs=1).set

    def classes(budget: int) -> int:
        try:
            return room_for_thresholds(budget, ens, truth, 3, 1, Measure(), ratios=1).classes or 6
        except ek.ResourceError:
            return 0

    budgets = range(0, 4 * 10**9, 10**5)  # fine beside the tables, which are a few megabytes
    room = (budgets[bisect_left(budgets, 1, key=classes)] + budgets[bisect_left(budgets, 6, key=classes)]) // 2
    seen = Counter[str]()

    def hear(progress: Progress) -> None:
        seen[progress.verb] += progress.done == 0

    blocked = tuning.run(truth, jobs=1, budget=room, listener=hear)
    assert 3 <= seen["counting"] < 7  # once without the rule
    assert blocked.set.to_dict() == whole.to_dict()


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Stores, masks and arrays of 200 samples, and of 4,000."""
    folders = {samples: tmp_path_factory.mktemp(str(samples)) for samples in (200, 4000)}
    for samples, folder in folders.items():
        peaks.data(folder, samples, arrays=True)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vote", "vote, softmax, .npz", "dump-logits, arrays"])
def test_a_command_stays_within_its_projection_and_is_flat_in_samples(name: str, few_and_many: dict[int, Path]) -> None:
    """Masks of 3,800 samples more would take 20 MB; what is known of a sample and member takes 1.5 KB."""
    found = [peaks.measure(folder, name, samples) for samples, folder in few_and_many.items()]
    assert all(peak.held for peak in found), found
    assert found[1].measured - found[0].measured < 16e6, found


def test_factors_are_refused_beyond_a_budget(folder: Path) -> None:
    ens, truth = ek.Ensemble([folder / "s.zarr"]), ek.read_masks(folder / "one.npz")
    assert room_for_factors(1 << 40, ens, truth, 3, 1) == (None, None)
    with pytest.raises(ek.ResourceError, match="MB are needed"):
        room_for_factors(memory.LOADED, ens, truth, 3, 1)


@pytest.mark.slow
def test_a_vote_that_is_killed_while_it_writes_leaves_the_old_file(folder: Path, tmp_path: Path) -> None:
    """The first rows lie beside the output already; whoever writes there next takes them away."""
    peaks.store(tmp_path / "a.zarr", 8000, "sigmoid", 0)
    out = tmp_path / "o.csv"
    out.write_text("old")
    command = [*h.COMMAND, "vote", "a.zarr", "--out", "o.csv", "--force", "--jobs", "1", "-q"]
    voting = subprocess.Popen(command, cwd=tmp_path)
    until = time.monotonic() + 100
    while not any(p.stat().st_size for p in tmp_path.glob("o.csv.tmp-*")) and time.monotonic() < until:
        assert voting.poll() is None
        time.sleep(0.01)
    voting.kill()
    assert voting.wait() == -9
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.glob("o.csv.tmp-*")]
    ek.read_masks(folder / "one.npz").write(out)
    assert not list(tmp_path.glob("o.csv.tmp-*"))
