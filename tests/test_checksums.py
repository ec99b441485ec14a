"""CRC-32C by fastcrc, or, where that is not installed (conda-forge has none), by google-crc32c: the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DamagedError
from ensemble_kit.logits.chunkfile import crc
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
CODECS = ("none", "lossless")
SIZES = (0, 1, 3, 4, 7, 64, 4095, 1 << 16, (1 << 19) + 5)
CRC_32C = {b"": 0, b"123456789": 0xE3069283, bytes(32): 0x8A9136AA}  # RFC 3720, B.4, and the catalogue's check value


def write(folder: Path) -> None:
    for codec in CODECS:
        with LogitWriter(folder / f"{codec}.zarr", ["a", "b"], ["s0", "s1"], (32, 24), member="m", codec=codec) as out:
            for k, name in enumerate(("s0", "s1")):
                out.write(name, np.random.default_rng(k).normal(0, 3, (2, 32, 24)).astype(np.float16), (64, 48))


def read(folder: Path) -> None:
    for codec in CODECS:
        store = LogitStore(folder / f"{codec}.zarr")
        for k, name in enumerate(("s0", "s1")):
            expected = np.random.default_rng(k).normal(0, 3, (2, 32, 24)).astype(np.float16)
            np.testing.assert_array_equal(store.read(name), expected)


def values() -> list[int]:
    """Checksums of arrays as the kit hands them over: writable, not aligned, read-only, bytes; each of two starts."""
    found = []
    for size in SIZES:
        block = np.random.default_rng(size).integers(0, 256, size + 1, np.uint8)[1:]
        fixed = block.copy()
        fixed.flags.writeable = False
        found += [crc(one, start) for one in (block, fixed, block.tobytes()) for start in (0, 0xDEADBEEF)]
    return found


def held(folder: Path) -> dict[str, bytes | list[bytes]]:
    """Each chunk, and each store's lines of samples; what is left says when and where a store was made."""
    found: dict[str, bytes | list[bytes]] = {}
    for codec in CODECS:
        logits = folder / f"{codec}.zarr" / "logits"
        found |= {f"{codec} {p.name}": p.read_bytes() for p in logits.glob("c.*")}
        lines = [line for p in (logits / "manifest").glob("*.jsonl") for line in p.read_bytes().splitlines()]
        found[codec] = sorted(line for line in lines if b'"crcs"' in line)
    return found


def without_fastcrc(tmp_path: Path, code: str, *words: object) -> str:
    """Run code in a process that finds no fastcrc: a module that is not there stands before it."""
    absent = tmp_path / "absent"
    absent.mkdir(exist_ok=True)
    (absent / "fastcrc.py").write_text("raise ModuleNotFoundError(\"No module named 'fastcrc'\", name='fastcrc')\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (absent, ROOT, ROOT / "tests")))}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, words)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_values_are_those_of_the_standard_and_of_both_libraries(tmp_path: Path) -> None:
    assert find_spec("fastcrc"), "installed with the kit: without it this would compare a library with itself"
    assert {block: crc(block) for block in CRC_32C} == CRC_32C
    code = "import json, sys, test_checksums as t; print(json.dumps([t.values(), 'fastcrc' in sys.modules]))"
    found, has_fastcrc = json.loads(without_fastcrc(tmp_path, code))
    assert not has_fastcrc
    assert found == values()


def test_stores_are_the_same_and_read_by_both(tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    write(with_it)
    code = (
        "import sys, pathlib, test_checksums as t\nours, theirs = map(pathlib.Path, sys.argv[1:])\n"
        "t.write(ours); t.read(ours); t.read(theirs); assert 'fastcrc' not in sys.modules"
    )
    without_fastcrc(tmp_path, code, without, with_it)
    read(without)
    assert [len(held(with_it)[codec]) for codec in CODECS] == [2, 2]
    assert held(without) == held(with_it)


@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_found_without_fastcrc(tmp_path: Path, codec: str) -> None:
    write(tmp_path)
    chunk = tmp_path / f"{codec}.zarr" / "logits" / "c.1.0.0.0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(DamagedError) as caught:
        read(tmp_path)
    code = (
        "import sys, pathlib, test_checksums as t\n"
        "try: t.read(pathlib.Path(sys.argv[1]))\n"
        "except t.DamagedError as error: print(error)"
    )
    assert without_fastcrc(tmp_path, code, tmp_path).strip() == str(caught.value)
