"""S: a store that was damaged while nobody looked. Nothing damaged is ever taken for data."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.manifest import Manifest
from ensemble_kit.logits.records import FORMAT, to_line


class Case(NamedTuple):
    """A fault of one file, and how `ensk verify` and `ensk vote` must end: exit code, error code, what is named."""

    id: str
    how: str
    inject: Callable[[Path], object]
    verify: tuple[int, str]
    vote: tuple[int, str]
    named: tuple[str, ...]
    others: bool = True
    """Whether the other samples can still be read."""
    forms: tuple[str, ...] = tuple(h.FORMS)
    """In which formats this can happen."""

    def happens(self) -> bool:
        """Tell whether it can in the format that is tried; the others are skipped."""
        return h.FORM.name in self.forms


def lines_of(store: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    h.edit(h.segment(store), lambda raw: b"".join(change(raw.splitlines(keepends=True))))


def second_segment(store: Path, **changes: object) -> None:
    """Add a segment that says something else of the first sample."""
    head = json.loads((store / "zarr.json").read_text())["attributes"]["ensemble_kit"]
    line = {**json.loads(h.segment(store).read_text().splitlines()[1]), **changes}
    line.pop("check")
    name = store / "logits/manifest/ffffffffffffffff.jsonl"
    name.write_bytes(b"".join(map(to_line, [{"format": FORMAT, "store": head["store"]}, line, {"sync": 1}])))


def contradict(store: Path) -> None:
    from dataclasses import replace

    record = h.record(store)
    record = replace(record, crcs="00000001" * (len(record.crcs) // 8))
    second_segment(store, **record.to_json())


def swap(store: Path) -> None:
    a, b, aside = h.chunk(store, 1), h.chunk(store), store / "aside"
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def from_another(store: Path) -> None:
    other = h.make(store.with_name("other.zarr"), seed=99, member="other")
    shutil.copy(h.chunk(other), h.chunk(store))


def foreign_segment(store: Path) -> None:
    other = h.make(store.with_name("other.zarr"), seed=0, member="other")
    shutil.copy(h.segment(other), store / "logits/manifest")


def link_outside(store: Path) -> None:
    h.chunk(store).unlink()
    h.chunk(store).symlink_to("/etc/passwd")


def to_another_case(store: Path) -> None:
    path = h.chunk(store)
    path.rename(path.with_name(path.name.upper()))


def folder_outside(store: Path) -> None:
    folder, outside = description(store).parent, store.with_name("outside")
    folder.rename(outside)
    folder.symlink_to(outside)


def description(store: Path) -> Path:
    """Return the description of the victim's array, where it has one of its own."""
    return store / f"logits/{h.VICTIM}/zarr.json"


