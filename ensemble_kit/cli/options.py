"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import Caution, IncompleteError, UsageError, some

if TYPE_CHECKING:
    from ensemble_kit.formats.registry import Format
    from ensemble_kit.formats.sizes import ImageSize
    from ensemble_kit.masks.stream import Masks
    from ensemble_kit.metrics.overlap import Overlap
    from ensemble_kit.recipes.members import MemberPaths

STORES = (
    "Logit stores, a member each: STORE or NAME=STORE. The same NAME again is another fold of that member: of other "
    "samples they are joined, of the same ones averaged"
)
Stores = Annotated[list[Path], typer.Argument(help=f"{STORES}.", metavar="[NAME=]STORE...")]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="What is averaged: probability (default), logit, or power:R, probabilities to the power R (0 <= R < 1), "
        "between the geometric mean and the arithmetic one.",
    ),
]
UpsampleOption = Annotated[
    str | None,
    typer.Option("--upsample", help="What is interpolated to the image's size: logits (default) or scores."),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", help="One weight per member, in their order, such as 2,1,1. Default: equal.")
]
TemperaturesOption = Annotated[
    str | None,
    typer.Option("--temperatures", help="One number per member, in their order; logits are divided by it. Default: 1."),
]
DaskOption = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Work on the Dask cluster of this scheduler, such as tcp://host:8786, whose workers see the same paths; "
        "local: in processes of this machine, as many as --jobs. Default: in threads.",
    ),
]
SamplesOption = Annotated[
    str | None,
    typer.Option(
        "--samples", help="same (default): members must hold the same samples; common: take the samples that all hold."
    ),
]
MemberClassesOption = Annotated[
    str | None,
    typer.Option(
        "--member-classes",
        metavar="SETS",
        help="same (default): members must have the same classes; common: take those that all have; union: take all, "
        "and fuse each over the members that have it.",
    ),
]
DecideOption = Annotated[
    str | None,
    typer.Option(
        "--decide",
        help="threshold: a pixel is on at or above its class's threshold; argmax: it takes the class of the largest "
        "score; rank: each mask takes the pixels that maximise its expected Dice. Default: as the set says; without "
        "one argmax where the stores are softmax, else threshold.",
    ),
]
BackgroundOption = Annotated[
    str | None,
    typer.Option(
        "--background", metavar="CLASS", help="With argmax: a class that takes its pixels, but is not written."
    ),
]
LeastOption = Annotated[
    float | None,
    typer.Option(
        "--least", metavar="P", help="With argmax: a pixel has no class where its largest probability is below this."
    ),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        help="Size of the images, where a mask file does not give it: HxW, one number for square images, or what gives "
        "each one's: a CSV of sample,height,width, a store, or a folder of images.",
    ),
]
ClassesOption = Annotated[
    Path | None, typer.Option("--classes", help="Class names, one per line, where a mask file does not give them.")
]
ReadFormatOption = Annotated[
    str | None, typer.Option("--format", "--from", help="Format of the masks. Default: recognised.")
]
TruthFormatOption = Annotated[
    str | None,
    typer.Option("--format", "--from", "--val-format", help="Format of the ground truth. Default: recognised."),
]
_CSV = (
    "KEY=VALUE,... of order (C along rows, F down columns), base (0, 1), offsets (absolute, relative), id, class, rle "
    "(names of columns), template ({image}_{class}), empty, rows (mask, object)"
)
CSV_TEXT = "what differs from the preset, or, where it names the columns, the whole dialect: " + _CSV
CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="OPTIONS", help=f"Of a CSV that is written: {CSV_TEXT}.")
]
ReadCsvOption = Annotated[
    str | None, typer.Option("--csv", "--from-csv", metavar="OPTIONS", help=f"Of a CSV of masks: {CSV_TEXT}.")
]
TruthCsvOption = Annotated[
    str | None,
    typer.Option("--csv", "--from-csv", "--val-csv", metavar="OPTIONS", help=f"Of a CSV of ground truth: {CSV_TEXT}."),
]
ValFormatOption = Annotated[
    str | None, typer.Option("--val-format", help="Format of the ground truth. Default: recognised.")
]
ValCsvOption = Annotated[
    str | None, typer.Option("--val-csv", metavar="OPTIONS", help="Of a CSV of ground truth: as --csv.")
]
EpsOption = Annotated[float, typer.Option("--eps", help="Added to numerator and denominator of the score.")]


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
            fix="pass numbers separated by commas, such as 2,1,1",
        ) from None


