"""`ensk score`: masks against the ground truth."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ensemble_kit.cli import slurm
from ensemble_kit.cli.annotation_options import (
    IdOption,
    ImagesOption,
    PaintShapesOption,
    ScoreOption,
    SkipEmptyOption,
    read_annotations,
)
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import (
    ExceptOption,
    FirstValueOption,
    LabelsOption,
    OnlyOption,
    VoidOption,
    kept,
    label_maps,
    say_labels,
)
from ensemble_kit.cli.options import (
    ClassesOption,
    EpsOption,
    ImageSizeOption,
    ReadCsvOption,
    ValCsvOption,
    ValFormatOption,
    class_names,
    csv_format,
    empty_value,
    refuse_idle,
    size_of_images,
)
from ensemble_kit.cli.part_options import PartOption, check_place, part_of, score_part, share_of
from ensemble_kit.cli.scores_out import BySampleOption, ConfusionOption, ScoresOut
from ensemble_kit.errors import UsageError

_FLAGS: tuple[dict[str, str], ...] = ({}, {"--from": "--val-format", "--from-csv": "--val-csv"})


def score(
    masks: Annotated[Path, typer.Argument(help="Masks to score.", metavar="MASKS")],
    val: Annotated[Path, typer.Option("--val", help="Ground truth: masks of the same samples.")],
    common: Common,
    metric: Annotated[
        str | None, typer.Option("--metric", help="dice or iou. Default: dice, or that of the --convention.")
    ] = None,
    empty: Annotated[
        str | None,
        typer.Option(
            "--empty",
            help="Score of a pair whose masks are both empty: 1 (default), 0 or skip; skip-truth leaves out every pair "
            "whose truth is empty.",
        ),
    ] = None,
    eps: EpsOption = 0.0,
    convention: Annotated[
        str | None,
        typer.Option(
            "--convention",
            help="Score as mmseg, torchmetrics, nnunet, monai, handbone or kaggle does; what that is, is printed.",
        ),
    ] = None,
    background: Annotated[
        str | None, typer.Option("--background", help="A class that is left out of means over classes.")
    ] = None,
    include_background: Annotated[
        bool,
        typer.Option("--include-background", help="Count the background where a --convention would leave it out."),
    ] = False,
    confusion: ConfusionOption = None,
    by_sample: BySampleOption = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(
            "--format",
            "--from",
            help="Format of the masks. Default: recognised. nnunet: recognised, and --out (default: summary.json "
            "beside the masks) is written as nnU-Net's summary.json.",
        ),
    ] = None,
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
    images: ImagesOption = None,
    score: ScoreOption = None,
    skip_empty: SkipEmptyOption = False,
    paint: PaintShapesOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write what --json prints to this file, too.")] = None,
    part: PartOption = None,
) -> None:
    """Score masks against the ground truth, per class and overall, and name the convention."""
    from ensemble_kit.masks.idforms import check_form
    from ensemble_kit.metrics import confusion as exclusive
    from ensemble_kit.metrics import nnunet_summary
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes import score as recipe
    from ensemble_kit.recipes.masks import annotated, formats_for, read_together, refuse_store
    from ensemble_kit.recipes.members import unnamed
    from ensemble_kit.remote.copies import local
    from ensemble_kit.spec.scoring import Convention

    if metric not in {None, "dice", "iou"}:
        raise UsageError("option-invalid", "cannot score", item=f"--metric {metric!r}", fix="pass dice or iou")
    _check_together(convention, empty, eps, background, include_background)
    share, summary = part_of(part, common), format == "nnunet"
    if summary and share.of > 1:
        item, fix = f"--format nnunet with --part {share}", "leave --part out: a summary is of all samples"
        raise UsageError("option-invalid", "cannot write a summary of a part", item=item, fix=fix)
    if summary:
        format, out = None, out or (masks / "summary.json" if masks.is_dir() else masks.parent / "summary.json")  # noqa: A001
    if share.of > 1 and not common.dry_run:
        refuse_idle("with --part, which only counts", "pass it to ensk merge", confusion=confusion, by_sample=by_sample)
        if out is None:
            item, fix = f"--part {share} without --out", "pass --out FILE: its name is that of the parts"
            raise UsageError("option-invalid", "cannot keep a part's counts", item=item, fix=fix)
    if out is not None:
        check_place(out, share, common, [masks, val, classes])
    files = ScoresOut(out, confusion, by_sample, summary)
    files.check(common, [masks, val, classes])
    how = convention or Convention(eps, "skip-truth" if empty == "skip-truth" else empty_value(empty or "1"))
    refuse_store(unnamed(masks), "masks")
    refuse_store(val, "masks")
    paths = [local(masks), local(val)]
    given = [csv_format(format, csv), csv_format(val_format, val_csv)]
    maps = label_maps(labels, first_value, void)
    formats = formats_for(paths, given, maps)
    formats = annotated(paths, formats, read_annotations(images, score, skip_empty, paint))
    form = None if id is None else check_form(id)
    differ = only is not None or without is not None or summary
    memory.check(common.memory, memory.of_reading(paths), "score")
    both = read_together(paths, formats, size_of_images(image_size), class_names(classes), (), differ, _FLAGS, form)
    say_labels(common, both, paths)
    prediction, truth = kept(both if not summary else list(map(nnunet_summary.foreground, both)), only, without)
    options: dict[str, Any] = {
        "metric": metric,
        "convention": how,
        "background": background,
        "include_background": include_background,
    }
    own = share_of(truth.samples, share) if share.of > 1 else []
    if common.dry_run:
        tasks = slurm.tasks_of(share, len(truth.samples), 0)
        array = [] if out is None else _shared_out(common, tasks, files, out)
        plan = f"would score {len(truth.samples)} samples x {len(truth.classes)} classes"
        common.answer({"samples": len(truth.samples), "sbatch": array}, slurm.told(plan, array))
        return
    if share.of > 1:
        score_part(common, prediction, truth, options, own, share, cast("Path", out))
        return
    found = recipe.score(prediction, truth, **options)
    matrix = found.confusion
    if confusion is not None and matrix is None:
        matrix = exclusive.confusion(prediction, truth)  # which names the classes that overlap
    if summary:
        content = nnunet_summary.summary(found.overlap, truth, maps.table, masks, val)
        nnunet_summary.write(content, cast("Path", out), force=common.force)
        common.say(f"{out}: nnU-Net's summary.json, foreground_mean Dice {content['foreground_mean']['Dice']:.6f}")
    files.write(found, matrix, common)


def _shared_out(common: Common, tasks: int, files: ScoresOut, out: Path) -> list[str]:
    """Return the lines of an array: parts only count, and their merge writes every file."""
    count = slurm.words({"--confusion": 1, "--by-sample": 1})
    merge = slurm.merging(out, common, confusion=files.confusion, by_sample=files.by_sample)
    return slurm.lines(tasks, count, common, merge)


def _check_together(
    convention: str | None, empty: str | None, eps: float, background: str | None, include_background: bool
) -> None:
    """Refuse options that would contradict each other, or have no effect."""
    given = [name for name, value in (("--empty", empty is not None), ("--eps", eps != 0)) if value]
    if convention is not None and given:
        item, fix = f"{' and '.join(given)} beside --convention {convention}", "leave one of the two out"
        raise UsageError("option-idle", "cannot score by two conventions", item=item, fix=fix)
    if include_background and (convention is None or background is not None):
        item = "--include-background beside --background" if background else "--include-background without --convention"
        fix = "leave it out: without --convention and --background every class counts"
        raise UsageError("option-idle", "cannot use --include-background here", item=item, fix=fix)
