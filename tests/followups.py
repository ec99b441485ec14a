"""What a printed fix says, as command lines: each option and command that it names with its value, followed to the letter.

A fix speaks to people, so not every one can be run: one that names a value of the user's own (`--classes FILE`) or an
act outside the command line is left. What can be run must not end in the error that printed it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.core
import typer.main

import warm
from ensemble_kit.cli import app as app_module
from ensemble_kit.cli.app import app
from ensemble_kit.cli.commands import COMMANDS, Commands
from ensemble_kit.errors import EnskError
from ensemble_kit.execution.parts import AUTO, Part
from ensemble_kit.recipes.part_file import path_of

IDLE = {"--debug", "--json", "--quiet", "--dry-run", "--help"}
"""Options that change no outcome."""
OUTPUTS = {"--out", "--statistics", "--confusion", "--by-sample", "--storage"}
"""Options that name what a command writes."""
PROSE = frozenset(
    [
        "a",
        "all",
        "an",
        "and",
        "as",
        "at",
        "beside",
        "but",
        "by",
        "each",
        "for",
        "from",
        "if",
        "in",
        "instead",
        "into",
        "is",
        "leave",
        "of",
        "on",
        "once",
        "or",
        "out",
        "so",
        "than",
        "that",
        "the",
        "them",
        "then",
        "there",
        "to",
        "too",
        "twice",
        "until",
        "up",
        "what",
        "where",
        "which",
        "with",
        "without",
    ]
)
"""Words behind an option that belong to the sentence."""


class Options(NamedTuple):
    """The options of a command: those that take a value, and flags with what they switch off."""

    valued: frozenset[str]
    flags: frozenset[str]


@cache
def commands() -> dict[str, Options]:
    """List every command with its options, as the command line itself knows them."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    context = group.make_context("ensk", [])
    found = {}
    for name in COMMANDS:
        options = [p for p in group.get_command(context, name).params if isinstance(p, typer.core.TyperOption)]
        named = {o: p for p in options for o in (*p.opts, *p.secondary_opts)}
        flags = frozenset(o for o, p in named.items() if p.is_flag)
        found[name] = Options(frozenset(named) - flags, flags)
    return found


