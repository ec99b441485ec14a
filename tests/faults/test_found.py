"""Faults that were found after the catalogue: each is named by what happens, and stands for its kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import EnskError, redacted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stores, masks of the first, and a set that is tuned on it."""
    h.make(tmp_path / "a.zarr", 0)
    h.make(tmp_path / "b.zarr", 1)
    ek.Ensemble([tmp_path / "a.zarr"]).vote(0.4).write(tmp_path / "val.npz")
    return tmp_path


# --- one member counts as two ----------------------------------------------------------------------------------


def linked(path: Path) -> Path:
    path.with_name("link" + path.suffix).symlink_to(path)
    return path.with_name("link" + path.suffix)


def copied(path: Path) -> Path:
    return Path(shutil.copytree(path, path.with_name("copy.zarr")))


def packed(path: Path) -> Path:
    ek.LogitStore(path).pack(path.with_suffix(".zip"))
    return path.with_suffix(".zip")


@pytest.mark.parametrize("again", [lambda p: p, linked, copied, packed], ids=["same path", "link", "copy", "zip"])
@pytest.mark.parametrize("how", ["--soft", "--hard"])
def test_one_store_twice_is_refused(folder: Path, again: Callable[[Path], Path], how: str) -> None:
    a, other = folder / "a.zarr", again(folder / "a.zarr")
    done = h.ensk("vote", a, other, folder / "b.zarr", how, "--out", folder / "o.csv")
    h.judge(done, 2, "member-twice", a)
    assert not (folder / "o.csv").exists()
    if how == "--soft":
        h.judge(h.ensk("tune-thresholds", a, other, "--val", folder / "val.npz"), 2, "member-twice")
        with pytest.raises(ek.UsageError, match="count one member as two"):
            ek.Ensemble([a, ek.LogitStore(other)])


def test_one_store_may_decide_in_two_ways(folder: Path) -> None:
    a = folder / "a.zarr"
    done = h.ensk(
        "vote", a, a, "--hard", "--thresholds", 0.3, "--thresholds", 0.6, "--quorum", 1, "--out", folder / "o.npz"
    )
    assert done.code == 0, done.err
    assert ek.read_masks(folder / "o.npz") == ek.Ensemble([a]).vote(0.3)


def test_one_mask_file_twice_is_refused_and_a_copy_is_said(folder: Path) -> None:
    val, link = folder / "val.npz", linked(folder / "val.npz")
    shutil.copy(val, folder / "copy.npz")
    ek.Ensemble([folder / "b.zarr"]).vote(0.4).write(folder / "other.npz")
    out = ("--out", folder / "o.npz", "--force")
    h.judge(h.ensk("vote", val, link, folder / "other.npz", *out), 2, "member-twice", val, link)
    done = h.ensk("vote", val, folder / "copy.npz", folder / "other.npz", *out)
    assert done.code == 0
    assert "warning: " in done.err
    assert "hold the same masks in every sample" in done.err
    assert "same masks" not in h.ensk("vote", val, folder / "other.npz", folder / "b.zarr", *out).err


def test_one_model_dumped_twice_is_said(folder: Path) -> None:
    h.make(folder / "again.zarr", 0, member="again")
    done = h.ensk("vote", folder / "a.zarr", folder / "again.zarr", "--out", folder / "o.csv")
    assert done.code == 0
    assert "warning: 'a' and 'again' hold the same logits in every sample" in done.err
    assert "same logits" not in h.ensk("vote", folder / "a.zarr", folder / "b.zarr", "--out", folder / "p.csv").err


# --- weights of 0 ----------------------------------------------------------------------------------------------


