"""Measure every job beside its rivals and write docs/benchmarks.json, docs/benchmarks.md and README's table.

    python tests/benchmarks/run.py [--quick] [--group NAME] [--only TEXT] [--ours] [--usgra FOLDER] [--readme FILE]

One thread for everybody, medians of process-CPU time, candidates interleaved in one process; rows that say "all cores"
or "cold" take wall time. pytest-benchmark times one function after the other, so that a busy minute of the machine
falls on one candidate alone; that is why this is a script.
"""

# ruff: noqa: E402 - threads are set before anybody is imported
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import jobs
import rivals
from measure import Row, duration

PACKAGES = ("numpy", "numba", "torch", "opencv-python", "opencv-python-headless", "rlemasklib", "hotcoco", "pycocotools",
            "faster-coco-eval", "monai", "scikit-learn", "optuna", "pandas")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, under a minute: does it run?")
    parser.add_argument(
        "--group", default="", help="soft, rle, rules, hard, csv, thresholds, weights, stored, genuine or first"
    )
    parser.add_argument("--only", default="", help="measure only jobs whose name holds this text")
    parser.add_argument("--ours", action="store_true", help="leave the rivals out")
    parser.add_argument("--keep-going", action="store_true", help="leave out jobs that fail, for an older package")
    parser.add_argument("--seconds", type=float, help="CPU seconds for each job")
    parser.add_argument("--usgra", type=Path, help="folder of USGRA-SEG; without it genuine logits are the demo's own")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of benchmarks.json and benchmarks.md")
    parser.add_argument(
        "--readme",
        type=Path,
        help="file whose table between <!-- bench --> marks is replaced; without the rows on genuine logits",
    )
    options = parser.parse_args(arguments)

    one_thread()
    scale = jobs.QUICK if options.quick else jobs.Scale()
    scale = replace(scale, rivals=not options.ours, seconds=options.seconds or scale.seconds, only=options.only)
    rows = []
    for row in jobs.table(scale, options.group, options.keep_going, options.usgra):
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "quick": options.quick, "rows": [as_json(r) for r in rows]}
    (options.out / "benchmarks.json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    )
    text = markdown(rows)
    (options.out / "benchmarks.md").write_text(page(text))
    if options.readme is not None:
        replace_table(options.readme, markdown([row for row in rows if "genuine" not in row.job]))


def one_thread() -> None:
    """Give every rival the one thread that we have."""
    if torch := rivals.optional("torch"):
        torch.set_num_threads(1)
    if cv2 := rivals.optional("cv2"):
        cv2.setNumThreads(1)


def machine() -> dict[str, Any]:
    """Tell what the figures were measured on."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": versions,
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def as_json(row: Row) -> dict[str, Any]:
    """Make a row's figures, and what is derived from them."""
    best = row.best_rival
    return asdict(row) | {
        "bars": [str(bar) for bar in row.bars],
        "missed": row.missed,
        "of_read": row.of_read,
        "fraction_of_bandwidth": 1 / row.of_read if row.of_read else None,
        "gigabytes_per_second": row.read_bytes / row.seconds["ours"] / 1e9 if row.of_read else None,
        "times_faster_than": {name: row.seconds[name] / row.seconds["ours"] for name in row.rivals},
        "best_rival": best[0] if best else None,
    }


def of_read(row: Row) -> str:
    """Write our time in pure reads, the share of the read's rate, and the rate."""
    if row.of_read is None:
        return ""
    rate = row.read_bytes / row.seconds["ours"] / 1e9
    return f"{row.of_read:.3g} R = {100 / row.of_read:.2g} %, {rate:.2g} GB/s"


def line(row: Row) -> str:
    """Write a row in words, for the terminal."""
    others = ", ".join(f"{n} {duration(row.seconds[n])}" for n in sorted(row.rivals, key=lambda n: row.seconds[n]))
    bars = f"[{', '.join(map(str, row.bars))}]{' MISSED ' + row.missed if row.missed else ''}"
    return f"{row.job}: {duration(row.seconds['ours'])} {row.unit}{of_read(row) and f' = {of_read(row)}'} {bars} | {others}"


def markdown(rows: list[Row]) -> str:
    """Write the table."""
    out = ["| job | ours | of a pure read | the bar | others, and how many times as long |", "|---|---:|---:|---|---|"]
    for r in rows:
        others = " · ".join(
            f"{n} {duration(r.seconds[n])} (**{r.seconds[n] / r.seconds['ours']:.3g} ×**)"
            for n in sorted(r.rivals, key=lambda n: r.seconds[n])
        )
        job = f"{r.job}{f' ({r.note})' if r.note else ''}{', wall time' if r.clock == 'wall' else ''}"
        bars = f"{', '.join(map(str, r.bars))}{f'; **missed**, {r.missed}' if r.missed else ''}"
        out.append(f"| {job} | {duration(r.seconds['ours'])} {r.unit} | {of_read(r)} | {bars} | {others} |")
    return "\n".join(out) + "\n"


def page(table: str) -> str:
    """Put the table on a page that says how it came about."""
    m = machine()
    versions = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
    return (
        "# Benchmarks\n\nWritten by `make bench`; nothing here is typed by hand. One thread for everybody, medians of "
        "process-CPU time, candidates interleaved in one process; rows of all cores or of a cold disk take wall time. R is "
        "a pure read of the same input, by Numba in memory and by `preadv` from files, in the same run; beside it "
        "stand the share of that read's rate that we reach, and the rate. A bar that is missed says by how much, and "
        f"what the limit is.\n\n{m['cpu']}, {m['cores']} cores, Python {m['python']}; {versions}. {m['when']}.\n\n{table}"
    )


def replace_table(path: Path, table: str) -> None:
    """Put the table between the marks of a page, if it has them."""
    text = path.read_text() if path.exists() else ""
    mark = "<!-- bench -->"
    if text.count(mark) == 2:
        before, _, after = text.split(mark)
        path.write_text(f"{before}{mark}\n{table}{mark}{after}")


if __name__ == "__main__":
    main()
