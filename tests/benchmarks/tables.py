"""The tables of docs/performance.md and README, written from records of benchmarks and never by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import duration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
SHORT = {
    "soft vote, upsample='logits': 5 × 29": "soft vote of 5 members, 29 classes, 512² logits to CSV rows at 2048²",
    "hard vote of 5 members": "hard vote of 5 members at 2048²",
    "five CSVs of 18 MB": "five CSV files of 18 MB to a voted one, 8,700 masks",
    "best of all 65,536 thresholds × 29 classes × 160 samples at 512²": "best of all 65,536 thresholds, 29 classes, "
    "160 samples at 512²",
    "5 stores of 29 × 512² → CSV at 2048², 16 samples, by the public API, hot": "5 stores, in the page cache, to CSV at 2048², "
    "all cores",
}
"""The rows of README: how the job's name begins, and what README calls it."""


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` of a page."""
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: m[1] + text + m[2], old, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{page} has no marks <!-- {name} --> and <!-- /{name} -->")
    page.write_text(new, encoding="utf-8")


def full(record: Mapping[str, Any]) -> str:
    """Write all rows, and what they were measured on."""
    m = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
    lines = [f"{m['cpu']}, {m['cores']} cores, Python {m['python']}; {versions}. {m['when']}.", ""]
    lines += [
        "| job | ours | of a pure read | the bar | others, and how many times as long |",
        "|---|---:|---:|---|---|",
    ]
    for row in record["rows"]:
        job = (
            row["job"]
            + (f" ({row['note']})" if row["note"] else "")
            + (", wall time" if row["clock"] == "wall" else "")
        )
        bars = ", ".join(row["bars"]) + (f"; **missed**, {row['missed']}" if row["missed"] else "")
        ours = f"{duration(row['seconds']['ours'])} {row['unit']}"
        lines.append(f"| {job} | {ours} | {of_read(row)} | {bars} | {' · '.join(others(row))} |")
    return "\n".join(lines) + "\n"


def short(record: Mapping[str, Any]) -> str:
    """Write the rows of README: our time, the fastest rival, and how many times as long it takes."""
    lines = ["| job | ours | the fastest of the others |", "|---|---:|---|"]
    for begin, name in SHORT.items():
        row = next((r for r in record["rows"] if r["job"].startswith(begin)), None)
        if row is not None:
            ours = f"{duration(row['seconds']['ours'])} {row['unit']}"
            lines.append(f"| {name} | {ours} | {next(iter(others(row)), '')} |")
    return "\n".join(lines) + "\n"


def others(row: Mapping[str, Any]) -> Sequence[str]:
    """Write each rival's time and how many times ours it is, the fastest first."""
    seconds = row["seconds"]
    return [
        f"{name} {duration(seconds[name])} (**{figure(seconds[name] / seconds['ours'])} ×**)"
        for name in sorted(row["rivals"], key=seconds.__getitem__)
    ]


def of_read(row: Mapping[str, Any]) -> str:
    """Write our time in pure reads, the share of the read's rate, and the rate."""
    if row["of_read"] is None:
        return ""
    share, rate = figure(100 / row["of_read"], 2), figure(row["gigabytes_per_second"], 2)
    return f"{figure(row['of_read'])} R = {share} %, {rate} GB/s"


def figure(value: float, digits: int = 3) -> str:
    """Write a number to so many digits, without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"
