"""What all commands share: the common options, and how a command talks, warns, answers and shows progress."""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ensemble_kit.cli import plain
from ensemble_kit.cli.progress import Lines
from ensemble_kit.cli.streams import draws, mute, printable, talk
from ensemble_kit.errors import Caution, EnskWarning, ResourceError, UsageError, check_number
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.remote.copies import as_path, remove_copies

if TYPE_CHECKING:
    from ensemble_kit.cli.plain import Shown

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    json: bool = False
    jobs: int | None = None
    memory: int | None = None
    seed: int = 0
    dry_run: bool = False
    force: bool = False
    quiet: bool = False
    debug: bool = False

    def say(self, text: str) -> None:
        """Tell the user something on stderr; silent with -q."""
        if not self.quiet:
            talk(printable(text))

    def warn(self, caution: Caution) -> None:
        """Warn on stderr, also with -q."""
        talk(printable(f"warning: {caution}"))

    def answer(self, values: dict[str, Any], *shown: Shown) -> None:
        """Give the result on stdout, and on stderr what its reports warn of.

        With --json the result is one JSON object; without, it is what is shown, drawn by rich on a terminal and plain
        text in a pipe.
        """
        try:
            if text := self._text(values, shown):
                print(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            mute()
            raise ResourceError(
                "write-failed",
                "cannot write the answer",
                item=f"standard output: {error.strerror or error}",
                fix="free space, or send the output elsewhere; the files that the command wrote are complete",
            ) from None
        for part in shown:
            for warning in getattr(part, "warnings", ()):
                self.warn(warning)

    def _text(self, values: dict[str, Any], shown: Sequence[Shown]) -> str:
        if self.json:
            narrow = (
                not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
            )  # a locale that lacks the characters
            return printable(json.dumps(values, sort_keys=True, ensure_ascii=narrow, allow_nan=False))
        if shown and draws(sys.stdout):
            from ensemble_kit.cli.terminal import draw

            return draw(shown, sys.stdout)
        return printable(plain.text(shown))

    def progress(self) -> AbstractContextManager[Listener]:
        """Make a listener for a `with`: a bar on a terminal, lines in a log, nothing with -q."""
        if self.quiet:
            return nullcontext(nobody)
        if sys.stderr.isatty() and draws(sys.stderr):
            from ensemble_kit.cli.bar import Bar

            return Bar(sys.stderr)
        return Lines()


@contextmanager
def _warnings_shown(common: Common) -> Iterator[None]:
    """Show the warnings of our own functions as those of a command."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", EnskWarning)
        show = warnings.showwarning

        def shown(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if isinstance(message, EnskWarning):
                common.warn(message.caution)
            else:
                show(message, category, *where)

        warnings.showwarning = cast(Any, shown)
        yield


def parse_memory(text: str | None) -> int | None:
    """Read `2GB`, `500MiB` or a number of bytes."""
    if text is None:
        return None
    number = text.strip().upper().rstrip("KMGTIB")
    try:
        value = int(float(number) * _UNITS[text.strip().upper()[len(number) :].strip()])
    except (ValueError, KeyError, OverflowError):
        value = 0
    if value <= 0:
        raise UsageError(
            "option-invalid",
            "cannot use a memory budget",
            item=f"--memory {text!r}",
            fix="pass a size such as 2GB, 500MiB, or a number of bytes",
        )
    return value


_COMMON: dict[str, tuple[Any, Any]] = {
    "json": (Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")], False),
    "jobs": (Annotated[int | None, typer.Option("--jobs", help="Number of threads. Default: all cores.")], None),
    "memory": (
        Annotated[
            str | None,
            typer.Option(
                "--memory",
                help="Memory budget, such as 2GB: work is done in smaller pieces, or refused before it begins.",
            ),
        ],
        None,
    ),
    "seed": (
        Annotated[
            int, typer.Option("--seed", help="Seed of a search, of folds and of a dump; nothing else is random.")
        ],
        0,
    ),
    "dry_run": (
        Annotated[bool, typer.Option("--dry-run", help="Print the plan and its bytes, and do nothing.")],
        False,
    ),
    "force": (Annotated[bool, typer.Option("--force", help="Overwrite existing output.")], False),
    "quiet": (Annotated[bool, typer.Option("-q", "--quiet", help="Print only warnings and errors on stderr.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")], False),
}


def _as_typed(value: Any) -> Any:
    """Give URLs their second slash again, which a path has lost: messages show them as they were typed."""
    if isinstance(value, list):
        return [_as_typed(item) for item in value]
    return as_path(value) if isinstance(value, Path) else value


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; its parameter `common` receives them as one value."""

    def run(**given: Any) -> None:
        given = {name: _as_typed(value) for name, value in given.items()}
        values = {name: given.pop(name) for name in _COMMON}
        values["memory"] = parse_memory(values["memory"])
        if values["jobs"] is not None:
            check_number("--jobs", values["jobs"], "pass 1 or more threads", least=1)
        check_number("--seed", values["seed"], "pass 0 or more", least=0)
        common = Common(**values)
        try:
            with _warnings_shown(common):
                function(common=common, **given)
        except BrokenPipeError:
            mute()  # the reader is gone: end quietly, and here, since Typer would exit with 1
        finally:
            remove_copies()

    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "common"]
    for told in (m for p in own for m in getattr(p.annotation, "__metadata__", ()) if hasattr(m, "readable")):
        told.readable = False  # Typer would call a file that may not be read a wrong option; whoever reads it says more
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in _COMMON.items()
    ]
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    run.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run
