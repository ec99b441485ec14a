"""`ensk review`: the samples whose masks need a look first."""

from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.options import (
    BackgroundOption,
    DaskOption,
    DecideOption,
    LeastOption,
    MeanOption,
    MemberClassesOption,
    SamplesOption,
    Stores,
    TemperaturesOption,
    UpsampleOption,
    WeightsOption,
    bytes_of,
    fusing,
    warn_of_formulas,
)
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.plain import size
from ensemble_kit.cli.working import check_work, working
from ensemble_kit.errors import check_number


def review(
    stores: Stores,
    out: Annotated[
        Path, typer.Option("--out", help="CSV file of rank, sample, score and a column for each class, worst first.")
    ],
    common: Common,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            help="A threshold set (its path, or its name in thresholds/) or a number. Default: 0.5, or argmax where "
            "the stores are softmax.",
        ),
    ] = None,
    first: Annotated[int, typer.Option("--first", help="How many samples to print. Default: 20.")] = 20,
    decide: DecideOption = None,
    background: BackgroundOption = None,
    least: LeastOption = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Post-processing, as of ensk vote; may be repeated."),
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    member_classes: MemberClassesOption = None,
    dask: DaskOption = None,
) -> None:
    """Rank samples for review, without truth: those whose masks are expected to have the lowest Dice come first."""
    from ensemble_kit.decisions.review import check_suffix
    from ensemble_kit.decisions.rules import parse_rules
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.deciding import Deciding, resolve
    from ensemble_kit.recipes.members import members_of, open_ensemble, paths_of
    from ensemble_kit.recipes.review import SCORE, report
    from ensemble_kit.recipes.vote import SoftVote
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    members = members_of(stores)
    stores = paths_of(members)
    check_work(common, dask)
    check_number("--first", first, "pass 0 or more", least=0)
    check_suffix(out)
    threshold = None if thresholds is None else resolve(thresholds)
    path = threshold.path if isinstance(threshold, ThresholdSet) else None
    check_output(out, common, [*stores, path])
    ensemble = open_ensemble(members, threshold, fusing(mean, upsample, weights, temperatures, samples, member_classes))
    deciding = Deciding(threshold, decide, background, least)
    plan = SoftVote.of(ensemble, deciding, parse_rules(rules or []))
    for line in (deciding.assumed(ensemble), *plan.told()):
        if line is not None:
            common.say(line)
    for doubt in (*deciding.warnings(), *plan.doubts()):
        common.warn(doubt)
    memory.check(common.memory, memory.of_review(ensemble, common.jobs), "review")
    if common.dry_run:
        read = bytes_of(stores)
        common.answer({"out": str(out), "bytes": read, "dry_run": True}, f"would read {size(read)} and write {out}")
        return
    with working(common, dask) as executor, common.progress() as listener:
        found = ensemble.review(plan.decision, plan.rules, executor=executor, listener=listener)
    found.write(out, force=True)
    warn_of_formulas(common, plan.names(), out)
    shown = report(found, first)
    values = {"out": str(out), "rule": found.rule, "samples": len(found.samples), "classes": list(found.classes)}
    listed = [
        {"sample": sample, "score": score, "expected": dict(zip(found.classes, own, strict=True))}
        for _, sample, score, own in found.rows(first)
    ]
    common.answer({**values, "first": listed, "legend": f"{SCORE}; expected: that of each", "dry_run": False}, shown)
    common.say(f"wrote {out}: {len(found.samples)} samples, the lowest expected Dice first")
