"""Commands that are signalled at a moment of their work: forks of a process that has loaded their kernels, too.

`warm.py` of the tests forks from one that has imported everything and done nothing else; a vote then loads kernels for 0.5 s of a
core, half of its time here. These children also say how long they have computed, by which a signal is aimed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

LOADED = """
import torch
from ensemble_kit.cli import app, commands
from importlib import import_module
for name in commands.COMMANDS:
    import_module(f"ensemble_kit.cli.{name.replace('-', '_')}")
"""


class Ended(NamedTuple):
    """How a child ended: its exit code, or the signal below 0; what it said; the seconds that it computed."""

    code: int
    out: str
    err: str
    seconds: float


class Child:
    """A child that runs."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder = server, folder
        self.pid = self._said(600)["pid"]  # the first one waits for kernels, which may have to be compiled

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for its end."""
        said = self._said(timeout)
        out, err = ((self._folder / name).read_text() for name in ("out", "err"))
        return Ended(said["code"], out, err, said["seconds"])

    def reach(self, seconds: float) -> None:
        """Wait until it has computed so long: a point of its work that moves with no other load of the machine."""
        clock = (~self.pid << 3) | 2  # clock_getcpuclockid(3)
        with suppress(OSError):  # it has ended
            while time.clock_gettime(clock) < seconds:
                time.sleep(0.001)

    def alive(self) -> bool:
        """Whether it still computes."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def _said(self, timeout: float) -> dict[str, Any]:
        assert self._server.stdout is not None
        assert select.select([self._server.stdout], [], [], timeout)[0], f"no answer within {timeout} s"
        return dict(json.loads(self._server.stdout.readline()))


class Loaded:
    """Starts children, one at a time.

    Parameters
    ----------
    folder : where it keeps what they say, and where they look for modules.
    first : commands that are run once, so that their kernels are loaded.
    """

    def __init__(self, folder: Path, *first: tuple[str, ...]) -> None:
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        self._folder = folder
        self._server = subprocess.Popen([sys.executable, __file__, json.dumps(first)], text=True, cwd=folder,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, "PYTHONPATH": path})  # fmt: skip

    def start(self, *words: object, code: str = "", **env: str) -> Child:
        """Run a command; or `code`, whose sys.argv are the words."""
        assert self._server.stdin is not None
        asked = {"words": [str(w) for w in words], "code": code, "env": env}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Child(self._server, self._folder)

    def run(self, *words: object, code: str = "", **env: str) -> Ended:
        """Run it to its end."""
        return self.start(*words, code=code, **env).wait()

    def close(self) -> None:
        """End the process."""
        self._server.communicate(timeout=60)


def child(asked: dict[str, Any]) -> None:
    """Be a process of its own that runs what was asked; never returns."""
    from ensemble_kit.cli import app, signals

    code: Any = 1
    try:
        signals.listen_early()
        os.environ.update(asked["env"])
        for number, name, mode in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
            fd = os.open(name, mode | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(fd, number)
            os.close(fd)
        if asked["code"]:
            sys.argv = ["-c", *asked["words"]]
            exec(asked["code"], {"__name__": "__main__"})
            code = 0
        else:
            app.main(asked["words"])
    except SystemExit as ended:
        code = ended.code or 0
    except Exception:  # noqa: BLE001 - said on stderr, as Python does
        import traceback

        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def serve(first: list[list[str]]) -> None:
    """Fork a child for each line that is read, and say its pid and how it ended."""
    exec(LOADED, {})
    from ensemble_kit.cli import app

    own = os.dup(1)
    os.dup2(2, 1)
    for words in first:
        assert app._run(words) == 0, words
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            os.close(own)
            child(json.loads(line))
        os.write(own, f'{{"pid": {pid}}}\n'.encode())
        _, status, used = os.wait4(pid, 0)
        ended = {"code": os.waitstatus_to_exitcode(status), "seconds": used.ru_utime + used.ru_stime}
        os.write(own, (json.dumps(ended) + "\n").encode())


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
