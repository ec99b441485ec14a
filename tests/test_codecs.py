"""`codec="lossless"` and `clamp=`: what zarr reads and writes, no fault passes for data, bounds are told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UsageError
from ensemble_kit.logits import shards
from ensemble_kit.logits.body import HeldBody
from ensemble_kit.logits.chunkfile import crc
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter

CLASSES, GRID, IDS = ["a", "b", "c"], (128, 96), [f"s{k}" for k in range(20)]
VALUES = [smooth_logits(np.random.default_rng(k), (3, *GRID)) for k in range(len(IDS))]


def make(path: Path, codec: str = "lossless", values: list[np.ndarray] = VALUES, **options: Any) -> LogitStore:
    with LogitWriter(path, CLASSES, IDS, GRID, member="m", codec=codec, **options) as out:  # type: ignore[arg-type]
        for name, value in zip(IDS, values, strict=False):
            out.write(name, value, (64, 48))
    return LogitStore(path)


def code_of(error: type[EnskError], action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(error) as caught:
        action()
    assert caught.value.fix
    return caught.value.code, str(caught.value)


def chunk(store: LogitStore, row: int) -> Path:
    return Path(store.path) / "logits" / f"c.{row}.0.0.0"


# ------------------------------------------------------------------------------------------------ lossless


def test_the_same_store_in_less_room(tmp_path: Path) -> None:
    plain, small = make(tmp_path / "a.zarr", "none"), make(tmp_path / "b.zarr")
    assert (plain.codec, small.codec) == ("none", "lossless")
    assert small.fingerprint == plain.fingerprint  # a set that was tuned on one fits the other
    assert small.stored_bytes < plain.stored_bytes
    assert small.stored_bytes == sum(chunk(small, row).stat().st_size for row in range(len(IDS)))
    out = np.empty((3, *GRID), np.float16)
    for name, value in zip(IDS, VALUES, strict=True):
        for got in (small.read(name), small.read(name), small.read(name, out)):
            np.testing.assert_array_equal(got.view(np.uint16), value.view(np.uint16))
    assert not small.read(IDS[0]).flags.writeable
    assert small.verify().sound
    votes = [ek.Ensemble([s]).vote(0.4) for s in (plain, small)]
    assert all(votes[0][key] == runs for key, runs in votes[1].items())


def test_zarr_reads_it_and_writes_the_same_bytes(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    ours = make(tmp_path / "a.zarr")
    np.testing.assert_array_equal(zarr.open(ours.path, mode="r")["logits"][:], np.stack(VALUES))
    np.testing.assert_array_equal(zarr.open(ours.path, mode="r")["logits"][3, 1, 5:9], VALUES[3][1, 5:9])
    array = zarr.create_array(
        tmp_path / "z.zarr",
        shape=(len(IDS), 3, *GRID),
        shards=(1, 3, *GRID),
        chunks=(1, 1, *GRID),
        dtype="float16",
        fill_value=float("nan"),
        filters=None,
        compressors=[
            zarr.codecs.BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="shuffle"),
            zarr.codecs.Crc32cCodec(),
        ],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["sample", "class", "y", "x"],
    )
    array[:] = np.stack(VALUES)
    theirs = json.loads((tmp_path / "z.zarr/zarr.json").read_text())
    assert json.loads((tmp_path / "a.zarr/logits/zarr.json").read_text()) == theirs
    for row in range(len(IDS)):
        assert chunk(ours, row).read_bytes() == (tmp_path / "z.zarr" / f"c.{row}.0.0.0").read_bytes()


@pytest.mark.parametrize("compressor", ["zstd", "lz4 with crc32c around the shard"])
def test_other_shards_go_through_zarr(tmp_path: Path, compressor: str) -> None:
    zarr = pytest.importorskip("zarr")
    store = make(tmp_path / "a.zarr", "none")
    blosc, guard = (
        zarr.codecs.BloscCodec(typesize=2, cname=compressor[:4].strip(), shuffle="shuffle"),
        zarr.codecs.Crc32cCodec(),
    )
    for old in [tmp_path / "a.zarr/logits/zarr.json", *(chunk(store, row) for row in range(len(IDS)))]:
        old.unlink()
    outer = "around" in compressor
    inner = (zarr.codecs.BytesCodec(), blosc) if outer else (zarr.codecs.BytesCodec(), blosc, guard)
    shard = zarr.codecs.ShardingCodec(chunk_shape=(1, 1, *GRID), codecs=inner)
    with pytest.warns(UserWarning, match="disables partial reads") if outer else _Nothing():
        from zarr.api.synchronous import create

        array = create(
            store=tmp_path / "a.zarr/logits", shape=(len(IDS), 3, *GRID), chunks=(1, 3, *GRID), dtype="float16",
            fill_value=float("nan"), zarr_format=3, codecs=(shard, guard) if outer else (shard,), overwrite=False,
            chunk_key_encoding=("default", "."), dimension_names=["sample", "class", "y", "x"],
        )  # fmt: skip
        array[:] = np.stack(VALUES)
        opened = LogitStore(tmp_path / "a.zarr")
        assert opened.codec == "other"
        np.testing.assert_array_equal(opened.read(IDS[3]), VALUES[3])
        assert opened.fingerprint == store.fingerprint
        assert code_of(MismatchError, lambda: make(tmp_path / "a.zarr"))[0] in {"store-differs", "store-layout"}


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("at", ["first", "middle", "before the index", "index", "last"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_changed_byte_is_named(tmp_path: Path, at: str, warm: bool) -> None:
    make(tmp_path / "a.zarr")
    opened = LogitStore(tmp_path / "a.zarr")
    if warm:
        opened.read(IDS[2])
    raw = bytearray(chunk(opened, 2).read_bytes())
    where = {"first": 0, "middle": len(raw) // 2, "before the index": -53, "index": -50, "last": -1}[at]
    raw[where] ^= 4
    chunk(opened, 2).write_bytes(raw)
    code, text = code_of(DamagedError, lambda: opened.read(IDS[2]))
    assert code == "sample-damaged"
    assert f"{IDS[2]!r} of {opened.path}, logits/c.2.0.0.0" in text
    assert {"first": "class 'a'", "middle": "class 'b'", "before the index": "class 'c'"}.get(at, "the shard") in text
    assert [d.sample for d in opened.verify().damaged] == [IDS[2]]


def test_cut_empty_gone_and_swapped(tmp_path: Path) -> None:
    opened = make(tmp_path / "a.zarr")
    content = chunk(opened, 5).read_bytes()
    for name, words in {
        "cut": "bytes instead of",
        "empty": "power cut",
        "gone": "gone",
        "swapped": "bytes instead of",
    }.items():
        chunk(opened, 5).write_bytes({"cut": content[:-1], "swapped": chunk(opened, 6).read_bytes()}.get(name, b""))
        if name == "gone":
            chunk(opened, 5).unlink()
        assert words in code_of(DamagedError, lambda: opened.read(IDS[5]))[1], name
        with LogitWriter(opened.path, CLASSES, IDS, GRID, member="m", codec="lossless") as out:
            assert out.missing == [IDS[5]], name
            out.write(IDS[5], VALUES[5], (64, 48))
        assert LogitStore(opened.path).verify().sound
        assert chunk(opened, 5).read_bytes() == content


def test_a_sound_shard_of_another_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)  # noise, which is as large as it was
    noise = [rng.integers(0, 0x7C00, (3, *GRID), np.uint16).view(np.float16) for _ in range(2)]
    opened = make(tmp_path / "a.zarr", values=noise)
    shard = chunk(opened, 1).read_bytes()
    assert len(shard) == chunk(opened, 0).stat().st_size
    chunk(opened, 0).write_bytes(shard)
    assert "another's" in code_of(DamagedError, lambda: LogitStore(opened.path).read(IDS[0]))[1]


FUZZ = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from test_codecs import VALUES, GRID
from ensemble_kit.logits import shards
from ensemble_kit.logits.chunkfile import crc
from ensemble_kit.logits.body import HeldBody
rng = np.random.default_rng(7)
content, check = shards.encode(VALUES[0].reshape(-1).view(np.uint8), 3)
out = np.empty(VALUES[0].nbytes, np.uint8)
index = content[-48:].copy().view("<u8").reshape(3, 2)
wrong = 0
for trial in range(3000):  # a hostile shard: whatever is changed, every checksum fits
    raw = content.copy()
    at, size = (int(v) for v in index[trial % 3])
    where = rng.integers(0, 16 if trial % 2 else size - 4, size=rng.integers(1, 5))
    raw[at + where] = rng.integers(0, 256, where.size)
    raw[at + size - 4 : at + size] = np.frombuffer(crc(raw[at : at + size - 4]).to_bytes(4, "little"), np.uint8)
    try:
        shards.decode(HeldBody(np.concatenate([raw, np.frombuffer(check.to_bytes(4, "little"), np.uint8)])), out, 3)
    except shards.ShardError:
        wrong += 1
print(wrong)
"""


