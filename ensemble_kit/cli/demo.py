"""`ensk demo`: the whole chain on real images and networks that ship with the project."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.common import Common


def demo(
    context: typer.Context,
    common: Common,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the stores, the threshold set and the submission into.")
    ] = Path("ensk-demo"),
) -> None:
    """Dump, tune, vote and score three real networks on real ultrasound images, and show each command."""
    from ensemble_kit.demo.run import commands, run
    from ensemble_kit.remote.copies import here

    plan = commands(here(out, "cannot run the demo"))
    if common.dry_run:
        common.answer({"commands": [c.line for c in plan]}, "\n".join(c.line for c in plan))
        return

    def execute(arguments: Sequence[str]) -> None:
        """Run a command in this process, without its talk; its errors are the demo's."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            context.find_root().command.main([*arguments, "-q"], standalone_mode=False)

    common.say("a first run compiles kernels for this machine, once; ensk doctor --warm does it beforehand")
    result = run(out, execute, common.say, common.force)
    common.answer(result.values, result.report)