def test_a_member_of_weight_0_is_not_read(folder: Path) -> None:
    for k in range(len(h.IDS)):
        h.chunk(folder / "b.zarr", k).unlink()
    members = folder / "a.zarr", folder / "b.zarr"
    alone = ek.Ensemble([folder / "a.zarr"]).vote(0.5)
    done = h.ensk("vote", *members, "--weights", "1,0", "--out", folder / "soft.npz")
    assert done.code == 0, done.err
    assert "not read, since it weighs nothing: b" in done.err
    assert ek.read_masks(folder / "soft.npz") == alone
    done = h.ensk("vote", *members, folder / "val.npz", "--hard", "--weights", "1,0,0", "--out", folder / "hard.npz")
    assert done.code == 0, done.err
    assert f"not read, since it weighs nothing: {members[1]}" in done.err
    assert ek.read_masks(folder / "hard.npz") == alone
    h.judge(
        h.ensk("vote", *members, "--weights", "0,0", "--out", folder / "n.npz"),
        2,
        "weights-invalid",
        "all weights are 0",
    )
    h.judge(h.ensk("vote", *members, "--weights", "1,1", "--out", folder / "n.npz"), 3, "sample-damaged", "b.zarr")


def test_a_member_of_weight_0_for_one_class_is_read_for_the_other(folder: Path) -> None:
    both = ek.Ensemble([folder / "a.zarr", folder / "b.zarr"], weights=[[1, 1], [0, 1]]).vote(0.5)
    one, two = ek.Ensemble([folder / "a.zarr"]).vote(0.5), ek.Ensemble([folder / "a.zarr", folder / "b.zarr"]).vote(0.5)
    for s in h.IDS:
        assert both[s, h.CLASSES[0]] == one[s, h.CLASSES[0]]
        assert both[s, h.CLASSES[1]] == two[s, h.CLASSES[1]]


# --- a store that is moved, replaced, or of another kind ----------------------------------------------------------


def moved(store: Path) -> None:
    store.rename(store.with_name("elsewhere.zarr"))


def dumped_again(store: Path) -> None:
    h.make(store, 5, overwrite=True)


def another_renamed_here(store: Path) -> None:
    moved(store)
    store.with_name("b.zarr").rename(store)


def packed_over(store: Path) -> None:
    ek.LogitStore(store.with_name("b.zarr")).pack(store, force=True)


@pytest.mark.parametrize("change", [moved, dumped_again, another_renamed_here], ids=lambda c: c.__name__)
def test_a_store_replaced_while_open_is_to_be_opened_again(folder: Path, change: Callable[[Path], None]) -> None:
    ens = ek.Ensemble([folder / "a.zarr"])
    ens.vote(0.5)
    change(folder / "a.zarr")
    with pytest.raises(ek.DamagedError, match="replaced or moved while it was open") as caught:
        ens.vote(0.5)
    assert (caught.value.code, caught.value.fix) == ("store-changed", "open it again")
    with pytest.raises(ek.DamagedError, match="open it again"):
        ens.members[0].verify()


def test_a_packed_store_replaced_while_open_is_to_be_opened_again(folder: Path) -> None:
    path = packed(folder / "a.zarr")
    store = ek.LogitStore(path)
    packed_over(path)
    with pytest.raises(ek.DamagedError, match="replaced or moved while it was open"):
        store.read(h.IDS[0])
    path.unlink()
    with pytest.raises(ek.DamagedError, match="open it again"):
        store.read(h.IDS[0])


def test_a_worker_does_not_take_another_store_for_the_one_that_was_sent(folder: Path) -> None:
    import pickle

    sent = pickle.dumps(ek.LogitStore(folder / "a.zarr"))
    dumped_again(folder / "a.zarr")
    with pytest.raises(ek.MismatchError, match=r"a\.zarr has the fingerprint .* open it again"):
        pickle.loads(sent)


