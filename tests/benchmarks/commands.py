"""Run the command line in a process of its own, and say what it took.

Its peak memory is the system's own figure, VmHWM: `ru_maxrss` of a process that another one started is at least what that
one had.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, resource, sys
sys.path[:0] = [{root!r}]
from ensemble_kit.cli.app import main
code = 0
try:
    main()
except SystemExit as error:
    code = error.code
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
print(json.dumps([used.ru_utime + used.ru_stime, peak]), file=sys.stderr)
sys.exit(code)
"""


class Taken(NamedTuple):
    """CPU seconds, and peak memory in bytes, with the pages of mapped files."""

    seconds: float
    peak: int


def run(words: Sequence[str], at: Path | None = None, env: Mapping[str, str] | None = None) -> Taken:
    """Run `ensk` with these words; what it says is shown where it fails."""
    command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), *words]
    done = subprocess.run(command, cwd=at, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    seconds, peak = json.loads(done.stderr.splitlines()[-1])
    return Taken(seconds, peak)
