"""Every block of README is run as written, in order, in one folder; a block that is not says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_every_block_declares_itself() -> None:
    assert BLOCKS
    for head, _ in BLOCKS:
        assert re.fullmatch(r"(bash|python) run|\w+ not-run: .+", head), head


def test_blocks_run_as_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("readme")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for head, code in BLOCKS:
        if not head.endswith(" run"):
            continue
        command = (
            ["bash", "-euo", "pipefail", "-c", code]
            if head.startswith("bash")
            else [sys.executable, "-W", "error", "-c", code]
        )
        ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{code}\n{ran.stderr}"
