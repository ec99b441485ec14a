"""`ensk repair`: what is wrong with a store, and what can be kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import Caution, some

if TYPE_CHECKING:
    from ensemble_kit.logits.repair import Repaired


def repair(
    store: Annotated[Path, typer.Argument(help="Logit store.", metavar="STORE")],
    common: Common,
) -> None:
    """Keep what is sound in a damaged store, move the rest aside, and list what to dump again; nothing is deleted."""
    from ensemble_kit.logits.repair import repair as mend
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.members import unnamed
    from ensemble_kit.remote.copies import here

    store = unnamed(here(store, "cannot repair a store"))
    memory.check(common.memory, memory.of_repair(store), "repair")
    with common.progress() as listen:
        done = mend(store, dry_run=common.dry_run, listener=listen)
    common.answer({**asdict(done), "dry_run": common.dry_run}, _text(done, dry=common.dry_run))
    if done.missing:
        doubt = f"{len(done.missing)} samples are missing: {some(done.missing)}"
        common.warn(Caution(doubt, "run the same dump again to add them (or vote without them: --samples common)"))


def _text(done: Repaired, *, dry: bool) -> str:
    lines = [f"{step.path}: {step.what}{f' → {step.to}' if step.to else ''}" for step in done.steps]
    end = f"{done.path}: {done.kept} samples are intact, {len(done.missing)} are missing"
    if not lines:
        return f"{end}; nothing needed repair"
    return "\n".join([*lines, end + ("; nothing was changed" if dry else "")])
