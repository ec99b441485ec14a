"""`ensk fuse`: the fused scores of stores, kept as a store or as averaged probabilities."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ensemble_kit.cli import slurm
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import LikeImageOption, SpacingOption, label_maps
from ensemble_kit.cli.options import (
    MeanOption,
    MemberClassesOption,
    SamplesOption,
    Stores,
    TemperaturesOption,
    UpsampleOption,
    WeightsOption,
    bytes_of,
    fusing,
)
from ensemble_kit.cli.part_options import PartOption, part_of
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError


def fuse(
    stores: Stores,
    out: Annotated[str, typer.Option("--out", help="Store or folder of files to write; an unfinished one is resumed.")],
    common: Common,
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            "--format",
            help="store: a member for other ensembles; npz: averaged probabilities at the image's size, a file for "
            "each sample; nifti, of volumes: the same, SAMPLE/CLASS.nii.gz.",
        ),
    ] = "store",
    member: Annotated[
        str | None,
        typer.Option("--member", help='Name of the store in ensembles. Default: the members\' names, joined by "+".'),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            help="A threshold set: members are fused as it was tuned. Its thresholds and rules are not kept.",
        ),
    ] = None,
    mean: MeanOption = None,
    upsample: UpsampleOption = None,
    weights: WeightsOption = None,
    temperatures: TemperaturesOption = None,
    samples: SamplesOption = None,
    member_classes: MemberClassesOption = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also keep how far members disagree: variance of their probabilities, and mutual information in bits; "
            "beside the probabilities, or in a folder beside the store, named as it is with .uncertainty.",
        ),
    ] = False,
    codec: Annotated[
        str, typer.Option("--codec", help="Of the store. none, or lossless: about half the size, slower to read.")
    ] = "none",
    like_image: LikeImageOption = None,
    spacing: SpacingOption = None,
    part: PartOption = None,
) -> None:
    """Fuse stores and keep the scores: as a store, for ensembles of ensembles and stacking, or as probabilities."""
    from ensemble_kit.execution.executor import Threads
    from ensemble_kit.formats.volume_geometries import Geometries
    from ensemble_kit.recipes.deciding import resolve
    from ensemble_kit.recipes.fusing import Fusing
    from ensemble_kit.recipes.members import members_of, open_ensemble, paths_of
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    members = members_of(stores)
    stores = paths_of(members)
    share = part_of(part, common)
    options = fusing(mean, upsample, weights, temperatures, samples, member_classes)
    tuned = None if thresholds is None else resolve(thresholds)
    if thresholds is not None and not isinstance(tuned, ThresholdSet):
        item = f"--thresholds {thresholds} is a number, and nothing is decided here"
        raise UsageError("option-idle", "cannot use --thresholds here", item=item, fix="leave it out, or pass a set")
    if tuned is not None and (
        given := [k for k, v in options.items() if v is not None and k not in {"samples", "classes"}]
    ):
        item = f"--{' and --'.join(given)} beside --thresholds, which says how members are fused"
        raise UsageError("option-idle", "cannot fuse in two ways", item=item, fix="pass one of the two")
    if format != "store" and (member is not None or codec != "none"):
        item = "--member and --codec are of a store"
        raise UsageError("option-idle", "cannot use these options", item=item, fix="leave them out, or --format store")
    ensemble = open_ensemble(members, tuned, options)
    maps = label_maps(like_image=like_image, spacing=spacing)
    geometries = Geometries(maps.like_image, maps.spacing)
    values: dict[str, Any] = {
        "kind": format,
        "codec": codec,
        "part": share,
        "geometries": geometries,
    }
    plan = Fusing(ensemble, out, member=member, overwrite=common.force, uncertainty=uncertainty, **values)
    for line in plan.told():
        common.say(line)
    for doubt in plan.doubts():
        common.warn(doubt)
    jobs = plan.threads(common.jobs, common.memory)
    if common.dry_run:
        planned = plan.plan()
        tasks = slurm.tasks_of(share, len(ensemble.samples), bytes_of(stores))
        checks = [slurm.verifying(out)] if format == "store" else []
        array = [] if common.force else slurm.lines(tasks, slurm.words(), common, *checks)
        plan_told = slurm.told(f"would write {size(planned.bytes)} to {out}", array)
        common.answer({**asdict(planned), "dry_run": True, "tasks": tasks, "sbatch": array}, plan_told)
        return
    with common.progress() as listener:
        done = plan.run(Threads(jobs), listener)
    common.answer({**asdict(done), "dry_run": False})
    beside = f" and {done.uncertainty}" if done.uncertainty not in {None, done.path} else ""
    common.say(f"wrote {done.written} samples to {out}{beside}; {done.resumed} were there already")
