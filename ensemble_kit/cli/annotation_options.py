"""Options of sample ids and of files of annotations, shared by the commands that read masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_kit.errors import check_choice

if TYPE_CHECKING:
    from ensemble_kit.formats.maskformat import Annotations

IdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="FORM",
        help="How samples' ids are compared and written: name (the last part of a path), stem (without its extension) "
        "or path. Default: ids as they are.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FILE",
        help="Of COCO results (detectron2, mmdetection): the COCO file that lists their images and categories; of COCO "
        "panoptic: the folder of its PNGs.",
    ),
]
ScoreOption = Annotated[
    float | None,
    typer.Option("--score", metavar="P", help="Of COCO results: the least score of a result that counts; 0 takes all."),
]
SkipEmptyOption = Annotated[
    bool,
    typer.Option(
        "--skip-empty",
        help="Of COCO, CVAT and Label Studio: leave out annotations without a mask, such as boxes; they are counted.",
    ),
]
PaintShapesOption = Annotated[
    str | None,
    typer.Option(
        "--paint",
        metavar="shapes",
        help="Of LabelMe, CVAT and Label Studio: shapes draws later shapes over earlier ones, so that a pixel has one "
        "class.",
    ),
]


def read_annotations(
    images: Path | None = None, score: float | None = None, skip_empty: bool = False, paint: str | None = None
) -> Annotations:
    """Read the options of files of annotations; `paint` is that of a command that writes no label maps."""
    from ensemble_kit.formats.maskformat import Annotations

    if paint is not None:
        check_choice("--paint", paint, ("shapes",))
    return Annotations(images, score, skip_empty, paint is not None)
