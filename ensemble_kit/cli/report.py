"""`ensk report`: a set, stores or masks as one page for a browser."""

from dataclasses import replace
from math import isnan
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
from ensemble_kit.cli.outputs import check_output
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
    part: Annotated[
        str | None, typer.Option("--part", metavar="I/N", help="Refused: it says how parts come to one page.")
    ] = None,
) -> None:
    """Write one self-contained HTML page: what was voted, the score and how well it is known, where it is wrong."""
    from ensemble_kit.cli.repeated import commands
    from ensemble_kit.cli.reported import Asked, beside, check_beside, convention_of, refuse_part, split, write
    from ensemble_kit.recipes.deciding import resolve
    from ensemble_kit.recipes.members import members_of, paths_of
    from ensemble_kit.recipes.reporting.distances import distances_of
    from ensemble_kit.recipes.reporting.material import measure_for
    from ensemble_kit.recipes.reporting.page import page
    from ensemble_kit.reports.pictures import Shelf
    from ensemble_kit.thresholds.thresholdset import ThresholdSet
    from ensemble_kit.tuning.folds import read_groups

    if part is not None:
        refuse_part(part, val)
    check_work(common, dask)
    check_number("--pictures", pictures, "pass 0 or more", least=0)
    if out.suffix.lower() not in {".html", ".htm"}:
        item, fix = f"{str(out)!r} does not end in .html", "end the name in .html"
        raise UsageError("report-suffix", "cannot write a page", item=item, fix=fix)
    found, members = split(members_of(inputs))
    if found is not None and thresholds is not None:
        item, fix = f"{found.path} among the inputs, and --thresholds {thresholds}", "pass one of the two"
        raise UsageError("option-idle", "cannot decide by two thresholds", item=item, fix=fix)
    threshold = found if thresholds is None else resolve(thresholds)
    tuned = threshold if isinstance(threshold, ThresholdSet) else None
    check_output(out, common, [*paths_of(members), val, classes, None if tuned is None else tuned.path])
    if folder:
        if not members:
            refuse_idle("on a set alone", "pass the stores that it was tuned for, too", folder=folder)
        check_beside(out, common.force)
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
        common.answer({"out": str(out), "bytes": read, "dry_run": True}, f"would read {size(read)} and write {out}")
        return
    material = asked.material(images)
    shelf = Shelf(beside(out).name if folder else None)
    with common.progress() as listener:
        if hd95 and material.masks is not None and material.truth is not None:
            material = replace(material, distances=distances_of(material.masks, material.truth, listener))
        files = asked.images(images, material)
        made = page(
            material,
            asked.title,
            asked.sources(images),
            commands(asked, material, images),
            files,
            pictures,
            shelf,
            listener,
        )
    written = write(made, shelf, out, common.force)
    scores = material.scores
    values = {
        "out": str(out),
        "bytes": written,
        "sections": [s.anchor for s in made.sections],
        "pictures": made.pictures,
    }
    values |= {
        "measure": str(material.measure),
        "score": None if scores is None or isnan(scores.score) else scores.score,
    }
    common.answer(values)
    common.say(f"wrote {out}: {size(written)}; open it in a browser")
