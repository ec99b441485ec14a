"""What users' label maps and softmax stores did to former versions (L1 to L6), and bad input, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.formats.label_presets import PRESETS

ORGANS = ["background", "liver", "spleen"]
STREETS = ["road", "sidewalk", "building"]
LABELS = np.random.default_rng(0).integers(0, 3, (3, 8, 9)).astype(np.uint8)
Make = Callable[..., ek.LogitStore]


def ensk(*arguments: object) -> None:
    app([str(a) for a in arguments], standalone_mode=False)


def put(path: Path, values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def listed(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(names))
    return path


def member(path: Path, labels: np.ndarray, classes: list[str]) -> Path:
    """Write a softmax store that is sure of `labels`; the sample k is `k.png`."""
    ids = [f"{k}.png" for k in range(len(labels))]
    size = labels.shape[1:]
    with ek.LogitWriter(path, classes=classes, samples=ids, grid=size, activation="softmax") as out:
        for name, own in zip(ids, labels, strict=True):
            sure = np.where(own == np.arange(len(classes))[:, None, None], 9, -9)
            out.write(name, sure.astype(np.float32), image_size=size)
    return path


def truth(folder: Path, labels: np.ndarray) -> Path:
    for k, own in enumerate(labels):
        put(folder / f"{k}.png", own)
    return folder


def refused(code: str, exit_code: int, *arguments: object) -> str:
    with pytest.raises(ek.EnskError) as caught:
        ensk(*arguments)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code), caught.value
    return str(caught.value)


@pytest.mark.slow
def test_L1_background_first_is_the_value_0(tmp_path) -> None:
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS)
    ensk("tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json", "--folds", 0)
    assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_L2_train_ids_are_asked_about(tmp_path, first) -> None:
    values = np.minimum(LABELS, 1) + first  # the value 3 would settle it
    store, gt = member(tmp_path / "m.zarr", values - first, STREETS), truth(tmp_path / "gt", values)
    tune = ["tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json", "--folds", 0]
    assert "--first-value 0 or --first-value 1" in refused("label-ambiguous", 2, *tune)
    ensk(*tune, "--first-value", first)
    assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


@pytest.mark.slow
def test_L3_void_in_tune_score_and_convert(tmp_path, capsys) -> None:
    labels = LABELS.copy()
    labels[:, 0] = 255
    gt, store = truth(tmp_path / "gt", labels), member(tmp_path / "m.zarr", LABELS, ORGANS)
    own, names = truth(tmp_path / "own", LABELS), listed(tmp_path / "c.txt", ORGANS)
    ensk("tune-thresholds", store, "--val", gt, "--void", 255, "--out", tmp_path / "s.json", "--folds", 0)
    assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1
    capsys.readouterr()
    ensk("score", own, "--val", gt, "--classes", names, "--void", 255, "--json")
    assert json.loads(capsys.readouterr().out)["mean"] == 1
    ensk("convert", gt, "--classes", names, "--void", 255, "--format", "label-map", "--out", tmp_path / "to")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "to" / "0.png")), labels[0])


@pytest.mark.slow
def test_L4_colours_are_read_by_the_table(tmp_path) -> None:
    colours = {name: colour for _, name, colour in PRESETS["camvid"]}
    pixels = np.array([[colours["Sky"], colours["Road"], colours["Void"], colours["Road"]]], np.uint8)
    gt = put(tmp_path / "gt" / "a.png", pixels).parent
    ensk("convert", gt, "--labels", "camvid", "--format", "label-map", "--out", tmp_path / "to")
    read = ek.read_masks(tmp_path / "to")
    assert (read["a.png", "Sky"].text(), read["a.png", "Road"].text()) == ("1 1", "2 1 4 1")
    assert read.void("a.png").text() == "3 1"
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(gt / "a.png")
    said = refused("label-palette", 6, "convert", gt, "--labels", "camvid", "--out", tmp_path / "x.json")
    assert "as RGB" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label-map", "indexed-png"])
def test_L5_softmax_stores_are_decided_by_argmax(tmp_path, make_store: Make, kind) -> None:
    z = np.log(np.array([0.4, 0.35, 0.25]))[:, None, None] * np.ones((1, 6, 8))
    z[:, :, 4:] = z[[2, 0, 1], :, 4:]
    store = make_store({"a.png": z.astype(np.float16)}, (6, 8), tuple(ORGANS), activation="softmax")
    ensk("vote", store.path, "--format", kind, "--out", tmp_path / "out")
    png = Image.open(next((tmp_path / "out").rglob("*.png")))
    assert np.array_equal(np.asarray(png), np.repeat([[0] * 4 + [1] * 4], 6, axis=0))


@pytest.mark.slow
def test_L6_a_quarter_of_the_size_is_interpolated_as_torch_does(tmp_path, make_store: Make, rng) -> None:
    torch = pytest.importorskip("torch")
    z = smooth_logits(rng, (7, 32, 48), 6.0)
    store = make_store({"a.png": z}, (128, 192), tuple("abcdefg"), activation="softmax")
    ensk("vote", store.path, "--format", "label-map", "--out", tmp_path / "out")
    up = torch.nn.functional.interpolate(torch.tensor(z, dtype=torch.float32)[None], (128, 192), mode="bilinear")[0]
    png = np.asarray(Image.open(next((tmp_path / "out").rglob("*.png"))))
    differ = png != up.argmax(0).numpy() + 1  # without a background, values count from 1
    best, second = np.sort(up.numpy(), axis=0)[[-1, -2]]
    assert differ.mean() < 5e-4
    assert (best - second)[differ].max(initial=0) < 33 / 65535


def test_values_that_nobody_named_are_listed_with_their_counts(tmp_path) -> None:
    gt, names = put(tmp_path / "gt" / "a.png", [[0, 1, 7, 7, 9]]).parent, listed(tmp_path / "c.txt", ORGANS)
    convert = ["convert", gt, "--classes", names, "--format", "label-map", "--out", tmp_path / "to"]
    said = refused("label-values", 6, *convert)
    assert "7 (2 pixels)" in said
    assert "9 (1 pixel)" in said
    ensk(*convert, "--void", "7,9")
    assert ek.read_masks(tmp_path / "to").void("a.png").area == 3


def test_a_table_with_one_value_twice(tmp_path) -> None:
    gt, table = put(tmp_path / "gt" / "a.png", [[0, 1]]).parent, tmp_path / "t.csv"
    convert = ["convert", gt, "--labels", table, "--format", "label-map", "--out", tmp_path / "to"]
    table.write_text("value,name\n0,liver\n0,spleen\n")
    assert "the value 0 is 'liver' and again 'spleen'" in refused("labels-invalid", 3, *convert)
    table.write_text("value,name\n0,liver\n1,spleen\n")
    ensk(*convert)


@pytest.mark.slow
def test_truth_of_another_size(tmp_path) -> None:
    store, gt = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS[:, :4])
    refused("image-size-differs", 6, "tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json", "--folds", 0)


@pytest.mark.slow
def test_a_member_whose_labels_are_shifted_is_warned_of(tmp_path, capsys) -> None:
    store, gt = member(tmp_path / "m.zarr", (LABELS + 1) % 3, ORGANS), truth(tmp_path / "gt", LABELS)
    ensk("tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json", "--folds", 0)
    assert "labels shifted by one?" in capsys.readouterr().err


@pytest.mark.slow
def test_stores_that_lack_the_background_of_the_truth(tmp_path) -> None:
    gt = truth(tmp_path / "gt", LABELS)
    store = member(tmp_path / "m.zarr", np.maximum(LABELS, 1) - 1, ORGANS[1:])
    tune = ["tune-thresholds", store, "--val", gt, "--out", tmp_path / "s.json", "--folds", 0]
    tune += ["--classes", listed(tmp_path / "c.txt", ORGANS)]
    assert "--except background" in refused("classes-differ", 6, *tune)
    ensk(*tune, "--except", "background")


def test_a_list_of_classes_that_does_not_match_the_masks(tmp_path) -> None:
    gt, own = truth(tmp_path / "gt", LABELS), truth(tmp_path / "own", LABELS)
    score = ["score", own, "--val", gt, "--classes"]
    said = refused("label-values", 6, *score, listed(tmp_path / "short.txt", ORGANS[:2]))
    assert "2 (" in said
    ensk(*score, listed(tmp_path / "whole.txt", ORGANS))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0, -65536, 1.5], ids=str)
def test_a_set_whose_factors_are_not_positive_integers(tmp_path, factor) -> None:
    store, gt, out = member(tmp_path / "m.zarr", LABELS, ORGANS), truth(tmp_path / "gt", LABELS), tmp_path / "s.json"
    ensk("tune-thresholds", store, "--val", gt, "--out", out, "--folds", 0)
    kept = json.loads(out.read_text())
    name = next(iter(kept["decision"]["factors"]))
    kept["decision"]["factors"][name] = factor
    out.write_text(json.dumps(kept))
    vote = ["vote", store, "--thresholds", out, "--format", "label-map", "--out", tmp_path / "maps"]
    said = refused("set-invalid", 3, *vote)
    assert str(factor) in said
