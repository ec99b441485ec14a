"""What all commands share: the common options, talk on stderr, data on stdout."""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any

import typer

from ensemble_kit.errors import ResourceError, UsageError
from ensemble_kit.execution.events import Listener, Progress

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
        """Talk to the person, on stderr; silent with -q."""
        if not self.quiet:
            talk(printable(text))

    def warn(self, text: str) -> None:
        """Warn on stderr, also with -q."""
        talk(printable(f"warning: {text}"))

    def answer(self, values: dict[str, Any], text: str | None = None) -> None:
        """Give the result on stdout: one JSON object with --json, the text otherwise."""
        narrow = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")  # a locale that lacks the characters
        shown = json.dumps(values, sort_keys=True, ensure_ascii=narrow, allow_nan=False) if self.json else text
        try:
            if shown is not None:
                print(printable(shown))
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            mute()
            raise ResourceError(
                "write-failed",
                "cannot write the answer",
                item=f"standard output: {error.strerror or error}",
                fix="free space, or send the output elsewhere; the files that the command wrote are there",
            ) from None

    def progress(self) -> Bar:
        """Make a listener that shows progress on stderr; use it with `with`."""
        return Bar(self.quiet)


class Bar:
    """Show progress: a bar on a terminal, otherwise a line at the start, every ten seconds and at the end."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._live = quiet, sys.stderr.isatty()
        self._start = self._shown = time.monotonic()
        self._last: Progress | None = None

    def __enter__(self) -> Listener:
        return self._hear

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and not self._quiet:
            if self._live:
                talk("")
            elif self._last.new:
                talk(self._line(self._last))

    def _hear(self, event: Progress) -> None:
        if self._last is None:
            self._start = time.monotonic()
        self._last, now = event, time.monotonic()
        if self._quiet or now - self._shown < (0.1 if self._live else 10.0):
            return
        self._shown = now
        end = "" if self._live else "\n"
        talk(("\r\x1b[K" if self._live else "") + self._line(event), end)

    def _line(self, event: Progress) -> str:
        rate = event.new / max(time.monotonic() - self._start, 1e-9)
        left = (event.total - event.done) / rate if rate > 0 else 0
        parts = [f"{event.verb} {event.done}/{event.total}", f"{rate:.1f} {'trials' if event.note else 'samples'}/s"]
        if event.done < event.total:
            parts.append(f"ETA {int(left) // 60}:{int(left) % 60:02d}")
        if event.bytes:
            parts.append(size(event.bytes))
        if event.note:
            parts.append(event.note)
        return " · ".join(parts)


def talk(text: str, end: str = "\n") -> None:
    """Say something on stderr. Nobody may listen (a closed terminal, a full disk): that never ends a command."""
    with suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


def mute() -> None:
    """Let nothing come of what still waits for stdout: Python would try it once more at its end, and complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    r"""Escape what a terminal would obey, as JSON does: a name in a file may hold `\x1b[2J` or turn the text round."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(c: str) -> str:
    return c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] if ord(c) != 127 else "\\u007f"


def size(n: int | float) -> str:
    """Write a number of bytes for people: `1.5 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


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
    "jobs": (Annotated[int | None, typer.Option("--jobs", min=1, help="Threads; default: every core.")], None),
    "memory": (Annotated[str | None, typer.Option("--memory", help="Memory budget, such as 2GB.")], None),
    "seed": (Annotated[int, typer.Option("--seed", help="Seed of everything drawn at random.")], 0),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="Print the plan and the bytes, do nothing.")], False),
    "force": (Annotated[bool, typer.Option("--force", help="Replace what is there.")], False),
    "quiet": (Annotated[bool, typer.Option("-q", "--quiet", help="No talk on stderr.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show a traceback for an error.")], False),
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; its parameter `common` receives them as one value."""

    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in _COMMON}
        values["memory"] = parse_memory(values["memory"])
        try:
            function(common=Common(**values), **given)
        except BrokenPipeError:
            mute()  # nobody reads on: end quietly. Here, since typer would make an exit code of 1 of it

    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "common"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in _COMMON.items()
    ]
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    run.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """Lay a table out as plain text: the first column to the left, the others to the right."""
    widths = [max(len(str(row[k])) for row in [columns, *rows]) for k in range(len(columns))]

    def line(cells: list[str]) -> str:
        return "  ".join(
            str(c).ljust(w) if k == 0 else str(c).rjust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    rule = "─" * len(line(["x" * w for w in widths]))
    return "\n".join([*([title] if title else []), line(columns), rule, *[line(r) for r in rows]])
