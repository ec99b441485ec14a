"""`ensk report`: a set, stores or masks as one page for a browser."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli import slurm
from ensemble_kit.cli.annotation_options import IdOption
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import (
    ExceptOption,
    FirstValueOption,
    LabelsOption,
    OnlyOption,
    VoidOption,
)
from ensemble_kit.cli.options import (
    BackgroundOption,
    ClassesOption,
    DaskOption,
    DecideOption,
    EpsOption,
    ImageSizeOption,
    LeastOption,
    MeanOption,
    MemberClassesOption,
    ReadCsvOption,
    ReadFormatOption,
    SamplesOption,
    TemperaturesOption,
    UpsampleOption,
    ValCsvOption,
    ValFormatOption,
    WeightsOption,
    bytes_of,
    refuse_idle,
)
from ensemble_kit.cli.part_options import PartOption, check_place, part_of
from ensemble_kit.cli.plain import size
from ensemble_kit.cli.truth_options import TruthOptions
from ensemble_kit.cli.working import check_work
from ensemble_kit.errors import UsageError, check_number


def report(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="What is told of: a threshold set (its path, or its name in thresholds/), logit stores "
            "([NAME=]STORE), mask files, or a set with the stores it is for. Of several mask files their hard vote is.",
            metavar="SET_OR_STORES_OR_MASKS...",
        ),
    ],
    common: Common,
    out: Annotated[Path, typer.Option("--out", help="The page to write. Default: report.html.")] = Path("report.html"),
    val: Annotated[
        Path | None, typer.Option("--val", help="Ground truth: masks of the same samples. Without it: what needs none.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, which are drawn below the masks.")
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", help="How many pictures: half the worst samples, the others median and best.")
    ] = 24,
    folder: Annotated[
        bool, typer.Option("--folder", help="Keep the pictures in a folder beside the page, and not within it.")
    ] = False,
    compared: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare",
            metavar="[NAME=]STORE...",
            help="Stores of the same members on test images: how their scores differ from those told of.",
        ),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds", help="A threshold set or a number, as of ensk vote. Default: the set among the inputs."
        ),
    ] = None,
    decide: DecideOption = None,
    background: BackgroundOption = None,
    least: LeastOption = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Post-processing, as of ensk vote; may be repeated."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="dice or iou. Default: that of the set, else dice.")
    ] = None,
    empty: Annotated[
        str | None,
        typer.Option(
            "--empty",
            help="Score of two empty masks: 1, 0, skip or skip-truth, as of ensk score. Default: as the set has it, "
            "else 1.",
        ),
    ] = None,
    eps: EpsOption = 0.0,
    hd95: Annotated[
        bool, typer.Option("--hd95", help="Also how far surfaces lie from those of the truth, class by class.")
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            metavar="FILE|REGEX",
            help="What is one case, such as a patient, for intervals; as of ensk tune-thresholds. Default: each "
            "sample.",
        ),
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    member_classes: MemberClassesOption = None,
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
    dask: DaskOption = None,
    part: PartOption = None,
) -> None:
    """Write one self-contained HTML page: what was voted, the score and how well it is known, where it is wrong."""
    from ensemble_kit.cli.page_out import Drawing, check_page
    from ensemble_kit.cli.page_parts import report_part
    from ensemble_kit.cli.repeated import commands
    from ensemble_kit.cli.reported import Asked, convention_of, split
    from ensemble_kit.recipes.deciding import resolve
    from ensemble_kit.recipes.members import members_of, paths_of
    from ensemble_kit.recipes.reporting.distances import distances_of, spacings_of
    from ensemble_kit.recipes.reporting.material import measure_for
    from ensemble_kit.thresholds.thresholdset import ThresholdSet
    from ensemble_kit.tuning.folds import read_groups

    share = part_of(part, common)
    check_work(common, dask)
    check_number("--pictures", pictures, "pass 0 or more", least=0)
    found, members = split(members_of(inputs))
    if found is not None and thresholds is not None:
        item, fix = f"{found.path} among the inputs, and --thresholds {thresholds}", "pass one of the two"
        raise UsageError("option-idle", "cannot decide by two thresholds", item=item, fix=fix)
    threshold = found if thresholds is None else resolve(thresholds)
    tuned = threshold if isinstance(threshold, ThresholdSet) else None
    check_place(out, share, common, [*paths_of(members), val, classes, None if tuned is None else tuned.path])
    if not members:
        refuse_idle("on a set alone", "pass the stores that it was tuned for, too", folder=folder or None, part=part)
    check_page(out, folder, common.force or share.of > 1)
    measure = measure_for(tuned, metric, convention_of(empty, eps, tuned))
    asked = Asked(
        common, tuple(members), threshold, measure, read_groups(groups), val,
        TruthOptions(val_format, val_csv, image_size, classes, labels, first_value, void, only, without, id),
        {"decide": decide, "background": background, "least": least, "rule": rules or None},
        {"mean": mean, "upsample": upsample, "weights": weights, "temperatures": temperatures, "samples": samples,
         "member-classes": member_classes},
        compared, dask, (format, csv),
        {"metric": metric, "empty": empty, "eps": eps or None, "groups": groups, "hd95": hd95 or None},
    )  # fmt: skip
    if common.dry_run:
        read = bytes_of(paths_of(members))
        array = slurm.lines(share.of, slurm.words(), common, slurm.merging(out, common)) if share.of > 1 else []
        plan = f"would read {size(read)} and write {out}"
        common.answer({"out": str(out), "bytes": read, "dry_run": True, "sbatch": array}, slurm.told(plan, array))
        return
    if share.of > 1:
        report_part(asked, share, out, images, pictures, folder)
        return
    material = asked.material(images)
    if hd95 and material.masks is not None and material.truth is not None:
        known = spacings_of(material.masks, material.truth)
        with common.progress() as listener:
            material = replace(material, distances=distances_of(material.masks, material.truth, known, listener))
    told = commands(asked, material.voted, material.left_out, images)
    Drawing(asked.title, asked.sources(images), told, images, pictures, folder).write(material, out, common)
