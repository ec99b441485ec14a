"""Under `python -O` the product's own assertions are gone, those of the tests are not (`make test-optimized`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def optimized(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run tests with this folder's conftest, as `make test-optimized` does."""
    paths = [str(HERE), str(HERE / "faults"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONOPTIMIZE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    options = ["-W", "ignore:assertions not in test modules", "-p", "no:cacheprovider", "-p", "conftest"]
    command = [sys.executable, "-m", "pytest", "-c", str(HERE.parent / "pyproject.toml"), *options]
    return subprocess.run([*command, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=300)


def test_a_test_that_fails_fails(tmp_path: Path) -> None:
    """Neither a test's assertion nor one of the harness is lost, and the product runs without its own."""
    (tmp_path / "test_these.py").write_text(
        "import sys, harness\n"
        "def test_plain(): assert sys.flags.optimize == 0, 'the product would keep its assertions'\n"
        "def test_of_the_harness(): harness.judge(harness.Ran(0, '', ''), 3, 'store-damaged')\n"
        "def test_sound(): assert sys.flags.optimize == 1\n"
    )
    ran = optimized(tmp_path)
    assert "2 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_masks_need_no_assertion() -> None:
    ran = optimized(HERE / "test_runs.py")
    assert ran.returncode == 0, ran.stdout[-3000:]
