"""The benchmarks run, and what they write is whole; the figures themselves are `make bench`'s business."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
RUN = BENCHMARKS / "run.py"
ROOT = BENCHMARKS.parents[1]
sys.path.append(str(BENCHMARKS))

import commands  # noqa: E402
import guard  # noqa: E402
import tables  # noqa: E402
from compare import report  # noqa: E402 - scripts, not a package
from measure import Bar, Row, interleaved  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("table", "least"), [("exclusive", 20), ("volumes", 12), ("components", 10)])
def test_a_quick_run_of_a_table(table: str, least: int, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"<!-- {table} -->\nstale words\n<!-- /{table} -->\n")
    command = [sys.executable, str(RUN), "--table", table, "--quick", "--ours", "--out", str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--page", str(page)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"benchmarks-{table}.json").read_text())
    assert len(record["rows"]) >= least
    assert page.read_text().count("\n| ") == 1 + len(record["rows"])


def test_the_commands_of_nnunet_are_measured(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("<!-- nnunet -->\nstale words\n<!-- /nnunet -->\n")
    command = [sys.executable, str(BENCHMARKS / "nnunet_commands.py"), "--heads", "3", "--grid", "4", "20", "24"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--page", str(page)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^\| `ensk ([a-z-]+)` \| [0-9.]+ s \| ([0-9]+) MiB \|$", page.read_text(), re.MULTILINE)
    assert [name for name, _ in told] == ["dump-logits", "tune-thresholds", "vote", "score"]
    assert all(20 < int(peak) < 1024 for _, peak in told)


def test_large_jobs_are_measured(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("<!-- large -->\nstale words\n<!-- /large -->\n")
    command = [
        sys.executable,
        str(BENCHMARKS / "large.py"),
        "--quick",
        "--only",
        "samples",
        "plane",
        "files",
        "greedy",
        "--page",
        str(page),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^\| (.+) \| [0-9.]+ s \| [0-9.]+ s \| ([0-9.]+) GB \|", page.read_text(), re.MULTILINE)
    assert len(told) == 16
    assert all(0 < float(peak) < 1.5 for _, peak in told)


def test_a_commands_peak_is_its_own_and_not_that_of_who_started_it(tmp_path: Path) -> None:
    held = bytearray(300 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])  # the pages are there
    small = commands.run(["explain", "usage"], tmp_path)
    assert 10 << 20 < small.peak < len(held)
    assert small.seconds > 0


def test_object_storage_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    page = tmp_path / "scale.md"
    page.write_text("<!-- object storage -->\nstale words\n<!-- /object storage -->\n")
    sizes = ("--samples", "3", "--grid", "32", "--image", "64", "--repeats", "1")
    command = [sys.executable, str(BENCHMARKS / "remote_throughput.py"), *sizes, "--write", str(page)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert page.read_text().count("\n| ") == 1 + 6
    assert "stale words" not in page.read_text()


def test_a_quick_run_writes_everything(tmp_path: Path) -> None:
    page, readme = tmp_path / "performance.md", tmp_path / "README.md"
    for path in (page, readme):
        path.write_text("before\n<!-- bench -->\nstale words\n<!-- /bench -->\nafter\n")
    written = ["--out", str(tmp_path / "docs"), "--page", str(page), "--readme", str(readme)]
    command = [sys.executable, str(RUN), "--quick", "--ours", *written]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "docs" / "benchmarks.json").read_text())
    assert len(record["rows"]) >= 40
    assert all(row["seconds"]["ours"] > 0 for row in record["rows"])
    unread = [row["job"] for row in record["rows"] if not (row["of_read"] and row["gigabytes_per_second"])]
    votes = [f"{turn} `ensk vote` (hard, three CSV files)" for turn in ("first", "second")]
    assert unread == [*votes, "start of `ensk score`", "start of `ensk convert`"]
    assert record["machine"]["packages"]["numba"]
    assert page.read_text().count("\n| ") >= 41
    assert readme.read_text().count("\n| ") >= 2
    for path in (page, readme):
        text = path.read_text()
        assert text.startswith("before\n<!-- bench -->\n")
        assert "| job |" in text
        assert text.endswith("<!-- /bench -->\nafter\n")
        assert "stale words" not in text


def test_the_tables_are_those_of_the_record() -> None:
    """docs/performance.md and README say what docs/benchmarks.json holds: nothing is typed by hand."""
    record = json.loads((ROOT / "docs/benchmarks.json").read_text())
    assert not record["quick"]
    assert tables.full(record) in (ROOT / "docs/performance.md").read_text()
    assert tables.short(record) in (ROOT / "README.md").read_text()
    assert tables.short(record).count("\n") == 2 + len(tables.SHORT)
    exclusive = json.loads((ROOT / "docs/benchmarks-exclusive.json").read_text())
    assert not exclusive["quick"]
    assert tables.full(exclusive) in (ROOT / "docs/performance.md").read_text()


def row(ours: float, **rivals: float) -> Row:
    seconds = {"ours": ours, "R": 1e-3, **rivals}
    return Row("job", "a mask", seconds, (), "the call", 1e6, rivals=list(rivals))


@pytest.mark.parametrize(
    ("bar", "met", "missed"),
    [
        (Bar("seconds", 2e-3), row(2e-3), row(3e-3)),
        (Bar("reads", 2), row(2e-3), row(3e-3)),
        (Bar("times", 2), row(2e-3, a=4e-3, b=9e-3), row(3e-3, a=4e-3, b=9e-3)),
        (Bar("times", 2, "b"), row(2e-3, a=1e-3, b1=4e-3, b2=9e-3), row(3e-3, a=1e-3, b1=4e-3, b2=9e-3)),
    ],
    ids=["seconds", "reads", "fastest rival", "named rivals"],
)
def test_a_bar_is_met_or_the_row_says_by_how_much_not(bar: Bar, met: Row, missed: Row) -> None:
    met.bars = missed.bars = (bar,)
    assert met.missed == ""
    assert "1.50 × off: the call" in missed.missed


def test_a_bar_without_its_rival_says_nothing() -> None:
    alone = row(1.0)
    alone.bars = (Bar("times", 2, "torch"),)
    assert alone.missed == ""


def test_what_is_done_before_a_job_is_not_timed() -> None:
    ticks = 0

    def job() -> None:
        nonlocal ticks
        ticks += 1

    def before() -> None:
        nonlocal ticks
        ticks += 1000

    def other() -> None:
        job()

    other.before = before  # type: ignore[attr-defined]
    taken = interleaved({"plain": job, "prepared": other}, 10, most=3, clock=lambda: float(ticks))
    assert taken == {"plain": 1, "prepared": 1}


def test_a_comparison_tells_slower_jobs_from_noise() -> None:
    base = {"steady": [1.0, 2.0, 1.0], "slower": [1.0, 2.0, 1.0], "noisy": [1.0, 2.0, 1.0], "gone": [1.0]}
    now = {"steady": [1.0, 2.0, 1.0], "slower": [1.2, 2.6, 1.3], "noisy": [1.5, 1.9, 1.2], "new": [1.0]}
    lines, slower = report(base, now)
    told = {line.split(" ms  ")[1]: line.split(" ms  ")[0].split() for line in lines}
    assert slower == 1
    assert told["slower  SLOWER"][:4] == ["1.30", "(", "1.20", "to"]
    assert told["noisy"][0] == "1.20"
    assert told["new"][0] == "new"
    assert told["gone"][0] == "gone"


def test_two_revisions_are_compared() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = [sys.executable, str(BENCHMARKS / "compare.py"), "HEAD", "--group", "rules", "--quick", "--turns", "1"]
    done = subprocess.run([*command, "--seconds", "0.1"], capture_output=True, text=True, timeout=300)
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout.count("on runs of 512 × 512") == 3
    assert "multiples of those at HEAD" in done.stdout
    unknown = subprocess.run([*command[:2], "no-such-revision"], capture_output=True, text=True, timeout=60)
    assert "cannot check out 'no-such-revision'" in unknown.stderr
    listed = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True)
    assert "/base" not in listed.stdout


CALLGRIND = """desc: Trigger: Client Request: RLE text

