"""A pseudo-terminal: real processes write to it, and a small screen shows what a user would see."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import warm

COMMAND = (sys.executable, "-m", "ensemble_kit")
PLAIN = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


TERMINALS: list[Terminal] = []


class Terminal:
    """A process whose streams are a pseudo-terminal, but for those that are redirected.

    Parameters
    ----------
    command : words after `ensk`.
    width : columns of the terminal.
    env : of the process, beside what is inherited; what rich looks at is not inherited.
    redirected : `stdout=subprocess.PIPE` and the like.
    """

    def __init__(
        self, *command: object, width: int = 100, cwd: Path | None = None, env: dict[str, str] | None = None,
        **redirected: int,
    ) -> None:  # fmt: skip
        self.width, self.raw = width, b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in PLAIN}
        env = kept | {"TERM": "xterm-256color"} | (env or {})
        options = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True} | redirected
        self.process: subprocess.Popen[str] | warm.Process
        if not warm.unlike(env):
            self.process = warm.Process("ensk", *command, cwd=cwd, env=env, **options)
        else:
            self.process = subprocess.Popen([*COMMAND, *map(str, command)], cwd=cwd, env=env, text=True, **options)
        os.close(slave)
        self.others: tuple[str, str] = ("", "")
        TERMINALS.append(self)

    def read(self, seconds: float) -> bool:
        """Read what comes within some time; tell whether more may come."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            self.raw += (got := os.read(self.master, 1 << 16))
        except OSError as error:  # Linux says so at the end
            assert error.errno == errno.EIO
            return False
        return bool(got)

    def until(self, seen: Callable[[str], object], seconds: float = 180) -> None:
        """Read until the text so far is as wanted."""
        deadline = time.monotonic() + seconds
        while not seen(self.text):
            assert self.read(0.1), self.text
            assert time.monotonic() < deadline, self.text

    def end(self, seconds: float = 180) -> int:
        """Read all, also what is redirected (into `others`), and return the exit code."""
        deadline = time.monotonic() + seconds
        while self.read(0.1):
            assert time.monotonic() < deadline, self.text
        self.others = self.process.communicate(timeout=seconds)
        self.close()
        return self.process.returncode

    def close(self) -> None:
        """Take the terminal away."""
        with suppress(OSError):
            os.close(self.master)

    @property
    def text(self) -> str:
        """What was written so far."""
        return self.raw.decode(errors="replace").replace("\r\n", "\n")

    @property
    def screen(self) -> list[str]:
        """What stands on the screen, which is endlessly high."""
        return screen(self.text, self.width)


def screen(text: str, width: int) -> list[str]:
    """Play text as a terminal does that knows colours, erased lines, the cursor's shape and its way up."""
    rows, y, x = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", text):
        if token == "\n":
            y, x = y + 1, 0
        elif token == "\r":
            x = 0
        elif token == "\x1b[K":
            rows[y] = rows[y][:x]
        elif token == "\x1b[A":
            y = max(y - 1, 0)
        elif len(token) == 1:
            if x == width:
                y, x = y + 1, 0
            rows += [""] * (y + 1 - len(rows))
            rows[y] = rows[y][:x].ljust(x) + token + rows[y][x + 1 :]
            x += 1
        else:
            assert token[-1] == "m", f"a terminal does more than this screen: {token!r}"
        rows += [""] * (y + 1 - len(rows))
    return [row.rstrip() for row in rows]
