"""The server of `warm`: `python warm_server.py SOCKET FD` imports everything, and then forks whatever is asked for."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import select
import shutil
import socket
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
MODULES = ("torch", "cv2", "optuna", "pandas", "zarr", "scipy.ndimage", "scipy.optimize", "PIL.Image")
"""What commands import when they need it; the package itself is imported whole."""


def _serve(path: str, parent: socket.socket) -> list[str]:
    """Fork a process for each that connects; return in it, and never in the server, what it is to run."""
    for name in MODULES:
        __import__(name)
    import ensemble_kit

    for module in pkgutil.walk_packages(ensemble_kit.__path__, "ensemble_kit."):
        if not module.name.endswith(("__main__", "backends.onnx")):  # ONNX Runtime starts a thread
            with suppress(ModuleNotFoundError):  # of an extra that is not installed
                __import__(module.name)
    _load_machine_code()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process that has threads cannot be forked safely"
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    parent.send(b"1")
    return _await(listener, parent)


def _load_machine_code() -> None:
    """Run a few commands here, so that no fork has to load their kernels: 0.5 s of each vote."""
    from ensemble_kit.cli.app import app

    golden, truth = ROOT / "tests/golden", ROOT / "ensemble_kit/demo/data/val/masks"
    members = [str(golden / f"{name}_val.zip") for name in ("unet", "fpn", "dilated")]
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
        contextlib.chdir(folder),
    ):
        for line in (
            ["tune-thresholds", *members, "--val", str(truth), "--out", "set.json"],
            ["vote", *members, "--thresholds", "set.json", "--soft", "--out", "soft.csv"],
            ["vote", *members, "--hard", "--out", "hard.csv"],
            ["score", "hard.csv", "--val", str(truth)],
        ):
            app([*line, "-q", "--jobs", "1"], standalone_mode=False)


def _await(listener: socket.socket, parent: socket.socket) -> list[str]:
    """Fork what is asked for, telling its pid and, at its end, its exit code; end with the parent."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd, which is readable when the process has ended
    while True:
        ready, _, _ = select.select([listener, parent, *running], [], [])
        if parent in ready:
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
            os._exit(0)
        for ended in running.keys() & ready:
            pid, client = running.pop(ended)
            _tell(client, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os.close(ended)
            client.close()
        if listener in ready:
            client, _ = listener.accept()
            words, cwd, env, session, fds = _asked(client)
            pid = os.fork()
            if pid == 0:
                for other in (listener, parent, client, *(to for _, to in running.values())):
                    other.close()
                for ended in running:
                    os.close(ended)
                if session:
                    os.setsid()
                return _become(words, cwd, env, fds)
            for fd in fds:
                os.close(fd)
            running[os.pidfd_open(pid)] = pid, client
            _tell(client, pid)


def _asked(client: socket.socket) -> tuple[list[str], str, dict[str, str], bool, list[int]]:
    head, fds, _, _ = socket.recv_fds(client, 8, 3)
    size, raw = int.from_bytes(head, "big"), b""
    while len(raw) < size:
        raw += client.recv(size - len(raw))
    return *json.loads(raw), list(fds)


def _tell(client: socket.socket, number: int) -> None:
    with suppress(OSError):  # who asked was killed
        client.sendall(f"{number}\n".encode())


def _become(words: list[str], cwd: str, env: dict[str, str], fds: Sequence[int]) -> list[str]:
    """Take the streams, the folder, the environment and the arguments that a process of its own would have.

    Returns the words behind options of the interpreter.
    """
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.orig_argv = [sys.executable, *words]
    if words[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        words = words[2:]
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - to the end of the process
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)
    first = {"ensk": str(Path(sys.executable).parent), "-m": cwd, "-c": ""}[words[0]]
    sys.path[:1] = [first, *(p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path)]
    sys.argv = words if words[0] == "ensk" else [words[0], *words[2:]]
    return words


def _run(words: list[str]) -> NoReturn:
    """Run what was asked for, and end as the interpreter would."""
    code: Any = 0
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        if words[0] != "-c":
            from ensemble_kit.__main__ import main as ensk_main

            ensk_main()
        else:
            exec(compile(words[1], "<string>", "exec"), main.__dict__)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _run(_serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
