"""`ensk vote`: members' logits or masks become one answer."""

from pathlib import Path
from typing import Annotated

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
    check_output,
    class_names,
    fusing,
    numbers,
    size_of_images,
)
from ensemble_kit.errors import UsageError


def vote(
    members: Annotated[list[Path], typer.Argument(help="Logit stores, or mask files.", metavar="STORE_OR_MASKS...")],
    out: Annotated[Path, typer.Option("--out", help="Where the masks go, such as submission.csv; - is stdout.")],
    common: Common,
    hard: Annotated[
        bool | None,
        typer.Option(
            "--hard/--soft",
            help="Vote over members' masks, or fuse members' scores. Default: --soft, "
            "--hard where a mask file is among the members.",
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--thresholds",
            help="A set (path, or name in thresholds/) or a number; with --hard once for "
            "all stores or once for each. Default: 0.5.",
        ),
    ] = None,
    decide: Annotated[
        str,
        typer.Option(
            "--decide",
            help="threshold: a pixel is on at or above its class's threshold; rank: each mask takes the pixels that "
            "maximise its expected Dice (--soft only; a set in --thresholds then gives fusion and metric).",
        ),
    ] = "threshold",
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
            "unless 2000 pixels lie at or above 0.75; --soft only). @Radius,Ulna behind it: for these classes only; "
            "connectivity=4 as the last argument: corners do not touch. With --hard it is applied to the voted masks.",
        ),
    ] = None,
    like: Annotated[Path | None, typer.Option("--like", help="Sample submission that gives the rows' order.")] = None,
    format: FormatOption = None,  # noqa: A002 - the option's name
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    quorum: Annotated[float | None, typer.Option("--quorum", help="Hard: weight that turns a pixel on.")] = None,
    ties: Annotated[str, typer.Option("--ties", help="Hard: what an exact half gives, off or on.")] = "off",
    empty: Annotated[
        str, typer.Option("--empty", help="Hard: a member whose mask is empty votes or abstains.")
    ] = "vote",
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
) -> None:
    """Combine members into one answer and write it, for example as a submission CSV."""
    from ensemble_kit.formats import write_masks
    from ensemble_kit.pipeline import member_masks, open_ensemble, resolve
    from ensemble_kit.postprocess import apply_rules, check_classes, parse_rules, refuse_gates
    from ensemble_kit.store import is_store
    from ensemble_kit.voting import Rule, hard_vote

    check_output(out, common.force)
    steps = parse_rules(rules or [])
    texts = [str(step) for step in steps]
    only_stores = all(is_store(m) for m in members)
    hard = not only_stores if hard is None else hard
    given = [resolve(t) for t in thresholds or ["0.5"]]
    if not thresholds and any(is_store(m) for m in members):
        common.say("thresholds: 0.5 for every class (pass --thresholds for a tuned set)")
    if steps:
        common.say(f"post-processing: {', then '.join(texts)}")
    if hard:
        refuse_gates(steps)
        rule = Rule.of(len(members), numbers("--weights", weights), quorum, ties, empty)  # type: ignore[arg-type]
        (common.warn if rule.logic else common.say)(f"rule: {rule}")
        if common.dry_run:
            plan = {"rule": str(rule), "rules": texts, "members": [str(m) for m in members]}
            common.answer(plan, f"would vote: {rule}")
            return
        with common.progress() as listener:
            decided = member_masks(
                members,
                given,
                fusing(mean, upsample, None, None, samples),
                size_of_images(image_size),
                class_names(classes),
                common.jobs,
                listener,
            )
        masks = hard_vote(decided, numbers("--weights", weights), quorum, ties, empty)  # type: ignore[arg-type]
        masks = apply_rules(masks, steps)
    else:
        if not only_stores or len(given) != 1:
            raise UsageError(
                "soft-needs-stores",
                "cannot fuse scores",
                item=f"{sum(not is_store(m) for m in members)} mask files, {len(given)} thresholds",
                fix="pass logit stores only and one --thresholds, or vote with --hard",
            )
        ensemble = open_ensemble(members, given[0], fusing(mean, upsample, weights, temperatures, samples))
        if ensemble.dropped:
            common.warn(f"{ensemble.dropped} samples are not in every member and are left out")
        fusion = ensemble.fusion
        common.say(f"soft vote: mean of {fusion.mean}, upsample {fusion.upsample}, members {', '.join(fusion.members)}")
        ensemble.class_levels(given[0])  # what does not fit is refused before any work
        check_classes(steps, ensemble.classes)
        if common.dry_run:
            common.answer(
                {"samples": len(ensemble.samples), "classes": list(ensemble.classes), "rules": texts},
                f"would vote on {len(ensemble.samples)} samples x {len(ensemble.classes)} classes",
            )
            return
        with common.progress() as listener:
            masks = ensemble.vote(given[0], steps, jobs=common.jobs, listener=listener)
    write_masks(masks, out, format=format, like=like, force=True)
    result = {"out": str(out), "rule": masks.rule, "rules": texts}
    common.answer({**result, "samples": len(masks.samples), "classes": list(masks.classes)})
    common.say(f"wrote {out}: {len(masks.samples)} samples x {len(masks.classes)} classes")
