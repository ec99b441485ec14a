"""X: stores from strangers, in every format: refused, or read as they were written; within memory, and nothing is followed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.logits import chunkfile, records
from ensemble_kit.logits.description import describe
from ensemble_kit.logits.records import FORMAT, to_line
from ensemble_kit.logits.repair import repair
from ensemble_kit.logits.samplearray import from_fields
from peak import peak, peak_from_now

pytestmark = pytest.mark.usefixtures("form")

ARRAY = "logits/zarr.json"
ROW = f"logits/{h.VICTIM}/zarr.json"
"""The description of a sample that is an array of its own."""
FORMS = tuple(h.FORMS)
OWN = tuple(form for form in FORMS if form != "one grid")
SLABS = ("volumes", "scenes")
URL = '"storage_transformers": [{"name": "http://127.0.0.1:9/"}]'
ROOM = 128 << 20
"""Bytes by which the process may grow."""


class Case(NamedTuple):
    """What a stranger did to a store, in which formats that can be, and how `ensk verify` ends; 0: the store is sound."""

    id: str
    how: str
    change: Callable[[Path], object]
    code: int
    error: str
    forms: tuple[str, ...] = ("one grid",)
    reads: bool = False
    """Whether every sample is read as it was written."""


def replaced(file: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda store: h.edit(store / file, h.replaced(old, new))


def set_to(key: str, value: str) -> Callable[[Path], object]:
    """Write another value after a key of a sample's description."""

    def change(raw: bytes) -> bytes:
        found, count = re.subn(rf'("{key}": )(\[[^]]*\]|"[^"]*")', rf"\g<1>{value}", raw.decode(), count=1)
        assert count == 1, key
        return found.encode()

    return lambda store: h.edit(store / ROW, change)


def own(how: str, change: Callable[[Path], object]) -> Case:
    """Make the case of a description of one sample: zarr goes by it, this kit does not, and `ensk verify` names it."""
    return Case("X11", how, change, 3, "store-damaged", OWN, reads=True)


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def link(path: Path) -> None:
    outside = path.parent.parent.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def line(store: Path, **changes: object) -> None:
    """Add a segment with a line of the victim whose digest is right: anyone can compute it."""
    spec, _ = describe(store)
    own = h.record(store, h.VICTIM).to_json() | changes
    array = from_fields(own, len(spec.classes), spec.grid, spec.own)
    own["crcs"] = "0123abcd" * (len(spec.classes) * array.count)
    own["digest"] = records.digest(own["sample"].encode(), own["row"], array, own["crcs"].encode()).hex()
    lines = [{"format": FORMAT, "store": spec.store}, own, {"sync": 1}]
    (store / "logits/manifest/ffffffffffffffff.jsonl").write_bytes(b"".join(map(to_line, lines)))


def forget(store: Path) -> None:
    """Leave the victim out of the manifest, so that a stranger's line is the only one of it."""
    lines = h.segment(store).read_bytes().splitlines(keepends=True)
    kept = [one for k, one in enumerate(lines[:-1]) if k != 1 + h.VICTIM]
    h.segment(store).write_bytes(b"".join(kept) + to_line({"sync": len(h.IDS) - 1}))


def claim(**changes: object) -> Callable[[Path], object]:
    """Make a stranger's line the only one of the victim."""

    def change(store: Path) -> None:
        line(store, **changes)
        added = store / "logits/manifest/ffffffffffffffff.jsonl"
        raw = added.read_bytes()
        added.unlink()
        forget(store)
        added.write_bytes(raw)

    return change


def raw(text: str) -> Callable[[Path], object]:
    """Add a segment with a line of any text, whose checksum is right."""

    def change(store: Path) -> None:
        body = text.encode()
        head = to_line({"format": FORMAT, "store": describe(store)[0].store})
        one = b'%b,"check":"%08x"}\n' % (body[:-1], chunkfile.crc(body))
        (store / "logits/manifest/ffffffffffffffff.jsonl").write_bytes(head + one + to_line({"sync": 1}))

    return change


def said(**changes: object) -> Callable[[Path], object]:
    """Add a line of the victim with other fields, and a digest that does not fit them."""
    return lambda store: raw(json.dumps(h.record(store, h.VICTIM).to_json() | changes, separators=(",", ":")))(store)