def test_the_fix_of_a_damaged_sample_removes_nothing_that_is_sound(folder: Path) -> None:
    """What the error prints is run as it is printed: every other sample is still there, and the dump mends this one."""
    store = folder / "a.zarr"
    h.edit(h.chunk(store), lambda raw: bytes([raw[0] ^ 1]) + raw[1:])
    done = h.ensk("verify", store)
    h.judge(done, 3, "store-damaged")
    command = done.err.split("fix: run `ensk ")[1].split("`")[0].split()
    before = {k: h.chunk(store, k).read_bytes() for k in range(len(h.IDS))}
    assert h.ensk(*command).code == 0
    assert {k: h.chunk(store, k).read_bytes() for k in before if k != h.VICTIM} == {
        k: v for k, v in before.items() if k != h.VICTIM
    }
    assert any(p.read_bytes() == before[h.VICTIM] for p in store.rglob("*c.4.0.0.0"))
    h.make(store, 0)
    assert h.ensk("verify", store).code == 0


DRAWN = ("delete the shape", "leave such annotations out")
"""Of annotations: what is drawn wrong is the user's to take out."""
HARMFUL = ("rm -", "delete ", "overwrite=True", "empty this", "remove it", "remove them", "remove the store")


def test_no_fix_tells_to_remove_anything() -> None:
    """Of every error in docs/errors.md."""
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    fixes = [line for line in page.splitlines() if line.startswith("- ")]
    assert len(fixes) > 200
    told = [line for line in fixes if any(word in line for word in HARMFUL)]
    assert not [line for line in told if not any(word in line for word in DRAWN)]


def v2_store(folder: Path) -> Path:
    """Write a store as zarr 2 does, by zarr itself."""
    import zarr

    root = zarr.open_group(folder / "two.zarr", mode="w", zarr_format=2)
    root.create_array("logits", shape=(6, 2, 8, 6), chunks=(1, 2, 8, 6), dtype="f2")[:] = 1
    return folder / "two.zarr"


def test_a_store_of_zarr_2_says_so(folder: Path) -> None:
    path = v2_store(folder)
    archive = shutil.make_archive(str(folder / "two"), "zip", path)
    for at in (path, path / "logits", Path(archive)):
        for command in (["inspect", at], ["verify", at], ["vote", at, "--out", folder / "o.csv"]):
            done = h.ensk(*command)
            assert "zarr 2: " in done.err or "compressed" in done.err, done.err
            assert done.code == 2 or at == Path(archive), done.err
    h.judge(h.ensk("verify", path), 2, "store-version", "zarr 2: ", "ensk dump-logits")


