"""What the tests of training frameworks share: the pages' own code, scripts in processes, and the demo's real images.

`make trainers-test` runs them, in an environment that has the frameworks; `make frameworks-test` runs `examples/`, whose
frameworks need torchvision. `make test` leaves this folder out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.logits.store import LogitStore

ROOT = Path(__file__).parents[2]
DATA = ROOT / "ensemble_kit/demo/data"
EXAMPLES = ROOT / "examples/trainers"
sys.path.insert(0, str(EXAMPLES))
TOLD = "not-run: make (?:trainers|frameworks)-test runs it"

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # two processes on two cores
    os.environ[name] = "1"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page that run here, in order."""
    return re.findall(
        rf"^```{language} {TOLD}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL
    )


def write_page(page: str, folder: Path) -> None:
    """Write a page's Python blocks into the files that their first lines name, and link the images they speak of."""
    for code in blocks(page, "python"):
        name = re.match(r"# (\w+\.py)", code)
        assert name is not None, code
        (folder / name[1]).write_text(code)
    for part in ("train", "val", "test"):
        (folder / part).symlink_to(DATA / ("val" if part == "train" else part))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of scripts: the kit as it is here, and `ensk` and `torchrun` of this interpreter."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "ensk").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ensemble_kit "$@"\n')
    (bin_ / "ensk").chmod(0o755)
    path = f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    offline |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    return os.environ | {"PYTHONPATH": f"{ROOT}:{EXAMPLES}", "PATH": path, "CUDA_VISIBLE_DEVICES": ""} | offline | more


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a test's folder; it must end well unless `fails`."""

    def run(command: str, fails: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        env = environment(tmp_path, **more)
        words = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert (done.returncode != 0) == fails, done.stderr
        return done

    return run


@pytest.fixture
def killed(tmp_path: Path) -> Callable[[str, Path, int], int]:
    """Run a command, and kill it with all its processes once a store has some samples; return how many it has."""

    def run(command: str, store: Path, least: int) -> int:
        env = environment(tmp_path, SLOW="1.0")
        log = (tmp_path / "killed.log").open("w")
        running = subprocess.Popen(["bash", "-c", command], cwd=tmp_path, env=env, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + 500
            while time.monotonic() < end and running.poll() is None and committed(store) < least:
                time.sleep(0.05)
        finally:
            early, all_ = running.poll(), family(running.pid)
            for process in all_:
                os.kill(process, signal.SIGKILL)
            running.wait()
            while any(map(runs, all_)):
                time.sleep(0.01)
        assert early is None, (tmp_path / "killed.log").read_text()
        return committed(store)

    return run


def family(process: int) -> list[int]:
    """A process and all that it started, parents first: torchrun gives each of its processes a session of its own."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [process, *(one for child in children for one in family(int(child)))]


def runs(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def committed(path: Path) -> int:
    """How many samples a store has; 0 where there is none yet."""
    if not (path / "zarr.json").exists():
        return 0
    store = LogitStore(path)
    return len(store.samples) - len(store.missing)


def equals(store: LogitStore, wanted: dict[str, np.ndarray], near: bool = False) -> None:
    """Assert that a store is complete and sound, and holds these logits, rounded to fp16.

    With `near` one unit of fp16 is allowed: frameworks round otherwise where a batch has another size.
    """
    assert store.complete and store.verify().sound
    assert set(store.samples) == set(wanted)
    for sample, logits in wanted.items():
        rounded = logits.astype(np.float16)
        np.testing.assert_allclose(store.read(sample), rounded, 2**-10 * near, 1e-5 * near, err_msg=sample)


def ties(logits: np.ndarray, labels: np.ndarray, best: np.ndarray) -> int:
    """How many pixels of two label maps differ, each of which must be a near-tie of fp16.

    Parameters
    ----------
    logits : (C, H, W), the framework's own at the image's size; `best` is its decision.
    """
    rows, columns = np.nonzero(labels != best)
    chosen, theirs = (np.take_along_axis(logits, m[None], 0)[0][rows, columns] for m in (labels, best))
    least = 2**-10 * np.maximum(
        np.abs(logits).max(), 1
    )  # half a unit of fp16 of each of two, and of what is interpolated
    assert (np.abs(chosen - theirs) <= least).all(), np.abs(chosen - theirs).max()
    return len(rows)