HERE = Path(__file__).parent
NAME, KEY = h.IDS[h.VICTIM], "<the chunk's key>"
ONE, OWN = ("one grid",), ("grids", "volumes", "scenes")
"""Formats whose samples are rows of one array, and those where each is an array of its own."""
OWN_KEY = f"logits/{h.VICTIM}/zarr.json"
DAMAGED, SAMPLE, SOUND = (3, "store-damaged"), (3, "sample-damaged"), (0, "")
CASES = [
    Case("S01", "unlink", lambda s: h.chunk(s).unlink(), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S02", "rename to another case", to_another_case, DAMAGED, SAMPLE,
         (NAME, KEY)),
    Case("S03", "one bit", lambda s: h.edit(h.chunk(s), lambda b: b[:50] + bytes([b[50] ^ 4]) + b[51:]), DAMAGED,
         SAMPLE, (NAME, KEY)),
    Case("S05", "one byte short", lambda s: h.edit(h.chunk(s), lambda b: b[:-1]), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S05", "half", lambda s: h.edit(h.chunk(s), lambda b: b[: len(b) // 2]), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S05", "16 bytes", lambda s: h.edit(h.chunk(s), lambda b: b[:16]), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S06", "empty", lambda s: h.edit(h.chunk(s), lambda _: b""), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S07", "64 bytes more", lambda s: h.edit(h.chunk(s), lambda b: b + bytes(64)), DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S09", "two chunks swapped", swap, DAMAGED, SAMPLE, (h.IDS[1],), others=False),
    Case("S10", "chunk of another store", from_another, DAMAGED, SAMPLE, (NAME, KEY)),
    Case("S11", "a folder in its place", lambda s: (h.chunk(s).unlink(), h.chunk(s).mkdir()), DAMAGED, SAMPLE,
         (NAME, KEY)),
    Case("S13", "a link outside", link_outside, DAMAGED, (7, "store-link"), (NAME, KEY)),
    Case("S14", "zarr.json gone", lambda s: (s / "zarr.json").unlink(), (3, "store-foreign"), (3, "store-foreign"),
         ("zarr.json", "ensk repair"), others=False),
    Case("S14", "the array's zarr.json gone", lambda s: (s / "logits/zarr.json").unlink(), (3, "store-foreign"),
         (3, "store-foreign"), ("logits/zarr.json", "ensk repair"), others=False),
    Case("S15", "zarr.json cut", lambda s: h.edit(s / "zarr.json", lambda b: b[:70]), (3, "store-metadata"),
         (3, "store-metadata"), ("zarr.json", "ensk repair"), others=False),
    Case("S15", "zarr.json empty", lambda s: h.edit(s / "zarr.json", lambda _: b""), (3, "store-metadata"),
         (3, "store-metadata"), ("zarr.json", "power cut"), others=False),
    Case("S17", "dtype int16", lambda s: h.edit(s / "logits/zarr.json", h.replaced('"float16"', '"int16"')),
         (3, "store-metadata"), (3, "store-metadata"), ("int16",), others=False, forms=ONE),
    Case("S17", "dtype bfloat16", lambda s: h.edit(s / "logits/zarr.json", h.replaced('"float16"', '"bfloat16"')),
         (3, "store-metadata"), (3, "store-metadata"), ("bfloat16",), others=False, forms=ONE),
    Case("S18", "fill value 0", lambda s: h.edit(s / "logits/zarr.json", h.replaced('"NaN"', "0")),
         (3, "store-metadata"), (3, "store-metadata"), ("fill value 0",), others=False, forms=ONE),
    Case("S19", "unknown codec", lambda s: h.edit(s / "logits/zarr.json", h.replaced('"crc32c"', '"pickle"')),
         (7, "store-codec"), (7, "store-codec"), ("pickle",), others=False, forms=ONE),
    Case("S21", "manifest gone", lambda s: h.segment(s).unlink(), (4, "store-incomplete"), (4, "sample-missing"),
         (h.IDS[0],), others=False),
    Case("S23", "a line changed", lambda s: lines_of(s, lambda v: [*v[:3], v[3].replace(b'"row":2', b'"row":3'), *v[4:]]),
         (3, "manifest-damaged"), (3, "manifest-damaged"), ("line 4", ".jsonl"), others=False),
    Case("S23", "a line gone", lambda s: lines_of(s, lambda v: v[:3] + v[4:]), (3, "manifest-damaged"),
         (3, "manifest-damaged"), ("counts 6", ".jsonl"), others=False),
    Case("S25", "a doubled id", contradict, (3, "manifest-conflict"), (3, "manifest-conflict"),
         ("line 2 and ffffffffffffffff.jsonl line 2", h.IDS[0]), others=False),
    Case("S26", "a row out of range", lambda s: second_segment(s, row=99), (3, "manifest-damaged"),
         (3, "manifest-damaged"), ("ffffffffffffffff.jsonl line 2",), others=False),
    Case("S27", "manifest of another store", foreign_segment, (3, "manifest-foreign"), (3, "manifest-foreign"),
         (".jsonl",), others=False),
    Case("S15", "chunks of nothing", lambda s: h.edit(s / "logits/zarr.json", lambda b: re.sub(
        rb'"chunk_shape": \[\s*1,\s*2', b'"chunk_shape": [1, 0', b)),
        (3, "store-metadata"), (3, "store-metadata"), ("[1, 0, 8, 6]",), others=False, forms=ONE),
    Case("S15", "a class renamed", lambda s: h.edit(s / "zarr.json", h.replaced('"ulna"', '"elna"')),
         (3, "store-metadata"), (3, "store-metadata"), ("checksum",), others=False),
    Case("S15", "a member renamed", lambda s: h.edit(s / "zarr.json", h.replaced('"member": "m"', '"member": "n"')),
         (3, "store-metadata"), (3, "store-metadata"), ("checksum",), others=False),
    Case("S33", "a newer version", lambda s: h.edit(s / "zarr.json", lambda b: re.sub(rb"ensk.logits/\d", b"ensk.logits/9", b)),
         (2, "store-version"), (2, "store-version"), ("ensk.logits/9", "newer"), others=False),
    Case("S14", "a sample's zarr.json gone", lambda s: description(s).unlink(), DAMAGED, SOUND, (NAME, OWN_KEY), forms=OWN),
    Case("S15", "a sample's zarr.json cut", lambda s: h.edit(description(s), lambda b: b[:70]), DAMAGED, SOUND,
         (NAME, OWN_KEY), forms=OWN),
    Case("S17", "a sample's dtype", lambda s: h.edit(description(s), h.replaced('"float16"', '"int16"')), DAMAGED, SOUND,
         (NAME, OWN_KEY), forms=OWN),
    Case("S18", "a sample's fill value", lambda s: h.edit(description(s), h.replaced('"NaN"', "0")), DAMAGED, SOUND,
         (NAME, OWN_KEY), forms=OWN),
    Case("S19", "a sample's codec", lambda s: h.edit(description(s), h.replaced('"crc32c"', '"pickle"')), DAMAGED, SOUND,
         (NAME, OWN_KEY), forms=OWN),
    Case("S13", "a sample's folder is a link", folder_outside, DAMAGED, (7, "store-link"), (NAME,), forms=OWN),
    Case("S01", "a sample's folder is gone", lambda s: shutil.rmtree(description(s).parent), DAMAGED, SAMPLE,
         (NAME,), forms=OWN),
    Case("S14", "logits is no group", lambda s: h.edit(s / "logits/zarr.json", h.replaced('"group"', '"array"')),
         (3, "store-metadata"), (3, "store-metadata"), ("logits/zarr.json",), others=False, forms=OWN),
]  # fmt: skip
ALONE = {
    "S22": "test_a_torn_tail_costs_nothing",
    "S29": "test_leftovers_are_counted_and_swept",
    "S30": "test_a_file_that_may_not_be_read",
    "S31": "test_a_bad_disk_is_tried_twice",
    "S35": "test_an_empty_store",
}
ELSEWHERE = {"S34": "faults/test_formats_kept.py::test_the_first_release_is_read"}
NOT_HERE: dict[str, str] = {}


pytestmark = pytest.mark.usefixtures("form")


@pytest.fixture(scope="module")
def whole(form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return h.make(tmp_path_factory.mktemp("whole") / "m.zarr")


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "m.zarr"))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_damage_is_named_and_never_data(store: Path, tmp_path: Path, case: Case) -> None:
    if not case.happens():
        pytest.skip("of another format")
    case.inject(store)
    named = [h.key() if name == KEY else name for name in case.named]
    h.judge(h.ensk("verify", store), *case.verify, *named)
    if case.vote == SOUND:  # it is for other readers
        np.testing.assert_array_equal(h.read(ek.LogitStore(store), NAME), h.logits()[h.VICTIM])
    else:
        h.judge(h.ensk("vote", store, "--out", tmp_path / h.OUT), *case.vote, *named[:1])
    assert not (tmp_path / h.OUT).exists()
    assert not h.leftovers(tmp_path)
    if case.others:  # the other samples are as they were
        opened = ek.LogitStore(store)
        for k, name in enumerate(h.IDS):
            if k != h.VICTIM:
                np.testing.assert_array_equal(h.read(opened, name), h.logits()[k])


