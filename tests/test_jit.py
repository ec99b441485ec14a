"""The cache of machine code, with real processes: broken, foreign and stale files, and a home that cannot be used."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding

from ensemble_kit.kernels import jit

pytestmark = pytest.mark.slow

PROGRAM = """
import numpy as np
from ensemble_kit.kernels import runs
starts = np.array([1, 5], np.int64); ends = np.array([3, 9], np.int64)
print(runs.overlap(starts, ends, starts, ends), sum(runs.overlap.stats.cache_hits.values()))
"""


def run(home: Path, program: str = PROGRAM, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    env |= {"XDG_CACHE_HOME": str(home), **environment}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=300)


def answer(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cache")
    assert answer(run(home)) == [6, 0]
    return home


def files(home: Path) -> list[Path]:
    found = sorted(home.glob("ensemble_kit/**/*.code"))
    assert found
    return found


def test_second_process_compiles_nothing(filled: Path) -> None:
    assert answer(run(filled)) == [6, 1]
    for folder in (filled / "ensemble_kit", *(p for p in (filled / "ensemble_kit").iterdir() if p.is_dir())):
        assert folder.stat().st_mode & 0o077 == 0


def test_loading_machine_code_fills_no_registries(tmp_path: Path) -> None:
    """Loaded code needs Numba's runtime only: its registries import half of Numba, and SciPy (DESIGN 85)."""
    program = """
import sys, numpy as np, ensemble_kit as ek
from numba.core import entrypoints
from numba.core.runtime import rtsys
rising = np.linspace(-9, 9, 3 * 40 * 40).reshape(3, 40, 40).astype(np.float16)
masks = ek.vote([rising, rising[:, ::2, ::2]], image_size=(90, 90))
print(masks.sum(), sum(m in sys.modules for m in ("scipy.linalg", "numba.np.arraymath", "numba.np.arrayobj")))
print(int(rtsys._init), int(entrypoints._already_initialized))
"""
    area, filled, compiled, extended = answer(run(tmp_path, program))
    assert 0 < area < 3 * 90 * 90
    assert (filled, compiled, extended) == (3, 1, 1)
    assert answer(run(tmp_path, program)) == [area, 0, 0, 0]


@pytest.mark.parametrize("option", [{"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_OPT": "1"}], ids=["bounds", "optimisation"])
def test_options_of_the_compiler_have_code_of_their_own(filled: Path, tmp_path: Path, option: dict[str, str]) -> None:
    """Code without the check was loaded by who asked for it, and the other way round."""
    shutil.copytree(filled, tmp_path / "home")
    assert answer(run(tmp_path / "home", **option)) == [6, 0]
    assert answer(run(tmp_path / "home", **option)) == [6, 1]
    assert answer(run(tmp_path / "home")) == [6, 1]


def test_an_index_outside_is_found_where_it_is_asked_for(tmp_path: Path) -> None:
    outside = PROGRAM.replace(
        "runs.overlap(starts, ends, starts, ends)", "runs.overlap(starts, ends[:1], starts, ends)"
    )
    assert run(tmp_path, outside).returncode == 0
    assert "IndexError" in run(tmp_path, outside, NUMBA_BOUNDSCHECK="1").stderr


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "flipped checksum", "text", "bomb", "swapped", "link"])
def test_broken_files_are_compiled_again(filled: Path, tmp_path: Path, damage: str) -> None:
    mark, (path,) = tmp_path / "exploded", files(filled)
    raw = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        path.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
    elif damage == "flipped checksum":
        path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    elif damage == "text":
        path.write_bytes(b"not a cache at all" * 99)
    elif damage == "bomb":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    elif damage == "swapped":
        assert answer(run(tmp_path, PROGRAM.replace("int64", "int32"))) == [6, 0]
        path.write_bytes(files(tmp_path)[0].read_bytes())
    else:
        bomb = tmp_path / path.name
        bomb.write_bytes(pickle.dumps(Bomb(mark)))
        path.unlink()
        path.symlink_to(bomb)
    assert answer(run(filled)) == [6, 0]
    assert not mark.exists()
    assert answer(run(filled)) == [6, 1]  # and whole again


def test_a_source_in_a_sub_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    seen = {jit.digest(tmp_path)}
    for path, text in (("a.py", "x"), ("deep/a.py", "x"), ("deep/a.py", "y"), ("a.py", "y"), ("a.txt", "not a source")):
        (tmp_path / path).write_text(text)
        seen.add(jit.digest(tmp_path))
    assert len(seen) == 5


def test_a_processor_of_the_same_name_with_fewer_features_has_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code for instructions that a virtual machine hides would end the process that loads it."""
    here = jit.digest(tmp_path)
    features = binding.get_host_cpu_features()
    features["avx2"] = not features.get("avx2", False)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    assert jit.digest(tmp_path) != here


@pytest.mark.parametrize("kind", ["file", "link", "none"])
def test_a_home_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    if kind == "file":
        home.write_text("")
    elif kind == "link":
        home.mkdir()
        (tmp_path / "elsewhere").mkdir()
        (home / "ensemble_kit").symlink_to(tmp_path / "elsewhere")
    else:
        home = Path("/proc/no/such/folder")
    (tmp_path / "tmp").mkdir()
    assert answer(run(home, TMPDIR=str(tmp_path / "tmp"))) == [6, 0]
    assert not list((tmp_path / "tmp").iterdir())
    if kind == "link":
        assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_costs_only_the_cache(tmp_path: Path) -> None:
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n" + PROGRAM
    program = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + program
    assert answer(run(tmp_path, program)) == [6, 0]


def test_two_processes_at_once(tmp_path: Path) -> None:
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [p.communicate()[0].split()[0] for p in both] == ["6", "6"]
    assert answer(run(tmp_path)) == [6, 1]


def test_threads_and_forks_share_kernels(filled: Path) -> None:
    program = """
import os, sys, threading
import numpy as np
from ensemble_kit.kernels import runs
s = np.array([1, 5], np.int64); e = np.array([3, 9], np.int64)
def work():
    if runs.overlap(s, e, s, e) != 6: os._exit(1)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
child = os.fork()
if child == 0:
    work(); os._exit(0)
print(6 - os.waitpid(child, 0)[1], 1)
"""
    assert answer(run(filled, program)) == [6, 1]
