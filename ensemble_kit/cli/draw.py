"""`ensk draw`: masks on their images, as picture files."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.annotation_options import IdOption
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import (
    ExceptOption,
    FirstValueOption,
    LabelsOption,
    OnlyOption,
    VoidOption,
    kept,
)
from ensemble_kit.cli.options import (
    ClassesOption,
    DecideOption,
    ImageSizeOption,
    ReadCsvOption,
    ReadFormatOption,
    ValCsvOption,
    ValFormatOption,
    refuse_idle,
)
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.truth_options import TruthOptions
from ensemble_kit.errors import UsageError, check_number


def draw(
    kind: Annotated[
        str,
        typer.Argument(
            help="overlay: each class in its colour. errors: what is right, too much and missed (--val). disputed: "
            "where members disagree.",
            metavar="KIND",
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="A mask file, or stores, whose vote is drawn; for disputed several of either.",
            metavar="MASKS_OR_STORES...",
        ),
    ],
    common: Common,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images. Without it masks lie on black.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to. Default: pictures.")] = Path("pictures"),
    val: Annotated[Path | None, typer.Option("--val", help="For errors: the ground truth.")] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option("--sample", metavar="ID", help="A sample to draw; may be repeated. Default: the first 4."),
    ] = None,
    width: Annotated[int, typer.Option("--width", help="Pixels of the longer side, at most. Default: 1600.")] = 1600,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", help="Of stores: a threshold set or a number, as of ensk vote.")
    ] = None,
    decide: DecideOption = None,
    format: ReadFormatOption = None,  # noqa: A002 - the option's name
    csv: ReadCsvOption = None,
    val_format: ValFormatOption = None,
    val_csv: ValCsvOption = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    first_value: FirstValueOption = None,
    void: VoidOption = None,
    only: OnlyOption = None,
    without: ExceptOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
) -> None:
    """Draw masks on their images: what they say, where they err, where members disagree; a PNG file a sample."""
    from PIL import Image

    from ensemble_kit.cli.page_out import images_of
    from ensemble_kit.cli.reported import Asked, split
    from ensemble_kit.files import atomic_write, check_target
    from ensemble_kit.recipes.deciding import resolve
    from ensemble_kit.recipes.drawing import check_kind_of_picture, chosen, file_names, pictures
    from ensemble_kit.recipes.members import members_of, paths_of
    from ensemble_kit.recipes.reporting.material import Material, alone, truth_of
    from ensemble_kit.remote.copies import here
    from ensemble_kit.spec.scoring import Measure

    check_number("--width", width, "pass 1 or more", least=1)
    found, members = split(members_of(inputs))
    if found is not None or not members:
        item, fix = f"{inputs[0]} is a threshold set", "pass it as --thresholds, beside the stores that it decides"
        raise UsageError("draw-inputs", "cannot draw a threshold set", item=item, fix=fix)
    check_kind_of_picture(kind, len(members), val is not None)
    folder = here(out, "cannot write pictures")
    if not folder.is_dir():
        check_target(folder, force=common.force, folder=True)
    check_output(folder, common, [*paths_of(members), val, images, classes])
    truth = TruthOptions(val_format, val_csv, image_size, classes, labels, first_value, void, id=id)
    threshold = None if thresholds is None else resolve(thresholds)
    how = {"decide": decide}
    asked = Asked(common, tuple(members), threshold, Measure(), None, val, truth, how, {}, written=(format, csv))
    if all(m.is_store for m in members):
        refuse_idle("with stores", "pass --val-format", format=asked.format)
        whole = asked.vote()
        ids = chosen(whole.ensemble.samples, sample or (), 4)
        true = asked.true_masks(whole)
        vote = whole.on(ids)
        true = None if true is None else truth_of(vote, true, tuple(ids))
        masks, *rest = kept([m for m in (vote.run().whole(), true) if m is not None], only, without)
        true = rest[0].arranged(ids, masks.classes) if rest else None
        each = alone(vote, masks.classes) if kind == "disputed" else {}
        m = Material(masks, true, members=each)
    elif any(m.is_store for m in members):
        item, fix = "stores and mask files", "pass one kind; ensk vote makes masks of stores"
        raise UsageError("draw-inputs", "cannot draw stores and masks at once", item=item, fix=fix)
    else:
        refuse_idle("on mask files", "pass stores", thresholds=thresholds, decide=decide)
        m = replace(asked, truth=replace(truth, only=only, without=without)).of_masks(images)
        assert m.masks is not None
        ids = chosen(m.masks.samples, sample or (), 4)
    files = images_of(images, m.masks, common, ids)
    names = file_names(kind, ids)
    for name in names.values():
        if folder.is_dir():
            check_target(folder / name, force=common.force, folder=False)
    if common.dry_run:
        common.answer(
            {"out": [str(folder / n) for n in names.values()]}, f"would write {len(names)} pictures to {folder}"
        )
        return
    folder.mkdir(exist_ok=True)
    written = list[str]()
    for name, told, drawn in pictures(kind, m, ids, files, width):
        path = folder / file_names(kind, [name])[name]
        with atomic_write(path, force=common.force) as file:
            Image.fromarray(drawn).save(file, "PNG")
        written.append(str(path))
        common.say(f"wrote {path}: {told}")
    common.answer({"kind": kind, "out": written}, *([] if common.json else written))
