"""F6: ids of two sides that are written differently are told apart in words, and joined by `--id`."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.masks.idforms import FORMS, difference, in_form, names_in, of_path
from trying import coco, ensk, put, refused

SIZE = (4, 6)


def masks(*ids: str, classes: tuple[str, ...] = ("x",)) -> ek.MaskSet:
    return ek.MaskSet({(s, c): ek.Runs([k], [k + 3], SIZE) for k, s in enumerate(ids) for c in classes})


def written(path: Path, *ids: str) -> Path:
    masks(*ids).write(path)
    return path


NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
DIFFERENT = [
    ("a.jpg", "a.png", "by their extensions", "stem"),
    ("a.jpg", "a", "by their extensions", "stem"),
    ("a.nii.gz", "a.nii", "by their extensions", "stem"),
    ("1.2.840.113", "1.2.840.113.png", "by their extensions", "stem"),
    ("train/a.png", "a.png", "by their folders", "name"),
    ("C:\\x\\a.png", "a.png", "by their folders", "name"),
    ("x\\a.png", "x/a.png", "in \\ and /", "path"),
    (NFC, NFD, "in Unicode's normal form (NFC, NFD)", "path"),
    (" a.png", "a.png", "in blanks at their ends", "path"),
    ("images/a.jpg", "masks/a.png", "by their extensions", "stem"),
]


@pytest.mark.parametrize(("ours", "theirs", "words", "form"), DIFFERENT)
def test_F6_the_difference_is_named_and_its_fix_joins(ours: str, theirs: str, words: str, form: Any) -> None:
    a, b = masks(ours, "other", "b.x.png"), masks(theirs, "other", "b.x.png")
    with refused(
        ek.IncompleteError, "samples-missing", f"1 of 3 ids differ only {words}", repr(theirs), f"--id {form}"
    ):
        ek.dice(a, b)
    assert ek.dice(a.renamed(form, like=b.samples), b).mean == 1
    assert ek.dice(a.renamed(form), b.renamed(form)).mean == 1


@pytest.mark.parametrize(("ours", "theirs"), [("A.png", "a.png"), ("Scan_1.JPG", "scan_1.png")])
def test_ids_that_differ_in_case_are_named_and_not_joined(ours: str, theirs: str) -> None:
    with refused(ek.IncompleteError, "samples-missing", "case", "rename the samples of one side"):
        ek.dice(masks(ours), masks(theirs))


def test_ids_of_other_samples_get_no_advice_about_ids() -> None:
    with refused(ek.IncompleteError, "samples-missing", "add them to the prediction"):
        ek.dice(masks("a.png"), masks("b.png"))
    with refused(ek.MismatchError, "samples-differ", "drop them from"):
        ek.dice(masks("a.png", "a.jpg"), masks("a.png"))
    assert difference(["a.png", "a.jpg"], ["a.tif"]) is None  # the two would become one


@pytest.mark.parametrize(("ids", "form", "fix"), [
    (("a.png", "a.jpg"), "stem", "--id name"), (("x/a.png", "y/a.png"), "name", "--id path"), ((NFC, NFD), "path", "rename"),
])  # fmt: skip
def test_ids_that_become_one_are_refused(ids: tuple[str, ...], form: Any, fix: str) -> None:
    with refused(ek.UsageError, "id-clash", fix, repr(ids[0]), repr(ids[1])):
        masks(*ids).renamed(form)
    if in_form(ids[0], form) != ids[0]:  # a list of sizes may have an id beside its form, which is then taken
        with refused(ek.UsageError, "id-clash"):
            masks("b").renamed(form, like=ids)
    with refused(ek.UsageError, "id-form", "'stam'"):
        masks("b").renamed("stam")  # type: ignore[arg-type]


def test_F6_score_by_stem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = written(tmp_path / "p.npz", "a.jpg", "b.jpg"), written(tmp_path / "v.npz", "b.png", "a.png")
    two_masks = masks("a.png", "b.png")
    two_masks.write(two)
    with refused(ek.IncompleteError, "samples-missing", "2 of 2 ids differ only by their extensions", "pass --id stem"):
        ensk("score", one, "--val", two)
    ensk("score", one, "--val", two, "--id", "stem", "--json")
    assert json.loads(capsys.readouterr().out)["mean"] == 1
    with refused(ek.UsageError, "id-form", "--id 'extension'"):
        ensk("score", one, "--val", two, "--id", "extension")


def test_F6_sizes_of_a_csv_are_found_by_stem(tmp_path: Path) -> None:
    truth = written(tmp_path / "v.npz", "a.png", "b.png")
    masks("a", "b").write(tmp_path / "p.csv", format="handbone")
    with refused(ek.UsageError, "image-size-missing", "differ only by their extensions", "--id stem"):
        ensk("score", tmp_path / "p.csv", "--val", truth)
    ensk("score", tmp_path / "p.csv", "--val", truth, "--id", "stem")
    sizes = {"a.png": SIZE, "b.png": SIZE}
    read = ek.read_masks(tmp_path / "p.csv", image_size=sizes, id="stem")
    assert dict(read) == dict(masks("a.png", "b.png"))
    read = ek.read_masks(tmp_path / "p.csv", image_size={"a": SIZE, "a.jpg": SIZE, "b": SIZE, "b.jpg": SIZE}, id="stem")
    assert read.samples == ("a", "b")


@pytest.mark.slow
def test_F6_tuning_by_stem(tmp_path: Path) -> None:
    z = np.full((1, *SIZE), -4, np.float16)
    with ek.LogitWriter(tmp_path / "m.zarr", ["x"], ["a.jpg", "b.jpg"], SIZE) as out:
        for k, sample in enumerate(("a.jpg", "b.jpg")):
            z[0].flat[:] = -4
            z[0].flat[k : k + 3] = 4
            out.write(sample, z, image_size=SIZE)
    masks("a", "b").write(tmp_path / "v.csv", format="handbone")
    written(tmp_path / "v.npz", "a.png", "b.png")
    for truth in (tmp_path / "v.csv", tmp_path / "v.npz"):
        tune = [
            "tune-thresholds",
            tmp_path / "m.zarr",
            "--val",
            truth,
            "--out",
            tmp_path / "s.json",
            "--folds",
            0,
            "--force",
        ]
        with pytest.raises(ek.EnskError, match=r"differ only by their extensions.* --id stem"):
            ensk(*tune)
        ensk(*tune, "--id", "stem")
        assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1
    ensk(*tune, "--id", "stem", "--image-size", "4x6")
    vote = ["vote", tmp_path / "m.zarr", tmp_path / "v.npz", "--out", tmp_path / "o.npz"]
    with refused(ek.IncompleteError, "samples-missing", "--id stem"):
        ensk(*vote)
    ensk(*vote, "--id", "stem")
    assert ek.read_masks(tmp_path / "o.npz").samples == ("a.jpg", "b.jpg")


def test_convert_by_form_and_back(tmp_path: Path) -> None:
    path = written(tmp_path / "m.npz", "x/a.jpg", "y/b.jpg")
    for form, ids in (("path", ("x/a.jpg", "y/b.jpg")), ("name", ("a.jpg", "b.jpg")), ("stem", ("a", "b"))):
        ensk("convert", path, "--id", form, "--out", tmp_path / f"{form}.npz")
        assert ek.read_masks(tmp_path / f"{form}.npz").samples == ids


@pytest.mark.parametrize(("name", "header", "row"), [
    ("handbone", "image_name,class,rle", "{}.png,x,"), ("kaggle", "id,rle", "{}.png_x,"), ("hubmap", "id,rle", "{}.png,"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["convert", pytest.param("vote", marks=pytest.mark.slow)])
def test_F6_a_sample_submission_of_other_ids(tmp_path: Path, name: str, header: str, row: str, command: str) -> None:
    like = put(tmp_path / "like.csv", "\n".join([header, row.format("b"), row.format("a"), ""]))
    given = written(tmp_path / "m.npz", "x/a.jpg", "x/b.jpg")
    line = [command, given, "--like", like, "--format", name, "--out", tmp_path / "o.csv"]
    with refused(ek.IncompleteError, "rows-missing", "2 of 2 ids differ only by their extensions", "--id stem"):
        ensk(*line)
    ensk(*line, "--id", "stem")
    read = ek.read_masks(tmp_path / "o.csv", name, {"a.png": SIZE, "b.png": SIZE}, ["x"])
    assert read.samples == ("b.png", "a.png")
    assert read["a.png", "x"].text() == "1 3"


def test_members_of_other_ids_say_how_to_dump_them(tmp_path: Path) -> None:
    for name, ids in (("a", ["1.jpg"]), ("b", ["1.png"])):
        with ek.LogitWriter(tmp_path / f"{name}.zarr", ["x"], ids, SIZE) as out:
            out.write(ids[0], np.full((1, *SIZE), 4.0), image_size=SIZE)
    stores = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for how, kind, code in (
        ("same", ek.MismatchError, "samples-differ"),
        ("common", ek.IncompleteError, "samples-none"),
    ):
        with refused(kind, code, "differ only by their extensions", "the same --id"):
            ek.Ensemble(stores, samples=how)


def test_void_is_renamed_too(tmp_path: Path) -> None:
    void = {"a.png": ek.Runs([0], [1], SIZE)}
    read = ek.MaskSet({("a.png", "x"): ek.Runs([1], [2], SIZE)}, "rule", void).renamed("stem")
    assert (read.void("a").area, read["a", "x"].area, read.rule) == (1, 1, "rule")


@pytest.mark.parametrize(("path", "sample"), [
    ("a.png", "a.png"), ("x/a.png", "x/a.png"), ("x\\a.png", "a.png"), ("/x/a.png", "a.png"), ("../x/a.png", "a.png"),
    ("x/", "x/"), ("\\", "\\"), ("x/../a", "a"),
])  # fmt: skip
def test_paths_of_another_machine_become_names(tmp_path: Path, path: str, sample: str) -> None:
    assert of_path(path) == sample
    images = [{"id": 1, "file_name": path, "height": 2, "width": 2}]
    assert ek.read_masks(put(tmp_path / "c.json", coco([], images=images))).samples == (sample,)


ids = st.text(st.sampled_from("aäb.1\\/ pngjc"), min_size=1, max_size=12)


@given(ids, st.sampled_from(FORMS))
def test_a_form_of_a_form_is_itself(sample: str, form: Any) -> None:
    once = in_form(sample, form)
    assert unicodedata.is_normalized("NFC", once)
    if form == "path":
        assert in_form(once, form) == once
    assert in_form(in_form(sample, "path"), form) == once


@given(st.lists(ids, unique=True, max_size=5), st.lists(ids, unique=True, max_size=5), st.sampled_from(FORMS))
def test_names_are_one_to_one_or_refused(samples: list[str], like: list[str], form: Any) -> None:
    forms = [in_form(s, form) for s in samples]
    theirs = {in_form(s, form): s for s in like}
    try:
        named = names_in(samples, form, like)
    except ek.UsageError as error:
        assert error.code == "id-clash"
        assert len(set(forms)) < len(samples) or len(theirs) < len(like)
        return
    assert list(named) == samples
    assert len(set(named.values())) == len(samples)
    for sample, own in zip(samples, forms, strict=True):
        assert named[sample] == own or in_form(named[sample], form) == own
