"""Commands in processes of their own, and what the system says of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(*words: object, start_new_session: bool = False, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=start_new_session,
    )  # fmt: skip


def processes(field: int, number: int) -> list[int]:
    """The processes, but for those that wait to be reaped, with a number in a field of proc(5): 1 parent, 3 session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            own = (process / "stat").read_text().rpartition(")")[2].split()
            if own[0] != "Z" and int(own[field]) == number:
                found.append(int(process.name))
    return found


def listening(pids: list[int]) -> set[str]:
    """The addresses, in hexadecimal, at which processes listen."""
    sockets = set()
    for link in (link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(OSError):
            sockets.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}