def test_hostile_shards_crash_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", FUZZ, str(Path(__file__).parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


@pytest.mark.parametrize(
    "entry",
    [(0, 2**63), (2**64 - 1, 2**64 - 1), (2**63, 2**63), (0, 3), (10**6, 100), (0, 40000)],
    ids=["endless", "absent", "overflowing", "too short", "behind the end", "too long"],
)
def test_hostile_indexes(entry: tuple[int, int]) -> None:
    content, _ = shards.encode(VALUES[0].reshape(-1).view(np.uint8), 3)
    raw = content.copy()
    raw[-48:].view("<u8")[:2] = entry
    body = HeldBody(np.concatenate([raw, np.frombuffer(crc(raw[-48:]).to_bytes(4, "little"), np.uint8)]))
    with pytest.raises(shards.ShardError):
        shards.decode(body, np.empty(VALUES[0].nbytes, np.uint8), 3)


@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.booleans())
@settings(max_examples=60)
def test_any_payload_round_trips(C: int, h: int, w: int, seed: int, noise: bool) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 65536 if noise else 3, (C, h, w), np.uint16)
    payload, out = bits.reshape(-1).view(np.uint8), np.empty(bits.nbytes, np.uint8)
    content, check = shards.encode(payload, C)
    again, _ = shards.encode(payload, C)
    np.testing.assert_array_equal(content, again)
    running = shards.decode(
        HeldBody(np.concatenate([content, np.frombuffer(check.to_bytes(4, "little"), np.uint8)])), out, C
    )
    np.testing.assert_array_equal(out, payload)
    assert running[-1] == crc(payload)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import test_codecs as t
