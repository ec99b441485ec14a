"""What went wrong on a first day with label maps and softmax stores, by the command line and from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.formats.label_tables import load_table
from test_cases import ORGANS, STREETS, ensk, listed, member, refused, truth

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 3, (3, 8, 9)).astype(np.uint8)


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["value,name,colour", *rows]) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label-map", "png"])
def test_a_folder_of_masks_is_replaced_by_force_only(tmp_path, kind) -> None:
    stores = [member(tmp_path / f"{k}.zarr", (LABELS + k) % 3, ORGANS) for k in range(2)]
    vote = ["vote", "--format", kind, "--out", tmp_path / "maps"]
    ensk(*vote, stores[0])
    kept = {p: p.read_bytes() for p in (tmp_path / "maps").rglob("*.png")}
    assert "--force" in refused("output-exists", 2, *vote, stores[1])
    assert {p: p.read_bytes() for p in (tmp_path / "maps").rglob("*.png")} == kept
    ensk(*vote, stores[1], "--force")
    assert {p: p.read_bytes() for p in (tmp_path / "maps").rglob("*.png")} != kept


@pytest.mark.slow
def test_a_folder_of_others_is_not_said_to_be_replaceable(tmp_path) -> None:
    gt, store = truth(tmp_path / "gt", LABELS), member(tmp_path / "m.zarr", LABELS, ORGANS)
    assert "--force" not in refused("output-foreign", 2, "vote", store, "--format", "label-map", "--out", gt)


def test_void_values_do_not_mean_another_class_of_the_other_side(tmp_path, capsys) -> None:
    """2 is void in the truth, and a class in the folder that says its own values."""
    own = truth(tmp_path / "own", LABELS + 1)
    ensk("convert", own, "--labels", table(tmp_path / "t1.csv", "1,road,", "2,sidewalk,", "3,building,"),
         "--format", "label-map", "--out", tmp_path / "told")  # fmt: skip
    gt, rows = truth(tmp_path / "gt", LABELS), table(tmp_path / "t0.csv", "0,road,", "1,sidewalk,", "2,building,")
    score = ["score", tmp_path / "told", "--json", "--val"]
    said = refused("label-ambiguous", 2, *score, gt, "--labels", rows, "--void", 2)
    assert "'sidewalk'" in said
    ensk("convert", gt, "--labels", rows, "--void", 2, "--format", "label-map", "--out", tmp_path / "gt2")
    capsys.readouterr()
    ensk(*score, tmp_path / "gt2")
    assert '"accuracy": 1.0' in capsys.readouterr().out


def test_void_values_add_to_those_of_a_folder_that_says_its_own(tmp_path, capsys) -> None:
    """What was written as void (255) needs no naming where --void names another value."""
    labels = LABELS.copy()
    labels[:, 0] = 255
    own, names = truth(tmp_path / "own", labels), listed(tmp_path / "c.txt", ORGANS)
    ensk("convert", own, "--classes", names, "--format", "label-map", "--out", tmp_path / "told")
    gt = truth(tmp_path / "gt", np.where(LABELS == 2, 9, LABELS))
    capsys.readouterr()
    ensk("score", tmp_path / "told", "--val", gt, "--classes", names, "--void", 9, "--json")
    assert ek.read_masks(tmp_path / "told", void=[9]).void("0.png").area == 9


@pytest.mark.slow
def test_labels_shifted_by_one_of_a_member_that_errs(tmp_path, capsys) -> None:
    """A network is right at some pixels by chance, so a shift is to be found though not every class scores 0."""
    seen = np.where(RNG.random(LABELS.shape) < 0.1, RNG.integers(0, 3, LABELS.shape), LABELS)
    store, gt = member(tmp_path / "m.zarr", seen, STREETS), truth(tmp_path / "gt", LABELS)
    tune = ["tune-thresholds", store, "--val", gt, "--folds", 0, "--out"]
    ensk(*tune, tmp_path / "shifted.json", "--first-value", 1)
    assert "labels shifted by one?" in capsys.readouterr().err
    ensk(*tune, tmp_path / "right.json", "--first-value", 0)
    assert "shifted by one" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["", ".npz"])
@pytest.mark.parametrize("sizes", [1, 2], ids=["one size", "two sizes"])
def test_label_maps_are_written_with_their_values(tmp_path, suffix, sizes) -> None:
    own = [LABELS[0], LABELS[1, ::sizes]]
    gt, out = truth(tmp_path / "gt", own), tmp_path / f"maps{suffix}"  # type: ignore[arg-type]
    rows = table(tmp_path / "t.csv", "0,road,#804080", "1,sidewalk,#f423e8", "2,void,", "300,car,")
    ensk("convert", gt, "--labels", rows, "--format", "label-map", "--out", out)
    ensk("convert", out, "--format", "label-map", "--out", tmp_path / f"again{suffix}")
    for path in (out, tmp_path / f"again{suffix}"):
        read = ek.read_masks(path)
        assert (read.samples, read.classes) == (("0.png", "1.png"), ("road", "sidewalk", "car"))
        for sample, labels in zip(read.samples, own, strict=True):
            assert np.array_equal(read[sample, "sidewalk"].decode(), labels == 1)
            assert np.array_equal(read.void(sample).decode(), labels == 2)


def test_an_npz_of_label_maps_is_what_numpy_reads(tmp_path) -> None:
    masks = ek.MaskSet.from_labels({f"{k}": own for k, own in enumerate(LABELS)}, ORGANS)
    masks.write(tmp_path / "maps.npz", format="label-map")
    with np.load(tmp_path / "maps.npz") as found:
        assert np.array_equal(found["labels"], LABELS)
        assert found["labels"].dtype == np.uint8
        assert (found["classes"].tolist(), found["values"].tolist()) == (ORGANS, [0, 1, 2])
    np.savez(tmp_path / "twice.npz", classes=ORGANS, values=[0, 1, 1], labels=LABELS)
    refused("stack-invalid", 3, "inspect", tmp_path / "twice.npz")


@pytest.mark.parametrize("name", ["maps.npy", "maps.png", "maps.tif", "maps.csv"])
def test_a_folder_of_label_maps_is_not_named_as_a_file(tmp_path, name) -> None:
    masks = ek.MaskSet.from_labels({"a": LABELS[0]}, ORGANS)
    with pytest.raises(ek.EnskError) as caught:
        masks.write(tmp_path / name, format="label-map")
    assert caught.value.code == "output-kind"
    assert not (tmp_path / name).exists()


def test_what_is_written_is_said(tmp_path, capsys) -> None:
    y, x = np.mgrid[:20, :20]
    far = np.hypot(y - 10, x - 10)
    nested = {("p", name): ek.encode(far < r) for name, r in (("WT", 9), ("TC", 6), ("ET", 3))}
    ek.MaskSet(nested).write(tmp_path / "m.npz")
    convert = ["convert", tmp_path / "m.npz", "--format", "label-map", "--force", "--out", tmp_path / "maps"]
    ensk(*convert, "--paint", "WT=1,TC=2,ET=4")
    said = capsys.readouterr().err
    assert "label maps are written with: 1 'WT', 2 'TC', 4 'ET'; no class 0; void 255" in said
    assert "warning" not in said
    ensk(*convert, "--paint", "ET=4,WT=1,TC=2")  # the innermost first: nothing is left of it
    assert "drawn over entirely, in every sample: 'ET'" in capsys.readouterr().err
    ensk(*convert, "--paint", "WT=0,TC=2,ET=4")
    outside = np.count_nonzero(far >= 9)
    assert f"no class 255, as void ({outside} pixels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [
        lambda: ek.Argmax(factors=[1, 2, 3]),  # type: ignore[arg-type]
        lambda: ek.MaskSet.from_labels({"a": LABELS[0]}, ORGANS).write("x", format="label-map", labels=ORGANS),
        lambda: ek.read_masks(".", format="label-map", labels=ORGANS),  # type: ignore[arg-type]
        lambda: ek.read_masks(".", format="label-map", void="3"),  # type: ignore[arg-type]
        lambda: ek.read_masks(".", format="label-map", void=[2.5]),  # type: ignore[list-item]
    ],
    ids=["factors", "labels written", "labels read", "void text", "void fraction"],
)
def test_arguments_of_another_kind(call) -> None:
    with pytest.raises(ek.UsageError):
        call()


@pytest.mark.slow
def test_classes_are_left_out_of_a_truth_that_names_none(tmp_path) -> None:
    """--except takes the stores' classes where the truth is label maps and --classes is not given."""
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS)
    tune = ["tune-thresholds", store, "--val", gt, "--folds", 0, "--out", tmp_path / "s.json", "--except", "background"]
    said = refused("classes-differ", 6, *tune)
    assert "--background background" in said
    ensk(*tune, "--background", "background")
    assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


