"""The two seams of storage: a place that is read from, a sink that is written to, each with its smallest fake."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.errors import LockedError
from ensemble_kit.logits import chunkfile, description, store, writer
from ensemble_kit.logits.body import Body, HeldBody
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import Layout, StoreSpec
from ensemble_kit.logits.manifest import HeldManifest
from ensemble_kit.logits.open import find
from ensemble_kit.logits.places import Place
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.logits.sinks import Sink, open_sink
from ensemble_kit.spec.geometry import Placement

CLASSES, GRID, IDS, IMAGE = ["a", "b"], (8, 6), ["s0", "s1", "s2"], (40, 30)
VALUES = {name: smooth_logits(np.random.default_rng(k), (2, *GRID)) for k, name in enumerate(IDS)}


class Dictionary:
    """The smallest place: every key's bytes in a dictionary."""

    name, folder, stamp = "dictionary", None, None

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content

    def describe(self) -> tuple[StoreSpec, Layout]:
        return description.parse(self.content["zarr.json"], self.content["logits/zarr.json"], self.name)

    def manifest(self, spec: StoreSpec) -> HeldManifest:
        inside = {k: v for k, v in self.content.items() if k.endswith(".jsonl")}
        return HeldManifest(self.name, spec, inside)

    def open(self, key: str) -> Body:
        if key not in self.content:
            raise FileNotFoundError(key)
        return HeldBody(np.frombuffer(self.content[key], np.uint8))

    def entries(self) -> Sequence[str]:
        return sorted({k.split("/")[1] for k in self.content if k.startswith("logits/")})

    def mend(self, keys: Sequence[str]) -> str:
        return f"del content[{keys[0]!r}]"

    def zarr(self) -> Any:
        raise NotImplementedError


class HeldStage:
    """The smallest stage: chunks one after another."""

    content = b""

    def add(self, content: Any, checksum: int, last: bool) -> None:
        self.content += content.tobytes() + checksum.to_bytes(4, "little")

    def close(self) -> None:
        pass


class Held:
    """The smallest sink: every commit in a dictionary."""

    begun = False

    def __init__(self, _: Path | str, wanted: StoreSpec, overwrite: bool) -> None:
        self.spec, self.overwrite = wanted, overwrite
        self.committed: dict[str, tuple[Record, bytes]] = {}
        self.calls: list[str] = []

    def missing(self) -> list[str]:
        return [s for s in self.spec.samples if s not in self.committed]

    def stage(self, sample: str, array: SampleArray) -> HeldStage:
        return HeldStage()

    def commit(self, record: Record, stage: HeldStage, again: bool = False) -> None:
        self.committed[record.sample] = record, stage.content

    def flush(self) -> None:
        self.calls.append("flush")

    def finish(self) -> None:
        self.calls.append("finish")

    def release(self) -> None:
        self.calls.append("release")


_: tuple[type[Place], type[Sink]] = Dictionary, Held


def write(path: Any, ids: Sequence[str] = IDS, **options: Any) -> Any:
    with ek.LogitWriter(path, CLASSES, IDS, GRID, member="m", **options) as out:
        for name in ids:
            out.write(name, VALUES[name], IMAGE)
    return path


# ------------------------------------------------------------------------------------------------ places


