"""`ensk score`: masks against the ground truth."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.options import (
    ClassesOption,
    EmptyOption,
    EpsOption,
    FormatOption,
    ImageSizeOption,
    class_names,
    empty_value,
    size_of_images,
)
from ensemble_kit.errors import UsageError


def score(
    masks: Annotated[Path, typer.Argument(help="Masks to score.", metavar="MASKS")],
    val: Annotated[Path, typer.Option("--val", help="Ground truth: masks of the same samples.")],
    common: Common,
    metric: Annotated[str, typer.Option("--metric", help="dice or iou.")] = "dice",
    empty: EmptyOption = "1",
    eps: EpsOption = 0.0,
    format: FormatOption = None,  # noqa: A002 - the option's name
    val_format: Annotated[
        str | None, typer.Option("--val-format", help="Format of the ground truth. Default: recognised.")
    ] = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
) -> None:
    """Score masks against the ground truth, per class and overall, and name the convention."""
    from ensemble_kit.metrics import overlap
    from ensemble_kit.recipes.masks import read_together
    from ensemble_kit.reports.report import Report

    if metric not in {"dice", "iou"}:
        raise UsageError("option-invalid", "cannot score", item=f"--metric {metric!r}", fix="pass dice or iou")
    prediction, truth = read_together(
        [masks, val], [format, val_format], size_of_images(image_size), class_names(classes)
    )
    result = (overlap.dice if metric == "dice" else overlap.iou)(prediction, truth, eps, empty_value(empty))
    pooled = result.pooled_per_class

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    name = {"dice": "Dice", "iou": "IoU"}[metric]
    rows = [
        [c, f"{value:.6f}", f"{pooled[c]:.6f}", str(int((result.truth[:, k] > 0).sum()))]
        for k, (c, value) in enumerate(result.per_class.items())
    ]
    rows.append(["all", f"{result.mean:.6f}", f"{result.pooled:.6f}", str(int((result.truth > 0).sum()))])
    title = f"{name} over {len(result.samples)} samples ({result.convention})"
    common.answer(
        {
            "metric": metric,
            "mean": number(result.mean),
            "pooled": number(result.pooled),
            "samples": len(result.samples),
            "per_class": {c: number(v) for c, v in result.per_class.items()},
            "pooled_per_class": {c: number(v) for c, v in pooled.items()},
            "convention": {"empty": result.convention.empty, "eps": result.convention.eps},
        },
        Report(title, ["class", f"mean {name}", f"pooled {name}", "positives"], rows),
    )
