"""The two streams of a command: talk on stderr, which never ends it, and answers on stdout; what may be drawn where."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TextIO

from ensemble_kit.errors import redacted


def talk(text: str) -> None:
    """Print a line on stderr, verbatim, so that it can be searched and copied.

    A stderr that cannot be written (a closed terminal, a full disk) never ends a command. Passwords and keys in URLs
    are left out: logs are kept.
    """
    say(sys.stderr, f"{redacted(text)}\n")


def say(stream: TextIO, text: str) -> None:
    """Write text in one piece, so that a bar or another thread cannot come between it and its end."""
    with suppress(OSError):
        stream.write(text)
        stream.flush()


def mute() -> None:
    """Drop what still waits for stdout: Python would try to write it once more at exit, and complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def draws(stream: TextIO) -> bool:
    """Tell whether tables are drawn on a stream, by rich's rules and without importing rich."""
    forced = os.environ.get("FORCE_COLOR")
    is_terminal = stream.isatty() if forced is None else bool(forced)
    return is_terminal and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}


def printable(text: str) -> str:
    r"""Escape what a terminal would obey, as JSON does: a name in a file may hold `\x1b[2J` or turn the text round."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(c: str) -> str:
    return c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] if ord(c) != 127 else "\\u007f"
