"""Members as people have them, on the command line: five folds of one network (N8), networks of other classes (N9)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import ensemble_kit as ek
from cases.running import ensk, refused
from conftest import smooth_logits, write_store
from ensemble_kit.recipes.members import MemberPaths, members_of

CLASSES, IMAGE, GRID = ("x", "y"), (40, 50), (2, 16, 20)
TRAIN, TEST = tuple(f"p{k}" for k in range(6)), ("t0", "t1")


def dump(
    name: str, samples: Sequence[str], classes: Sequence[str] = CLASSES, member: str | None = None
) -> ek.LogitStore:
    rng = np.random.default_rng(sum(map(ord, name)))
    logits = {s: smooth_logits(rng, (len(classes), *GRID[1:])) for s in samples}
    return write_store(Path(f"{name}.zarr"), logits, IMAGE, tuple(classes), member=member or name)


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three folds' out-of-fold stores, their stores of the test set, another member of both, and a truth."""
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        dump(f"oof{k}", TRAIN[k::3])
        dump(f"test{k}", TEST)
    dump("seg_oof", TRAIN, member="seg")
    dump("seg_test", TEST, member="seg")
    ek.Ensemble({"unet": [f"oof{k}.zarr" for k in range(3)]}).vote(0.6).write("truth.npz")


@pytest.mark.usefixtures("folds")
def test_n8_tuned_out_of_fold_and_voted_over_the_folds(capsys: pytest.CaptureFixture[str]) -> None:
    named = [f"unet=oof{k}.zarr" for k in range(3)]
    ensk("tune-thresholds", *named, "seg_oof.zarr", "--val", "truth.npz", "--out", "set.json", "--weights", "2,1")
    assert "unet: 3 folds, joined" in capsys.readouterr().err
    recorded = json.loads(Path("set.json").read_text())["fusion"]
    assert [m["name"] for m in recorded["members"]] == ["seg", "unet"]
    assert [len(m.get("folds", [])) for m in recorded["members"]] == [0, 3]
    schema = json.loads((Path(__file__).parents[2] / "thresholds" / "schema.json").read_text())
    jsonschema.validate(json.loads(Path("set.json").read_text()), schema)
    ensk("vote", "unet=test*.zarr", "seg_test.zarr", "--thresholds", "set.json", "--out", "masks.npz")
    told = capsys.readouterr().err
    for words in ("unet (3 folds) 0.667", "unet: 3 folds, averaged", "for the 3 folds that the set was tuned on"):
        assert words in told
    tuned = ek.ThresholdSet.load("set.json")
    flat = ek.Ensemble([*[f"test{k}.zarr" for k in range(3)], "seg_test.zarr"], weights=[2, 2, 2, 3])
    assert ek.read_masks("masks.npz") == flat.vote(tuned.thresholds)
    every = ["test0.zarr", "test1.zarr", "test2.zarr", "seg_test.zarr"]
    told = refused("set-does-not-fit", 6, "vote", *every, "--thresholds", "set.json", "--out", "m.npz")
    assert "NAME=PATH" in told


@pytest.mark.usefixtures("folds")
def test_n8_folds_without_a_name_are_told_what_to_type() -> None:
    """What the message says, followed to the letter, works."""
    told = refused("samples-differ", 6, "tune-thresholds", *[f"oof{k}.zarr" for k in range(3)], "--val", "truth.npz")
    typed = told[told.index("one name: ") + 10 :].split(";")[0].split()
    assert len(typed) == 3
    ensk("tune-thresholds", *typed, "--val", "truth.npz", "--out", "set.json")
    assert ek.ThresholdSet.load("set.json").fusion.members == ("oof0",)


@pytest.mark.usefixtures("folds")
def test_n8_a_hard_vote_takes_the_folds_averaged_scores_as_one_vote() -> None:
    ensk("vote", "--hard", "unet=test*.zarr", "seg_test.zarr", "--ties", "on", "--out", "hard.npz")
    ensk("vote", "--hard", "seg_test.zarr", "--quorum", "1", "--out", "seg.npz")
    votes = [ek.Ensemble({"unet": [f"test{k}.zarr" for k in range(3)]}).vote(), ek.read_masks("seg.npz")]
    assert ek.read_masks("hard.npz") == ek.hard_vote(votes, ties="on")


@pytest.mark.usefixtures("folds")
def test_n8_fuse_stack_and_review_take_folds(capsys: pytest.CaptureFixture[str]) -> None:
    ensk("fuse", "unet=test0.zarr", "unet=test1.zarr", "seg_test.zarr", "--out", "fused.zarr")
    assert ek.LogitStore("fused.zarr").member == "seg+unet"
    assert [len(m.get("folds", [])) for m in ek.LogitStore("fused.zarr").provenance["fused"]["members"]] == [0, 2]
    ensk("review", "unet=test*.zarr", "--out", "review.csv")
    assert "unet (3 folds)" in capsys.readouterr().err