@pytest.mark.slow
def test_truth_whose_list_of_classes_lacks_the_background(tmp_path) -> None:
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS)
    tune = ["tune-thresholds", store, "--val", gt, "--folds", 0, "--out", tmp_path / "s.json", "--classes"]
    said = refused("classes-differ", 6, *tune, listed(tmp_path / "c.txt", ORGANS[1:]))
    assert "name it first in --classes FILE" in said
    ensk(*tune, listed(tmp_path / "c.txt", ORGANS))
    assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


def test_truth_of_another_size_is_said_of_the_stores(tmp_path) -> None:
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS[:, :4])
    said = refused("image-size-differs", 6, "tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json")
    assert "4 x 9 in size" in said or "4 x 9 in" in said
    assert "8 x 9 is the image's size in the stores" in said
    assert "passed" not in said


def folder_of(path: Path, name: str, values: np.ndarray) -> Path:
    path.mkdir()
    if name.endswith(".npy"):
        np.save(path / name, values)
    else:
        Image.fromarray(values).save(path / name)
    return path


@pytest.mark.parametrize(
    ("name", "values", "code", "says"),
    [
        ("a.npy", LABELS[0].astype(float), "stack-shape", "labels.astype(np.uint8)"),
        ("a.npy", RNG.random((3, 8, 9)), "stack-shape", "scores.argmax(0)"),
        ("a.npy", np.stack([LABELS[0]] * 3, axis=-1), "stack-shape", "save colours as PNG"),
        ("a.tif", LABELS[0].astype(np.int32), "tiff-invalid", "integers of 8 or 16 bits"),
        ("a.png", np.stack([LABELS[0]] * 3, axis=-1), "labels-needed", "pixels[..., 0]"),
        ("a.jpg", np.stack([LABELS[0]] * 3, axis=-1), "folder-mixed", "as PNG"),
    ],
    ids=["fractions", "scores", "colours in arrays", "32 bits", "three equal channels", "JPEG"],
)
def test_files_that_are_no_label_maps_say_what_to_write(tmp_path, name, values, code, says) -> None:
    folder, names = folder_of(tmp_path / "gt", name, values), listed(tmp_path / "c.txt", ORGANS)
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(folder, format="label-map", classes=names.read_text().split())
    assert caught.value.code == code
    assert says in caught.value.fix


