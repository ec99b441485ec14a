"""A folder of configurations, trained one after the other.

    QUEUE/queue/NN.json ──► running/ ──► done/ or failed/, each with the run's output as NN.log

A configuration moves by renaming, so it is in one folder at every moment, whatever ends the process. One that was
running when the queue died goes back to queue/ when the queue starts again, and its training resumes.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ensemble_kit import IncompleteError, LockedError

QUEUE, RUNNING, DONE, FAILED = "queue", "running", "done", "failed"
Command = Callable[[Path], Sequence[str]]


def run(root: Path, command: Command, say: Callable[[str], None] = print) -> bool:
    """Train every configuration of `root/queue`, by name, also those that come while it runs.

    Parameters
    ----------
    command : from a configuration's path to the command that trains it; exit code 0 means done.

    Returns
    -------
    Whether all of them were done.

    Raises
    ------
    IncompleteError
        `root` has no folder queue/.
    LockedError
        Another queue works in this folder, or a training that a killed one left behind still runs.
    """
    if not (root / QUEUE).is_dir():
        raise IncompleteError(
            "queue-missing",
            "cannot work on a queue",
            item=f"there is no folder {root / QUEUE}",
            fix="make it, and put configurations into it as JSON files",
        )
    for folder in (RUNNING, DONE, FAILED):
        (root / folder).mkdir(parents=True, exist_ok=True)
    well = True
    with _locked(root) as lock:
        for left in waiting(root / RUNNING):
            say(f"{left.name}: it was running when the queue ended; back to the queue")
            move(left, root / QUEUE)
        if not waiting(root / QUEUE):
            say(f"{root / QUEUE}: nothing to do")
        while todo := waiting(root / QUEUE):
            config = move(todo[0], root / RUNNING)
            say(f"{config.name}: {len(todo)} to do")
            log = config.with_suffix(".log")
            with log.open("ab") as out:
                # the training holds the lock too: if only the queue is killed, no second training of this begins
                words = command(config)
                ended = subprocess.run(words, stdout=out, stderr=out, pass_fds=[lock], check=False)  # noqa: S603
            code = ended.returncode
            well &= code == 0
            config = move(config, root / (DONE if code == 0 else FAILED))
            log = log.replace(config.with_suffix(".log"))
            say(f"{config.name}: done" if code == 0 else f"{config.name}: failed with {code}, see {log}")
    return well


def waiting(folder: Path) -> list[Path]:
    """List a folder's configurations by name."""
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def move(path: Path, folder: Path) -> Path:
    """Rename a file into a folder; one of its name that is there keeps it, and this becomes NAME-2, NAME-3, ….

    Only one queue moves files at a time, so nothing takes the name between the look and the renaming.
    """
    target, number = folder / path.name, 2
    while target.exists():
        target, number = folder / f"{path.stem}-{number}{path.suffix}", number + 1
    return path.rename(target)


@contextmanager
def _locked(root: Path) -> Iterator[int]:
    with (root / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "queue-locked",
                "cannot work on a queue twice",
                item=f"{root}: another queue, or a training that one left behind, still runs",
                fix="wait until it has ended, or end it, and start again: nothing is lost",
            ) from None
        yield file.fileno()
