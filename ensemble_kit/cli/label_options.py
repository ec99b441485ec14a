"""Options of label maps and of classes that are left out, shared by the commands that read or write masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import MismatchError, UsageError, some

if TYPE_CHECKING:
    from ensemble_kit.formats.label_meaning import LabelMaps
    from ensemble_kit.formats.maskformat import MaskFormat, Telling
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.masks.stream import Masks

LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Of label maps: what each value means, a JSON or CSV file of value, name and colour (a row named void is "
        "void), or a preset: cityscapes, cityscapes-trainid, voc, ade20k, camvid. Default: told by the order of the "
        "classes.",
    ),
]
FirstValueOption = Annotated[
    int | None,
    typer.Option(
        "--first-value",
        help="Of label maps without --labels: the value of the first class, 0 or 1 (0 is then no class). Default: 0 if "
        "the first class is called background, 1 if the value of the number of classes occurs.",
    ),
]
VoidOption = Annotated[
    str | None,
    typer.Option(
        "--void",
        metavar="VALUES",
        help="Of label maps: values of pixels that count neither as prediction nor as truth, such as 255 or 0,255. "
        "Default: 255, where no class has it.",
    ),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", metavar="CLASSES", help="Keep only these classes of the masks, such as a,b.")
]
ExceptOption = Annotated[
    str | None,
    typer.Option("--except", metavar="CLASSES", help="Leave these classes of the masks out, such as background."),
]
SHAPES = "shapes"
"""The order of `--paint` that is the file's own; it is an option of what is read."""
PaintOption = Annotated[
    str | None,
    typer.Option(
        "--paint",
        metavar="CLASS=VALUE,...",
        help="Of label maps that are written: the value of each class; where classes overlap the one that is named "
        "later is drawn over. shapes: of LabelMe, CVAT and Label Studio, later shapes are drawn over earlier ones.",
    ),
]

LikeImageOption = Annotated[
    Path | None,
    typer.Option(
        "--like-image",
        metavar="FOLDER",
        help="Of volumes and GeoTIFFs that are written: the folder of their images (or the image of one), whose "
        "headers, or crs and transform, are kept. Masks of volumes that lie there in other axes are turned to those of "
        "the image. Default: where the masks lie.",
    ),
]
SpacingOption = Annotated[
    str | None,
    typer.Option(
        "--spacing",
        metavar="ZxYxX",
        help="Of written volumes without a geometry: millimetres between voxels, such as 5x0.8x0.8.",
    ),
]


def label_maps(
    labels: str | None = None,
    first_value: int | None = None,
    void: str | None = None,
    paint: str | None = None,
    like_image: Path | None = None,
    spacing: str | None = None,
) -> LabelMaps:
    """Read the options of label maps.

    Raises
    ------
    UsageError
        A text of another form.
    """
    from ensemble_kit.formats.label_meaning import LabelMaps

    return LabelMaps(labels, first_value, _values(void), _painted(paint), _images(like_image), _spacing(spacing))


def say_labels(common: Common, sets: Sequence[MaskSet], paths: Sequence[Path]) -> None:
    """Say what each value of the label maps that were read means."""
    for masks, path in zip(sets, paths, strict=True):
        if masks.rule is not None:
            common.say(f"{path}: {masks.rule}")


def say_written(common: Common, telling: Telling | None, out: Path) -> None:
    """Say how masks were written where their format leaves that open, and what of them is lost."""
    if telling is not None:
        common.say(f"{out}: {telling.told()}")
        for caution in telling.doubts():
            common.warn(caution)


def say_geometry_lost(common: Common, masks: Masks, target: MaskFormat, out: Path) -> None:
    """Say that where volumes or scenes lie is not kept, where the format cannot hold it."""
    geometries = masks.extent.geometry
    if geometries and ("folder" if target.builder(out) else "file") not in target.keeps_geometry:
        solid = any(len(masks.image_size(sample)) == 3 for sample in geometries)
        kept = (
            "nifti, nrrd, npz and folders of npy" if solid else "geotiff, class-geotiffs, npz and folders of label-map"
        )
        told = f"where {len(geometries)} of {len(masks.samples)} samples lie is left out"
        common.say(f"{out}: {told}: {target.name} does not hold it; {kept} do")


def _values(text: str | None) -> tuple[int, ...] | None:
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) < 65536 for part in parts):
        item, fix = f"--void {text!r}", "pass values from 0 to 65535 with commas between, such as 0,255"
        raise UsageError("option-invalid", "cannot use values as void", item=item, fix=fix)
    return None if text is None else tuple(map(int, parts))


def _images(path: Path | None) -> Path | None:
    from ensemble_kit.formats.maskformat import existing

    return None if path is None else existing(path)


def _spacing(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        found = ()
    if len(found) != 3:
        item, fix = f"--spacing {text!r}", "pass millimetres along z, y, x, such as --spacing 5x0.8x0.8"
        raise UsageError("option-invalid", "cannot use a spacing", item=item, fix=fix)
    return found


def _painted(text: str | None) -> dict[str, int] | None:
    if text is None or text == SHAPES:
        return None
    pairs = [part.rpartition("=") for part in names_of(text)]
    out = {name.strip(): int(value) for name, _, value in pairs if value.strip().isdecimal()}
    if len(out) != len(pairs) or "" in out:
        item, fix = f"--paint {text!r}", "pass each class once with its value, such as WT=1,TC=2,ET=3"
        raise UsageError("option-invalid", "cannot draw label maps", item=item, fix=fix)
    return out


def names_of(text: str) -> list[str]:
    """Read names with commas between, as a line of CSV: a name that holds a comma stands in double quotes."""
    import csv

    return [name.strip() for name in next(csv.reader([text]), [])]


def kept(sets: Sequence[MaskSet], only: str | None, without: str | None) -> list[MaskSet]:
    """Keep `--only` these classes of mask sets, or all `--except` these, which at least one of them has.

    Raises
    ------
    UsageError
        Both options are given, or no class is left.
    MismatchError
        A class that no set has, or with `--only` one that a set lacks.
    """
    if only is None and without is None:
        return list(sets)
    if only is not None and without is not None:
        item, fix = f"--only {only!r} and --except {without!r}", "pass one of the two"
        raise UsageError("option-invalid", "cannot choose classes", item=item, fix=fix)
    named = names_of(only if only is not None else without or "")
    for masks in sets:
        if unknown := [name for name in named if name not in masks.classes]:
            if without is not None and any(set(unknown) <= set(other.classes) for other in sets):
                continue
            item = f"no class is called {' or '.join(map(repr, unknown))}; there are {some(masks.classes, 40)}"
            fix = "write class names as the masks have them, with commas between"
            raise MismatchError("classes-unknown", "cannot choose classes", item=item, fix=fix)
    out = []
    for masks in sets:
        classes = [name for name in masks.classes if (name in named) == (only is not None)]
        if not classes:
            item = f"--except {without!r} leaves no class of {some(masks.classes)}"
            raise UsageError("option-invalid", "cannot choose classes", item=item, fix="leave fewer classes out")
        out.append(masks.arranged(masks.samples, classes))
    return out
