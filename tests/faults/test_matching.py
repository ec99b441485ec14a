"""M: inputs that do not belong together. Everything is joined by name, and what does not fit is refused by name."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek


def member(path: Path, name: str, ids: tuple[str, ...] = h.IDS, classes: tuple[str, ...] = h.CLASSES, plane: Any = h.PLANE,
           **options: Any) -> Path:  # fmt: skip
    draw = np.random.default_rng(len(name))
    with ek.LogitWriter(path / f"{name}.zarr", classes, ids, h.GRID, **options) as out:
        for k, sample in enumerate(ids):
            out.write(
                sample, draw.normal(size=(len(classes), *h.GRID)) * 5, plane[k] if isinstance(plane, list) else plane
            )
    return path / f"{name}.zarr"


class Case(NamedTuple):
    """A second member that does not fit the first."""

    id: str
    how: str
    second: Callable[[Path], Path]
    code: int
    error: str
    named: tuple[str, ...]


def renamed(change: Callable[[str], str]) -> Callable[[Path], Path]:
    return lambda p: member(p, "second", tuple(map(change, h.IDS)))


def one_short(path: Path) -> Path:
    return h.make(path / "second.zarr", upto=5)


CASES = [
    Case("M03", "a class missing", lambda p: member(p, "second", classes=("radius",)), 6, "classes-differ", ("'ulna'",)),
    Case("M03", "a class more", lambda p: member(p, "second", classes=(*h.CLASSES, "x")), 6, "classes-differ", ("'x'",)),
    Case("M05", "softmax and sigmoid", lambda p: member(p, "second", activation="softmax"), 6, "activation-differs",
         ("softmax", "sigmoid")),
    Case("M06", "another case", renamed(str.upper), 6, "samples-differ", ("HAND 0.PNG",)),
    Case("M06", "no extension", renamed(lambda s: s[:-4]), 6, "samples-differ", ("'hand 0'",)),
    Case("M06", "a space more", renamed(lambda s: s + " "), 6, "samples-differ", ("'hand 0.png '",)),
    Case("M06", "one sample less", lambda p: member(p, "second", h.IDS[:-1]), 6, "samples-differ", (h.IDS[-1],)),
    Case("M09", "sides swapped", lambda p: member(p, "second", plane=h.PLANE[::-1]), 6, "image-size-differs",
         ("32 x 24", "24 x 32")),
    Case("M10", "one sample not dumped", one_short, 4, "sample-missing", (h.IDS[-1], "second.zarr")),
]  # fmt: skip
ALONE = {
    "M01": "test_another_order_of_classes_is_no_error",
    "M02": "test_masks_without_class_names",
    "M06": "test_normal_forms_are_two_ids",
    "M07": "test_another_order_of_samples_is_no_error",
    "M13": "test_one_image_under_two_names",
    "M14": "test_the_score_says_whether_it_was_seen",
    "M15": "test_a_threshold_that_gains_nothing_is_not_kept",
    "M17": "test_truth_that_is_none",
    "M18": "test_a_set_of_another_ensemble",
    "M19": "test_thresholds_that_are_none",
}
ELSEWHERE = {
    "M14": "test_validation.py::test_out_of_fold_is_what_refitting_by_hand_gives",
    "M15": "test_validation.py::test_real_gains_are_kept_and_noise_is_not",
    "M18": "test_thresholds.py::test_a_set_that_does_not_fit_says_which",
}
NOT_HERE = {
    "M11": "a store does not know the training list; `ensk tune-thresholds --groups` keeps related samples together",
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_members_that_do_not_fit(tmp_path: Path, case: Case) -> None:
    first, second, out = member(tmp_path, "first"), case.second(tmp_path), tmp_path / "o.csv"
    for members in ((first, second), (second, first)):
        h.judge(h.ensk("vote", *members, "--out", out), case.code, case.error, *case.named)
        assert not out.exists()


def test_another_order_of_classes_is_no_error(tmp_path: Path) -> None:
    store = member(tmp_path, "first")
    opened = ek.LogitStore(store)
    with ek.LogitWriter(tmp_path / "turned.zarr", h.CLASSES[::-1], h.IDS[::-1], h.GRID) as out:
        for sample in h.IDS:
            out.write(sample, opened.read(sample)[::-1], h.PLANE)
    one, two = ek.Ensemble([store]).vote(0.3), ek.Ensemble([tmp_path / "turned.zarr"]).vote(0.3)
    assert {k: two[k] for k in one} == dict(one)
    both = ek.Ensemble([store, tmp_path / "turned.zarr"]).vote(0.3)
    assert {k: both[k] for k in one} == dict(one)


def test_another_order_of_samples_is_no_error(tmp_path: Path) -> None:
    a = h.masks()
    b = ek.MaskSet({key: a[key] for key in reversed(list(a))})
    assert ek.dice(a, b).mean == 1
    assert dict(ek.hard_vote([a, b])) == dict(a)


def test_normal_forms_are_two_ids(tmp_path: Path) -> None:
    ids = tuple(unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    store = member(tmp_path, "m", ids)
    masks = ek.Ensemble([store]).vote()
    assert masks.samples == ids  # what a file system spelled stays as it is, and the two are never merged
    h.judge(h.ensk("vote", member(tmp_path, "a", ids[:1]), member(tmp_path, "b", ids[1:]), "--out", tmp_path / "o.csv"),
            6, "samples-differ")  # fmt: skip


def test_masks_without_class_names(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((1, 2, 4, 5), bool))
    h.judge(h.ensk("inspect", tmp_path / "m.npy"), 2, "classes-needed", "m.npy")


def truth(path: Path, masks: ek.MaskSet, name: str = "truth.csv") -> Path:
    masks.write(path / name, format="handbone" if name.endswith(".csv") else None)
    return path / name


def test_the_score_says_whether_it_was_seen(tmp_path: Path) -> None:
    store = member(tmp_path, "m")
    ran = h.ensk("tune-thresholds", store, "--val", truth(tmp_path, h.masks()), "--out", tmp_path / "s.json")
    assert ran.code == 0, ran.err
    assert "out of fold" in ran.out
    assert "warning" in ran.err  # so few samples
    ran = h.ensk(
        "tune-thresholds", store, "--val", tmp_path / "truth.csv", "--folds", "0", "--out", tmp_path / "t.json"
    )
    assert "in-sample" in ran.out + ran.err


def test_a_threshold_that_gains_nothing_is_not_kept(tmp_path: Path) -> None:
    """Truth that has nothing to do with the scores: classes share one threshold in place of their noise."""
    ran = h.ensk("tune-thresholds", member(tmp_path, "m"), "--val", truth(tmp_path, h.masks(3)), "--out",
                 tmp_path / "s.json", "--json")  # fmt: skip
    said = json.loads(ran.out)
    levels = {c["name"]: c["level"] for c in said["classes"]}
    shared = [c for c in said["classes"] if not c["folds"]["keeps"]]
    assert all(levels[c["name"]] == said["validation"]["out_of_fold"]["common_level"] for c in shared)


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [("grey values", 3, "mask-values"), ("another size", 6, "image-size-differs"), ("a sample missing", 4, "truth-missing"),
     ("a sample more", 6, "samples-differ"), ("a class missing", 4, "classes-missing"), ("nothing", 4, "input-missing")],
)  # fmt: skip
def test_truth_that_is_none(tmp_path: Path, how: str, code: int, error: str) -> None:
    store, path, masks = member(tmp_path, "m"), tmp_path / "truth.npz", h.masks()
    if how == "grey values":
        np.savez(path, samples=np.array(h.IDS), classes=np.array(h.CLASSES), masks=np.full((6, 2, *h.PLANE), 128, "u1"))
    elif how == "another size":
        h.masks(plane=h.PLANE[::-1]).write(path)
    elif how == "a sample missing":
        ek.MaskSet({k: v for k, v in masks.items() if k[0] != h.IDS[2]}).write(path)
    elif how == "a sample more":
        ek.MaskSet({**masks, **{("new.png", c): masks[h.IDS[1], c] for c in h.CLASSES}}).write(path)
    elif how == "a class missing":
        ek.MaskSet({k: v for k, v in masks.items() if k[1] == "ulna"}).write(path)
    ran = h.ensk("tune-thresholds", store, "--val", path, "--out", tmp_path / "s.json")
    h.judge(ran, code, error)
    assert not (tmp_path / "s.json").exists()


def test_a_set_of_another_ensemble(tmp_path: Path) -> None:
    store, other = member(tmp_path, "m"), member(tmp_path, "other")
    h.ensk("tune-thresholds", store, "--val", truth(tmp_path, h.masks()), "--out", tmp_path / "s.json")
    for extra, words in (((other,), "members"), ((), None)):
        ran = h.ensk("vote", *(extra or (store,)), "--thresholds", tmp_path / "s.json", "--out", tmp_path / "o.csv")
        if words:
            h.judge(ran, 6, "set-does-not-fit", words)
        else:
            assert ran.code == 0, ran.err
    options = ("--mean", "logit")
    ran = h.ensk("vote", store, "--thresholds", tmp_path / "s.json", *options, "--out", tmp_path / "p.csv")
    h.judge(ran, 6, "set-does-not-fit", "mean", "logit")


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "inf", "-inf", "1e3"])
def test_thresholds_that_are_none(tmp_path: Path, text: str) -> None:
    ran = h.ensk("vote", member(tmp_path, "m"), f"--thresholds={text}", "--out", tmp_path / "o.csv")
    h.judge(ran, 2, "threshold-invalid", text.removeprefix("1e") if text != "1e3" else "1000")
    assert not (tmp_path / "o.csv").exists()
    h.judge(
        h.ensk("vote", tmp_path / "m.zarr", "--thresholds", "half", "--out", tmp_path / "o.csv"),
        4,
        "set-missing",
        "half",
    )


def test_one_image_under_two_names(tmp_path: Path) -> None:
    """Every member's logits of two samples are equal to the last bit: cross-validation must not part them unsaid."""
    ids = [f"s{k}" for k in range(6)]
    for member in "ab":
        with ek.LogitWriter(tmp_path / f"{member}.zarr", h.CLASSES, ids, h.GRID, member=member) as out:
            for k, s in enumerate(ids):
                out.write(s, h.logits(ord(member))[2 if s == "s5" else k], image_size=h.PLANE)
    h.masks(ids=tuple(ids)).write(tmp_path / "val.csv", format="handbone")
    assert ek.LogitStore(tmp_path / "a.zarr").twins == [("s2", "s5")]
    stores = (tmp_path / "a.zarr", tmp_path / "b.zarr")
    options = ("--val", tmp_path / "val.csv", "--image-size", "32x24", "--out", tmp_path / "set.json", "--force")
    ran = h.ensk("tune-thresholds", *stores, *options, "--folds", "3")
    assert ran.code == 0, ran.err
    assert "1 pairs of samples have identical logits" in ran.err
    assert "s2 = s5" in ran.err
    (tmp_path / "groups.csv").write_text(
        "sample,group\n" + "".join(f"{s},{'same' if s in {'s2', 's5'} else s}\n" for s in ids)
    )
    for more in (("--folds", "0"), ("--folds", "3", "--groups", tmp_path / "groups.csv")):
        ran = h.ensk("tune-thresholds", *stores, *options, *more)
        assert ran.code == 0, ran.err
        assert "identical logits" not in ran.err
