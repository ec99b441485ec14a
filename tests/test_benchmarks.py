"""The benchmarks run, and what they write is whole; the figures themselves are `make bench`'s business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "benchmarks" / "run.py"


def test_a_quick_run_writes_everything(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nstale words\n<!-- bench -->\nafter\n")
    command = [sys.executable, str(RUN), "--quick", "--ours", "--out", str(tmp_path / "docs"), "--readme", str(readme)]
    env = os.environ | {"PYTHONPATH": str(RUN.parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "docs" / "benchmarks.json").read_text())
    assert len(record["rows"]) >= 15
    assert all(row["seconds"]["ours"] > 0 for row in record["rows"])
    assert all(row["of_read"] > 0 for row in record["rows"] if "R" in row["seconds"])
    assert record["machine"]["packages"]["numba"]
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench -->\n| job |")
    assert text.endswith("<!-- bench -->\nafter\n")
    assert "stale words" not in text
