"""`ensk merge`: what parts leave becomes the bytes of a whole run, or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution.parts import Part
from ensemble_kit.recipes.part_file import PartFile, path_of
from trying import ensk, refused

CLASSES, IMAGE = ("x", "y", "z"), (40, 36)
IDS = tuple(f"s{k:02}" for k in range(11))


def folder_of(tmp: Path, activation: str = "sigmoid") -> Path:
    """Two members and a truth with void pixels; class z is rare, so its band of levels widens."""
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        logits = {s: smooth_logits(rng, (3, 10, 9), 3.0) for s in IDS}
        for s in IDS:
            logits[s][2] -= 9
        write_store(tmp / f"{name}.zarr", logits, IMAGE, CLASSES, activation=activation)
    ens = ek.Ensemble(tmp / "a.zarr")
    masks = ens.vote({"x": 0.4, "y": 0.6, "z": 0.002} if activation == "sigmoid" else None)
    void = {s: ek.encode(rng.random(IMAGE) < 0.1) for s in IDS[:4]}
    truth = {(s, c): masks[s, c] & ~void.get(s, ek.Runs.empty(IMAGE)) for s in IDS for c in CLASSES}
    ek.MaskSet(truth, void=void).write(tmp / "val", format="label-map") if activation == "softmax" else None
    if activation == "sigmoid":
        ek.MaskSet(truth).write(tmp / "val.npz")
    return tmp


@pytest.fixture(scope="module")
def sigmoid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("sigmoid"))


@pytest.fixture(scope="module")
def softmax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("softmax"), "softmax")


TUNINGS: dict[str, tuple[str, ...]] = {
    "no folds": ("--folds", "0"),
    "folds": ("--folds", "4"),
    "folds of groups": ("--folds", "3", "--groups", r"s\d(\d)"),
    "IoU pooled, empty pairs skipped": ("--folds", "3", "--metric", "iou", "--objective", "pooled", "--empty", "skip"),
    "another seed": ("--folds", "3", "--seed", "5"),
}


@pytest.mark.parametrize("options", TUNINGS.values(), ids=TUNINGS)
@pytest.mark.parametrize("parts", [2, 3, 11])
def test_counts_of_parts_are_the_wholes_bytes(
    sigmoid: Path, tmp_path: Path, options: tuple[str, ...], parts: int
) -> None:
    if parts == 11 and options != TUNINGS["folds"]:
        pytest.skip("once is enough")
    tune = ["tune-thresholds", sigmoid / "a.zarr", sigmoid / "b.zarr", "--val", sigmoid / "val.npz", *options]
    whole, merged = tmp_path / "whole.npz", tmp_path / "merged.npz"
    ensk(*tune, "--statistics", whole, "--out", tmp_path / "whole.json")
    for k in range(1, parts + 1):
        ensk(*tune, "--statistics", tmp_path / "counts.npz", "--part", f"{k}/{parts}")
    ensk("merge", tmp_path / "counts.npz", "--out", merged)
    assert merged.read_bytes() == whole.read_bytes()
    ensk(*tune, "--statistics", merged, "--out", tmp_path / "merged.json")
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert merged.read_bytes() == whole.read_bytes()  # nothing was counted again


def test_the_case_widens_a_band(sigmoid: Path) -> None:
    """Otherwise the tests above would not tell whether bands are narrowed as a whole run chooses them."""
    from ensemble_kit.spec.scoring import Measure
    from ensemble_kit.tuning.counting import statistics_for

    ens = ek.Ensemble([sigmoid / "a.zarr", sigmoid / "b.zarr"])
    bands = {(t.low, t.high) for t in statistics_for(ens, ek.read_masks(sigmoid / "val.npz"), Measure()).tables}
    assert len(bands) > 1


def test_factors_of_parts_are_the_wholes(softmax: Path, tmp_path: Path) -> None:
    tune = ["tune-thresholds", softmax / "a.zarr", softmax / "b.zarr", "--val", softmax / "val", "--folds", "3"]
    ensk(*tune, "--statistics", tmp_path / "whole.npz", "--out", tmp_path / "whole.json")
    for k in (2, 1):
        ensk(*tune, "--statistics", tmp_path / "counts.npz", "--part", f"{k}/2")
    ensk("merge", tmp_path / "counts.npz", "--out", tmp_path / "merged.npz")
    ensk(*tune, "--statistics", tmp_path / "merged.npz", "--out", tmp_path / "merged.json")
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


VOTES: dict[str, tuple[tuple[str, ...], str]] = {
    "soft, a CSV": (("--soft",), "out.csv"),
    "soft with rules": (("--rule", "drop-small:3", "--rule", "compete:0.9"), "out.csv"),
    "hard, with rules": (("--hard", "--thresholds", "0.6", "--rule", "drop-small:12"), "out.csv"),
    "hard, of stores": (("--hard", "--quorum", "1"), "out.csv"),
    "npz": (("--soft",), "out.npz"),
    "COCO": (("--soft",), "out.json"),
    "kaggle": (("--format", "kaggle"), "out.csv"),
    "a folder of PNGs": (("--format", "png"), "out"),
}


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of the files of a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.mark.parametrize(("options", "name"), VOTES.values(), ids=VOTES)
def test_masks_of_parts_are_the_wholes_bytes(
    sigmoid: Path, tmp_path: Path, options: tuple[str, ...], name: str
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "merged").mkdir()
    vote = ["vote", sigmoid / "a.zarr", sigmoid / "b.zarr", *options, "--out"]
    ensk(*vote, tmp_path / "whole" / name)
    for k in (2, 3, 1):
        ensk(*vote, tmp_path / name, "--part", f"{k}/3")
    assert not (tmp_path / name).exists()  # a file at its final name is whole
    ensk("merge", tmp_path / name, "--out", tmp_path / "merged" / name)
    assert content(tmp_path / "merged" / name) == content(tmp_path / "whole" / name)


def test_parts_of_mask_files_and_stores_in_the_order_of_a_sample_submission(sigmoid: Path, tmp_path: Path) -> None:
    order = [f"{s},{c}," for s in reversed(IDS) for c in CLASSES]
    (tmp_path / "like.csv").write_text("\n".join(["image_name,class,rle", *order]) + "\n")
    vote = ["vote", "--hard", sigmoid / "a.zarr", sigmoid / "val.npz", "--like", tmp_path / "like.csv", "--out"]
    ensk(*vote, tmp_path / "whole.csv")
    for k in (1, 2):
        ensk(*vote, tmp_path / "out.csv", "--part", f"{k}/2")
    ensk("merge", *(path_of(tmp_path / "out.csv", Part(k, 2)) for k in (2, 1)), "--out", tmp_path / "merged.csv")
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    ensk("merge", tmp_path / "out.csv", "--out", tmp_path / "other.npz", "--format", "npz")


def test_label_maps_of_parts(softmax: Path, tmp_path: Path) -> None:
    vote = ["vote", softmax / "a.zarr", softmax / "b.zarr", "--format", "label-map", "--out"]
    ensk(*vote, tmp_path / "whole")
    for k in (1, 2):
        ensk(*vote, tmp_path / "out", "--part", f"{k}/2")
    ensk("merge", tmp_path / "out", "--out", tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


def test_a_part_that_is_there_is_not_done_again(sigmoid: Path, tmp_path: Path) -> None:
    """A batch system starts a task again; another run with the same name is refused."""
    vote = ["vote", sigmoid / "a.zarr", "--out", tmp_path / "out.csv", "--part", "1/2"]
    ensk(*vote)
    path = path_of(tmp_path / "out.csv", Part(1, 2))
    before = path.stat().st_ino
    ensk(*vote)
    assert path.stat().st_ino == before
    with refused(ek.UsageError, "output-exists", "part of another run", "--force"):
        ensk(*vote, "--thresholds", "0.4")
    ensk(*vote, "--thresholds", "0.4", "--force")
    assert path.stat().st_ino != before


@pytest.fixture
def parts(sigmoid: Path, tmp_path: Path) -> Path:
    """Three parts of a vote."""
    for k in (1, 2, 3):
        ensk("vote", sigmoid / "a.zarr", "--out", tmp_path / "out.csv", "--part", f"{k}/3")
    return tmp_path / "out.csv"


def test_what_does_not_make_a_whole_is_refused(parts: Path, sigmoid: Path, tmp_path: Path) -> None:
    one, two, three = (path_of(parts, Part(k, 3)) for k in (1, 2, 3))
    out = ["--out", tmp_path / "all.csv"]
    with refused(ek.IncompleteError, "part-missing", "without 2/3; there are", f"--part 2/3, which writes {two}"):
        ensk("merge", one, three, *out)
    with refused(ek.UsageError, "part-twice", "both part 1/3"):
        ensk("merge", one, two, three, shutil.copy(one, tmp_path / "copy.part-1-of-3"), *out)
    with refused(ek.UsageError, "part-twice", f"{one} is named twice"):
        ensk("merge", parts, one, *out)
    with refused(ek.IncompleteError, "part-missing", "no.csv", "the files that --part wrote"):
        ensk("merge", tmp_path / "no.csv", *out)
    ensk("vote", sigmoid / "a.zarr", "--out", tmp_path / "other.csv", "--part", "2/3", "--thresholds", "0.25")
    with refused(ek.MismatchError, "parts-differ", "two plans", "decision is "):
        ensk("merge", one, path_of(tmp_path / "other.csv", Part(2, 3)), three, *out)
    ensk("vote", sigmoid / "b.zarr", "--out", tmp_path / "b.csv", "--part", "2/3")
    with refused(ek.MismatchError, "parts-differ", "fingerprint"):
        ensk("merge", one, path_of(tmp_path / "b.csv", Part(2, 3)), three, *out)
    ensk("vote", sigmoid / "a.zarr", "--out", tmp_path / "half.csv", "--part", "2/2")
    with refused(ek.MismatchError, "parts-differ", "parts is 2 there, 3 here"):
        ensk("merge", one, path_of(tmp_path / "half.csv", Part(2, 2)), *out)
    two.write_bytes(two.read_bytes()[:-200])
    with refused(ek.DamagedError, "part-invalid", str(two)):
        ensk("merge", parts, *out)
    assert not (tmp_path / "all.csv").exists()
    ensk("vote", sigmoid / "a.zarr", "--out", parts, "--part", "2/3")  # as the error says
    ensk("merge", parts, *out)


def test_more_parts_than_samples_are_refused(sigmoid: Path, tmp_path: Path) -> None:
    with refused(ek.UsageError, "part-empty", "--part 3/40", "11 samples"):
        ensk("vote", sigmoid / "a.zarr", "--out", tmp_path / "out.csv", "--part", "3/40")
    assert not list(tmp_path.iterdir())


COUNTING: dict[str, tuple[str, ...]] = {
    "no statistics": (),
    "a set": ("--statistics", "s.npz", "--out", "set.json"),
    "a search": ("--statistics", "s.npz", "--search", "weights"),
    "a choice": ("--statistics", "s.npz", "--choose", "own"),
}


@pytest.mark.parametrize("options", COUNTING.values(), ids=COUNTING)
def test_options_that_a_count_does_not_use_are_refused(
    sigmoid: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ek.UsageError, match="--part"):
        ensk("tune-thresholds", sigmoid / "a.zarr", "--val", sigmoid / "val.npz", "--part", "1/2", *options)
    assert not list(tmp_path.iterdir())


SCORES: dict[str, tuple[str, ...]] = {
    "Dice": (),
    "IoU, empty pairs skipped": ("--metric", "iou", "--empty", "skip"),
    "a convention": ("--convention", "kaggle"),
    "without a class": ("--background", "x"),
}


@pytest.mark.parametrize("options", SCORES.values(), ids=SCORES)
def test_scores_of_parts_are_the_wholes(
    sigmoid: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    ensk("vote", sigmoid / "b.zarr", "--out", tmp_path / "masks.npz")
    score = ["score", tmp_path / "masks.npz", "--val", sigmoid / "val.npz", *options]
    capsys.readouterr()
    ensk(*score, "--out", tmp_path / "whole.json", "--by-sample", tmp_path / "whole.csv")
    told = capsys.readouterr().out
    ensk(*score, "--json")
    assert (tmp_path / "whole.json").read_text() == capsys.readouterr().out
    for k in (1, 2, 3):
        ensk(*score, "--out", tmp_path / "scores.json", "--part", f"{k}/3")
    capsys.readouterr()
    ensk("merge", tmp_path / "scores.json", "--out", tmp_path / "merged.json", "--by-sample", tmp_path / "merged.csv")
    assert capsys.readouterr().out == told
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("convention", [(), ("--convention", "mmseg")], ids=["plain", "mmseg"])
def test_confusion_of_parts_is_the_wholes(softmax: Path, tmp_path: Path, convention: tuple[str, ...]) -> None:
    ensk("vote", softmax / "b.zarr", "--format", "label-map", "--out", tmp_path / "masks")
    score = ["score", tmp_path / "masks", "--val", softmax / "val", *convention]
    ensk(*score, "--out", tmp_path / "whole.json", "--confusion", tmp_path / "whole.npz")
    for k in (1, 2):
        ensk(*score, "--out", tmp_path / "scores.json", "--part", f"{k}/2")
    merge = ["merge", tmp_path / "scores.json", "--out", tmp_path / "merged.json", "--confusion"]
    ensk(*merge, tmp_path / "merged.npz")
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_part_of_a_score_needs_a_file(sigmoid: Path) -> None:
    score = ["score", sigmoid / "val.npz", "--val", sigmoid / "val.npz", "--part", "1/2"]
    with refused(ek.UsageError, "option-invalid", "--part 1/2 without --out"):
        ensk(*score)
    with refused(ek.UsageError, "option-idle", "--confusion", "ensk merge"):
        ensk(*score, "--out", "s.json", "--confusion", "m.csv")


def test_rules_of_a_hard_vote_look_at_all_parts(tmp_path: Path) -> None:
    """Only masks of all samples tell whether classes exclude each other, and rules keep them apart where they do."""
    image = np.zeros((2, 6, 6), bool)
    image[0, :, :3], image[1, :, 3:], image[1, 2, 1] = True, True, True
    apart = image.copy()
    apart[0, 2, 1] = False  # a hole in one class, filled by a speck of the other
    masks = {(s, c): ek.encode((image if s == "p" else apart)[k]) for s in "pqrs" for k, c in enumerate("xy")}
    ek.MaskSet(masks).write(tmp_path / "m.npz")
    ek.MaskSet({**masks, ("q", "x"): masks["q", "x"]}).write(tmp_path / "n.npz")
    vote = ["vote", tmp_path / "m.npz", tmp_path / "n.npz", "--rule", "drop-small:2", "--out"]
    ensk(*vote, tmp_path / "whole.npz")
    for k in (1, 2):
        ensk(*vote, tmp_path / "out.npz", "--part", f"{k}/2")
    ensk("merge", tmp_path / "out.npz", "--out", tmp_path / "merged.npz")
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_parts_whose_contents_do_not_fit_are_made_again_as_the_error_says(sigmoid: Path, tmp_path: Path) -> None:
    """Without --force they are taken for done, since each is sound by itself."""
    out = tmp_path / "o.npz"
    commands = {
        "vote": ("vote", sigmoid / "a.zarr", "--thresholds", 0.5, "--out", out),
        "score": ("score", sigmoid / "val.npz", "--val", sigmoid / "val.npz", "--out", tmp_path / "o.json"),
        "tune": (
            "tune-thresholds",
            sigmoid / "a.zarr",
            "--val",
            sigmoid / "val.npz",
            "--statistics",
            tmp_path / "t.npz",
        ),
    }
    for words in commands.values():
        for k in (1, 2):
            ensk(*words, "--part", f"{k}/2", "-q")
        path = path_of(words[-1], Part(2, 2))
        own = PartFile.load(path)
        PartFile(own.kind, own.part, own.plan, {}, own.arrays).save(path)
        with refused(ek.DamagedError, "part-invalid", "do not fit", "with --force"):
            ensk("merge", words[-1], "--out", words[-1])
        ensk(*words, "--part", "2/2", "--force", "-q")
        ensk("merge", words[-1], "--out", words[-1], "-q")
