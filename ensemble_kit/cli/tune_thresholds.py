"""`ensk tune-thresholds`: the best threshold of every class on validation samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ensemble_kit.cli.common import Common
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
    bytes_of,
    check_output,
    empty_value,
    fusing,
    size_of_images,
)
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError, some
from ensemble_kit.events import Listener, Progress

if TYPE_CHECKING:
    from ensemble_kit.scores import Ensemble
    from ensemble_kit.validation import Groups


def tune_thresholds(
    stores: Stores,
    val: Annotated[Path, typer.Option("--val", help="Ground truth: masks of the stores' samples.")],
    common: Common,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Threshold set to write. Default: in thresholds/, named after the members."),
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="mean: mean score over samples; pooled: score of the pooled pixels.")
    ] = "mean",
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="dice, iou, F-beta such as f2; or module:callable, a metric of your own that takes prediction and "
            "ground truth, two MaskSets (with --method optuna; its code is run).",
        ),
    ] = "dice",
    method: Annotated[
        str,
        typer.Option("--method", help="exact: the optimum over all levels; optuna: trials, for a metric of your own."),
    ] = "exact",
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            help="What else to search, separated by commas: weights, mean (its power), temperature, post (rules), "
            "quorum (of a hard vote); or greedy (which members to take).",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Trials of each study, including those of earlier runs.")
    ] = 200,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds for all studies together; the best trial until then is taken."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Where studies are kept, such as sqlite:///study.db; run again to resume them."),
    ] = None,
    study: Annotated[str, typer.Option("--study", help="Name of the study in the storage.")] = "ensk",
    sampler: Annotated[str, typer.Option("--sampler", help="tpe, cmaes or grid.")] = "tpe",
    empty: EmptyOption = "1",
    eps: EpsOption = 0.0,
    folds: Annotated[
        int | None, typer.Option("--folds", help="Folds of the cross-validation, 3 or more; 0: none. Default: 5.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            help="Samples that stay in one fold: a CSV file of sample,group, or a regular expression whose first "
            "group is the group's name. Default: every sample is a group.",
        ),
    ] = None,
    shrink: Annotated[
        bool,
        typer.Option(
            "--shrink/--no-shrink", help="Share one threshold among classes whose own gains nothing above noise."
        ),
    ] = True,
    statistics: Annotated[
        Path | None,
        typer.Option("--statistics", help="File (.npz) that keeps the counts; a second run on it need not count."),
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    format: FormatOption = None,  # noqa: A002 - the option's name
    image_size: ImageSizeOption = None,
    compared: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare",
            metavar="STORE...",
            help="The members' stores of other images, such as the test set, to compare their scores with validation, "
            "per class.",
        ),
    ] = None,
    rank: Annotated[bool, typer.Option("--rank", help="Evaluate the rank rule too (ensk vote --decide rank).")] = False,
) -> None:
    """Find the exact optimal threshold of every class over all 65,536 levels at full resolution, and write a set."""
    from ensemble_kit import tuning
    from ensemble_kit.metrics import Measure
    from ensemble_kit.pipeline import judge_rank_rule, open_ensemble, truth_for
    from ensemble_kit.report import of_set
    from ensemble_kit.search import Search, describe, metric_search
    from ensemble_kit.shift import compare
    from ensemble_kit.spec import Convention
    from ensemble_kit.statistics import Statistics
    from ensemble_kit.thresholds import FOLDER
    from ensemble_kit.validation import group_of, read_groups

    ensemble = open_ensemble(stores, 0.5, fusing(mean, upsample, weights, temperatures, samples))
    others = open_ensemble(compared, 0.5, {"samples": samples}) if compared else None
    if out is None:
        if not common.dry_run:
            FOLDER.mkdir(exist_ok=True)
        out = FOLDER / f"{'+'.join(ensemble.fusion.members)}.json"
    if out.parent.is_dir() or not common.dry_run:
        check_output(out, common, [*stores, val])
    if ensemble.dropped:
        common.warn(f"{ensemble.dropped} samples are not held by every member and are left out")
    own = metric_search.load(metric) if metric_search.is_own(metric) else None
    measure = Measure(cast("Any", objective), "dice" if own else metric, Convention(eps, empty_value(empty)))
    _check_method(method, metric, own is not None, search)
    wanted = Search(
        tuple(w.strip() for w in (search or "weights").split(",")),
        trials,
        timeout,
        storage,
        study,
        cast("Any", sampler),
        common.seed,
        common.memory,
    )
    grouping = read_groups(groups)
    if folds is None:
        count = len(set(group_of(ensemble.samples, grouping)))
        folds = min(5, count) if count >= 3 else 0
        if not folds:
            common.warn(f"{count} groups are too few to cross-validate: the score is in-sample only")
    apart = _apart(ensemble, grouping) if folds else []
    if apart:
        common.warn(
            f"{len(apart)} pairs of samples have identical logits and are not in one group (--groups), so "
            f"that one may be tuned on the other: {some(apart)}"
        )
    if common.dry_run:
        plan = {
            "out": str(out),
            "samples": len(ensemble.samples),
            "classes": list(ensemble.classes),
            "folds": folds,
            "search": search,
            "method": method,
            "bytes": bytes_of(stores),
        }
        what = f"{len(ensemble.classes)} classes on {len(ensemble.samples)} samples into {out}"
        common.answer(plan, f"would read {size(bytes_of(stores))} and tune {what}")
        return
    truth = truth_for(ensemble, val, format, size_of_images(image_size))
    known = Statistics.load(statistics) if statistics and statistics.exists() else None
    with common.progress() as listener, _best_so_far(common, listener) as hear:
        if method == "optuna":
            tuned = metric_search.tune(
                ensemble,
                truth,
                own or metric_search.of_measure(measure),
                wanted.plan(common.seed, "", 1 + folds),
                measure,
                metric,
                folds,
                grouping,
                common.seed,
                common.jobs,
                hear,
            )
        else:
            counted = tuning.statistics_for(
                ensemble, truth, measure, folds, grouping, common.seed, known, common.jobs, hear
            )
            if statistics and counted is not known:
                counted.save(statistics)
            tuned = tuning.tune_thresholds(
                ensemble,
                truth,
                measure.objective,
                measure.convention.empty,
                eps,
                folds,
                grouping,
                wanted if search else None,
                common.seed,
                measure.metric,
                shrink,
                counted,
                common.jobs,
                hear,
            )
    reports = [of_set(tuned)]
    lines = reports[0].lines
    lines += [*describe(tuned), *metric_search.describe(tuned)]
    values: dict[str, Any] = {}
    fused = ensemble.as_tuned(tuned)
    if rank:
        values["rank"], told = judge_rank_rule(fused, truth, measure, folds, grouping, common.seed, common.jobs)
        tuned.search["scaling"] = values["rank"]["scaling"]
        lines += told
    if others:
        shift = compare(fused, others.as_tuned(tuned), tuned, jobs=common.jobs)
        values["shift"] = shift.to_dict()
        reports.append(shift.report())
    tuned.save(out)
    common.answer({"out": str(out), **values, **tuned.to_dict()}, *reports)
    common.say(f"wrote {out}")


def _apart(ensemble: "Ensemble", grouping: "Groups") -> list[str]:
    """Name pairs of samples whose logits are identical in every member, and which a split may separate."""
    from ensemble_kit.validation import group_of

    same = set.intersection(*({pair for group in m.twins for pair in pairwise(group)} for m in ensemble.members))
    pairs = sorted(pair for pair in same if set(pair) <= set(ensemble.samples))
    return [f"{a} = {b}" for a, b in pairs if len(set(group_of([a, b], grouping))) > 1]


@contextmanager
def _best_so_far(common: Common, listener: Listener) -> Iterator[Listener]:
    """Where a signal ends a search, tell the best so far, which is not written anywhere."""
    last = ""

    def hear(event: Progress) -> None:
        nonlocal last
        last = event.note
        listener(event)

    try:
        yield hear
    except Exception:
        raise
    except BaseException:
        if last:
            common.say(f"ended while searching: {last}; nothing was written (with --storage, a second run resumes)")
        raise


def _check_method(method: str, metric: str, own: bool, search: str | None) -> None:
    """Refuse a method that does not exist or does not fit the other options."""
    if method not in {"exact", "optuna"}:
        raise UsageError("option-invalid", "cannot tune", item=f"--method {method!r}", fix="pass exact or optuna")
    if own and method == "exact":
        raise UsageError(
            "metric-needs-trials",
            "cannot tune exactly for a metric of your own",
            item=f"--metric {metric!r} cannot be computed from counts",
            fix="pass --method optuna",
        )
    if search and method == "optuna":
        raise UsageError(
            "option-invalid",
            "cannot tune",
            item=f"--search {search!r} with --method optuna",
            fix="search first, then tune what was found with --method optuna --weights …",
        )