def test_arrays_of_labels_taken_for_stacks_of_masks(tmp_path) -> None:
    """Folders of .npy hold masks (C, H, W) by default; the error says how label maps (H, W) are read."""
    gt = tmp_path / "gt"
    gt.mkdir()
    np.save(gt / "0.png.npy", LABELS[0])
    own, names = truth(tmp_path / "own", LABELS[:1]), listed(tmp_path / "c.txt", ORGANS)
    score = ["score", own, "--val", gt, "--classes", names]
    assert "--val-format" in refused("stack-shape", 6, *score)
    ensk(*score, "--val-format", "label-map")


def test_void_of_a_prediction_and_a_background_are_said(tmp_path, capsys) -> None:
    """A table that fits one side only makes pixels void that are none: the share of them is told."""
    labels = LABELS.copy()
    labels[:, :2] = 255
    own, gt = truth(tmp_path / "own", labels), truth(tmp_path / "gt", LABELS)
    names = listed(tmp_path / "c.txt", ORGANS)
    ensk("score", own, "--val", gt, "--classes", names, "--background", "background")
    said = capsys.readouterr().out
    assert "Void: 25.00% of the prediction's pixels count as pixels without a class." in said
    assert "Pixel accuracy 0.750000 over all pixels; frequency-weighted IoU" in said
    assert "without 'background'." in said


@pytest.mark.slow
def test_a_background_without_a_score_is_shown_as_a_dash(tmp_path, capsys) -> None:
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS)
    ensk(
        "tune-thresholds", store, "--val", gt, "--folds", 0, "--background", "background", "--out", tmp_path / "s.json"
    )
    capsys.readouterr()
    ensk("inspect", tmp_path / "s.json")
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "–" in said


BY_COLOUR = {
    "class_dict.csv": "name,r,g,b\nbackground,0,0,0\nroad,128,64,128\nsky,70,130,180\n",
    "classes.csv": "class_name,red,green,blue\nbackground,0,0,0\nroad,128,64,128\nsky,70,130,180\n",
    "text.csv": 'name,colour\nbackground,"(0, 0, 0)"\nroad,804080\nsky,#4682b4\n',
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nsky:70,130,180::\n",
}


@pytest.mark.parametrize("name", BY_COLOUR)
def test_tables_of_colours_read_colours_and_no_values(tmp_path, name) -> None:
    """A table without values could count them from 0 or from 1."""
    (tmp_path / name).write_text(BY_COLOUR[name])
    palette = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180]], np.uint8)
    read = ek.read_masks(folder_of(tmp_path / "rgb", "a.png", palette[LABELS[0]]), labels=tmp_path / name)
    assert read.classes == ("background", "road", "sky")
    assert all(np.array_equal(read["a.png", c].decode(), LABELS[0] == k) for k, c in enumerate(read.classes))
    for file in ("a.png", "a.npy"):
        gt = folder_of(tmp_path / f"values of {file}", file, LABELS[0])
        convert = ["convert", gt, "--from", "label-map", "--labels", tmp_path / name, "--out", tmp_path / "x.json"]
        assert "--classes" in refused("label-ambiguous", 2, *convert)


@pytest.mark.parametrize(
    ("text", "void"),
    [
        ('{"labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}, "numTraining": 9}', {3}),
        ('{"id2label": {"0": "background", "1": "liver", "2": "spleen"}, "hidden": [1]}', set()),
        (
            '{"categories": [{"id": 0, "name": "background"}, {"id": 1, "name": "liver"}, {"id": 2, "name": "spleen"}]}',
            set(),
        ),
    ],
    ids=["nnU-Net", "Hugging Face", "COCO"],
)
def test_tables_inside_files_of_frameworks(tmp_path, text, void) -> None:
    (tmp_path / "dataset.json").write_text(text)
    found = load_table(tmp_path / "dataset.json")
    assert (found.classes, set(found.void)) == (tuple(ORGANS), void)
    assert [found.value_of(name) for name in ORGANS] == [0, 1, 2]
