"""The score of every sample and class as a file: CSV or JSON, the rows of `Overlap.table()`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.errors import UsageError
from ensemble_kit.files import atomic_write
from ensemble_kit.metrics.overlap import COLUMNS, Overlap

SUFFIXES = (".csv", ".json")


def check_suffix(path: Path) -> None:
    """Refuse a path that does not say how the scores are written.

    Raises
    ------
    UsageError
        Another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        item = f"{str(path)!r} ends in {path.suffix or 'no suffix'!r}"
        what, fix = "cannot write the scores of samples", "end the name in .csv or .json"
        raise UsageError("by-sample-suffix", what, item=item, fix=fix)


def write(overlap: Overlap, path: Path, force: bool = True) -> None:
    """Write a row for each sample and class, in their order; complete or not at all, and row by row.

    A CSV has the columns of `Overlap.table()` and a last one, `convention`, the same in each row; the value of a pair
    that is skipped is blank. JSON has `metric`, `convention` and `rows`, with null for such a value. Numbers are in
    full.
    """
    check_suffix(path)
    told = f"{overlap.metric}: {overlap.convention}"
    with atomic_write(path, force=force) as out:
        if path.suffix.lower() == ".csv":
            out.write(_line([*COLUMNS, "convention"]))
            for *counts, value in rows(overlap):
                out.write(_line([*counts, "" if math.isnan(value) else repr(value), told]))
            return
        head = {
            "metric": overlap.metric,
            "convention": {"empty": overlap.convention.empty, "eps": overlap.convention.eps},
        }
        out.write(json.dumps(head, ensure_ascii=False).removesuffix("}").encode() + b', "rows": [')
        before = b"\n"
        for *counts, value in rows(overlap):
            row = dict(zip(COLUMNS, [*counts, None if math.isnan(value) else value], strict=True))
            out.write(before + json.dumps(row, ensure_ascii=False).encode())
            before = b",\n"
        out.write(b"\n]}\n")


def rows(overlap: Overlap) -> Iterator[tuple[str, str, int, int, int, float]]:
    """Yield sample, class, tp, pred, truth and value of every pair; NaN where it is skipped."""
    for s, sample in enumerate(overlap.samples):
        counts = zip(overlap.tp[s].tolist(), overlap.pred[s].tolist(), overlap.truth[s].tolist(), strict=True)
        for name, own, value in zip(overlap.classes, counts, overlap.values[s].tolist(), strict=True):
            yield sample, name, *own, value


def _line(cells: list[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
