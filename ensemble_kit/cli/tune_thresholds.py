"""`ensk tune-thresholds`: the best threshold of every class on validation samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ensemble_kit.cli import signals, slurm
from ensemble_kit.cli.annotation_options import (
    IdOption,
    ImagesOption,
    PaintShapesOption,
    ScoreOption,
    SkipEmptyOption,
)
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import (
    ExceptOption,
    FirstValueOption,
    LabelsOption,
    OnlyOption,
    VoidOption,
)
from ensemble_kit.cli.options import (
    ClassesOption,
    DaskOption,
    EpsOption,
    ImageSizeOption,
    LeastOption,
    MeanOption,
    MemberClassesOption,
    SamplesOption,
    Stores,
    TemperaturesOption,
    TruthCsvOption,
    TruthFormatOption,
    UpsampleOption,
    WeightsOption,
    bytes_of,
    empty_value,
    fusing,
    refuse_idle,
)
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.part_options import PartOption, count_part, counting_lines, part_of, part_of_counts
from ensemble_kit.cli.plain import size
from ensemble_kit.cli.risk import refuse_idle_with_risk, risk_of, risk_set
from ensemble_kit.cli.streams import printable
from ensemble_kit.cli.told import default_out, tell_members
from ensemble_kit.cli.truth_options import TruthOptions
from ensemble_kit.cli.tuning_options import (
    AlphaOption,
    BackgroundClassOption,
    CalibrationOption,
    ChooseOption,
    ComparedOption,
    DeltaOption,
    EmptyOption,
    FoldsOption,
    GroupsOption,
    MethodOption,
    MetricOption,
    ObjectiveOption,
    RankOption,
    RiskOption,
    RiskOverOption,
    RiskSetOption,
    RuleOption,
    SamplerOption,
    SearchOption,
    SharedOption,
    ShrinkOption,
    StatisticsOption,
    StorageOption,
    StudyOption,
    TimeoutOption,
    TrialsOption,
    TuneDecideOption,
)
from ensemble_kit.cli.working import check_work, working
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, Progress


def tune_thresholds(
    stores: Stores,
    val: Annotated[Path, typer.Option("--val", help="Ground truth: masks of the stores' samples.")],
    common: Common,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Threshold set to write. Default: in thresholds/, named after the members."),
    ] = None,
    decide: TuneDecideOption = None,
    background: BackgroundClassOption = None,
    least: LeastOption = None,
    objective: ObjectiveOption = None,
    metric: MetricOption = None,
    method: MethodOption = "exact",
    search: SearchOption = None,
    rules: RuleOption = None,
    trials: TrialsOption = 200,
    timeout: TimeoutOption = None,
    storage: StorageOption = None,
    study: StudyOption = "ensk",
    sampler: SamplerOption = "tpe",
    empty: EmptyOption = None,
    eps: EpsOption = 0.0,
    folds: FoldsOption = None,
    groups: GroupsOption = None,
    choose: ChooseOption = None,
    shrink: ShrinkOption = None,
    shared: SharedOption = False,
    statistics: StatisticsOption = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    member_classes: MemberClassesOption = None,
    format: TruthFormatOption = None,  # noqa: A002 - the option's name
    csv: TruthCsvOption = None,
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
    compared: ComparedOption = None,
    rank: RankOption = False,
    dask: DaskOption = None,
    risk: RiskOption = None,
    alpha: AlphaOption = None,
    delta: DeltaOption = None,
    risk_over: RiskOverOption = None,
    thresholds: RiskSetOption = None,
    calibration: CalibrationOption = False,
    part: PartOption = None,
) -> None:
    """Find the exact optimal threshold, or factor of argmax, of every class at full resolution, and write a set."""
    from ensemble_kit.decisions.rules import parse_rules
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.controlling import Controlling
    from ensemble_kit.recipes.members import members_of, open_ensemble, paths_of
    from ensemble_kit.recipes.together import choice_of
    from ensemble_kit.recipes.tune import measure_of
    from ensemble_kit.recipes.tuning import Tuning, decides_by_argmax
    from ensemble_kit.remote.copies import size_of
    from ensemble_kit.tuning.contenders import ContenderTable
    from ensemble_kit.tuning.folds import read_groups
    from ensemble_kit.tuning.reliability import check_measurable, measure_calibration
    from ensemble_kit.tuning.search import metric_search
    from ensemble_kit.tuning.search.plan import Search
    from ensemble_kit.tuning.shift import check_comparable
    from ensemble_kit.tuning.statistics import Statistics

    check_work(common, dask)
    members = members_of(stores)
    stores = paths_of(members)
    of_search = {
        "trials": None if trials == 200 else trials,
        "timeout": timeout,
        "storage": storage,
        "study": None if study == "ensk" else study,
        "sampler": None if sampler == "tpe" else sampler,
    }
    refuse_idle_with_risk(
        risk,
        {"alpha": alpha, "delta": delta, "risk_over": risk_over, "thresholds": thresholds},
        {
            "decide": None if decide == "threshold" else decide,
            "background": background,
            "least": least,
            "metric": metric if metric and ":" in metric else None,
            "method": None if method == "exact" else method,
            "search": search,
            **of_search,
            "folds": folds or None,
            "choose": choose,
            "no-shrink": None if shrink is None or shrink else True,
            "shared": shared or None,
            "rank": rank or None,
            "rule": rules or None,
        },
    )
    share = part_of(part, common)
    other: dict[str, Any] = {"search": search, "rule": rules or None, "rank": rank or None, "least": least}
    other |= {"method": None if method == "exact" else method, "compare": compared, "risk": risk}
    other["calibration"] = calibration or None
    countable = all(value is None for value in other.values())
    if share.of > 1 and not common.dry_run:
        chosen = {"out": out, "choose": choose, "shared": shared or None, "shrink": None if shrink is None else True}
        refuse_idle("with --part, which only counts", "tune with what is merged", **other, **chosen)
        out = part_of_counts(statistics, share)
    if not search and method == "exact":
        refuse_idle("without a search", "add --search", **of_search)
    if search and not set(map(str.strip, search.split(","))) - {"compete", "least-area"}:
        refuse_idle("with a search from counts", "add weights, mean, temperature or post to --search", **of_search)
    wanted_risk, base = risk_of(risk, alpha, delta, risk_over), risk_set(thresholds)
    fused = fusing(mean, upsample, weights, temperatures, samples, member_classes)
    ensemble = open_ensemble(members, 0.5 if base is None else base, fused)
    if calibration:
        check_measurable(ensemble)
        memory.check(common.memory, memory.of_calibration(ensemble, common.jobs), "measure calibration", all_told=False)
    alike = {"samples": samples, "classes": member_classes or ensemble.member_classes}
    others = open_ensemble(members_of(compared), 0.5, alike) if compared else None
    if others is not None:
        check_comparable(ensemble, others)
    asked = out
    out = out or default_out(ensemble, wanted_risk, common)
    if out.parent.is_dir() or not common.dry_run:
        writes = replace(common, force=True) if share.of > 1 else common  # a part that is there is not done again
        check_output(out, writes, [*stores, val, classes, statistics, None if base is None else base.path])
    kept = statistics is not None and size_of(statistics) is not None
    if statistics is not None and share.of == 1 and not kept:
        _check_statistics(statistics, out, common)
    tell_members(ensemble, common)
    own = metric_search.load(metric) if metric and metric_search.is_own(metric) else None
    by_argmax = wanted_risk is None and decides_by_argmax(ensemble, cast("Any", decide))
    absent = None if empty is None else empty_value(empty)
    measure = measure_of(by_argmax, cast("Any", objective), None if own else metric, eps, absent)
    _check_method(method, metric, own is not None, search)
    what = tuple(w.strip() for w in (search or "weights").split(","))
    wanted = Search(what, trials, timeout, storage, study, cast("Any", sampler), common.seed)
    by_trials = (metric or "dice", own or metric_search.of_measure(measure)) if method == "optuna" else None
    grouped = read_groups(groups)
    tuning = (
        Tuning(
            ensemble,
            measure,
            "auto" if folds is None else folds,
            grouped,
            common.seed,
            choice_of(choose, shrink, shared),
            wanted if search or by_trials else None,
            by_trials,
            rank,
            others,
            cast("Any", decide),
            background,
            least,
            rules=parse_rules(rules or []),
        )
        if wanted_risk is None
        else Controlling(ensemble, wanted_risk, grouped, base, measure=measure, compared=others)
    )
    for caution in tuning.warnings():
        common.warn(caution)
    if common.dry_run:
        read = bytes_of(stores)
        plan = {
            "out": str(out),
            "samples": len(ensemble.samples),
            "classes": list(ensemble.classes),
            "folds": tuning.split or 0,
            "search": search,
            "method": method if wanted_risk is None else "risk",
            "risk": None if wanted_risk is None else asdict(wanted_risk),
            "bytes": read,
        }
        verb = "tune" if wanted_risk is None else "calibrate"
        told = f"{len(ensemble.classes)} classes on {len(ensemble.samples)} samples into {out}"
        if isinstance(tuning, Tuning) and (passes := tuning.passes) is not None:
            plan["passes"] = passes
            told += f", in {passes[0]} to {passes[1]} passes, and some for folds that choose differently"
        counts = statistics or Path(f"{asked or out.name}.counts.npz")  # the folder of sets may not be there yet
        array = [] if kept or not countable else counting_lines(common, share, len(ensemble.samples), read, counts)
        common.answer({**plan, "sbatch": array}, slurm.told(f"would read {size(read)} and {verb} {told}", array))
        return
    reading = TruthOptions(
        format, csv, image_size, classes, labels, first_value, void, only, without, id, images, score, skip_empty, paint
    )
    if common.memory is not None and share.of == 1:
        tuning.check_memory(common.memory, memory.of_reading([val]) - memory.held_after_trial(), kept, common.jobs)
    truth = reading.read(val, ensemble, common, "tune", background)
    if isinstance(tuning, Tuning) and statistics is not None and share.of > 1:
        count_part(common, tuning, truth, share, statistics, dask)
        return
    known = (ContenderTable if by_argmax else Statistics).load(statistics) if statistics and kept else None
    save = (lambda counted: counted.save(statistics)) if statistics else None
    with working(common, dask) as executor, common.progress() as listener, _best_so_far(listener) as hear:
        tuned = tuning.run(truth, known, save, executor, common.jobs, hear, common.memory)
        found = ensemble.as_tuned(tuned.set)
        measured = measure_calibration(found, truth, executor=executor, listener=listener) if calibration else None
    values = {"legend": tuned.report.legend, **({"rank": tuned.rank} if tuned.rank else {})}
    if (gain := tuned.set.gain_on_new) is not None:
        values["gain_on_new"] = vars(gain)
    if (expected := tuned.set.score_on_new) is not None:
        values["score_on_new"] = vars(expected)
    reports = [tuned.report, *([] if tuned.ladder is None else [tuned.ladder])]
    if tuned.shift:
        values["shift"] = tuned.shift.to_dict()
        reports.append(tuned.shift.report())
    if measured is not None:
        values["calibration"] = measured.to_dict()
        reports.append(measured.report())
    tuned.set.save(out)
    common.answer({"out": str(out), **values, **tuned.set.to_dict()}, *reports)
    common.say(f"wrote {out}")


def _check_statistics(statistics: Path, out: Path, common: Common) -> None:
    """Refuse, before the count, a file of statistics that cannot be written or is the set's."""
    if statistics.absolute() == out.absolute():
        item, fix = f"--statistics and --out are both {out}", "give each a path of its own"
        raise UsageError("output-is-input", "cannot write two things to one file", item=item, fix=fix)
    check_output(statistics, common, option="--statistics")


@contextmanager
def _best_so_far(listener: Listener) -> Iterator[Listener]:
    """Where a signal ends a search, tell the best so far, which is not written anywhere."""

    def hear(event: Progress) -> None:
        if event.note:
            told = f"ended while searching: {printable(event.note)}; nothing was written"
            signals.say_at_end(f"{told} (with --storage, a second run resumes)")
        listener(event)

    yield hear
    signals.say_at_end("")


def _check_method(method: str, metric: str | None, own: bool, search: str | None) -> None:
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
