"""`ensk vote`: members' logits or masks become one set of masks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.options import (
    ClassesOption,
    FormatOption,
    ImageSizeOption,
    MeanOption,
    SamplesOption,
    TemperaturesOption,
    UpsampleOption,
    WeightsOption,
    bytes_of,
    check_members,
    check_output,
    class_names,
    fusing,
    numbers,
    refuse_idle,
    size_of_images,
    warn_of_formulas,
)
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError


def vote(
    members: Annotated[list[Path], typer.Argument(help="Logit stores, or mask files.", metavar="STORE_OR_MASKS...")],
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the masks, such as submission.csv; - writes to stdout.")
    ],
    common: Common,
    hard: Annotated[
        bool | None,
        typer.Option(
            "--hard/--soft",
            help="Vote over members' masks, or fuse members' scores. Default: --soft, or --hard if a mask file is "
            "among the members.",
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--thresholds",
            help="A threshold set (its path, or its name in thresholds/) or a number; with --hard, once for all stores "
            "or once for each. Default: 0.5.",
        ),
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            "--decide",
            help="threshold: a pixel is on at or above its class's threshold; rank: each mask takes the pixels that "
            "maximise its expected Dice (--soft only; a set in --thresholds then gives fusion and metric).",
        ),
    ] = None,
    rank_temperature: Annotated[
        float | None,
        typer.Option("--rank-temperature", help="With --decide rank: divides the fused score's logit. Default: 1."),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Post-processing, in the order given; may be repeated: drop-small:200 (pixels) or drop-small:0.05% "
            "(of the image), keep-largest:1, fill-holes or fill-holes:50 (largest hole), gate:0.75,2000 (empty "
            "unless 2000 pixels lie at or above 0.75; --soft only). Append @Radius,Ulna to a rule to apply it to "
            "these classes only; with connectivity=4 as its last argument, corners do not touch. With --hard, rules "
            "apply to the voted masks.",
        ),
    ] = None,
    like: Annotated[Path | None, typer.Option("--like", help="Sample submission that gives the order of rows.")] = None,
    format: FormatOption = None,  # noqa: A002 - the option's name
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    quorum: Annotated[
        float | None,
        typer.Option("--quorum", help="With --hard: weight that turns a pixel on. Default: more than half."),
    ] = None,
    ties: Annotated[
        str | None, typer.Option("--ties", help="With --hard: an exact half is off (default) or on.")
    ] = None,
    empty: Annotated[
        str | None,
        typer.Option("--empty", help="With --hard: a member whose mask is empty does vote (default) or abstain."),
    ] = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
) -> None:
    """Combine members into one set of masks and write it, for example as a submission CSV."""
    from ensemble_kit.decisions.hard import VoteRule
    from ensemble_kit.decisions.rank import RankRule
    from ensemble_kit.decisions.rules import parse_rules
    from ensemble_kit.execution.executor import Threads
    from ensemble_kit.formats.writing import rehearse, write_masks
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.recipes.vote import HardVote, SoftVote, open_ensemble, resolve
    from ensemble_kit.spec.scoring import Convention
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    check_output(out, common, [*members, *([like] if like else [])])
    if len({m.absolute() for m in members}) < len(members):
        common.warn("a member is given twice and counts twice")
    steps = parse_rules(rules or [])
    stores = [is_store(m) for m in members]
    hard = not all(stores) if hard is None else hard
    given = tuple(resolve(t) for t in thresholds or ["0.5"])
    own_weights = numbers("--weights", weights)
    if hard:
        refuse_idle("--hard", temperatures=temperatures, decide=decide, rank_temperature=rank_temperature)
        check_members(members)
        options: dict[str, Any] = {
            "weights": own_weights,
            "quorum": quorum,
            "ties": ties or "off",
            "empty": empty or "vote",
        }
        rule = VoteRule.of(len(members), **options)
        (common.warn if rule.logic else common.say)(f"rule: {rule}")
        if not thresholds and any(stores):
            common.say("thresholds: 0.5 for every class of every store (pass --thresholds for tuned sets)")
        plan: HardVote | SoftVote = HardVote(
            tuple(members),
            given,
            options,
            {"mean": mean, "upsample": upsample},
            tuple(steps),
            size_of_images(image_size),
            class_names(classes),
            samples == "common",
        )
    else:
        refuse_idle("--soft", quorum=quorum, ties=ties, empty=empty, image_size=image_size, classes=classes)
        if not all(stores) or len(given) != 1:
            raise UsageError(
                "soft-needs-stores",
                "cannot fuse scores",
                item=f"{stores.count(False)} of {len(members)} members are not stores, {len(given)} thresholds",
                fix="pass logit stores only and one --thresholds, or vote with --hard",
            )
        ranks = _ranks(decide, bool(thresholds) and isinstance(given[0], float), rank_temperature)
        fused = open_ensemble(members, given[0], fusing(mean, upsample, weights, temperatures, samples))
        convention = given[0].measure.convention if isinstance(given[0], ThresholdSet) else Convention()
        plan = SoftVote(fused, given[0], tuple(steps), RankRule(rank_temperature, convention) if ranks else None)
        for line in plan.told():
            common.say(line)
    rehearse(plan.names(), out, format, like)  # what cannot be written is refused before any work
    texts = [str(rule) for rule in plan.rules]
    if texts:
        common.say(f"post-processing: {', then '.join(texts)}")
    if common.dry_run:
        read = bytes_of(members)
        common.answer({"out": str(out), "rules": texts, "bytes": read}, f"would read {size(read)} and write {out}")
        return
    with common.progress() as listener:
        masks = plan.run(Threads(common.jobs), listener)
    write_masks(masks, out, format=format, like=like, force=True)
    warn_of_formulas(common, masks, out)
    if str(out) != "-":
        values = {"out": str(out), "rule": masks.rule, "rules": texts}
        common.answer({**values, "samples": len(masks.samples), "classes": list(masks.classes)})
    common.say(f"wrote {out}: {len(masks.samples)} samples x {len(masks.classes)} classes")


def _ranks(decide: str | None, has_number: bool, temperature: float | None) -> bool:
    """Tell whether the rank rule decides, and refuse options that do not fit it."""
    if decide not in {None, "threshold", "rank"}:
        raise UsageError("option-invalid", "cannot decide", item=f"--decide {decide!r}", fix="pass threshold or rank")
    if decide == "rank" and has_number:
        raise UsageError(
            "decide-invalid",
            "cannot decide by rank",
            item="--thresholds is a number",
            fix="leave --thresholds out, or pass a set to fuse as it was tuned",
        )
    if decide != "rank" and temperature is not None:
        raise UsageError(
            "decide-invalid",
            "cannot decide by thresholds",
            item="--rank-temperature has no effect on thresholds",
            fix="leave it out, or pass --decide rank",
        )
    return decide == "rank"
