"""`ensk repair`: what is wrong with a store, and what can be saved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import some

if TYPE_CHECKING:
    from ensemble_kit.logits.repair import Repaired


def repair(
    store: Annotated[Path, typer.Argument(help="A store of logits.")],
    common: Common,
) -> None:
    """Keep what is sound of a damaged store, move the rest aside, and say what to dump again; nothing is deleted."""
    from ensemble_kit.logits.repair import repair as mend

    with common.progress() as listen:
        done = mend(store, dry_run=common.dry_run, listener=listen)
    common.answer({**asdict(done), "dry_run": common.dry_run}, _text(done, dry=common.dry_run))
    if done.missing:
        common.warn(
            f"{len(done.missing)} samples are missing: {some(done.missing)}; run the same dump again, it goes on with "
            "them (or vote without them: --samples common)"
        )


def _text(done: Repaired, *, dry: bool) -> str:
    lines = [f"{step.path}: {step.what}{f' → {step.to}' if step.to else ''}" for step in done.steps]
    end = f"{done.path}: {done.kept} samples are whole, {len(done.missing)} are missing"
    if not lines:
        return f"{end}; nothing had to be repaired"
    return "\n".join([*lines, end + ("; nothing was changed" if dry else "")])
