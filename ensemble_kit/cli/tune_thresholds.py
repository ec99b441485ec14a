"""`ensk tune-thresholds`: the best threshold of every class on validation."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ensemble_kit.cli.common import Common, table
from ensemble_kit.cli.options import (
    EmptyOption,
    EpsOption,
    FormatOption,
    ImageSizeOption,
    MeanOption,
    SamplesOption,
    Stores,
    TemperaturesOption,
    UpsampleOption,
    WeightsOption,
    check_output,
    empty_value,
    fusing,
    size_of_images,
)


def tune_thresholds(
    stores: Stores,
    val: Annotated[Path, typer.Option("--val", help="Truth: masks of the stores' samples.")],
    common: Common,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the set goes. Default: thresholds/ and the members' names.")
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="mean: mean score over samples; pooled: score of the pooled pixels.")
    ] = "mean",
    metric: Annotated[str, typer.Option("--metric", help="dice, iou, or F-beta such as f2.")] = "dice",
    empty: EmptyOption = "1",
    eps: EpsOption = 0.0,
    folds: Annotated[
        int | None, typer.Option("--folds", help="Folds of the cross-validation, 3 or more; 0: none. Default: 5.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option("--groups", help="What stays on one side of a split: a CSV file of sample,group, or a regular "
                                      "expression whose first group names it. Default: every sample by itself."),
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink/--no-shrink", help="Share one threshold among classes whose gain is noise.")
    ] = True,
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="Keep the counts here (.npz); a second question costs nothing.")
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    format: FormatOption = None,  # noqa: A002 - the option's name
    image_size: ImageSizeOption = None,
) -> None:  # fmt: skip
    """Find the best threshold of every class, exactly, over all 65,536 levels at full resolution; write a set."""
    from ensemble_kit import tuning
    from ensemble_kit.metrics import Measure
    from ensemble_kit.pipeline import open_ensemble, truth_for
    from ensemble_kit.report import of_set
    from ensemble_kit.spec import Convention
    from ensemble_kit.statistics import Statistics
    from ensemble_kit.thresholds import FOLDER
    from ensemble_kit.validation import group_of, read_groups

    ensemble = open_ensemble(stores, 0.5, fusing(mean, upsample, weights, temperatures, samples))
    if out is None:
        FOLDER.mkdir(exist_ok=True)
        out = FOLDER / f"{'+'.join(ensemble.fusion.members)}.json"
    check_output(out, common.force)
    if ensemble.dropped:
        common.warn(f"{ensemble.dropped} samples are not in every member and are left out")
    measure = Measure(cast("Any", objective), metric, Convention(eps, empty_value(empty)))
    grouping = read_groups(groups)
    if folds is None:
        count = len(set(group_of(ensemble.samples, grouping)))
        folds = min(5, count) if count >= 3 else 0
        if not folds:
            common.warn(f"{count} groups are too few to cross-validate: the score is in-sample only")
    if common.dry_run:
        plan = {"out": str(out), "samples": len(ensemble.samples), "classes": list(ensemble.classes), "folds": folds}
        common.answer(plan, f"would tune {len(ensemble.classes)} classes on {len(ensemble.samples)} samples into {out}")
        return
    truth = truth_for(ensemble, val, format, size_of_images(image_size))
    known = Statistics.load(statistics) if statistics and statistics.exists() else None
    with common.progress() as listener:
        counted = tuning.statistics_for(
            ensemble, truth, measure, folds, grouping, common.seed, known, common.jobs, listener
        )
    if statistics and counted is not known:
        counted.save(statistics)
    tuned = tuning.tune_from(counted, ensemble, measure, folds, grouping, common.seed, shrink)
    tuned.save(out)
    report = of_set(tuned)
    common.answer(
        {"out": str(out), **tuned.to_dict()},
        "\n".join([table(report.title, report.columns, report.rows), "", *report.lines]),
    )
    for text in report.warnings:
        common.warn(text)
    common.say(f"wrote {out}")
