"""Compare our own times with those of a revision: `compare.py REVISION [--only TEXT] [--turns N] [--quick]`.

The revision's package is measured by today's benchmarks, in processes of its own that take turns with today's
package, so that a busy machine slows both. Exits 1 where a job became slower by more than a tenth beyond the spread
of its own turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
SLOWER = 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--only", default="")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        archive = subprocess.run(["git", "archive", options.revision], cwd=ROOT, capture_output=True, check=True).stdout
        base.mkdir()
        subprocess.run(["tar", "-x", "-C", str(base)], input=archive, check=True)
        times: dict[Path, dict[str, list[float]]] = {base: {}, ROOT: {}}
        for turn in range(options.turns):
            for package, taken in times.items():
                for job, seconds in measured(package, Path(folder, "out"), options).items():
                    taken.setdefault(job, []).append(seconds)
            print(f"turn {turn + 1} of {options.turns}", file=sys.stderr)
    return report(times[base], times[ROOT], options.revision)


def measured(package: Path, out: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run today's benchmarks on a package; jobs that it cannot do yet are not in the result."""
    command = [sys.executable, str(ROOT / "tests/benchmarks/run.py"), "--ours", "--keep-going", "--out", str(out)]
    command += ["--seconds", "2", "--only", options.only] + (["--quick"] if options.quick else [])
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(package)}, check=True, stderr=subprocess.DEVNULL)
    rows = json.loads((out / "benchmarks.json").read_text())["rows"]
    return {row["job"]: row["seconds"]["ours"] for row in rows}


def report(base: dict[str, list[float]], now: dict[str, list[float]], revision: str) -> int:
    """Print a line for each job; tell whether any became slower."""
    slower = 0
    for job, seconds in now.items():
        if job not in base:
            print(f"    new  {median(seconds) * 1e3:10.3f} ms  {job}")
            continue
        ratio = median(seconds) / median(base[job])
        worse = ratio > SLOWER and min(seconds) > max(base[job])
        slower += worse
        print(f"{ratio:7.2f}  {median(seconds) * 1e3:10.3f} ms  {job}{'  SLOWER' if worse else ''}")
    print(f"times now as a multiple of those at {revision}; {slower} jobs slower")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