DEEP = "[" * 100_000 + "]" * 100_000
OF_DEEP = f'"digest":"{"0" * 32}","saturated":0,"crcs":"{"0" * 16}"'
SCATTERED = [[0, 0, 1 << 30, 1 << 30], *([k * 7919, k * 104729, k * 7919 + 1, k * 104729 + 1] for k in range(1, 6000))]
"""Tiles that begin anywhere: a table of their edges has 144 million cells."""
CASES = [
    Case("X22", "a line 100,000 deep", raw(f'{{"sample":"{h.IDS[4]}","row":4,"grid":{DEEP},"image_size":[1,1],"box":[0,0,1,1],{OF_DEEP}}}'),
         3, "manifest-damaged", FORMS),
    Case("X11", "tiles with a hole", said(tiles=[[0, 0, 4, 6], [5, 0, 8, 6]]), 3, "manifest-damaged", ("scenes",)),
    Case("X11", "tiles that leave the scene", said(tiles=[[0, 0, 5, 6], [4, 0, 9, 6]]), 3, "manifest-damaged", ("scenes",)),
    Case("X11", "6,000 tiles that begin anywhere", said(grid=[1 << 30, 1 << 30], tiles=SCATTERED), 3, "manifest-damaged", ("scenes",)),
    Case("X11", "a geometry that is flat", said(affine=[[0] * 4] * 4, world="RAS"), 3, "manifest-damaged", ("volumes",)),
    Case("X11", "a transform of texts", said(crs="", transform=["a"] * 6), 3, "manifest-damaged", ("scenes",)),
    Case("X11", "2^60 cells", replaced(ARRAY, "8,", f"{2**60},"), 7, "store-too-large"),
    Case("X11", "10^15 samples", replaced(ARRAY, "6,", f"{10**15},"), 7, "store-too-large"),
    Case("X11", "a number beyond any float", replaced("zarr.json", '"created"', '"x": 1e999, "created"'), 3, "store-metadata", FORMS),
    Case("X11", "a list where a name belongs", replaced(ARRAY, '"default"', "[[]]"), 3, "store-metadata"),
    Case("X13", "blosc without a checksum", replaced(ARRAY, '"crc32c"', '"blosc"'), 7, "store-codec"),
    Case("X35", "a URL", replaced(ARRAY, '"storage_transformers": []', URL), 7, "store-codec"),
    own("one sample of 2^40 cells", set_to("shape", "[1, 1, 1048576, 1048576]")),
    own("one sample with a chunk of 2 GiB", set_to("chunk_shape", "[2, 16384, 32768]")),
    own("one sample of another dtype", set_to("data_type", '"float64"')),
    own("one sample with zeros for what is missing", set_to("fill_value", "0")),
    own("one sample with a pickle as codec", replaced(ROW, '"crc32c"', '"pickle"')),
    own("one sample with blosc without a checksum", replaced(ROW, '"crc32c"', '"blosc"')),
    own("one sample with a URL", replaced(ROW, '"storage_transformers": []', URL)),
    own("one sample with keys that lead out", set_to("separator", '"/../../"')),
    own("one sample under another id", replaced(ROW, h.IDS[h.VICTIM], h.IDS[1])),
    own("one sample described by white space", lambda s: (s / ROW).write_bytes(b" " * (1 << 22))),
    own("one sample described by a pipe", lambda s: pipe(s / ROW)),
    own("one sample described by a folder", lambda s: folder(s / ROW)),
    own("one sample described by a link", lambda s: link(s / ROW)),
    own("descriptions of two samples exchanged", lambda s: exchange(s / ROW, s / "logits/1/zarr.json")),
    Case("S09", "arrays of two samples exchanged", lambda s: exchange((s / ROW).parent, s / "logits/1"), 3, "store-damaged", OWN),
    Case("S09", "two slabs of one sample exchanged", lambda s: exchange(*h.files(s, h.VICTIM)[:2]), 3, "store-damaged", SLABS),
    Case("S02", "an array renamed", lambda s: (s / ROW).parent.rename(s / "logits/04"), 3, "store-damaged", OWN),
    Case("X11", "a stranger's chunk beside a sample's own", lambda s: (s / ROW).with_name("c.0.9.0.0").write_bytes(b"x"), 0, "", OWN,
         reads=True),
    Case("S25", "a second line of other bytes", line, 3, "manifest-conflict", FORMS),
    Case("X11", "a line of a grid of 16 GiB", claim(grid=[65536, 65536], box=[0, 0, 8, 6]), 3, "store-damaged", ("grids",)),
    Case("X11", "a volume among images", claim(grid=[2, 4, 6], image_size=[4, 4, 6], box=[0, 0, 0, 2, 4, 6], slab=1), 6, "store-ranks",
         ("grids",)),
    Case("X11", "tiles that nobody wrote", claim(grid=[8, 6], tiles=[[0, 0, 8, 6]], slab=1), 3, "store-damaged", ("grids", "scenes")),
]  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.slow] * ("6,000" in c.how)) for c in CASES],
    ids=lambda c: f"{c.id} {c.how}",
)
def test_a_hostile_store_is_refused_or_read_as_it_was_written(form: str, tmp_path: Path, case: Case) -> None:
    if form not in case.forms:
        pytest.skip("of another format")
    store = h.make(tmp_path / "m.zarr")
    case.change(store)
    before = peak_from_now()
    ran = h.ensk("verify", store)
    assert ran.code == case.code, ran.err
    if case.code:
        h.judge(ran, case.code, case.error)
    assert peak() - before < ROOM
    if case.error == "store-damaged":
        assert h.IDS[h.VICTIM] in ran.err
    if case.reads:
        opened = ek.LogitStore(store)
        for k, name in enumerate(h.IDS):
            np.testing.assert_array_equal(h.read(opened, name), h.logits()[k])
        opened.pack(tmp_path / "m.zip")  # with the descriptions that were written
        assert ek.LogitStore(tmp_path / "m.zip").verify().sound
    if case.forms != ("one grid",) and case.code != 6:
        repair(store)
        h.make(store)
        assert ek.LogitStore(store).verify().sound
        for k, name in enumerate(h.IDS):
            np.testing.assert_array_equal(h.read(ek.LogitStore(store), name), h.logits()[k])
    assert not (tmp_path / "outside").exists() or (tmp_path / "outside").is_file()


