"""`ensk vote`: members' logits or masks become one set of masks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli import slurm
from ensemble_kit.cli.annotation_options import IdOption, ImagesOption, ScoreOption, SkipEmptyOption, read_annotations
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.fusion_options import FusionOption, read_fusion, tell_quality
from ensemble_kit.cli.label_options import (
    SHAPES,
    FirstValueOption,
    LabelsOption,
    LikeImageOption,
    PaintOption,
    SpacingOption,
    VoidOption,
    label_maps,
)
from ensemble_kit.cli.masks_out import MasksOut, Writing
from ensemble_kit.cli.options import (
    BackgroundOption,
    ClassesOption,
    CsvOption,
    DaskOption,
    DecideOption,
    ImageSizeOption,
    LeastOption,
    MeanOption,
    MemberClassesOption,
    SamplesOption,
    TemperaturesOption,
    UpsampleOption,
    WeightsOption,
    bytes_of,
    class_names,
    csv_format,
    found_members,
    fusing,
    numbers,
    refuse_idle,
    size_of_images,
)
from ensemble_kit.cli.part_options import PartOption, check_place, part_of, share_of, vote_part
from ensemble_kit.cli.plain import size
from ensemble_kit.cli.working import check_work, working
from ensemble_kit.errors import Caution, UsageError

if TYPE_CHECKING:
    from ensemble_kit.recipes.hard_vote import HardVote


def vote(
    members: Annotated[
        list[Path],
        typer.Argument(
            help="Logit stores, or mask files, a member each: PATH or NAME=PATH. The same NAME again is another fold "
            "of that member: stores of other samples are joined, those of the same ones averaged.",
            metavar="[NAME=]STORE_OR_MASKS...",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Where to write the masks, such as submission.csv or s3://bucket/submission.csv; - writes to stdout.",
        ),
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
            "or once for each. Default: 0.5, or argmax where the stores are softmax.",
        ),
    ] = None,
    decide: DecideOption = None,
    background: BackgroundOption = None,
    least: LeastOption = None,
    rank_temperature: Annotated[
        float | None,
        typer.Option(
            "--rank-temperature",
            help="With --decide rank: divides the fused score's logit. Default: as the set records it, else 1.",
        ),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Post-processing, in the order given; may be repeated: drop-small:200 (components, pixels), "
            "drop-small:0.05% (of the image) or drop-small:100mm3 (of a volume), least-area:120 or least-area:0.05% "
            "(empty if the whole mask is smaller), keep-largest:1, keep-largest:together (of all classes but the "
            "background as one mask), fill-holes or fill-holes:50 (largest hole), fill-holes:slices (of a volume, "
            "each by itself), gate:0.75,2000 (empty unless 2000 "
            "pixels lie at or above 0.75; --soft only), compete:0.8 (off where another class's score is higher: "
            "below 0.8 of the highest; --soft only), nested@WT,TC,ET (each inside the class before it) or "
            "nested:grow@WT,TC,ET (each takes the pixels of the class behind it). Append @Radius,Ulna to a rule to "
            "apply it to these classes only; with connectivity=4 as its last argument, corners do not touch (volumes: "
            "6, 18 or 26, the default). With --hard, rules apply to the voted masks.",
        ),
    ] = None,
    like: Annotated[Path | None, typer.Option("--like", help="Sample submission that gives the order of rows.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--format", help="Format of the output. Default: told by its name.")
    ] = None,
    csv: CsvOption = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="With --hard: format of the mask files, once for all or once for each in their order. Default: "
            "recognised.",
        ),
    ] = None,
    from_csv: Annotated[
        list[str] | None,
        typer.Option(
            "--from-csv",
            metavar="OPTIONS",
            help="With --hard: as --csv, of mask files that are CSVs, once for all or once for each in their order.",
        ),
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    member_classes: MemberClassesOption = None,
    quorum: Annotated[
        float | None,
        typer.Option("--quorum", help="With --hard: weight that turns a pixel on. Default: more than half."),
    ] = None,
    ties: Annotated[
        str | None,
        typer.Option(
            "--ties",
            help="With --hard: an exact half is off (default) or on; with --by label a tied pixel is void (off), takes "
            "the first of the tied classes, or background.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="With --hard: class (default) votes on each class by itself; label gives each pixel the label of the "
            "most members.",
        ),
    ] = None,
    empty: Annotated[
        str | None,
        typer.Option("--empty", help="With --hard: a member whose mask is empty does vote (default) or abstain."),
    ] = None,
    fusion: FusionOption = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    first_value: FirstValueOption = None,
    void: VoidOption = None,
    paint: PaintOption = None,
    like_image: LikeImageOption = None,
    spacing: SpacingOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    images: ImagesOption = None,
    score: ScoreOption = None,
    skip_empty: SkipEmptyOption = False,
    dask: DaskOption = None,
    part: PartOption = None,
) -> None:
    """Combine members into one set of masks and write it, for example as a submission CSV."""
    from ensemble_kit.decisions.clean import told_of
    from ensemble_kit.decisions.rules import parse_rules
    from ensemble_kit.files import is_stream
    from ensemble_kit.formats.maskformat import existing
    from ensemble_kit.formats.registry import named
    from ensemble_kit.masks.idforms import check_form
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.deciding import Deciding, resolve
    from ensemble_kit.recipes.masks import annotated, formats_for
    from ensemble_kit.recipes.members import members_of, open_ensemble, paths_of
    from ensemble_kit.recipes.vote import SoftVote
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    voting = found_members(members_of(members))
    members = paths_of(voting)
    asked, like = like, None if like is None else existing(like)
    check_work(common, dask)
    given = tuple(resolve(t) for t in thresholds or []) or (None,)
    sets = [t.path for t in given if isinstance(t, ThresholdSet)]
    share = part_of(part, common)
    check_place(out, share, common, [*members, *sets, like, labels, classes, image_size, like_image], stdout=True)
    steps = parse_rules(rules or [])
    maps = label_maps(labels, first_value, void, paint)
    drawn = read_annotations(images, score, skip_empty, paint if paint == SHAPES else None)
    form = None if id is None else check_form(id)
    writes = format is not None and named(format).has_values
    stores = [m.is_store for m in voting]
    hard = not all(stores) if hard is None else hard
    ids = None if hard and like is None else id  # of a hard vote, members gave them
    writing = Writing(format, csv, like, labels if writes else None, paint, ids, like_image, spacing)
    if share.of > 1:
        refuse_idle("with --part: members' quality is estimated over all samples", "vote in one run", fusion=fusion)
    writing.target(out)  # options that do not go together are refused first
    if not any(stores):
        refuse_idle("on mask files, which are counted in this process", "vote over stores", dask=dask)
    own_weights = numbers("--weights", weights)
    plan: HardVote | SoftVote
    if hard:
        from ensemble_kit.decisions.hard import VoteRule, rule_of
        from ensemble_kit.recipes import hard_vote

        refuse_idle("with --hard", "vote with --soft", temperatures=temperatures, member_classes=member_classes)
        options: dict[str, Any] = {
            "weights": own_weights,
            "quorum": quorum,
            "ties": ties or "off",
            "empty": empty or "vote",
            "by": by or "class",
            "fusion": read_fusion(fusion, weights=weights, quorum=quorum, ties=ties, empty=empty),
        }
        reads = (first_value, void) != (None, None)
        deciding = Deciding(None, decide, background, least, rank_temperature)
        formats = _formats_of(stores, from_, from_csv)
        files = [m.paths[0] for m in voting]
        kinds = formats_for(files, formats, replace(maps, paint=None), not writes or reads)
        rule = rule_of(len(voting), **options)
        if isinstance(rule, VoteRule) and rule.logic:
            common.warn(Caution(f"rule: {rule}", "pass --quorum N for a rule between AND and OR, or add members"))
        else:
            common.say(f"rule: {rule}")
        if not thresholds and not decide and any(stores):
            common.say(
                "each store decides by a threshold of 0.5, or by argmax if it is softmax (--thresholds: tuned sets)"
            )
        memory.check(common.memory, memory.of_reading(members), "vote", all_told=False)
        plan = hard_vote.HardVote(
            tuple(voting),
            given,
            options,
            {"mean": mean, "upsample": upsample},
            tuple(steps),
            size_of_images(image_size),
            class_names(classes),
            samples == "common",
            tuple(annotated(files, kinds, drawn)),
            deciding,
            form,
        )
        for one in given:
            for caution in replace(deciding, threshold=one).warnings():
                common.warn(caution)
    else:
        of_votes = {"quorum": quorum, "ties": ties, "empty": empty, "by": by, "fusion": fusion}
        of_files: dict[str, object] = {
            "from": from_,
            "from_csv": from_csv,
            "image_size": image_size,
            "classes": classes,
            "images": images,
        }
        of_files |= {"score": score, "skip_empty": skip_empty or None, "first_value": first_value, "void": void}
        of_files |= {"labels": None if writes else labels}
        refuse_idle("with --soft", "vote with --hard", **of_votes, **of_files)
        if not all(stores) or len(given) != 1:
            raise UsageError(
                "soft-needs-stores",
                "cannot fuse scores",
                item=f"{stores.count(False)} of {len(voting)} members are not stores, {len(given)} thresholds",
                fix="pass logit stores only and one --thresholds, or vote with --hard",
            )
        deciding = Deciding(given[0], decide, background, least, rank_temperature)
        fused = open_ensemble(voting, given[0], fusing(mean, upsample, weights, temperatures, samples, member_classes))
        plan = SoftVote.of(fused, deciding, tuple(steps))
        if assumed := deciding.assumed(fused):
            common.say(assumed)
        for caution in deciding.warnings():
            common.warn(caution)
    for line in plan.told():
        common.say(line)
    for doubt in plan.doubts():
        common.warn(doubt)
    names = writing.rehearse(plan.names(), out, common.force or share.of > 1)
    texts = [str(rule) for rule in plan.rules]
    if texts:
        common.say(f"post-processing: {', then '.join(told_of(plan.rules, plan.names().extent))}")
    in_pieces = common.memory is not None and writing.kind(out).in_pieces(names, like)
    own = plan if share.of == 1 else plan.on(share_of(plan.names().samples, share))
    own.check_memory(common.memory, common.jobs, in_pieces and share.of == 1, like)
    if common.dry_run:
        read = bytes_of(members)
        tasks = slurm.tasks_of(share, len(names.samples), read)
        whole = fusion is not None or str(out) == "-" or is_stream(out)
        array = [] if whole else slurm.lines(tasks, slurm.words(), common, slurm.merging(out, common))
        plan_told = f"would read {size(read)} and write {out}"
        values = {"out": str(out), "rules": texts, "bytes": read, "tasks": tasks, "sbatch": array}
        common.answer(values, slurm.told(plan_told, array))
        return
    if share.of > 1:
        vote_part(common, plan, own, share, replace(writing, like=asked), out, dask)
        return
    with working(common, dask) as executor, common.progress() as listener:
        found = plan.run(executor, listener)
        soft = isinstance(plan, SoftVote)
        output = MasksOut(found, writing, out, isinstance(plan, SoftVote) and plan.may_overlap, soft)
        output.write()
    values = output.tell(common)
    told, reports = tell_quality(common, found, str(out) == "-")
    if str(out) != "-":
        common.answer({"out": str(out), "rule": found.rule, "rules": texts, **told, **values}, *reports)
    output.say_where(common)


def _formats_of(stores: Sequence[bool], from_: Sequence[str] | None, from_csv: Sequence[str] | None) -> list[Any]:
    """Give each mask file its format of `--from`, with what `--from-csv` says of it; stores have none."""
    files = stores.count(False)
    pairs = zip(_each("--from", from_, files), _each("--from-csv", from_csv, files), strict=True)
    own = iter([csv_format(chosen, csv) for chosen, csv in pairs])
    return [None if store else next(own) for store in stores]


def _each(option: str, given: Sequence[str] | None, files: int) -> Sequence[str | None]:
    if given and len(given) not in {1, files}:
        item = f"{option} is given {len(given)} times, for {files} mask files"
        raise UsageError("option-invalid", "cannot vote", item=item, fix=f"pass {option} once, or once for each")
    return [None] * files if not given else list(given) * (files // len(given) if files else 1)
