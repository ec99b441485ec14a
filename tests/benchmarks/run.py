"""Measure every job beside its rivals; write benchmarks.json, and from it the tables of docs/performance.md and README.

    python tests/benchmarks/run.py [--table NAME] [--quick] [--group NAME] [--only TEXT] [--ours] [--usgra FOLDER]
                                   [--softmax STORE ...] [--page FILE] [--readme FILE] [--record FILE]

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
import tables
from measure import Row, duration

PACKAGES = ("numpy", "numba", "torch", "opencv-python", "opencv-python-headless", "rlemasklib", "hotcoco", "pycocotools",
            "faster-coco-eval", "ultrafast-pycocotools", "monai", "scikit-image", "scikit-learn", "optuna", "pandas", "torchmetrics",
            "connected-components-3d", "scipy")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--table",
        default="bench",
        choices=jobs.TABLES,
        help="bench: overlapping classes; exclusive: argmax and factors; volumes: votes; components: of volumes",
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, under a minute: does it run?")
    parser.add_argument(
        "--group", default="", help=f"one of {', '.join(name for names in jobs.TABLES.values() for name in names)}"
    )
    parser.add_argument("--only", default="", help="measure only jobs whose name holds this text")
    parser.add_argument("--ours", action="store_true", help="leave the rivals out")
    parser.add_argument("--keep-going", action="store_true", help="leave out jobs that fail, for an older package")
    parser.add_argument("--seconds", type=float, help="CPU seconds for each job")
    parser.add_argument("--usgra", type=Path, help="folder of USGRA-SEG; without it genuine logits are the demo's own")
    parser.add_argument(
        "--softmax",
        type=Path,
        nargs="+",
        default=(),
        help="stores of softmax members; the group argmax then measures them",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", help="folder of benchmarks.json, or benchmarks-TABLE.json"
    )
    parser.add_argument("--page", type=Path, help="page whose table between <!-- TABLE --> marks is replaced")
    parser.add_argument("--readme", type=Path, help="page whose table between <!-- TABLE --> marks is a few rows")
    parser.add_argument("--record", type=Path, help="write the tables from this benchmarks.json, and measure nothing")
    options = parser.parse_args(arguments)

    if options.record is None:
        record = measured(options)
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True)
        name = "benchmarks" if options.table == "bench" else f"benchmarks-{options.table}"
        (options.out / f"{name}.json").write_text(text + "\n")
    else:
        record = json.loads(options.record.read_text())
    for page, write in ((options.page, tables.full), (options.readme, tables.short)):
        if page is not None:
            tables.put(page, options.table, write(record))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the jobs that were asked for."""
    one_thread()
    scale = jobs.QUICK if options.quick else jobs.Scale()
    scale = replace(scale, rivals=not options.ours, seconds=options.seconds or scale.seconds, only=options.only)
    rows = []
    groups = (options.group,) if options.group else jobs.TABLES[options.table]
    for row in jobs.measure(scale, groups, options.keep_going, options.usgra, options.softmax):
        rows.append(as_json(row))
        print(line(rows[-1]), file=sys.stderr, flush=True)
    return {"machine": machine(), "quick": options.quick, "rows": rows}


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
    for name in sorted(PACKAGES):
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


def line(row: dict[str, Any]) -> str:
    """Write a row in words, for the terminal."""
    bars = f"[{', '.join(row['bars'])}]{' MISSED ' + row['missed'] if row['missed'] else ''}"
    ours = f"{duration(row['seconds']['ours'])} {row['unit']}"
    return f"{row['job']}: {' = '.join(t for t in (ours, tables.of_read(row)) if t)} {bars} | {', '.join(tables.others(row))}"


if __name__ == "__main__":
    main()