def empty_value(text: str) -> Any:
    """Read `1`, `0` or `skip`."""
    if text not in {"0", "1", "skip"}:
        raise UsageError("convention", "cannot score empty masks", item=f"--empty {text!r}", fix="pass 1, 0 or skip")
    return text if text == "skip" else int(text)


def fusing(
    mean: str | None,
    upsample: str | None,
    weights: str | None,
    temperatures: str | None,
    samples: str | None,
    classes: str | None = None,
) -> dict[str, Any]:
    """Collect the options of `Ensemble`; None where the user gave none."""
    return {
        "mean": mean,
        "upsample": upsample,
        "weights": numbers("--weights", weights),
        "temperatures": numbers("--temperatures", temperatures),
        "samples": samples,
        "classes": classes,
    }


def found_members(members: Sequence[MemberPaths]) -> list[MemberPaths]:
    """Return the members, of mask files behind URLs their copies; refuse those that do not exist, before any work."""
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.logits.packed import is_packed
    from ensemble_kit.recipes.members import on_this_machine, paths_of
    from ensemble_kit.remote.copies import local

    paths = paths_of(members)
    stores = [is_store(m) for m in paths]
    found = [m if store else local(m) for m, store in zip(paths, stores, strict=True)]
    missing = [str(m) for m, store in zip(found, stores, strict=True) if not store and not m.exists()]
    if packed := [str(m) for m, store in zip(found, stores, strict=True) if not store and is_packed(m)]:
        item, fix = f"{some(packed)} is packed", "copy it to this machine and pass its path, or pass an unpacked store"
        raise UsageError("url-unfit", "cannot read a packed store behind a URL", item=item, fix=fix)
    if missing:
        raise IncompleteError(
            "member-missing",
            "cannot vote",
            item=f"{some(missing)} not found",
            fix="check the paths of the members",
        )
    return on_this_machine(members, found)


def refuse_idle(how: str, other: str, /, **options: object) -> None:
    """Refuse options that would have no effect, rather than ignore them.

    Parameters
    ----------
    how : where they have none, such as "with --hard".
    other : what gives them one, such as "choose --soft"; or nothing.
    options : by name; None was not given.
    """
    idle = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if idle:
        raise UsageError(
            "option-idle",
            f"cannot use {', '.join(idle)} here",
            item=f"{'it has' if len(idle) == 1 else 'they have'} no effect {how}",
            fix=f"leave {' and '.join(idle)} out" + (f", or {other}" if other else ""),
        )


def bytes_of(stores: Sequence[Path]) -> int:
    """Count the bytes that a command reads from its members."""
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.logits.store import LogitStore

    total = 0
    for path in stores:
        if is_store(path):
            store = LogitStore(path)
            total += store.total_bytes
        elif path.is_file():
            total += path.stat().st_size
    return total


def warn_of_formulas(common: Common, masks: Masks | Overlap, out: Path) -> None:
    """Warn where a spreadsheet would take ids of a CSV for formulas; they are written verbatim, so that ids match."""
    if out.suffix.lower() == ".csv" or str(out) == "-":
        odd = [n for n in (*masks.samples, *masks.classes) if n.startswith(("=", "+", "-", "@", "\t", "\r"))]
        if odd:
            doubt = f"{len(odd)} names begin like formulas: {some(odd)}"
            common.warn(Caution(doubt, f"do not open {out} in a spreadsheet, or rename them"))


def class_names(path: Path | None) -> tuple[str, ...] | None:
    """Read `--classes`."""
    from ensemble_kit.formats.classes import read_classes

    return None if path is None else read_classes(path)


def csv_format(chosen: str | None, csv: str | None) -> Format | None:
    """Return the format of `--format` or `--from`, with what `--csv` says of it."""
    from ensemble_kit.formats.csv_options import CsvOptions
    from ensemble_kit.formats.registry import with_csv

    return with_csv(chosen, CsvOptions.of(csv))


def size_of_images(text: str | None) -> ImageSize | None:
    """Read `--image-size`: HxW or one number for all, or a path to what says each: CSV, store, images or masks."""
    from ensemble_kit.formats.sizes import parse_image_size
    from ensemble_kit.recipes.masks import sizes_from
    from ensemble_kit.remote.copies import as_path
    from ensemble_kit.remote.urls import url_of

    if text is None:
        return None
    return sizes_from(as_path(text)) if url_of(text) or Path(text).exists() else parse_image_size(text)