with t.LogitWriter(sys.argv[2], t.CLASSES, t.IDS, t.GRID, member="m", codec="lossless") as out:
    for name in out.missing:
        out.write(name, t.VALUES[t.IDS.index(name)], (64, 48))
        print(name, flush=True)
        if len(sys.argv) > 3 and name == sys.argv[3]:
            sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("last", [2, 17])
def test_what_is_acknowledged_survives_a_kill(tmp_path: Path, last: int) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "a.zarr")]
    with subprocess.Popen([*command, IDS[last]], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(last + 1)]
        writer.kill()
    opened = LogitStore(tmp_path / "a.zarr")
    assert opened.missing == IDS[last + 1 :]
    assert not opened.verify().damaged
    assert said == IDS[: last + 1]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == IDS[last + 1 :]
    whole = make(tmp_path / "b.zarr")
    assert LogitStore(tmp_path / "a.zarr").fingerprint == whole.fingerprint
    for row in range(len(IDS)):
        assert chunk(opened, row).read_bytes() == chunk(whole, row).read_bytes()


def test_a_store_keeps_its_codec(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    code, text = code_of(MismatchError, lambda: make(tmp_path / "a.zarr", "none"))
    assert code == "store-differs"
    assert "codec is 'lossless' there, 'none' here" in text
    assert code_of(UsageError, lambda: make(tmp_path / "b.zarr", "zstd"))[0] == "codec-invalid"
    assert make(tmp_path / "a.zarr", "none", overwrite=True).codec == "none"


# ------------------------------------------------------------------------------------------------ clamp


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_clamp_limits_and_is_recorded(tmp_path: Path, codec: str) -> None:
    values = [v * np.float16(3) for v in VALUES]
    before = [v.copy() for v in values]
    opened = make(tmp_path / "a.zarr", codec, values, clamp=12)
    assert opened.clamp == 12
    assert opened.provenance["clamp"] == 12
    for name, value, old in zip(IDS, values, before, strict=True):
        np.testing.assert_array_equal(opened.read(name), np.clip(old, -12, 12))
        np.testing.assert_array_equal(value, old)  # the caller's memory is its own
    attributes = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]["ensemble_kit"]
    assert attributes["clamp"] == 12
    code, text = code_of(MismatchError, lambda: make(tmp_path / "a.zarr", codec, values))
    assert code == "store-differs"
    assert "clamp is 12.0 there, None here" in text


