"""S: one bit of any file of a store, in a folder, in a zip or behind a URL, is told or without effect; it never becomes data."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import harness as h
import pytest

import ensemble_kit as ek

pytestmark = pytest.mark.usefixtures("form")

FLIPS = 60


class Kept(NamedTuple):
    """A store somewhere: its path, its files, and what puts one of them there."""

    path: str
    files: dict[str, bytes]
    put: Callable[[str, bytes], object]


def in_a_folder(folder: Path) -> Kept:
    store = h.make(folder / "m.zarr")
    found = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    return Kept(str(store), found, lambda key, raw: (store / key).write_bytes(raw))


def in_a_zip(folder: Path) -> Kept:
    ek.LogitStore(h.make(folder / "m.zarr")).pack(folder / "m.zip")
    return Kept(
        str(folder / "m.zip"), {"": (folder / "m.zip").read_bytes()}, lambda _, raw: (folder / "m.zip").write_bytes(raw)
    )


def behind_a_url(folder: Path) -> Kept:
    pytest.importorskip("obstore")
    from ensemble_kit.remote.objects import Objects

    objects = Objects(h.make(f"memory://flips/{secrets.token_hex(4)}/{folder.name}.zarr"))
    return Kept(objects.name, {key: objects.get(key) for key in objects.listing()}, objects.put)


@pytest.mark.parametrize("where", [in_a_folder, in_a_zip, behind_a_url], ids=lambda f: f.__name__)
def test_a_flipped_bit(tmp_path: Path, where: Callable[[Path], Kept]) -> None:
    """Files are drawn by their size, as a disk's bad sector hits them, and every file at least once."""
    kept, draw = where(tmp_path), random.Random(h.FORM.name)
    whole, ends, keys = (
        h.state(ek.LogitStore(kept.path)),
        Counter[str](),
        [key for key, raw in kept.files.items() if raw],
    )
    for key in keys + draw.choices(keys, [len(kept.files[key]) for key in keys], k=FLIPS - len(keys)):
        raw = bytearray(kept.files[key])
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        kept.put(key, bytes(raw))
        end, named = h.told(kept.path, whole)
        assert end != "wrong", key
        assert named, key
        ends[end] += 1
        kept.put(key, kept.files[key])
    assert h.told(kept.path, whole) == ("no effect", True)
    assert ends["detected"] > FLIPS // 3  # names of axes, which nothing here reads, are many small files
