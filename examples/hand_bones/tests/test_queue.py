"""Real processes: a configuration is in one folder at every moment, and none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hand_bones import queue

from ensemble_kit import IncompleteError, LockedError

HERE = Path(__file__).parents[1]
WORK = """
import sys, time, pathlib
config = pathlib.Path(sys.argv[1])
text = config.read_text()
with open(sys.argv[2], "a") as trace:
    trace.write(config.name + "\\n")
print("training", config.name)
if "slow" in text and not pathlib.Path(sys.argv[2] + ".go").exists():
    time.sleep(60)
if "short" in text:
    time.sleep(0.15)
sys.exit("fail" in text)
"""
RUNNER = """
import sys, pathlib
from hand_bones import queue
root, work, trace = sys.argv[1:]
queue.run(pathlib.Path(root), lambda config: [sys.executable, work, str(config), trace])
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "root/queue").mkdir(parents=True)
    return tmp_path / "trace"


def command(trace: Path) -> queue.Command:
    return lambda config: [sys.executable, str(trace.with_name("work.py")), str(config), str(trace)]


def start(trace: Path) -> subprocess.Popen[bytes]:
    """Start a queue as a process of a group of its own, so that killing it alone or with its training is possible."""
    words = [sys.executable, "-c", RUNNER, str(trace.parent / "root"), str(trace.with_name("work.py")), str(trace)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(HERE)}, start_new_session=True)


def put(trace: Path, **texts: str) -> None:
    for name, text in texts.items():
        (trace.parent / "root/queue" / f"{name}.json").write_text(text)


def where(trace: Path) -> dict[str, list[str]]:
    root = trace.parent / "root"
    found = {
        f: [p.stem for p in queue.waiting(root / f)] for f in (queue.QUEUE, queue.RUNNING, queue.DONE, queue.FAILED)
    }
    return {folder: names for folder, names in found.items() if names}


def run_when_free(trace: Path, say: Callable[[str], None]) -> bool:
    """Run the queue as soon as what was killed has let go."""
    for _ in range(300):
        try:
            return queue.run(trace.parent / "root", command(trace), say)
        except LockedError:
            time.sleep(0.1)
    raise AssertionError("the lock was not let go")


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "the training did not begin"
        time.sleep(0.02)


def test_in_turn_and_the_failed_apart(trace: Path) -> None:
    put(trace, b="fail", a="", c="")
    assert not queue.run(trace.parent / "root", command(trace), say=lambda _: None)
    assert trace.read_text().split() == ["a.json", "b.json", "c.json"]
    assert where(trace) == {"done": ["a", "c"], "failed": ["b"]}
    assert (trace.parent / "root/failed/b.log").read_text() == "training b.json\n"


def test_a_second_time_keeps_the_first(trace: Path) -> None:
    for _ in range(3):
        put(trace, a="")
        assert queue.run(trace.parent / "root", command(trace), say=lambda _: None)
    assert where(trace) == {"done": ["a", "a-2", "a-3"]}


@pytest.mark.parametrize("together", [True, False], ids=["queue and training", "the queue alone"])
def test_killed_in_the_middle_and_started_again(trace: Path, together: bool) -> None:
    put(trace, a="", b="slow", c="")
    killed = start(trace)
    wait_until(lambda: trace.exists() and "b.json" in trace.read_text())
    (os.killpg if together else os.kill)(killed.pid, signal.SIGKILL)
    killed.wait()
    assert where(trace) == {"done": ["a"], "running": ["b"], "queue": ["c"]}
    if not together:  # the training lives on: a second one of the same experiment must not begin beside it
        with pytest.raises(LockedError, match="still runs"):
            queue.run(trace.parent / "root", command(trace), say=lambda _: None)
        os.killpg(killed.pid, signal.SIGKILL)
    trace.with_name("trace.go").touch()
    told: list[str] = []
    assert run_when_free(trace, told.append)
    assert told[0].startswith("b.json: it was running")
    assert trace.read_text().split() == ["a.json", "b.json", "b.json", "c.json"]
    assert where(trace) == {"done": ["a", "b", "c"]}


def test_one_that_was_running_and_came_again_becomes_two(trace: Path) -> None:
    put(trace, a="")
    (trace.parent / "root/running").mkdir()
    (trace.parent / "root/running/a.json").write_text("")
    assert queue.run(trace.parent / "root", command(trace), say=lambda _: None)
    assert where(trace) == {"done": ["a", "a-2"]}


def test_one_that_comes_while_it_runs_is_taken_too(trace: Path) -> None:
    put(trace, a="")

    def come(config: Path) -> list[str]:
        if config.stem == "a":
            put(trace, b="")
        return list(command(trace)(config))

    assert queue.run(trace.parent / "root", come, say=lambda _: None)
    assert where(trace) == {"done": ["a", "b"]}


def test_killed_again_and_again_none_is_lost(trace: Path) -> None:
    """SIGKILL to queue and training at moments spread over starting, moving and training."""
    names = sorted(f"c{k}" for k in range(6))
    put(trace, **dict.fromkeys(names, "short"))
    for k in range(12):
        begun = len(trace.read_text()) if trace.exists() else 0
        killed = start(trace)
        if k < 4:
            wait_until(lambda begun=begun: trace.exists() and len(trace.read_text()) > begun)
        else:
            time.sleep(0.05 * k)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        assert sorted(name for folder in where(trace).values() for name in folder) == names
    assert run_when_free(trace, lambda _: None)
    assert where(trace) == {"done": names}
    assert len(trace.read_text().split()) >= 4 + len(names)  # four were hit while they trained


def test_a_folder_without_a_queue_is_refused_and_an_empty_one_has_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="queue"):
        queue.run(tmp_path / "typo", lambda _: [])
    assert not (tmp_path / "typo").exists()
    (tmp_path / "queue").mkdir()
    heard: list[str] = []
    assert queue.run(tmp_path, lambda _: [], heard.append)
    assert "nothing to do" in heard[0]


def test_an_interrupt_is_no_traceback() -> None:
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's job in the background ignores it
    words = f"from hand_bones import command; import signal\n{heard}\ncommand.run(lambda: signal.raise_signal(signal.SIGINT))"
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    ended = subprocess.run([sys.executable, "-c", words], env=env, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")
