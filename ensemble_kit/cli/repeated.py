"""The commands that vote, score and report again what a page tells of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import join
from typing import Any

from ensemble_kit.cli import slurm
from ensemble_kit.cli.reported import Asked
from ensemble_kit.recipes.reporting.voted import Voted
from ensemble_kit.spec.scoring import Convention, Measure


def commands(asked: Asked, voted: Voted | None, left_out: int, images: Path | None = None) -> list[tuple[str, str]]:
    """Return the commands that vote, score and report again.

    Parameters
    ----------
    voted : the vote of stores; None of mask files.
    left_out : samples of the truth that the stores do not hold.
    images : folder of the images, which gives sizes where nothing else does.
    """
    paths = [f"{member.name}={path}" if member.name else str(path) for member in asked.members for path in member.paths]
    lines, masks = [], paths[0] if paths else ""
    if voted is not None or len(asked.members) > 1:
        masks = "voted.npz"  # unlike a CSV it says the sizes of images and the classes, which a truth may need
        of_set: dict[str, Any] = {"thresholds": asked.tuned.path if asked.tuned is not None else asked.threshold}
        if voted is None:
            t, (kind, dialect) = asked.truth, asked.written
            of_set = {
                "from": kind,
                "from-csv": dialect,
                "image-size": t.image_size or _sizes(asked, images),
                "classes": t.classes,
                "id": t.id,
            }
            of_set |= {"labels": t.labels, "first-value": t.first_value, "void": t.void}
        words = [*paths, *_words({**of_set, **asked.decided, **asked.fused}), "--out", masks]
        lines.append(("Vote:", join(["ensk", "vote", *words])))
    if asked.val is not None and asked.measure.metric in {"dice", "iou"}:  # ensk score has no others
        t, measure = asked.truth, asked.measure
        how = {
            "val": asked.val, "val-format": t.format, "val-csv": t.csv, "image-size": t.image_size, "id": t.id,
            "classes": t.classes, "labels": t.labels, "first-value": t.first_value, "void": t.void,
            "only": t.only, "except": t.without,
        }  # fmt: skip
        if len(asked.members) == 1 and voted is None:
            sizes = t.image_size or _sizes(asked, images if _is_csv(asked.val) else None, truth=False)
            how |= {"format": asked.written[0], "csv": asked.written[1], "image-size": sizes}
        background = None if voted is None else voted.background
        if background is not None and t.only is None and t.without is None:
            how["except"] = background
        told = "Score:"
        if left_out:
            told = f"Score, with a truth of these samples alone ({asked.val} has {left_out} more, which it refuses):"
        lines.append((told, join(["ensk", "score", masks, *_words({**how, **_of_measure(measure)})])))
    typed = slurm.without(slurm.TYPED.get(()), {"--part": 1})  # the page of all samples is this one
    return [*lines, *([("This page:", join(["ensk", *typed]))] if typed else [])]


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _sizes(asked: Asked, images: Path | None, truth: bool = True) -> Path | None:
    """Return what gives the sizes that mask files in CSV lack, as they were had here; None where none lacks them."""
    if not any(_is_csv(path) for member in asked.members for path in member.paths):
        return None
    return asked.val if truth and asked.val is not None and not _is_csv(asked.val) else images


def _of_measure(measure: Measure) -> dict[str, Any]:
    """Return the options of `ensk score` that are not as by default."""
    c, usual = measure.convention, Convention()
    return {
        "metric": None if measure.metric == "dice" else measure.metric,
        "empty": None if c.empty == usual.empty else c.empty,
        "eps": c.eps or None,
        "background": measure.background,
    }


def _words(options: Mapping[str, Any]) -> list[str]:
    """Write options as words; None has none, a list one for each."""
    each = [(name, v) for name, value in options.items() for v in (value if isinstance(value, list) else [value])]
    return [word for name, value in each if value is not None for word in (f"--{name}", str(value))]