@pytest.fixture(params=["folder", "packed", "memory", "dictionary"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = write(tmp_path / "m.zarr")
    if request.param == "packed":
        ek.LogitStore(folder).pack(tmp_path / "m.zip")
        return find(tmp_path / "m.zip")
    if request.param == "memory":
        pytest.importorskip("obstore")
        return find(write(f"memory://places/{secrets.token_hex(4)}"))
    if request.param == "dictionary":
        files = [p for p in folder.rglob("*") if p.is_file()]
        return Dictionary({p.relative_to(folder).as_posix(): p.read_bytes() for p in files})
    return find(folder)


def test_every_place_holds_the_same_store(place: Place) -> None:
    spec, how = place.describe()
    assert (spec.member, spec.samples, spec.grid, how) == ("m", tuple(IDS), GRID, spec.layout)
    manifest = place.manifest(spec)
    manifest.refresh()
    assert sorted(manifest.records) == IDS
    chunks = Chunks(place, spec, how)
    for name, record in manifest.records.items():
        np.testing.assert_array_equal(chunks.read(record), VALUES[name])
        ((key, content),) = chunks.stored(record)
        assert (key, len(content)) == (chunks.key(record), record.array.payload + chunkfile.TRAILER)
    assert chunks.unknown() == ()
    assert {"zarr.json", "c.0.0.0.0"} <= set(place.entries())
    assert place.name
    assert place.mend(["logits/c.0.0.0.0"])


def test_bodies_are_sized_read_and_mapped(place: Place) -> None:
    body, whole = place.open("logits/c.1.0.0.0"), VALUES["s1"].tobytes()
    assert body.size == len(whole) + chunkfile.TRAILER
    out = np.empty(20, np.uint8)
    body.read_into(out, 10)
    assert out.tobytes() == whole[10:30]
    mapped = body.map(len(whole), cached=False)
    body.close()
    assert mapped is not None  # it stays valid without the body
    assert mapped.tobytes() == whole
    assert not mapped.flags.writeable
    with pytest.raises(FileNotFoundError):
        place.open("logits/c.9.0.0.0")


# ------------------------------------------------------------------------------------------------ sinks


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_a_writer_needs_nothing_but_a_sink(codec: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writer, "open_sink", Held)
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID, codec=codec) as out:
        sink = out.sink
        out.write(IDS[:2], np.stack([VALUES[s] for s in IDS[:2]]), IMAGE, box=(1, 0, 8, 6))
        out.flush()
        assert out.missing == ["s2"]
    assert sink.calls == ["flush", "finish", "release"]
    assert not (tmp_path / "m.zarr").exists()
    monkeypatch.undo()
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID, codec=codec) as out:
        out.write("s1", VALUES["s1"], IMAGE)
    record, content = sink.committed["s1"]
    assert content == (tmp_path / "m.zarr/logits/c.1.0.0.0").read_bytes()
    assert record.placement == Placement.of(GRID, IMAGE, (1, 0, 8, 6))
    assert record.stored == ((len(content),) if codec == "lossless" else ())


@pytest.fixture(params=["folder", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "folder":
        return tmp_path / "m.zarr"
    pytest.importorskip("obstore")
    return f"memory://sinks/{secrets.token_hex(4)}"


def test_every_sink_commits_once(where: Path | str) -> None:
    wanted = StoreSpec("m", ("a", "b"), tuple(IDS), GRID, "sigmoid")
    payload = VALUES["s1"].reshape(-1).view(np.uint8)
    record = Record("s1", 1, wanted.array(Placement.of(GRID, IMAGE)), chunkfile.running_crcs(payload, 2).hex())

    def commit(sink: Sink, record: Record) -> None:
        stage = sink.stage("s1", record.array)
        stage.add(payload, record.checksum(), last=True)
        sink.commit(record, stage)
        stage.close()

    first, second = open_sink(where, wanted, False), open_sink(where, wanted, False)
    assert (first.spec.store, first.begun, first.missing()) == (second.spec.store, False, IDS)
    commit(first, record)
    commit(first, record)
    commit(second, record)  # by another writer: it is there with these bytes
    with pytest.raises(LockedError) as caught:
        commit(second, replace(record, array=wanted.array(Placement.of(GRID, (9, 9)))))
    assert caught.value.code == "sample-committed"
    assert "of 40 x 30 there" in caught.value.item
    assert "of 9 x 9 here" in caught.value.item
    for sink in (first, second):
        sink.flush()
        sink.finish()
        sink.release()
    opened = ek.LogitStore(where)
    assert opened.missing == ["s0", "s2"]
    np.testing.assert_array_equal(opened.read("s1"), VALUES["s1"])
    assert open_sink(where, wanted, False).begun


# ------------------------------------------------------------------------------------------------ pickling


def test_a_process_unpickles_a_store_once(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ek.LogitStore(write(where, IDS[:2]))
    opens = []
    monkeypatch.setattr(store, "find", lambda path: opens.append(path) or find(path))
    copies = [pickle.loads(pickle.dumps(opened)) for _ in range(5)]
    assert len(opens) == 1
    assert all(c is copies[0] for c in copies)
    np.testing.assert_array_equal(copies[0].read("s1"), VALUES["s1"])
    later = ek.LogitStore(write(where))  # another sample is committed since
    opens.clear()
    assert pickle.loads(pickle.dumps(later)).complete
    assert len(opens) == 1
    write(where, ["s0"], overwrite=True)
    assert pickle.loads(pickle.dumps(ek.LogitStore(where))).missing == ["s1", "s2"]