@pytest.mark.parametrize(
    "codec",
    [
        {"name": "gzip", "configuration": {"level": 1}},
        {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        {
            "name": "blosc",
            "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 2, "blocksize": 0},
        },
        {"name": "crc32c"},
        {"name": "transpose", "configuration": {"order": [0, 1, 3, 2]}},
    ],
    ids=lambda c: c["name"],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_codec_that_was_inserted_is_damage(folder: Path, codec: dict[str, object], place: int) -> None:
    meta = folder / "a.zarr/logits/zarr.json"
    about = json.loads(meta.read_text())
    about["codecs"].insert(place, codec)
    meta.write_text(json.dumps(about))
    done = h.ensk("vote", folder / "a.zarr", "--out", folder / "o.csv")
    assert done.code == 3, done.err
    assert "check the disk" not in done.err
    assert h.ensk("verify", folder / "a.zarr").code == 3


# --- what the system refuses ---------------------------------------------------------------------------------------


WRITER = """
import sys, numpy as np, ensemble_kit as ek
from ensemble_kit.errors import EnskError
try:
    with ek.LogitWriter(sys.argv[1], ("x",), ("a", "b"), (4, 4)) as out:
        out.write("a", np.full((1, 4, 4), -2.0), (8, 8))
        out.write("b", np.full((1, 4, 4), -3.0), (8, 8))
except EnskError as error:
    print(error.code, error)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def syncs(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many a dump of `WRITER` makes."""
    folder = tmp_path_factory.mktemp("syncs")
    strace = ["strace", "-f", "-qq", "-o", folder / "calls", "-e", "trace=fsync"]
    subprocess.run([*strace, sys.executable, "-c", WRITER, folder / "w.zarr"], check=True, timeout=60)
    return (folder / "calls").read_text().count("fsync(")


@h.needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_sync_that_fails_at_the_end_loses_nothing(tmp_path: Path, syncs: int, fault: str) -> None:
    """Whichever sync of a dump fails, from the first to the last: 5 in our words, and what was written is there.

    Each of them fails with EIO; the first, one in the midst, and the last two as a disk without room fails.
    """
    path, ended = tmp_path / "w.zarr", []
    for when in range(1, syncs + 2) if fault == "EIO" else (1, 4, syncs - 1, syncs, syncs + 1):
        shutil.rmtree(path, ignore_errors=True)
        command = [*h.traced("fsync", f"error={fault}:when={when}"), sys.executable, "-c", WRITER, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, (when, done.stderr)
        ended.append(done.returncode)
        if when <= syncs:
            assert done.returncode == 5, (when, done.stderr)
            assert done.stdout.startswith("store-write "), done.stdout
    assert ended[-1] == 0
    assert syncs > 5
    path = tmp_path / "last.zarr"
    command = [*h.traced("fsync", f"error={fault}:when={syncs}"), sys.executable, "-c", WRITER, path]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 5
    assert ek.LogitStore(path).complete
    assert ek.LogitStore(path).verify().sound


@h.needs_strace
@pytest.mark.parametrize("call", ["getdents64", "openat"])
def test_a_disk_that_fails_while_a_store_is_opened_is_5(folder: Path, call: str) -> None:
    program = """
import sys, ensemble_kit as ek
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.store import LogitStore
import ensemble_kit.logits.remote
try:
    sys.stderr.write(str(LogitStore(sys.argv[1]).member))
except EnskError as error:
    sys.exit(error.exit_code)
"""
    store = str(folder / "a.zarr")
    tracer = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{store}/logits/manifest", "-e", f"trace={call}")
    done = subprocess.run(
        [*tracer, "-e", f"inject={call}:error=EIO", sys.executable, "-c", program, store],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr


@h.needs_root
def test_a_store_of_another_user_is_5() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    private = folder / "private"
    private.mkdir()
    a, val, inside = h.make(folder / "a.zarr"), private / "val.npz", h.make(private / "b.zarr")
    h.masks().write(val)
    commands = [
        ["inspect", a],
        ["verify", a],
        ["verify", inside],
        ["inspect", inside],
        ["inspect", val],
        ["vote", a, "--out", folder / "o.csv"],
        ["vote", inside, "--soft", "--out", folder / "o.csv"],
        ["score", val, "--val", val],
    ]
    for command in commands:
        assert h.ensk(*command).code == 0, command  # and all modules are there
        (folder / "o.csv").unlink(missing_ok=True)
    private.chmod(0o700)
    Path(a).chmod(0o700)
    folder.chmod(0o777)
    ends: dict[str, int] = {}
    try:
        for command in commands:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.setgroups([])
                    os.setgid(1000)
                    os.setuid(1000)
                    h.judge(h.ensk(*command), 5, "permission", "uid 1000")
                    code = 0
                finally:
                    os._exit(code)
            ends[" ".join(map(str, command))] = os.waitpid(child, 0)[1]
        assert ends == dict.fromkeys(ends, 0)
    finally:
        shutil.rmtree(folder)


MISSING = {
    "verify": ["verify", "none"],
    "inspect": ["inspect", "none"],
    "inspect a store": ["inspect", "none.zarr"],
    "inspect a set": ["inspect", "none.json"],
    "inspect two sets": ["inspect", "none.json", "none2.json"],
    "repair": ["repair", "none"],
    "convert": ["convert", "none", "--out", "o.csv"],
    "score": ["score", "none", "--val", "val.npz"],
    "score, truth": ["score", "val.npz", "--val", "none"],
    "score, labels": ["score", "val.npz", "--val", "val.npz", "--labels", "none.csv"],
    "score, classes": ["score", "val.npz", "--val", "val.npz", "--classes", "none.txt"],
    "soft vote": ["vote", "none", "--soft", "--out", "o.csv"],
    "hard vote": ["vote", "val.npz", "none", "--out", "o.csv"],
    "vote, a set": ["vote", "a.zarr", "--thresholds", "none.json", "--out", "o.csv"],
    "vote, like": ["vote", "a.zarr", "--like", "none.csv", "--out", "o.csv"],
    "tune": ["tune-thresholds", "none", "--val", "val.npz", "--out", "s.json"],
    "tune, truth": ["tune-thresholds", "a.zarr", "--val", "none", "--out", "s.json"],
    "tune, compare": ["tune-thresholds", "a.zarr", "--val", "val.npz", "--out", "s.json", "--compare", "none"],
}


@pytest.mark.parametrize("arguments", MISSING.values(), ids=MISSING)
def test_a_missing_path_is_4_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(folder)
    done = h.ensk(*arguments)
    assert done.code == 4, done.err
    assert "none" in done.err
    assert "Traceback" not in done.err
    assert " · fix: " in done.err


# --- outputs are tried first ---------------------------------------------------------------------------------------


COMMANDS = {
    "vote": ["vote", "a.zarr", "--out"],
    "hard vote": ["vote", "val.npz", "b.zarr", "--hard", "--out"],
    "tune": ["tune-thresholds", "a.zarr", "--val", "val.npz", "--out"],
    "tune, statistics": ["tune-thresholds", "a.zarr", "--val", "val.npz", "--out", "s.json", "--statistics"],
    "convert": ["convert", "val.npz", "--out"],
    "pack": ["convert", "a.zarr", "--out"],
    "score": ["score", "val.npz", "--val", "val.npz", "--confusion"],
}
SUFFIX = {"tune": ".json", "tune, statistics": ".npz", "pack": ".zip", "score": ".csv"}


@pytest.mark.parametrize("command", COMMANDS)
@h.needs_root
def test_an_output_on_a_full_disk_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(folder)
    for k in range(len(h.IDS)):  # whoever reads a sample ends in 3
        h.chunk(folder / "a.zarr", k).unlink()
        h.chunk(folder / "b.zarr", k).unlink()
    with h.tmpfs(folder / "full", "64k") as full:
        (full / "fill").write_bytes(bytes(60 << 10))
        done = h.ensk(*COMMANDS[command], full / f"o{SUFFIX.get(command, '.csv')}")
        h.judge(done, 5, "write-failed", "No space left", "what was there before is untouched")
        assert [p.name for p in full.iterdir()] == ["fill"]
        subprocess.run(["mount", "-o", "remount,ro", full], check=True)
        done = h.ensk(*COMMANDS[command], full / f"o{SUFFIX.get(command, '.csv')}")
        h.judge(done, 5, "write-failed", "Read-only file system")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_in_a_store_or_over_an_input_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(folder)
    inside = f"a.zarr/logits/o{SUFFIX.get(command, '.csv')}"
    h.judge(h.ensk(*COMMANDS[command], inside), 2, "path-inside-store", "a.zarr")
    given = [a for a in COMMANDS[command] if a in {"a.zarr", "val.npz"}]
    link = folder / f"link{SUFFIX.get(command, '.npz')}"
    link.symlink_to(folder / given[0])
    if command != "tune, statistics":
        done = h.ensk(*COMMANDS[command], link, "--force")
        assert done.code == 2, done.err
        assert "output-" in done.err
    assert (folder / "val.npz").is_file()


def test_a_set_or_a_class_list_is_never_written_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert h.ensk("tune-thresholds", "a.zarr", "--val", "val.npz", "--out", "s.json").code == 0
    done = h.ensk("vote", "a.zarr", "--thresholds", "s.json", "--out", "s.json", "--force")
    h.judge(done, 2, "output-is-input", "s.json")
    done = h.ensk("tune-thresholds", "a.zarr", "--val", "val.npz", "--out", "t.npz", "--statistics", "t.npz")
    h.judge(done, 2, "output-is-input", "t.npz")
    Path("c.txt").write_text("radius\nulna\n")
    done = h.ensk("convert", "val.npz", "--classes", "c.txt", "--out", "c.txt", "--format", "handbone", "--force")
    h.judge(done, 2, "output-is-input", "c.txt")


# --- sets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned(folder: Path) -> Path:
    done = h.ensk("tune-thresholds", folder / "a.zarr", "--val", folder / "val.npz", "--out", folder / "set.json")
    assert done.code == 0, done.err
    return folder / "set.json"


def test_a_threshold_edited_by_hand_is_damage(tuned: Path, folder: Path) -> None:
    about = json.loads(tuned.read_text())
    level = about["classes"][0]["level"]
    about["classes"][0]["threshold"] = round(about["classes"][0]["threshold"], 6)  # a hand that rounds changes nothing
    tuned.write_text(json.dumps(about))
    assert ek.ThresholdSet.load(tuned).classes[0].level == level
    about["classes"][0]["threshold"] = 0.9
    tuned.write_text(json.dumps(about))
    done = h.ensk("vote", folder / "a.zarr", "--thresholds", tuned, "--out", folder / "o.csv")
    h.judge(done, 3, "set-invalid", "threshold 0.9", str(level), tuned)
    about["classes"][0] |= {"threshold": level / 65535, "level": level + 900}
    tuned.write_text(json.dumps(about))
    h.judge(h.ensk("inspect", tuned), 3, "set-invalid", str(level + 900))


def test_a_factor_edited_by_hand_is_damage(folder: Path) -> None:
    store = h.make(folder / "soft.zarr", 3, activation="softmax")
    ens = ek.Ensemble([store])
    found = ek.tune_thresholds(ens, ens.vote())
    found.save(folder / "f.json")
    about = json.loads((folder / "f.json").read_text())
    about["classes"][1]["factor"] = 3.0
    (folder / "f.json").write_text(json.dumps(about))
    with pytest.raises(ek.DamagedError, match=r"factor 3\.0"):
        ek.ThresholdSet.load(folder / "f.json")


def test_voting_on_the_tuning_samples_is_said(tuned: Path, folder: Path) -> None:
    a, out = folder / "a.zarr", ("--force", "--out", folder / "o.csv")
    told = f"these samples are the 6 that {tuned} was tuned on: a score on them is in-sample"
    assert told in h.ensk("vote", a, "--thresholds", tuned, *out).err
    assert told in h.ensk("vote", packed(a), "--thresholds", tuned, *out).err
    assert told in h.ensk("vote", a, folder / "val.npz", "--hard", "--thresholds", tuned, *out).err
    other = folder / "test.zarr"
    with ek.LogitWriter(other, h.CLASSES, ["new"], h.GRID, member="a") as writer:
        writer.write("new", h.logits(9)[0], h.PLANE)
    done = h.ensk("vote", other, "--thresholds", tuned, *out)
    assert done.code == 0
    assert "tuned on" not in done.err


def test_a_set_that_does_not_fit_is_named_and_weights_are_told_as_they_were_given(folder: Path) -> None:
    stores = folder / "a.zarr", folder / "b.zarr"
    set_ = folder / "w.json"
    done = h.ensk("tune-thresholds", *stores, "--weights", "2,1", "--val", folder / "val.npz", "--out", set_)
    assert done.code == 0, done.err
    done = h.ensk("vote", *stores, "--weights", "1,3", "--thresholds", set_, "--out", folder / "o.csv")
    h.judge(done, 6, "set-does-not-fit", f"{set_}: weights: tuned for a 2, b 1, asked for a 1, b 3")
    assert "65536" not in done.err
    done = h.ensk("vote", stores[0], "--thresholds", set_, "--out", folder / "o.csv")
    h.judge(done, 6, "set-does-not-fit", f"{set_}: members")


# --- secrets -------------------------------------------------------------------------------------------------------


SECRET = "Tr0ub4dor"
URLS = [
    f"postgresql://user:{SECRET}@host/db",
    f"mysql+pymysql://user:{SECRET}@127.0.0.1:1/db?ssl_key={SECRET}",
    f"postgresql://user:{SECRET}@x@host/db",
    f"nonsense://:{SECRET}@host",
    f"s3://AKIA:{SECRET}/x@bucket/a.zarr",
    f"https://host/a.zarr?X-Amz-Signature={SECRET}",
    f"https://user:{SECRET}@host/a.zarr#x",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(folder)
    search = ["tune-thresholds", "a.zarr", "b.zarr", "--val", "val.npz", "--out", "s.json", "--search", "weights"]
    for command in (
        [*search, "--storage", url],
        [*search, "--storage", url, "--debug"],
        ["tune-thresholds", url, "--val", "val.npz", "--out", "s.json"],
        ["tune-thresholds", "a.zarr", "--val", url, "--out", "s.json"],
        ["verify", url],
        ["inspect", url],
        ["repair", url],
        ["vote", url, "a.zarr", "--out", "o.csv"],
        ["vote", url, "val.npz", "--hard", "--out", "o.csv"],
        ["vote", "a.zarr", "--out", url],
        ["vote", "a.zarr", "--thresholds", url, "--out", "o.csv"],
        ["vote", "a.zarr", "--like", url, "--out", "o.csv"],
        ["convert", url, "--out", "o.csv"],
        ["score", url, "--val", "val.npz"],
        ["score", "val.npz", "--val", "val.npz", "--labels", url],
    ):
        done = h.ensk(*command)
        assert done.code != 0
        assert SECRET not in done.err + done.out, (command, done.err)
        assert "error[bug]" not in done.err, done.err


def test_a_url_without_secrets_is_shown_as_it_is() -> None:
    for text in ("sqlite:///study.db", "s3://bucket/a.zarr: gone", "https://host/a, mail me@host", "a.png", "C:/a"):
        assert redacted(text) == text


def test_an_error_of_our_own_hides_secrets_in_python_too() -> None:
    with pytest.raises(EnskError) as caught:
        ek.LogitStore(f"https://user:{SECRET}@host/a.zarr")
    assert SECRET not in str(caught.value) + repr(caught.value)


# --- small ones ----------------------------------------------------------------------------------------------------


def test_two_empty_sets_of_masks_have_no_score() -> None:
    none = ek.MaskSet({})
    for measure in (ek.dice, ek.iou, ek.confusion):
        with pytest.raises(ek.UsageError, match="there is none"):
            measure(none, none)


def test_a_nul_in_a_name_is_damage(folder: Path) -> None:
    for text in ("image_name,class,rle\na\0.png,x,1 2\n", "image_name,class,rle\na.png,x\0,1 2\n"):
        (folder / "nul.csv").write_text(text)
        with pytest.raises(ek.DamagedError):
            ek.read_masks(folder / "nul.csv", "handbone", image_size=(4, 4))


def test_a_pipe_is_refused_where_masks_are_read_more_than_once(folder: Path) -> None:
    os.mkfifo(folder / "pipe.csv")
    for command in (["score", folder / "pipe.csv", "--val", folder / "val.npz"], ["inspect", folder / "pipe.csv"],
                    ["convert", folder / "pipe.csv", "--out", folder / "o.csv"]):  # fmt: skip
        h.judge(h.ensk(*command), 2, "input-stream", "pipe.csv")


@pytest.mark.parametrize("name", ["loop", "dangling"])
def test_links_that_lead_nowhere_are_missing(folder: Path, name: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    for command in (
        ["verify", folder / name],
        ["inspect", folder / name],
        ["score", folder / name, "--val", folder / name],
    ):
        done = h.ensk(*command)
        assert done.code == 4, done.err


def test_limits_of_open_files_are_told(folder: Path) -> None:
    done = h.spawn("verify", folder / "a.zarr", preexec_fn=h.limited("NOFILE", 3))
    assert done.returncode in {1, 5, 127}  # the interpreter itself may not start
    assert np.all(ek.LogitStore(folder / "a.zarr").verify().sound)