@pytest.mark.usefixtures("folds")
def test_inspect_shows_the_folds(capsys: pytest.CaptureFixture[str]) -> None:
    ensk("inspect", "unet=test*.zarr", "seg_test.zarr", "--json")
    found = json.loads(capsys.readouterr().out)
    unet, seg = found["members"]
    assert (unet["folds"], unet["samples"], seg["folds"]) == (3, 2, 1)
    assert unet["together"].startswith("averaged") and len(unet["stores"]) == 3
    ensk("inspect", "unet=oof0.zarr", "unet=test0.zarr", "unet=oof1.zarr")
    assert "joined: each holds other samples" in capsys.readouterr().out
    dump("mixed", TEST[:1], member="unet")
    ensk("inspect", "unet=test0.zarr", "unet=mixed.zarr")
    assert "cannot be one member" in capsys.readouterr().out
    ensk("inspect", "oof0.zarr", "--json")
    assert json.loads(capsys.readouterr().out)["kind"] == "logit store"
    assert "beside stores" in refused("paths-count", 2, "inspect", "oof0.zarr", "truth.npz")


@pytest.mark.usefixtures("folds")
def test_mask_files_are_no_folds() -> None:
    for k in range(2):
        ek.Ensemble(f"test{k}.zarr").vote().write(f"m{k}.npz")
    told = refused("folds-not-stores", 2, "vote", "unet=m0.npz", "unet=m1.npz", "--out", "o.npz")
    assert "m0.npz" in told
    ensk("vote", "a=m0.npz", "b=m1.npz", "--out", "o.npz", "--ties", "on")


def test_names_before_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text with = is a path where it is one, and a name before a path elsewhere; where it is both it is refused."""
    monkeypatch.chdir(tmp_path)
    for name in ("lr=0.1.zarr", "runs/lr=1/a.zarr", "a.zarr", "b=a.zarr"):
        write_store(Path(name), {"s": np.full((1, 4, 4), -3, np.float32)}, (8, 8), ("x",))

    def read(*texts: str) -> list[MemberPaths]:
        return members_of(map(Path, texts))

    assert read("lr=0.1.zarr", "runs/lr=1/a.zarr") == [
        MemberPaths((Path("lr=0.1.zarr"),)), MemberPaths((Path("runs/lr=1/a.zarr"),)),
    ]  # fmt: skip
    assert read("u=a.zarr", "a.zarr", "u=runs/lr=1/a.zarr") == [
        MemberPaths((Path("a.zarr"), Path("runs/lr=1/a.zarr")), "u"), MemberPaths((Path("a.zarr"),)),
    ]  # fmt: skip
    assert read("u=s3://bucket/a.zarr")[0].name == "u"
    assert str(read("u=s3://bucket/a.zarr")[0].paths[0]) == "s3://bucket/a.zarr"
    assert read("u=*.zarr")[0].paths == (Path("a.zarr"), Path("b=a.zarr"), Path("lr=0.1.zarr"))
    told = refused("member-ambiguous", 2, "vote", "b=a.zarr", "--out", "o.npz")
    whole = str(tmp_path / "b=a.zarr")
    assert whole in told and "b=./a.zarr" in told
    ensk("vote", whole, "--out", "o.npz")
    ensk("vote", "b=./a.zarr", "--out", "p.npz")
    assert "no path fits" in refused("member-missing", 4, "vote", "u=none*.zarr", "--out", "o.npz")
    assert "'none.zarr' not found" in refused("member-missing", 4, "vote", "u=none.zarr", "--out", "o.npz")


def test_n9_members_of_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dump("full", TRAIN, ("x", "y", "z"))
    dump("crop", TRAIN, ("z", "w"))
    told = refused("classes-differ", 6, "vote", "full.zarr", "crop.zarr", "--out", "m.npz")
    assert "--member-classes union" in told
    for how, classes in (("union", ("x", "y", "z", "w")), ("common", ("z",))):
        both = ["full.zarr", "crop.zarr", "--member-classes", how]
        ensk("vote", *both, "--out", f"{how}.npz")
        told = capsys.readouterr().err
        voted = ek.read_masks(f"{how}.npz")
        assert set(voted.classes) == set(classes)
        crop, full = (ek.Ensemble([f"{name}.zarr"]).vote() for name in ("crop", "full"))
        for name, alone in (("w", crop), ("x", full)) if how == "union" else ():
            assert all(voted[s, name] == alone[s, name] for s in TRAIN)
        words = "classes that crop lacks, and in which it has no say: x, y" if how == "union" else "left out"
        assert words in told
        voted.write(f"{how}_truth.npz")
        ensk("tune-thresholds", *both, "--val", f"{how}_truth.npz", "--out", f"{how}.json")
        ensk("vote", *both, "--thresholds", f"{how}.json", "--out", f"{how}_tuned.npz")
    told = refused("option-idle", 2, "vote", "--hard", *both, "--out", "h.npz")
    assert "--member-classes" in told


def test_a_set_of_a_former_version_is_read_and_members_without_folds_are_recorded_as_ever(tmp_path: Path) -> None:
    former = Path(__file__).parents[2] / "thresholds" / "demo.json"
    tuned = ek.ThresholdSet.load(former)
    assert all(m.folds == () for m in tuned.members)
    tuned.save(tmp_path / "again.json")
    members = [json.loads(path.read_text())["fusion"]["members"] for path in (former, tmp_path / "again.json")]
    assert members[0] == members[1] and all(set(m) == {"name", "fingerprint", "model"} for m in members[0])