@given(
    st.lists(st.integers(0, 65535).filter(lambda c: c & 0x7FFF <= 0x7C00), min_size=1, max_size=40), st.floats(1, 65504)
)
def test_clamp_is_numpys_clip(codes: list[int], bound: float) -> None:
    from ensemble_kit.logits import ingest
    from ensemble_kit.logits.floats import recognise

    array = np.array([*codes, 0xFBFF], np.uint16).view(np.float16).reshape(1, 1, -1)
    code = ingest.clamp_code(bound, "sigmoid")
    assert code is not None
    limit = np.float16(ingest.value_of(code))
    got = ingest.logits(recognise(array), "s", ["a"], "logits", "sigmoid", code).codes
    np.testing.assert_array_equal(got, np.clip(array, -limit, limit))


@pytest.mark.parametrize("clamp", [0, -3, 0.5, float("nan"), float("inf"), 1e6, "x", True])
def test_clamps_that_mean_nothing(tmp_path: Path, clamp: Any) -> None:
    assert code_of(UsageError, lambda: make(tmp_path / "a.zarr", clamp=clamp))[0] == "clamp-invalid"
    assert not (tmp_path / "a.zarr").exists()


def test_a_softmax_is_not_clamped(tmp_path: Path) -> None:
    assert code_of(UsageError, lambda: make(tmp_path / "a.zarr", activation="softmax", clamp=12))[0] == "clamp-invalid"


def test_members_of_different_clamps(tmp_path: Path) -> None:
    far, near, none = (make(tmp_path / f"{c}.zarr", "none", clamp=c) for c in (12, 6, None))
    for pair in ((far, near), (near, none), (far, none)):
        assert code_of(MismatchError, lambda: ek.Ensemble(pair, mean="logit"))[0] == "clamps-differ"  # noqa: B023
        ek.Ensemble(pair)
    ek.Ensemble([make(tmp_path / "wide.zarr", "none", clamp=20), none], mean="logit")  # both end at ±16 there
    assert np.array_equal(ek.Ensemble([far]).levels(IDS[0]), ek.Ensemble([none]).levels(IDS[0]))  # ±12 is 0 and 65535


def test_a_clamp_in_the_description_that_makes_no_sense(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", clamp=12)
    path = tmp_path / "a.zarr/zarr.json"
    for wrong in ("-1", '"12"', "true", "1e9", "[12]"):
        path.write_text(path.read_text().replace('"clamp": 12.0\n', f'"clamp": {wrong}\n'))
        assert code_of(DamagedError, lambda: LogitStore(tmp_path / "a.zarr"))[0] == "store-metadata"
        path.write_text(path.read_text().replace(f'"clamp": {wrong}\n', '"clamp": 12.0\n'))


def test_the_command_takes_both(tmp_path: Path) -> None:
    from PIL import Image

    from ensemble_kit.cli.app import app

    (tmp_path / "images").mkdir()
    (tmp_path / "arrays").mkdir()
    for k in range(3):
        Image.fromarray(np.zeros((64, 48), np.uint8)).save(tmp_path / f"images/{k}.png")
        np.save(tmp_path / f"arrays/{k}.npy", VALUES[k])
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    common = ["dump-logits", str(tmp_path / "arrays"), "--images", str(tmp_path / "images"), "--classes",
              str(tmp_path / "classes.txt"), "--out", str(tmp_path / "m.zarr"), "-q"]  # fmt: skip
    options = ["--codec", "lossless", "--clamp", "4"]
    app([*common, *options], standalone_mode=False)
    app([*common, *options], standalone_mode=False)  # nothing is left to do
    opened = LogitStore(tmp_path / "m.zarr")
    assert (opened.codec, opened.clamp, opened.complete) == ("lossless", 4.0, True)
    np.testing.assert_array_equal(opened.read("1.png"), np.clip(VALUES[1], -4, 4))
    for wrong in (["--codec", "lossless"], ["--clamp", "4"], ["--codec", "lossless", "--clamp", "5"]):
        assert code_of(MismatchError, lambda: app([*common, *wrong], standalone_mode=False))[0] == "store-differs"  # noqa: B023
    assert (
        code_of(UsageError, lambda: app([*common, "--codec", "zip", "--force"], standalone_mode=False))[0]
        == "codec-invalid"
    )
    assert LogitStore(tmp_path / "m.zarr").complete