NAMES = [
    "../../evil",
    "/etc/evil",
    "a/../../evil",
    "..",
    "\\\\host\\evil",
    "C:\\evil",
    "CON",
    "x" * 300,
    "-rf",
    "~",
    "A",
    "a",
]


def test_a_store_takes_any_id_and_makes_no_path_of_it(tmp_path: Path) -> None:
    """Also two that differ by case alone, which are one name on some disks."""
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, NAMES, h.GRID) as out:
        for k, name in enumerate(NAMES):
            h.write(out, name, h.value(k))
    opened = ek.LogitStore(tmp_path / "m.zarr")
    assert opened.verify().sound
    assert all(np.array_equal(h.read(opened, name), h.value(k)) for k, name in enumerate(NAMES))
    assert {p.name for p in tmp_path.iterdir()} == {"m.zarr"}
    names = {
        p.relative_to(tmp_path / "m.zarr/logits").as_posix()
        for p in (tmp_path / "m.zarr/logits").rglob("*")
        if p.is_file()
    }
    own = {name for name in names if not name.startswith("manifest/")} - {"zarr.json"}
    assert all(re.fullmatch(r"(\d+/|sample/|class/)?(c(\.\d+){1,4}|zarr\.json)", name) for name in own), own


BLOCKS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_bytes(b"x"),
    "a link": lambda path: path.symlink_to(path.parent.parent),
    "a folder for a chunk": lambda path: [
        (path / h.FORM.chunk_name(k)).mkdir(parents=True) for k in range(h.FORM.chunks)
    ],
    "a folder for its description": lambda path: (path / "zarr.json").mkdir(parents=True),
}


@pytest.mark.parametrize("how", BLOCKS)
def test_what_stands_where_a_sample_belongs_is_named_and_moved_aside(tmp_path: Path, how: str) -> None:
    """The writer says what to run, and that leads on; nothing of the stranger's is removed."""
    store = h.make(tmp_path / "m.zarr", upto=4)
    path = store / (h.key(4) if h.GRID else "logits/4")
    if h.GRID:
        path.mkdir()
    else:
        BLOCKS[how](path)
    with pytest.raises((ek.ResourceError, ek.UnsafeError)) as caught:
        h.make(store)
    assert path.relative_to(store).as_posix() in str(caught.value)
    if caught.value.code == "store-write":
        assert f"run `ensk repair {store}`" in caught.value.fix
    (step,) = repair(store).steps
    assert (step.path, "'hand 4.png' belongs" in step.what) == (path.relative_to(store).as_posix(), True)
    assert os.path.lexists(store / step.to)
    h.make(store)
    assert ek.LogitStore(store).verify().sound
    np.testing.assert_array_equal(h.read(ek.LogitStore(store), h.IDS[4]), h.logits()[4])
