"""What a command writes, tried before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import UsageError


def check_output(out: Path, common: Common, inputs: Sequence[Path | str | None] = (), option: str = "--out") -> None:
    """Refuse, before any work, an output that cannot be written, or that would replace or lie in an input.

    Parameters
    ----------
    inputs : what the command reads; None where an option was not given.
    option : that names the output.

    Raises
    ------
    UsageError
        It exists and may not be replaced, is an input, lies in a store, or has no folder.
    ResourceError
        Its folder cannot be written to, or its disk is full.
    """
    if str(out) == "-":
        if common.json:
            raise UsageError(
                "output-is-stdout",
                "cannot write two things to standard output",
                item="--out - and --json",
                fix="pass a file as --out, or leave --json out",
            )
        return
    from ensemble_kit.files import check_name, check_target, is_stream, try_target

    check_name(out)
    if is_stream(out):
        return
    _check_apart(out, [Path(path) for path in inputs if path is not None], option)
    if not out.is_dir():  # a folder is checked where its format is known
        check_target(out, force=common.force, folder=False)
    if not common.dry_run:
        try_target(out)


def _check_apart(out: Path, inputs: Sequence[Path], option: str) -> None:
    from ensemble_kit.logits.open import is_store

    fix = f"pass another {option}"
    if out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise UsageError(
            "output-is-input", "cannot write over an input", item=f"{str(out)!r} is also an input", fix=fix
        )
    for folder in out.absolute().parents:
        if folder.is_dir() and is_store(folder):
            raise UsageError("path-inside-store", "cannot write into a store", item=f"{out} lies in {folder}", fix=fix)
