"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.errors import UsageError

Stores = Annotated[list[Path], typer.Argument(help="Logit stores, one per member.", metavar="STORE...")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="What is averaged: probability (default) or logit.")]
UpsampleOption = Annotated[
    str | None,
    typer.Option(
        "--upsample", help="What is interpolated to the image's size: logits (default for sigmoid) or scores."
    ),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", help="One number per member, in their order: 2,1,1. Default: equal.")
]
TemperaturesOption = Annotated[
    str | None, typer.Option("--temperatures", help="One number per member, in their order; logits are divided by it.")
]
SamplesOption = Annotated[
    str | None,
    typer.Option("--samples", help="same: members must hold the same samples; common: take those they share."),
]
ImageSizeOption = Annotated[
    str | None, typer.Option("--image-size", help="HxW of the images, where a mask file does not say it.")
]
ClassesOption = Annotated[
    Path | None, typer.Option("--classes", help="Class names, one a line, where a mask file does not say them.")
]
FormatOption = Annotated[str | None, typer.Option("--format", help="Format of the masks; default: recognised.")]
EmptyOption = Annotated[str, typer.Option("--empty", help="Score of a pair whose masks are both empty: 1, 0 or skip.")]
EpsOption = Annotated[float, typer.Option("--eps", help="Added to both sides of the fraction.")]


def numbers(option: str, text: str | None) -> list[float] | None:
    """Read `2,1,1`."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            "option-invalid",
            f"cannot use {option}",
            item=f"{text!r}",
            fix="pass numbers with commas between, such as 2,1,1",
        ) from None


def empty_value(text: str) -> Any:
    """Read `1`, `0` or `skip`."""
    if text not in {"0", "1", "skip"}:
        raise UsageError("convention", "cannot score empty masks", item=f"--empty {text!r}", fix="pass 1, 0 or skip")
    return text if text == "skip" else int(text)


def fusing(
    mean: str | None, upsample: str | None, weights: str | None, temperatures: str | None, samples: str | None
) -> dict[str, Any]:
    """Collect the options of `Ensemble`; None where the person said nothing."""
    return {
        "mean": mean,
        "upsample": upsample,
        "weights": numbers("--weights", weights),
        "temperatures": numbers("--temperatures", temperatures),
        "samples": samples,
    }


def check_output(out: Path, force: bool) -> None:
    """Refuse, before any work, an output that exists (without --force) or whose folder does not."""
    if str(out) == "-":
        return
    if out.exists() and not force:
        raise UsageError(
            "output-exists",
            "cannot write the output",
            item=f"{str(out)!r} exists",
            fix="pass --force to replace it, or another --out",
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(
            "output-folder",
            "cannot write the output",
            item=f"{str(out.absolute().parent)!r} is no folder",
            fix="make the folder first, or pass another --out",
        )


def class_names(path: Path | None) -> tuple[str, ...] | None:
    """Read `--classes`."""
    from ensemble_kit.formats.classes import read_classes

    return None if path is None else read_classes(path)


def size_of_images(text: str | None) -> tuple[int, int] | None:
    """Read `--image-size`."""
    from ensemble_kit.formats.sizes import parse_image_size

    return None if text is None else parse_image_size(text)
