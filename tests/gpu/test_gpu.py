"""The checks of `run.py` on this machine's GPU; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_everything_on_a_gpu() -> None:
    """Eight minutes at most."""
    script = Path(__file__).with_name("run.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=700)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
