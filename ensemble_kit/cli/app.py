"""The command `ensk`: its subcommands, and what every end of a run turns into an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType

import typer

from ensemble_kit.cli import (
    convert,
    demo,
    doctor,
    dump_logits,
    inspect,
    score,
    tune_thresholds,
    verify,
    vote,
)
from ensemble_kit.cli.common import command
from ensemble_kit.errors import EnskError

app = typer.Typer(
    help="Turn many segmentation models into one answer: dump logits, tune thresholds, vote, submit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, module in {
    "dump-logits": dump_logits.dump_logits,
    "tune-thresholds": tune_thresholds.tune_thresholds,
    "vote": vote.vote,
    "score": score.score,
    "inspect": inspect.inspect,
    "verify": verify.verify,
    "convert": convert.convert,
    "demo": demo.demo,
    "doctor": doctor.doctor,
}.items():
    app.command(name)(command(module))  # type: ignore[arg-type]


class Signalled(BaseException):
    """A signal asks the process to end; raised in the main thread so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        self.number = number


def _on_signal(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Signalled(number)


def main(arguments: list[str] | None = None) -> None:
    """Run `ensk` and exit: 0 done, otherwise the code of README's table."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        code = app(arguments, standalone_mode=False, prog_name="ensk")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except EnskError as error:
        if debug:
            traceback.print_exc()
        return _report(error.code, str(error), error.exit_code)
    except Signalled as error:
        print(f"ended by {signal.Signals(error.number).name}; run the same command again to go on", file=sys.stderr)
        return 128 + error.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: end quietly
        return 0
    except MemoryError:
        return _report("memory", "cannot go on: out of memory · fix: pass fewer --jobs or a smaller --memory", 5)
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = error.filename if error.filename is not None else "no file named"
        return _report(
            "io",
            f"cannot read or write: {where}: {error.strerror or error}"
            " · fix: check the path, its permissions and the free space, then run again",
            5,
        )
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is reported, not thrown at the user
        if hasattr(error, "format_message"):  # typer's own, of a kind that has no public name
            command = getattr(getattr(error, "ctx", None), "command_path", "ensk")
            text = error.format_message().rstrip(".") or "no command was named"
            return _report("usage", f"cannot run {command}: {text} · fix: see {command} --help", 2)
        if debug:
            traceback.print_exc()
        return _report(
            "bug",
            f"a bug of ours: {type(error).__name__}: {error} · fix: run again with --debug and report the traceback",
            1,
        )


def _report(code: str, message: str, exit_code: int) -> int:
    clean = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)  # no terminal escapes
    print(f"error[{code}] {clean}", file=sys.stderr, flush=True)
    return exit_code