@pytest.mark.parametrize("case", [c for c in CASES if c.verify == DAMAGED], ids=lambda c: f"{c.id} {c.how}")
def test_what_the_message_says_mends_it(store: Path, case: Case) -> None:
    """The fix of the message, and the same dump again, end in the same store."""
    if not case.happens():
        pytest.skip("of another format")
    before = ek.LogitStore(store).fingerprint
    case.inject(store)
    fix = h.ensk("verify", store).err.split(" · fix: run `ensk ")[1]
    h.ensk(*shlex.split(fix.split("`")[0]))
    h.make(store)
    assert ek.LogitStore(store).fingerprint == before
    assert ek.LogitStore(store).verify().sound


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_tail_costs_nothing(store: Path, cut: int) -> None:
    h.edit(h.segment(store), lambda raw: raw[:-cut])
    ran = h.ensk("verify", store, "--json")
    assert (ran.code, json.loads(ran.out)["sound"]) == (0, True)
    h.make(store)  # and the next writer goes on
    assert ek.LogitStore(store).complete


def test_a_take_that_was_never_synced_and_is_damaged_is_damage(store: Path) -> None:
    """Its line is dropped, and the former take is not there any more: no store was replaced meanwhile."""
    out = ek.LogitWriter(store, h.CLASSES, h.IDS, h.GRID)
    h.write(out, NAME, h.logits(5)[h.VICTIM], again=True)
    out.abandon()
    h.edit(h.chunk(store), lambda b: b[:50] + bytes([b[50] ^ 4]) + b[51:])
    h.judge(h.ensk("verify", store), 3, "store-damaged", NAME)


