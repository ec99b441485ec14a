"""The command `ensk`: its subcommands, and the exit code of every way in which a run ends."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, TextIO

import typer

from ensemble_kit import __version__
from ensemble_kit.cli import signals, slurm
from ensemble_kit.cli.commands import SETTINGS, Commands
from ensemble_kit.cli.streams import mute, printable, talk
from ensemble_kit.errors import EnskError

app = typer.Typer(cls=Commands, invoke_without_command=True, **SETTINGS)


@app.callback()
def about(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Turn many segmentation models into one answer: dump logits, tune thresholds, vote, submit."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        talk(context.get_help())
        raise typer.Exit(2)


_SEVERAL = {"--compare", "--apply"}


def main(arguments: list[str] | None = None) -> None:
    """Run `ensk` and exit: 0 done, otherwise the exit code of docs/errors.md."""
    _mend_streams()
    try:
        signals.listen()
        code = _run(sys.argv[1:] if arguments is None else arguments)
        signals.ignore()
    except signals.Signalled as error:
        signals.end(error.number)
    sys.exit(code)


def _mend_streams() -> None:
    """Open the streams that the caller closed: otherwise the next file takes their number, and messages go into it.

    Characters that a stream cannot encode are escaped: a class's name must not end a command of hours.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # a closed stdout cannot be written
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = sys.stdout or _text_stream(1)
    sys.stderr = sys.stderr or _text_stream(2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _text_stream(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", closefd=False)


def _run(arguments: list[str]) -> int:
    debug, typed = "--debug" in arguments, slurm.TYPED.set(tuple(arguments))
    try:
        code = app(_spread(arguments), standalone_mode=False, prog_name="ensk")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: every error becomes an exit code
        if (signalled := signals.signal_behind(error)) is not None:
            raise signalled from None
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        return _exit_code(error)
    finally:
        slurm.TYPED.reset(typed)


def _spread(arguments: list[str]) -> list[str]:
    """Repeat an option that takes several paths before each of them: an option of Typer takes one value."""
    out: list[str] = []
    many = ""
    for word in arguments:
        if word.startswith("-"):
            many = word if word in _SEVERAL else ""
        elif many and out[-1] != many:
            out.append(many)
        out.append(word)
    return out


def _exit_code(error: Exception) -> int:
    """Report an error in its three parts; return its exit code."""
    if isinstance(error, EnskError):
        return _report(error.code, str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        mute()
        return 0
    if _ran_out(error):
        return _report("memory", "cannot continue: out of memory · fix: pass fewer --jobs or a smaller --memory", 5)
    if isinstance(error, SystemError):  # Python's word for machine code that failed and did not say why
        return _report(
            "memory",
            "cannot continue: a library failed without saying why, as where memory runs out"
            " · fix: pass fewer --jobs or a smaller --memory; if it fails again, pass --debug and report the traceback",
            5,
        )
    if isinstance(error, OSError):
        where = error.filename if error.filename is not None else "an unnamed file"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return _report("input-missing", f"cannot read or write: {where} does not exist · fix: check the path", 4)
        return _report(
            "io",
            f"cannot read or write: {where}: {error.strerror or error}"
            " · fix: check the path, its permissions and the free space, then run again",
            5,
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return _report(
            "memory",
            "cannot continue: the system starts no more threads"
            " · fix: pass --jobs 1, or raise the limits on memory and processes (ulimit -v, -u)",
            5,
        )
    if hasattr(error, "format_message"):  # of Typer, whose class has no public name
        command = getattr(getattr(error, "ctx", None), "command_path", "ensk")
        text = error.format_message().rstrip(".") or "no command was given"
        return _report("usage", f"cannot run {command}: {text} · fix: see {command} --help", 2)
    message = f"a bug in ensk: {type(error).__name__}: {error}"
    return _report("bug", f"{message} · fix: run again with --debug and report the traceback", 1)


def _ran_out(error: BaseException | None) -> bool:
    """Whether memory ran out: by an error of its own, of a library that was not loaded, or behind another error."""
    if isinstance(error, ImportError):
        return any(word in str(error) for word in ("failed to map segment", "annot allocate memory"))
    return error is not None and (isinstance(error, MemoryError) or _ran_out(error.__cause__ or error.__context__))


def _report(code: str, message: str, exit_code: int) -> int:
    talk(f"error[{code}] {printable(message)}")
    return exit_code
