"""`ensk stack`: a second stage over members, fitted by folds, and applied to other samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.annotation_options import IdOption, ImagesOption, PaintShapesOption, ScoreOption, SkipEmptyOption
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import ExceptOption, FirstValueOption, LabelsOption, OnlyOption, VoidOption
from ensemble_kit.cli.options import (
    STORES,
    ClassesOption,
    ImageSizeOption,
    MemberClassesOption,
    SamplesOption,
    TruthCsvOption,
    TruthFormatOption,
)
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.plain import size
from ensemble_kit.cli.told import tell_members
from ensemble_kit.cli.truth_options import TruthOptions
from ensemble_kit.cli.tuning_options import GroupsOption
from ensemble_kit.errors import UsageError
from ensemble_kit.remote.urls import url_of

if TYPE_CHECKING:
    from ensemble_kit.recipes.stack_fitting import Stacking
    from ensemble_kit.recipes.stack_store import StackedStore


def stack(
    common: Common,
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            help=f"{STORES}. None with a fitted --model",
            metavar="[[NAME=]STORE...]",
        ),
    ] = None,
    val: Annotated[Path | None, typer.Option("--val", help="Ground truth: masks of the stores' samples.")] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Store of out-of-fold logits to write; an unfinished one is resumed."),
    ] = None,
    apply: Annotated[
        list[Path] | None,
        typer.Option(
            "--apply",
            metavar="[NAME=]STORE...",
            help="The members' stores of other samples, such as the test set; given again for each.",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Store of their stacked logits to write, with the fit of all samples.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="File of the fitted stack, JSON: written, by default beside --out as NAME.stack.json; without "
            "STORE... read, and applied.",
        ),
    ] = None,
    member: Annotated[str, typer.Option("--member", help="Name of the written stores in ensembles.")] = "stack",
    folds: Annotated[
        int | None,
        typer.Option("--folds", help="Folds, 3 or more. Default: 5, or one for each group where these are fewer."),
    ] = None,
    groups: GroupsOption = None,
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
) -> None:
    """Fit a second stage that sees members' logits in context, and keep its logits as stores, members like others."""
    from ensemble_kit.recipes.members import members_of, open_ensemble, paths_of
    from ensemble_kit.recipes.stack import Stack
    from ensemble_kit.recipes.stack_fitting import Stacking
    from ensemble_kit.tuning.folds import read_groups

    reading = TruthOptions(
        format, csv, image_size, classes, labels, first_value, void, only, without, id, images, score, skip_empty, paint
    )
    members = members_of(stores or [])
    options = {"samples": samples, "classes": member_classes}
    others = None if apply is None else open_ensemble(members_of(apply), 0.5, options)
    if others is not None:
        tell_members(others, common)
    if (apply is None) != (to is None):
        item, fix = "--apply without --to" if to is None else "--to without --apply", "pass both, or neither"
        raise UsageError("stack-usage", "cannot apply a stack", item=item, fix=fix)
    if not stores:
        idle = {"--val": val, "--out": out, "--folds": folds, "--groups": groups}
        given = [name for name, value in idle.items() if value is not None]
        if given or reading != TruthOptions():
            item = f"{', '.join(given) or 'options of a truth'} without STORE..."
            fix = "pass the stores to fit on, or --model FILE --apply STORE... --to STORE alone"
            raise UsageError("stack-usage", "cannot fit a stack", item=item, fix=fix)
        if model is None or others is None or to is None:
            fix = "pass STORE... --val MASKS --out STORE to fit one, or --model FILE --apply STORE... --to STORE"
            raise UsageError("stack-usage", "cannot stack", item="there is nothing to fit or apply", fix=fix)
        known = Stack.load(model)
        applied = known.applied(others, to, member, common.force)
        _apply(known, applied, common)
        return
    if val is None or out is None:
        lacking = " and ".join(name for name, value in (("--val", val), ("--out", out)) if value is None)
        item, fix = (
            f"{lacking} is missing",
            "pass the ground truth as --val MASKS and the store to write as --out STORE",
        )
        raise UsageError("stack-usage", "cannot fit a stack", item=item, fix=fix)
    ensemble = open_ensemble(members, 0.5, options)
    split: int | str = "auto" if folds is None else folds
    tell_members(ensemble, common)
    stacking = Stacking(ensemble, out, split, read_groups(groups), common.seed, model, member, common.force)
    later = None if others is None or to is None else stacking.applied(others, to)
    inputs = [*paths_of(members), *paths_of(members_of(apply or [])), val, classes, groups]
    outputs = {"--model": stacking.file, "--out": Path(out), "--to": None if to is None else Path(to)}
    for option, path in outputs.items():
        if path is not None and url_of(path) is None and (path.parent.is_dir() or not common.dry_run):
            check_output(path, Common(force=True, dry_run=common.dry_run), inputs, option)
    stacking.check_out()
    for line in stacking.told():
        common.say(line)
    if common.dry_run:
        _plan(stacking, later, common)
        return
    truth = reading.read(val, ensemble, common, "fit a stack")
    with common.progress() as listener:
        found, written = stacking.run(truth, common.jobs, common.memory, listener)
    values: dict[str, Any] = {"out": asdict(written), "model": str(stacking.file), "digest": found.digest}
    if found.scores is not None:
        values["scores"] = found.scores.to_dict()
    reports = [] if found.scores is None else [found.scores.report()]
    if later is not None:
        done = _write(later, found.model, common)
        values["to"] = asdict(done)
    common.answer({**values, "dry_run": False}, *reports)
    common.say(f"wrote {stacking.file} and {written.written} samples to {out}; {written.resumed} were there already")
    if later is not None:
        common.say(
            f"wrote {done.written} samples to {to}, by the fit of all samples; {done.resumed} were there already"
        )


def _apply(known: Any, applied: StackedStore, common: Common) -> None:
    """Apply a stack that was read from its file."""
    if common.dry_run:
        plan = applied.plan(known.model)
        common.answer({"to": asdict(plan), "dry_run": True}, f"would write {size(plan.bytes)} to {plan.path}")
        return
    done = _write(applied, known.model, common)
    common.answer({"to": asdict(done), "digest": known.digest, "dry_run": False})
    common.say(f"wrote {done.written} samples to {done.path}; {done.resumed} were there already")


def _write(applied: StackedStore, model: Any, common: Common) -> Any:
    """Apply a stack's model and write the store."""
    from ensemble_kit.execution.executor import Threads

    threads = applied.threads(common.jobs, common.memory)
    with common.progress() as listener:
        return applied.write(model, Threads(threads), listener)


def _plan(stacking: Stacking, later: StackedStore | None, common: Common) -> None:
    """Say what would be fitted and written."""
    stores = [stacking.store, *([later] if later is not None else [])]
    plans = [store.plan(None) for store in stores]
    needed = sum(plan.bytes for plan in plans)
    values = {
        "out": asdict(plans[0]),
        "to": asdict(plans[1]) if later is not None else None,
        "model": str(stacking.file),
        "folds": len(stacking.samples_of_folds),
        "classes": list(stacking.ensemble.classes),
        "bytes": needed,
        "dry_run": True,
    }
    told = " and ".join(plan.path for plan in plans)
    common.answer(values, f"would write {size(needed)} to {told}")
