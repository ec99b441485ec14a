"""Count the instructions of the main jobs under callgrind: `guard.py [--write] [--base REVISION]`.

Counts of instructions are the same on a busy machine, where times are noise. Machine code is compiled for one processor,
so it is the same everywhere too. The counts of instructions.json are compared where they were recorded with the same
Numba, llvmlite and NumPy; those that hold the interpreter's part also need the same Python and C library. Exits 1 where a
job needs over a twentieth more. Where nothing can be counted it says why, and exits 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from compare import ROOT, checked_out

RECORD = Path(__file__).with_name("instructions.json")
COUNTED = Path(__file__).with_name("counted.py")
MOST = 1.05
KERNELS, WHOLE = ("numba", "llvmlite", "numpy"), ("python", "C library")
FLAGS = {"avx2", "bmi2", "f16c", "fma"}


class NotCountedError(Exception):
    """Valgrind starts on this machine, and cannot run the jobs."""


class Count(NamedTuple):
    """Instructions of one call: of compiled kernels, and of everything."""

    kernels: int
    whole: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write instructions.json anew, and compare nothing")
    parser.add_argument("--base", metavar="REVISION", help="compare with counts of this revision, taken now")
    options = parser.parse_args()
    if why := unable():
        print(f"instructions were not counted: {why}")
        return 0
    now, here = counts(ROOT), versions()
    if options.write:
        record = {"versions": here, "counts": {job: c._asdict() for job, c in now.items()}}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        print(f"wrote {len(now)} counts to {RECORD}")
        return 0
    if options.base:
        with tempfile.TemporaryDirectory() as folder, checked_out(options.base, Path(folder, "base")) as base:
            then, there = counts(base), here
    else:
        record = json.loads(RECORD.read_text())
        then, there = {job: Count(**c) for job, c in record["counts"].items()}, record["versions"]
    lines, more = report(then, now, differing(there, here))
    print("\n".join(lines))
    return 1 if more else 0


def unable(cpu: Path = Path("/proc/cpuinfo")) -> str:
    """Say why nothing can be counted on this machine; "" where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"machine code is made for Linux on x86-64, and this is {sys.platform} on {platform.machine()}"
    if lacking := FLAGS - set(re.findall(r"\w+", cpu.read_text())):
        return f"this processor lacks {', '.join(sorted(lacking))}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (apt-get install valgrind)"
    tried = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "true"], capture_output=True, text=True
    )
    return f"valgrind fails: {tried.stderr.strip().rpartition(chr(10))[2]}" if tried.returncode else ""


def versions() -> dict[str, str]:
    """Tell what counts depend on, beside the kit itself."""
    found = {name: version(name) for name in KERNELS}
    build = f"{platform.python_version()}, {platform.python_compiler()}"
    return found | {"python": build, "C library": " ".join(platform.libc_ver())}


def differing(there: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    """Name what was another version when counts were recorded."""
    return {n: f"{n} {there.get(n, 'unknown')}, not {here[n]}" for n in (*KERNELS, *WHOLE) if there.get(n) != here[n]}


def counts(package: Path) -> dict[str, Count]:
    """Count the jobs of a checkout: once alone, to compile, and once under callgrind."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    fixed = {"PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}
    with tempfile.TemporaryDirectory(prefix="ensk-guard-") as folder:
        env = kept | threads | fixed | {"XDG_CACHE_HOME": folder}
        command = [sys.executable, str(COUNTED)]
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        for words in (command, [*valgrind, *command]):
            done = subprocess.run(words, env=env, capture_output=True, text=True)
            if done.returncode and words is command:
                sys.exit(f"cannot run the jobs of {package}:\n{done.stderr}")
            if done.returncode:  # though they run without it
                raise NotCountedError(f"under valgrind the jobs fail: {done.stderr.strip().rpartition(chr(10))[2]}")
        found = [parsed(path.read_text(errors="replace")) for path in Path(folder).glob("counts.*")]
    return {job: count for job, count in sorted(found) if job}


def parsed(text: str) -> tuple[str, Count]:
    """Read a file of callgrind: the request that asked for it, and what each object took itself.

    Machine code that was made at run time is in no file: its object is called `???`.
    """
    job, at, taken, names, called = "", "", {}, {}, False
    for line in text.splitlines():
        if found := re.match(r"desc: Trigger: Client Request: (.*)", line):
            job = found[1]
        elif found := re.match(r"(c?)ob=\((\d+)\)(?: (.*))?", line):
            names[found[2]] = found[3] or names[found[2]]
            at = at if found[1] else names[found[2]]
        elif line.startswith("calls="):
            called = True  # the next line is what the callee took
        elif found := re.match(r"[-+*\d]\S* (\d+)$", line):
            taken[at] = taken.get(at, 0) + (0 if called else int(found[1]))
            called = False
    return job, Count(taken.get("???", 0), sum(taken.values()))


def report(then: Mapping[str, Count], now: Mapping[str, Count], other: Mapping[str, str]) -> tuple[list[str], int]:
    """Write a line for each job, and count those that need more; `other` are versions that differ."""
    kernels, whole = not set(KERNELS) & set(other), not other
    lines, more = ["      kernels          whole call         job"], 0
    for job, count in now.items():
        before = then.get(job)
        ratios = [
            new / max(old, 1) if same else None
            for new, old, same in zip(count, before or (), (kernels, whole), strict=bool(before))
        ] or [None, None]
        worse = any(r is not None and r > MOST for r in ratios)
        more += worse
        cells = [f"{n:13,} {'' if r is None else f'{r:.2f}':5}" for n, r in zip(count, ratios, strict=True)]
        lines.append(f"{'  '.join(cells)}  {job}{'  MORE' if worse else '' if before else '  new'}")
    lines += [f"{'gone':>13}{'':28}{job}" for job in then if job not in now]
    if other:
        part = "whole calls were" if kernels else "counts were"
        lines.append(f"recorded with other versions, {part} not compared: {'; '.join(other.values())}")
    return lines, more


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotCountedError as error:
        print(f"instructions were not counted: {error}")
