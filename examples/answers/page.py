"""Write the ladders between the marks of docs/answers.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
from bench import Bench
from rows import ROWS
from sets import Set

MARKS = "<!-- measured -->", "<!-- /measured -->"
Found = Mapping[str, Mapping[str, Any]]


def number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}.2f}"


def gain(values: Mapping[str, Any]) -> str:
    """The gain on test over the soft mean, with its interval."""
    value, low, high = values["gain"]
    return f"{number(value, '+')} [{number(low, '+')}, {number(high, '+')}]"


def table(found: Found) -> str:
    """One set's ladder; the best of each column is marked."""
    best = {part: max(v[part] for v in found.values()) for part in ("fold", "test")}
    lines = ["| what | out of fold | test | gain on test over the soft mean | s |", "|---|---:|---:|---:|---:|"]
    for row in ROWS:
        if row.key not in found:
            continue
        values = found[row.key]
        cells = [f"**{number(values[p])}**" if values[p] == best[p] else number(values[p]) for p in ("fold", "test")]
        told = gain(values) if row.key != "soft" else ""
        lines.append(f"| {row.told} | {' | '.join(cells)} | {told} | {values['seconds']:.0f} |")
    return "\n".join(lines)


def section(wanted: Set, folder: Path, found: Found) -> str:
    """One set: what it is, and its ladder."""
    bench = Bench(folder)
    counts = [len(bench.open(part).samples) for part in ("val", "test")]
    metric = "mIoU × 100" if bench.exclusive else "mean Dice × 100"
    about = f"{wanted.about}; {counts[0]} images to tune on, {counts[1]} to judge; {metric}."
    return f"### {wanted.name}\n\n{about[0].upper()}{about[1:]}\n\n{table(found)}\n"


def promises(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What the kit states of new samples, and what came of it."""
    heads = ("set", "score in the stated 95 % interval", "its width", "true pixels missed, 10 % allowed", "review")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|"]
    for name, checks in found.items():
        interval, risk, review = (checks.get(key) for key in ("interval", "risk", "review"))
        cells = [
            f"{interval['held']} of {interval['splits']}" if interval else "–",
            number(interval["width"]) if interval else "–",
            f"{risk['mean']:.1%}, worst class {risk['worst']:.1%}" if risk else "–",
            f"{review['spearman']:.2f}" if review else "–",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def commands() -> str:
    """What is typed for each row."""
    lines = ["| what | command |", "|---|---|"]
    return "\n".join([*lines, *(f"| {row.told} | `{row.command}` |" for row in ROWS)])


def machine() -> str:
    """Where this was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"numba {numba.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return f"Measured on {cores} CPU cores ({platform.machine()}), {versions}."


def write(page: Path, sections: Mapping[str, str], checks: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what stands between the marks."""
    text = "\n".join([machine(), "", commands(), "", *sections.values(), promises(checks), ""])
    old = page.read_text(encoding="utf-8")
    pattern = f"({re.escape(MARKS[0])}\n).*({re.escape(MARKS[1])})"
    page.write_text(re.sub(pattern, lambda m: f"{m[1]}{text}{m[2]}", old, flags=re.DOTALL), encoding="utf-8")
