"""What a command writes, tried before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import UsageError


def check_output(
    out: Path,
    common: Common,
    inputs: Sequence[Path | str | None] = (),
    option: str = "--out",
    stdout: bool = False,
) -> None:
    """Refuse, before any work, an output that cannot be written, or that would replace or lie in an input.

    Parameters
    ----------
    inputs : what the command reads; None where an option was not given.
    option : that names the output.
    stdout : whether - stands for standard output.

    Raises
    ------
    UsageError
        It exists and may not be replaced, is an input, lies in a store, or has no folder; it is standard output.
    ResourceError
        Its folder cannot be written to, or its disk is full.
    """
    if str(out) == "-":
        if not stdout:
            item, fix = f"{option} -", f"pass a file as {option}, or ./- for one of this name"
            raise UsageError("output-is-stdout", "cannot write this to standard output", item=item, fix=fix)
        if common.json:
            raise UsageError(
                "output-is-stdout",
                "cannot write two things to standard output",
                item="--out - and --json",
                fix="pass a file as --out, or leave --json out",
            )
        return
    from ensemble_kit.files import check_name, check_target, is_stream, try_target
    from ensemble_kit.remote.copies import as_path

    check_name(out)
    if is_stream(out):
        return
    _check_apart(out, [as_path(path) for path in inputs if path is not None], option)
    if not out.is_dir():  # a folder is checked where its format is known
        check_target(out, force=common.force, folder=False)
    if not common.dry_run:
        try_target(out)


def _check_apart(out: Path, inputs: Sequence[Path], option: str) -> None:
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.remote.urls import folders_of, url_of

    fix, url = f"pass another {option}", url_of(out)
    here = url is None and out.exists()
    if url in [str(path) for path in inputs] or (here and any(p.exists() and out.samefile(p) for p in inputs)):
        raise UsageError(
            "output-is-input", "cannot write over an input", item=f"{str(out)!r} is also an input", fix=fix
        )
    above = folders_of(url) if url else [folder for folder in out.absolute().parents if folder.is_dir()]
    for folder in above:
        if is_store(folder):
            raise UsageError("path-inside-store", "cannot write into a store", item=f"{out} lies in {folder}", fix=fix)
