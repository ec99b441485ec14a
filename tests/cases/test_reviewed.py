"""What a reader who did not build the kit met: each with the right value, told by plain NumPy or torch."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek

AGAIN = """
import sys
import numpy as np
from ensemble_kit.logits.writer import LogitWriter
with LogitWriter(sys.argv[1], ["x"], ["s", "t"], (8, 8), codec=sys.argv[2]) as out:
    out.write("s", np.full((1, 8, 8), float(sys.argv[3])), (8, 8), source="new", again=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_a_sample_that_is_dumped_again_is_old_or_new_after_any_kill(tmp_path: Path, codec: str) -> None:
    path, values, ends = tmp_path / "m.zarr", {-3.0}, []
    with ek.LogitWriter(path, ["x"], ["s", "t"], (8, 8), codec=codec) as out:  # type: ignore[arg-type]
        for sample in ("s", "t"):
            out.write(sample, np.full((1, 8, 8), -3.0), (8, 8), source="old")
    calls = [*((c, w) for c in ("write", "fsync") for w in (1, 2, 3, 4)), ("rename", 1), ("writev", 1), ("unlink", 1)]
    for k, (call, when) in enumerate(calls):
        value = float(k)
        strace = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]
        done = subprocess.run([*strace, sys.executable, "-c", AGAIN, str(path), codec, str(value)], capture_output=True)
        ends.append(done.returncode)
        store = ek.LogitStore(path)
        assert store.complete
        assert store.verify().sound, (call, when)
        found = set(np.unique(store.read("s").astype(float)))
        assert len(found) == 1
        assert found <= values | {value}, (call, when)
        assert done.returncode != 0 or found == {value}
        values = found
    if -signal.SIGKILL not in ends:
        pytest.skip("strace may not trace here")
    subprocess.run([sys.executable, "-c", AGAIN, str(path), codec, "99"], check=True)
    assert np.all(ek.LogitStore(path).read("s") == 99)
    assert np.all(ek.LogitStore(path).read("t") == -3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_sample_that_is_dumped_again_and_cannot_take_its_place_leaves_the_old_one(tmp_path: Path) -> None:
    """Its line is there and its chunk is not: no mark may follow when the writer closes."""
    path = tmp_path / "m.zarr"
    with ek.LogitWriter(path, ["x"], ["s", "t"], (8, 8)) as out:
        out.write(["s", "t"], np.full((2, 1, 8, 8), -3.0), (8, 8))
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:error=EIO"]
    done = subprocess.run([*strace, sys.executable, "-c", AGAIN, str(path), "none", "5"], capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("strace may not trace here")
    assert "cannot write to a store" in done.stderr
    store = ek.LogitStore(path)
    assert store.verify().sound
    assert np.all(store.read("s") == -3)
