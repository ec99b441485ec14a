"""A confusion matrix as a file: CSV, JSON, or NPZ with that of every sample."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.files import atomic_write
from ensemble_kit.metrics.confusion import NO_CLASS, Confusion

SUFFIXES = (".csv", ".json", ".npz")


def check_suffix(path: Path) -> None:
    """Refuse a path that does not say how the matrix is written.

    Raises
    ------
    UsageError
        Another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            "confusion-suffix",
            "cannot write a confusion matrix",
            item=f"{str(path)!r} ends in {path.suffix or 'no suffix'!r}",
            fix="end the name in .csv, .json, or .npz, which holds the matrix of every sample too",
        )


def write(confusion: Confusion, path: Path, force: bool = True) -> None:
    """Write the matrix, complete or not at all; rows are the truth, the last row and column "no class".

    A CSV has a header of predicted classes and a first column of true ones. JSON has `classes` and `counts`; NPZ the
    arrays `samples`, `classes`, `counts` (C + 1, C + 1) and `by_sample` (samples, C + 1, C + 1).
    """
    check_suffix(path)
    with atomic_write(path, force=force) as out:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(
                out,
                samples=np.array(confusion.samples),
                classes=np.array(confusion.classes),
                counts=confusion.counts,
                by_sample=confusion.by_sample,
            )
        elif path.suffix.lower() == ".json":
            values = {
                "classes": list(confusion.classes),
                "samples": len(confusion.samples),
                "void": int(confusion.void.sum()),
                "counts": confusion.counts.tolist(),
            }
            out.write(json.dumps(values, ensure_ascii=False, indent=1).encode() + b"\n")
        else:
            names_of_all = [*confusion.classes, NO_CLASS]
            text = io.StringIO(newline="")
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(["truth", *names_of_all])
            rows.writerows([name, *row] for name, row in zip(names_of_all, confusion.counts.tolist(), strict=True))
            out.write(text.getvalue().encode())