def named_options(text: str) -> Iterator[str]:
    """Yield every long option that a text names."""
    for match in re.finditer(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", text):
        yield match.group()


def named_commands(text: str) -> Iterator[str]:
    """Yield every command of `ensk` that a text names."""
    for match in re.finditer(r"(?<![\w/.])ensk ([a-z][a-z-]+)", text):
        if match.group(1) not in PROSE:
            yield match.group(1)


def follow_ups(argv: list[str], item: str, fix: str) -> Iterator[list[list[str]]]:
    """Yield each way to follow a fix: command lines to run in their order.

    Parameters
    ----------
    argv : the command line that ended in the error, without `ensk`.
    item, fix : of the error.
    """
    if not argv or argv[0] not in commands():
        return
    for line in re.findall(r"`ensk ([^`]+)`", fix):
        if " " in line and "…" not in line:
            yield [shlex.split(line), argv]
    out = re.sub(r"`[^`]*`", "", fix)
    if argv[0] != "dump-logits":
        out = re.sub(r"(dump|make) [^,;]*", "", out)  # another command is to be run again, with the user's options
    known = commands()[argv[0]]
    for alternative in re.split(r",? or (?=\S)|; ", out):
        if leave := re.search(r"leave (--[a-z-]+|it) out", alternative):
            option = leave.group(1) if leave.group(1) != "it" else next(named_options(item), "")
            if option in argv:
                yield [without(argv, option)]
            continue
        named = re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?:[ =]('[^']*'|[^\s()]+))?", alternative)
        given = [(option, value.rstrip(",;.").strip("'")) for option, value in named if option not in IDLE]
        if given and all(o in known.flags or (o in known.valued and is_value(v)) for o, v in given):
            line = argv
            for option, value in given:
                line = [*line, option] if option in known.flags else [*without(line, option), option, value]
            yield [line]


def is_value(word: str) -> bool:
    """Tell whether the word behind an option is a value, rather than the sentence's or a name such as FILE or HxW."""
    return bool(word) and word not in PROSE and "…" not in word and not re.search(r"\b[A-Z]+\b|HxW|^-", word)


def without(argv: list[str], option: str) -> list[str]:
    """Take an option and its value out of a command line."""
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word == option:
            skip = option in commands()[argv[0]].valued
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def written_paths(argv: list[str]) -> set[Path]:
    """List the paths that a command line is told to write, or to mend."""
    outs = {Path(b.removeprefix("sqlite:///")) for a, b in pairwise(argv) if a in OUTPUTS}
    outs |= {path_of(out, Part.parse(b)) for a, b in pairwise(argv) if a == "--part" and b != AUTO for out in outs}
    return outs | ({Path(argv[1])} if argv[:1] == ["repair"] and len(argv) > 1 else set())


class Ended(NamedTuple):
    """A command line that ended in an error, and where it ran."""

    argv: list[str]
    cwd: Path
    code: str
    item: str
    fix: str


ERROR = re.compile(r"^error\[([a-z0-9-]+)\] (?:.*?): (.*) · fix: (.*)$", re.MULTILINE)


class Collector:
    """Every command line of this process's tests that ended in an error, each kind of fix once."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.seen: set[tuple[str, str, str]] = set()
        self.busy = False

    def note(self, argv: list[str], cwd: Path, code: str, item: str, fix: str) -> None:
        """Keep one error, unless its kind was followed before."""
        kind = (argv[0] if argv else "", code, re.sub(r"'[^']*'|\d+|/\S+", "", fix))
        if not self.busy and kind not in self.seen:
            self.seen.add(kind)
            self.ended.append(Ended(argv, cwd, code, item, fix))

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hear the command line in this process and in those that tests start."""
        call, run, fork = typer.core.TyperGroup.main, subprocess.run, warm.run

        def main(group: typer.core.TyperGroup, args: Any = None, *rest: Any, **options: Any) -> Any:
            try:
                return call(group, args, *rest, **options)
            except EnskError as error:
                self.note([str(a) for a in args or ()], Path.cwd(), error.code, error.item, error.fix)
                raise

        def started(command: Any, *rest: Any, **options: Any) -> Any:
            ran = run(command, *rest, **options)
            return hear(command if isinstance(command, (list, tuple)) else [], ran, options.get("cwd"))

        def forked(*words: object, **options: Any) -> Any:
            return hear(words, fork(*words, **options), options.get("cwd"))

        def hear(command: Sequence[object], ran: Any, cwd: Any) -> Any:
            words = [str(w) for w in command]
            at = next((k for k, w in enumerate(words) if Path(w).name in {"ensk", "ensemble_kit"}), None)
            if at is not None and ran.returncode and isinstance(ran.stderr, str):
                for code, item, fix in ERROR.findall(ran.stderr):
                    self.note(words[at + 1 :], Path(cwd or Path.cwd()), code, item, fix)
            return ran

        monkeypatch.setattr(typer.core.TyperGroup, "main", main)
        monkeypatch.setattr(subprocess, "run", started)
        monkeypatch.setattr(warm, "run", forked)

    def follow(self, place: Path | None) -> None:
        """Follow what was heard since the last call, where no file outside `place` would be written.

        A followed fix must not end in the error that printed it, nor in a bug of ours, and changes no file but those
        that its command line names as outputs.
        """
        ended, self.ended, self.busy = self.ended, [], True
        try:
            for error in ended:
                for lines in follow_ups(error.argv, error.item, error.fix):
                    written = [error.cwd / path for line in lines for path in written_paths(line)]
                    if place and all(path.resolve().is_relative_to(place.resolve()) for path in written):
                        _check(error, lines, place)
        finally:
            self.busy = False


def _check(error: Ended, lines: list[list[str]], place: Path) -> None:
    before = _digests(place)
    for line in lines:
        code, ended, said = _run(line, error.cwd)
    where = f"{shlex.join(error.argv)}\n  {error.code}: {error.item} · fix: {error.fix}\nfollowed by {lines}:\n{said}"
    assert (error.code, error.item) not in ended, f"the same error again: {where}"
    assert "Traceback" not in said, where
    assert code != 1, where
    outputs = {(error.cwd / path).resolve() for line in lines for path in written_paths(line)}
    for path, digest in before.items():
        if not any(path.is_relative_to(out) for out in outputs):
            assert path.exists() and _digest(path) == digest, f"{path} is not what it was: {where}"


def _run(line: list[str], cwd: Path) -> tuple[int, list[tuple[str, str]], str]:
    """Run a command line in this process, but for a dump, whose framework starts threads, and a budget of memory.

    A process of many tests holds more than a command does. Returns its exit code,
    the codes and items of its errors, and what it said.
    """
    if line[0] == "dump-logits" and "--memory" not in line:
        forked = warm.ensk(*line, cwd=cwd)
        return forked.returncode, [(code, item) for code, item, _ in ERROR.findall(forked.stderr)], forked.stderr
    if "--memory" in line:
        command = [sys.executable, "-m", "ensemble_kit", *line]
        ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
        return ran.returncode, [(code, item) for code, item, _ in ERROR.findall(ran.stderr)], ran.stderr
    err = io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            app(app_module._spread(line), standalone_mode=False, prog_name="ensk")
        except EnskError as error:
            return error.exit_code, [(error.code, error.item)], f"error[{error.code}] {error}"
        except Exception as error:  # noqa: BLE001 - as `main` does: a wrong option, or a bug of ours
            return app_module._exit_code(error), [], f"{type(error).__name__}: {error}"
        return 0, [], err.getvalue()


def _digests(place: Path) -> dict[Path, bytes]:
    return {p.resolve(): _digest(p) for p in place.rglob("*") if p.is_file() and not p.is_symlink()}


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except OSError:  # a test took its rights away
        return b""