ob=(3) /lib/libc.so.6
fl=(1) memmove.S
fn=(7) memmove
264 250
+6 50
cob=(2) ???
cfi=(2) ???
cfn=(9) 0x1234
calls=2 0
* 9999

ob=(2)
fl=(2)
fn=(9)
0 700
cob=(3)
calls=1 264
0 300

totals: 1000
"""


def test_instructions_are_those_of_kernels_and_of_the_whole_call() -> None:
    assert guard.parsed(CALLGRIND) == ("RLE text", guard.Count(kernels=700, whole=1000))


def test_more_instructions_are_told_and_other_versions_are_not_compared() -> None:
    then = {name: guard.Count(1000, 2000) for name in ("same", "kernel", "call", "gone")}
    now = {"same": (1040, 2080), "kernel": (1060, 2060), "call": (1000, 2120), "new": (9, 9)}
    counts = {name: guard.Count(*count) for name, count in now.items()}
    here = dict.fromkeys((*guard.KERNELS, *guard.WHOLE), "1")
    lines, more = guard.report(then, counts, {})
    assert more == 2
    assert [line.split()[-1] for line in lines[1:]] == ["same", "MORE", "MORE", "new", "gone"]
    other = guard.differing(here | {"python": "0"}, here)
    lines, more = guard.report(then, counts, other)
    assert more == 1  # the kernel's
    assert lines[-1] == "recorded with other versions, whole calls were not compared: python 0, not 1"
    lines, more = guard.report(then, counts, guard.differing(here | {"numba": "0"}, here))
    assert more == 0
    assert lines[-1] == "recorded with other versions, counts were not compared: numba 0, not 1"


def test_the_record_of_instructions_is_whole() -> None:
    record = json.loads(guard.RECORD.read_text())
    assert set(record["versions"]) == set(guard.versions())
    assert len(record["counts"]) == 18
    assert all(0 < c["kernels"] < c["whole"] for c in record["counts"].values())


def test_a_machine_that_cannot_count_is_told_why(tmp_path: Path) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("flags : sse2 avx2 fma\n")
    assert guard.unable(cpu) == "this processor lacks bmi2, f16c"
    env = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(BENCHMARKS / "guard.py")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("instructions were not counted: ")


def test_a_quick_run_of_executors() -> None:
    command = [sys.executable, str(BENCHMARKS / "executors.py"), "--quick", "--turns", "1"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[2:]] == [
        "| one thread", "| 2 threads", "| pool of 2 processes", "| Dask, 2 processes",
    ]  # fmt: skip


def test_a_million_is_measured_with_fewer(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text("before\n<!-- million -->\nstale words\n<!-- /million -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "million.py"), "--samples", "200", "--at", str(tmp_path / "stores")]
    command += ["--record", str(tmp_path / "million.json"), "--write", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "million.json").read_text())
    assert record["samples"] == 200
    assert len(record["rows"]) == 16
    assert all(row["cpu"] > 0 and row["peak"] > 1e7 for row in record["rows"])
    text = page.read_text()
    assert text.startswith("before\n<!-- million -->\n| codec |")
    assert text.endswith("<!-- /million -->\nafter\n")
    assert "stale words" not in text


def test_the_plan_of_a_million_is_that_of_the_page() -> None:
    command = [sys.executable, str(BENCHMARKS / "million.py"), "--plan"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.strip() in (ROOT / "docs" / "scale.md").read_text()
