"""Slabs of an .npz of a volume against what `np.load` gives, and files that are damaged."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.dumping.npz_slabs import NpzVolume
from ensemble_kit.errors import DamagedError, UsageError

KEY = "probabilities"


def saved(path: Path, array: np.ndarray, compressed: bool = True, key: str = KEY) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **{key: array})
    return path


def joined(path: Path, memory: int = 1 << 24, jobs: int = 1) -> np.ndarray:
    return np.concatenate([slab.copy() for slab in NpzVolume.open(path, KEY).slabs(memory, jobs)], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 2, *[st.integers(1, 30)] * 2),
    memory=st.integers(1, 20_000),
    compressed=st.booleans(),
    kind=st.sampled_from(["<f4", "<f2", ">f4", "<f8"]),
    smooth=st.booleans(),
    seed=st.integers(0, 9),
    jobs=st.integers(1, 3),
)
def test_slabs_joined_are_the_array(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    memory: int,
    compressed: bool,
    kind: str,
    smooth: bool,
    seed: int,
    jobs: int,
) -> None:
    values = np.random.default_rng(seed).random(shape)
    array = (np.round(values, 1) if smooth else values).astype(kind)
    path = saved(tmp_path_factory.mktemp("slabs") / "a.npz", array, compressed)
    assert np.array_equal(joined(path, memory, jobs), np.load(path)[KEY])


def test_a_class_longer_than_a_block_is_whole(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((3, 5, 300, 301)).astype(np.float32)
    array[1] = 0  # deflate shrinks it a thousandfold: one read of the file holds megabytes
    path = saved(tmp_path / "a.npz", array)
    assert np.array_equal(joined(path), array)


def test_a_slab_is_as_thick_as_memory_allows(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", np.zeros((2, 7, 4, 5), np.float32))
    slabs = [slab.shape[1] for slab in NpzVolume.open(path, KEY).slabs(memory=2 * 3 * 4 * 5 * 4)]
    assert slabs == [3, 3, 1]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGE = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data[:-10],
    "one bit of the values": lambda data: flipped(data, len(data) // 2),
    "one bit of the last class": lambda data: flipped(data, len(data) * 9 // 10),
    "one bit of the array's header": lambda data: flipped(data, 80),
    "the local header": lambda data: b"XX" + data[2:],
    "not a zip file": lambda data: b"probabilities",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_before_the_last_slab(tmp_path: Path, damage: object) -> None:
    path = saved(tmp_path / "a.npz", np.random.default_rng(1).random((2, 6, 20, 20)).astype(np.float32))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    slabs = []
    with pytest.raises(DamagedError) as found:
        slabs.extend(slab.shape[1] for slab in NpzVolume.open(path, KEY).slabs(memory=2 * 20 * 20 * 4))
    assert found.value.code == "array-damaged" and "a.npz" in found.value.item and sum(slabs) < 6


WRONG = {
    "integers": np.zeros((2, 3, 4, 5), np.int64),
    "three axes": np.zeros((2, 3, 4), np.float32),
    "Fortran's order": np.asfortranarray(np.random.default_rng(0).random((2, 3, 4, 5))),
    "objects": np.array([{"a": 1}], dtype=object),
    "nothing": np.zeros((2, 0, 4, 5), np.float32),
}


@pytest.mark.parametrize("array", WRONG.values(), ids=WRONG)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(DamagedError) as found:
        NpzVolume.open(saved(tmp_path / "a.npz", array), KEY)
    assert found.value.code == "array-damaged"


def test_an_array_that_declares_more_than_deflate_can_hold_is_refused(tmp_path: Path) -> None:
    head, path = io.BytesIO(), tmp_path / "a.npz"
    about = {"shape": (1, 1, 2**14, 2**14), "fortran_order": False, "descr": "<f4"}
    np.lib.format.write_array_header_1_0(head, about)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KEY}.npy", head.getvalue() + bytes(1000))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the size in the central directory
    data[at : at + 4] = (len(head.getvalue()) + 2**30).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="in 1073741") as found:
        NpzVolume.open(path, KEY)
    assert found.value.code == "array-damaged"


def test_version_1_of_nnunet_is_refused_since_its_crop_is_not_undone(tmp_path: Path) -> None:
    path = saved(tmp_path / "case.npz", np.zeros((2, 3, 4, 5), np.float32), key="softmax")
    with pytest.raises(DamagedError, match="cropped") as found:
        NpzVolume.open(path, KEY)
    assert found.value.code == "nnunet-version"


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'logits'"):
        NpzVolume.open(saved(tmp_path / "a.npz", np.zeros((2, 3, 4, 5), np.float32), key="logits"), KEY)


@pytest.mark.slow
def test_memory_is_that_of_a_slab(tmp_path: Path) -> None:
    """An array of 126 MB, in a process of its own: the peak above that of the imports stays below a third of it."""
    path = saved(tmp_path / "a.npz", np.random.default_rng(0).random((6, 20, 512, 512)).astype(np.float32))
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from peak import peak
from ensemble_kit.dumping.npz_slabs import NpzVolume
before = peak()
total = sum(float(slab.sum()) for slab in NpzVolume.open(Path(sys.argv[1]), "probabilities").slabs())
print(peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 6 * 20 * 512 * 512 * 4 / 3
