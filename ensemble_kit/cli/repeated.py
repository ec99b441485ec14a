"""The commands that vote, score and report again what a page tells of."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import join
from typing import Any

from ensemble_kit.cli import slurm
from ensemble_kit.cli.reported import Asked
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.spec.scoring import Convention, Measure


def commands(asked: Asked, m: Material) -> list[tuple[str, str]]:
    """Return the commands that vote, score and report again."""
    paths = [f"{member.name}={path}" if member.name else str(path) for member in asked.members for path in member.paths]
    lines, masks = [], paths[0] if paths else ""
    if m.vote is not None or len(asked.members) > 1:
        solid = m.masks is not None and len(m.masks.image_size(m.masks.samples[0])) == 3
        masks = "voted.npz" if solid else "voted.csv"
        of_set: dict[str, Any] = {"thresholds": asked.tuned.path if asked.tuned is not None else asked.threshold}
        if m.vote is None:
            t, (kind, dialect) = asked.truth, asked.written
            of_set = {
                "from": kind,
                "from-csv": dialect,
                "image-size": t.image_size,
                "classes": t.classes,
                "id": t.id,
            }
            of_set |= {"labels": t.labels, "first-value": t.first_value, "void": t.void}
        words = [*paths, *_words({**of_set, **asked.decided, **asked.fused}), "--out", masks]
        lines.append(("Vote:", join(["ensk", "vote", *words])))
    if asked.val is not None:
        t, measure = asked.truth, m.measure
        how = {
            "val": asked.val, "val-format": t.format, "val-csv": t.csv, "image-size": t.image_size, "id": t.id,
            "classes": t.classes, "labels": t.labels, "first-value": t.first_value, "void": t.void,
            "only": t.only, "except": t.without,
        }  # fmt: skip
        if len(asked.members) == 1 and m.vote is None:
            how |= {"format": asked.written[0], "csv": asked.written[1]}
        background = None if m.vote is None else getattr(m.vote.decision, "background", None)
        if background is not None and t.only is None and t.without is None:
            how["except"] = background
        lines.append(("Score:", join(["ensk", "score", masks, *_words({**how, **_of_measure(measure)})])))
    typed = slurm.TYPED.get(())
    return [*lines, *([("This page:", join(["ensk", *typed]))] if typed else [])]


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