def test_leftovers_are_counted_and_swept(store: Path) -> None:
    left = store / "logits/.3.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    ran = h.ensk("verify", store)
    assert ran.code == 0
    assert left.name in ran.err
    with ek.LogitWriter(store, h.CLASSES, h.IDS, h.GRID):
        assert not left.exists()


@h.needs_root
def test_a_file_that_may_not_be_read() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        store = h.make(folder / "m.zarr")
        h.chunk(store).chmod(0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(1000)
                os.setuid(1000)
                h.judge(h.ensk("verify", store), 5, "permission", h.chunk(store), "uid 1000")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        shutil.rmtree(folder)


READ = """
import sys
sys.path.insert(0, {here!r})
import forms, ensemble_kit as ek
opened = ek.LogitStore(sys.argv[1])
print(len([forms.use({form!r}).read(opened, sample) for sample in opened.samples]))
"""


@h.needs_strace
@pytest.mark.parametrize(("when", "ends"), [("1", 0), ("2", 0), ("1+", 1)])
def test_a_bad_disk_is_tried_twice(store: Path, when: str, ends: int) -> None:
    command = [
        *h.traced("preadv,preadv2", f"error=EIO:when={when}"),
        sys.executable,
        "-c",
        READ.format(here=str(HERE), form=h.FORM.name),
        str(store),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == ends, ran.stderr
    if ends:
        assert "ResourceError" in ran.stderr
        assert f"sample {h.IDS[0]!r}" in ran.stderr
        assert "Input/output error" in ran.stderr


def test_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(EnskError, match="there is none"):
        ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, [], h.GRID)
    h.make(tmp_path / "m.zarr", upto=0)
    h.judge(h.ensk("verify", tmp_path / "m.zarr"), 4, "store-incomplete", "6 of 6")
    h.judge(h.ensk("vote", tmp_path / "m.zarr", "--out", tmp_path / h.OUT), 4, "sample-missing", h.IDS[0])
    assert not (tmp_path / h.OUT).exists()


def test_two_damaged_samples_are_looked_into_one_after_the_other(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two threads at once a manifest was read half, and a sound store called replaced."""
    swap(store)
    opened, at_once, most = ek.LogitStore(store), [0], [0]
    refresh = Manifest.refresh

    def slow(manifest: Manifest, whole: Any = None, skip: str | None = None) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        refresh(manifest, whole, skip)
        at_once[0] -= 1

    monkeypatch.setattr(Manifest, "refresh", slow)
    names, codes = (NAME, h.IDS[1]), list[str]()

    def read(name: str) -> None:
        with pytest.raises(ek.DamagedError) as caught:
            h.read(opened, name)
        codes.append(caught.value.code)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, names))
    assert codes == ["sample-damaged"] * 2
    assert most == [1]
