"""`ensk demo`: the whole chain on real images and networks that ship with the project."""

from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.common import Common


def demo(
    common: Common,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the stores, the threshold set and the submission into.")
    ] = Path("ensk-demo"),
) -> None:
    """Dump, tune, vote and score three real networks on real ultrasound images, and show each command."""
    from ensemble_kit.demo.run import commands, run

    plan = commands(out)
    if common.dry_run:
        common.answer({"commands": [c.line for c in plan]}, "\n".join(c.line for c in plan))
        return
    result = run(out, common)
    common.answer(result.values, result.report)
