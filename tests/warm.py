"""Commands in processes that start with everything imported: forks of one that has imported, and done nothing else.

`python -m ensemble_kit` takes 0.6 s of a core before it begins, with torch 2 s; a fork takes 0.02 s. From there on it is
a process as any other: its own arguments, folder, environment, streams, threads and exit code. Tests of the start, of
what is imported, of options of the interpreter, and of what stands around a process (a tracer, limits, peaks of memory)
start real ones.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
AT_START = ("NUMBA_", "OMP_", "XDG_", "PYTHON", "LD_PRELOAD", "MALLOC_")
"""Variables that are read before or while modules are imported: a process with other ones has to be started."""
OF_LIBRARIES = {"PYTHONPATH", "PYTHONHASHSEED", "MALLOC_TRIM_THRESHOLD_"}
"""Variables that differ although no test means it: Dask puts two into its own process."""
CLIENT = """\
#!{python} -ISs
import json, os, socket, sys
to = socket.socket(socket.AF_UNIX)
to.connect({path!r})
asked = json.dumps([["ensk", *sys.argv[1:]], os.getcwd(), dict(os.environ), False]).encode()
socket.send_fds(to, [len(asked).to_bytes(8, "big")], [0, 1, 2])
to.sendall(asked)
code = int(to.makefile().read().split()[1])
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Process:
    """`ensk …`, `python -m ensemble_kit …` or `python -c CODE …` as a fork, used as a `subprocess.Popen` of text is.

    Parameters
    ----------
    words : `ensk …`, or what stands behind `python`: `-m ensemble_kit …` or `-c CODE …`, behind `-W error` or not.
    stdin, stdout, stderr : descriptors, or `PIPE` of `subprocess`; by default nothing, and files, which `communicate`
        reads and which never make the process wait for a reader.
    """

    def __init__(
        self, *words: object, cwd: Path | str | None = None, env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL, stdout: int | None = None, stderr: int | None = None,
        start_new_session: bool = False,
    ) -> None:  # fmt: skip
        self.args, self.cwd = [str(w) for w in words], Path(cwd or Path.cwd())
        env = dict(os.environ if env is None else env)
        assert not (other := unlike(env)), f"{other} differ: they need a process that is started"
        self.returncode: int | None = None
        self._said, self._files = ["", ""], dict[int, int]()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(_server().path))
        theirs: list[int] = [os.open(os.devnull, os.O_RDWR) if stdin == subprocess.DEVNULL else os.dup(stdin)]
        self.stdout, self.stderr = (self._stream(k, wanted, theirs) for k, wanted in enumerate((stdout, stderr)))
        asked = json.dumps([self.args, str(self.cwd), env, start_new_session]).encode()
        socket.send_fds(self._server, [len(asked).to_bytes(8, "big")], theirs)
        for fd in theirs:
            os.close(fd)
        self._server.sendall(asked)
        self._told = self._server.makefile()
        self.pid = int(self._told.readline())

    def _stream(self, k: int, wanted: int | None, theirs: list[int]) -> IO[str] | None:
        """Append the descriptor that the process gets; return the end of a pipe that we read."""
        if wanted == subprocess.PIPE:
            ours, other = os.pipe()
            theirs.append(other)
            return os.fdopen(ours)
        if wanted is None:
            self._files[k] = os.memfd_create("said")
        theirs.append(
            os.open(os.devnull, os.O_WRONLY) if wanted == subprocess.DEVNULL else os.dup(wanted or self._files[k])
        )
        return None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = 120) -> int:
        """Wait for its end; return the exit code."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._server.close()
            for k, fd in self._files.items():
                os.lseek(fd, 0, os.SEEK_SET)
                with os.fdopen(fd) as file:
                    self._said[k] = file.read()
        return self.returncode

    def communicate(self, timeout: float | None = 120) -> tuple[str, str]:
        """Wait for its end; return what it said."""
        for k, stream in enumerate((self.stdout, self.stderr)):
            if stream and not stream.closed:
                with stream:
                    self._said[k] = stream.read()
        self.wait(timeout)
        return self._said[0], self._said[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless its end was seen."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


def ensk(
    *words: object, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return run("ensk", *words, cwd=cwd, env=env)


def run(
    *words: object, cwd: Path | str | None = None, env: Mapping[str, str] | None = None, timeout: float | None = 120
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, as `subprocess.run` does."""
    process = Process(*words, cwd=cwd, env=env)
    said = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), *said)


class Server(NamedTuple):
    """Where the server listens, and the environment that it was started with."""

    path: Path
    env: dict[str, str]


@cache
def _server() -> Server:
    """Start the server, which ends with this process."""
    path = Path(tempfile.mkdtemp(prefix="warm-"), "socket")
    ours, theirs = socket.socketpair()
    path_of_ours = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path_of_ours, "OMP_NUM_THREADS": "1"}  # more would be threads at the fork
    command = [sys.executable, str(Path(__file__).with_name("warm_server.py")), str(path), str(theirs.fileno())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/", env=env)
    theirs.close()
    assert ours.recv(1), "the server of warm processes did not start"

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return Server(path, dict(os.environ))


def unlike(env: Mapping[str, str]) -> list[str]:
    """Return the variables that a process reads at its start, and of which the server has other values than `env`."""
    own = _server().env
    other = {k for k in env.keys() | own.keys() if env.get(k) != own.get(k)} - OF_LIBRARIES
    return sorted(name for name in other if name.startswith(AT_START))


def commands() -> Path:
    """Return a folder for PATH, whose `ensk` runs in a warm process."""
    path = _server().path
    client = path.with_name("ensk")
    if not client.exists():
        client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
        client.chmod(0o755)
    return path.parent
