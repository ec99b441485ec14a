"""Compare our own times with those of a revision: `compare.py REVISION [--group NAME] [--only TEXT] [--turns N] [--quick]`.

The revision is checked out beside this tree (`git worktree`) and measured by its own benchmarks, which know its modules,
in processes that take turns with those of today's package, so that a busy machine slows both. Jobs are compared by name:
what a job does may not change under one name. Of every job it prints the median of the turns' ratios and their spread. Exits 1 where a job became slower by more than a tenth in the median and
was slower in every turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
SLOWER = 1.1

Times = Mapping[str, Sequence[float]]
"""Seconds of each job, one for each turn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--group", default="", help="measure only this group of jobs, as run.py has it")
    parser.add_argument("--only", default="", help="measure only jobs whose name holds this text")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", default="1", help="CPU seconds for each job in a turn")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    options = parser.parse_args()
    command = ["--group", options.group, "--only", options.only, "--seconds", options.seconds]
    command += ["--quick"] if options.quick else []
    with tempfile.TemporaryDirectory() as folder, checked_out(options.revision, Path(folder, "base")) as base:
        times: dict[Path, dict[str, list[float]]] = {base: {}, ROOT: {}}
        for turn in range(options.turns):
            for package in (base, ROOT) if turn % 2 == 0 else (ROOT, base):
                for job, seconds in measured(package, Path(folder, "out"), command).items():
                    times[package].setdefault(job, []).append(seconds)
            print(f"turn {turn + 1} of {options.turns}", file=sys.stderr)
    lines, slower = report(times[base], times[ROOT])
    print("\n".join(lines))
    print(f"times now as multiples of those at {options.revision}: median (least to most); {slower} jobs slower")
    return 1 if slower else 0


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision out into a folder of its own, for as long as it is needed."""
    git = ["git", "-C", str(ROOT), "worktree"]
    done = subprocess.run([*git, "add", "--detach", "--quiet", str(folder), revision], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cannot check out {revision!r}: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def measured(package: Path, out: Path, options: Sequence[str]) -> dict[str, float]:
    """Run a checkout's benchmarks on its package; jobs that fail are not in the result."""
    command = [sys.executable, str(package / "tests/benchmarks/run.py"), "--ours", "--keep-going", "--out", str(out)]
    env = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run([*command, *options], env=env, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"cannot measure {package}: {done.stderr.strip().splitlines()[-1]}")
    rows = json.loads((out / "benchmarks.json").read_text())["rows"]
    return {row["job"]: row["seconds"]["ours"] for row in rows}


def report(base: Times, now: Times) -> tuple[list[str], int]:
    """Write a line for each job, and count those that became slower."""
    lines, slower = [], 0
    for job, seconds in now.items():
        if job not in base:
            lines.append(f"{'new':>24}  {median(seconds) * 1e3:10.3f} ms  {job}")
            continue
        ratios = [ours / theirs for ours, theirs in zip(seconds, base[job], strict=True)]
        worse = median(ratios) > SLOWER and min(ratios) > 1
        slower += worse
        spread = f"{median(ratios):6.2f} ({min(ratios):5.2f} to {max(ratios):5.2f})"
        lines.append(f"{spread}  {median(seconds) * 1e3:10.3f} ms  {job}{'  SLOWER' if worse else ''}")
    lines += [f"{'gone':>24}  {median(base[job]) * 1e3:10.3f} ms  {job}" for job in base if job not in now]
    return lines, slower


if __name__ == "__main__":
    sys.exit(main())
