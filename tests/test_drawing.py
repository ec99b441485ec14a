"""Masks drawn on images: `ek.overlay`, `MaskSet.plot` and `ensk draw`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.masks import layers
from reported import SAMPLES, Files, make_files
from trying import ensk, refused

MASK = np.zeros((20, 30), bool)
MASK[5:15, 10:20] = True
RUNS = ek.encode(MASK)


@pytest.mark.parametrize(
    "masks",
    [
        {"a": MASK},
        {"a": RUNS},
        [RUNS],
        MASK[None],
        MASK,
        MASK * 7,
        MASK.astype(np.uint8),
        ek.MaskSet({("s", "a"): RUNS}),
    ],
    ids=["by name", "runs by name", "list of runs", "classes", "one mask", "label map", "bytes", "mask set"],
)
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)], ids=["grey", "one channel", "colour", "alpha"])
def test_an_overlay_colours_the_mask_and_nothing_else(masks: Any, channels: tuple[int, ...]) -> None:
    shown = ek.overlay(np.full((20, 30, *channels), 100, np.uint8), masks)
    assert (shown.shape, shown.dtype) == ((20, 30, 3), np.uint8)
    assert np.array_equal((shown != 100).any(axis=2), MASK)
    assert shown[5, 10].tolist() == list(layers.CLASSES[0])
    inside = 100 * (1 - round(255 * 0.35) / 255) + np.array(layers.CLASSES[0]) * round(255 * 0.35) / 255
    assert np.abs(shown[8, 12] - inside).max() <= 0.5


def test_deep_images_are_stretched_and_nothing_is_changed() -> None:
    image = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    kept = image.copy()
    shown = ek.overlay(image, {})
    assert (shown.min(), shown.max()) == (0, 255)
    assert np.array_equal(image, kept)


def test_what_cannot_be_drawn_is_refused() -> None:
    image, two = np.zeros((20, 30)), ek.MaskSet({("s", "a"): RUNS, ("t", "a"): RUNS})
    with refused(ek.MismatchError, "image-size-differs", "20 x 30", "10 x 30"):
        ek.overlay(image[:10], {"a": RUNS})
    with refused(ek.UsageError, "sample-unknown", "2 samples"):
        ek.overlay(image, two)
    with refused(ek.UsageError, "sample-unknown", "'u'"):
        ek.overlay(image, two, "u")
    with refused(ek.UsageError, "array-kind", "the image is"):
        ek.overlay(np.zeros((2, 3, 4, 5)), {"a": RUNS})
    with refused(ek.UsageError, "array-kind", "masks are float64"):
        ek.overlay(image, np.zeros((20, 30)))
    with refused(ek.UsageError, "option-invalid", "opacity"):
        ek.overlay(image, {"a": RUNS}, opacity=2)
    with refused(ek.UsageError, "sample-unknown", "'u'"):
        two.plot("u")
    with refused(ek.UsageError, "classes-unknown", "'b'"):
        two.plot("s", classes=["b"])
    with refused(ek.UsageError, "shape-invalid", "volume"):
        ek.MaskSet({("s", "a"): ek.Runs([0], [1], (2, 3, 4))}).plot("s")


def test_a_plot_is_the_overlay_with_names_below() -> None:
    masks = ek.MaskSet(
        {("s", "a long name of a class"): RUNS, ("s", "none"): ek.Runs.empty((20, 30)), ("s", "b"): ~RUNS}
    )
    image = np.full((20, 30), 90, np.uint8)
    found = masks.plot("s", image)
    shown = {name: masks["s", name] for name in ("a long name of a class", "b")}
    assert np.array_equal(np.asarray(found)[:20], ek.overlay(image, shown))
    assert found.height > 40  # the long name takes a line of its own
    assert (np.asarray(masks.plot("s", classes=["none"]))[:20] == 0).all()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("drawn"))


def test_an_overlay_of_stores_is_that_of_their_vote(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensk(
        "draw",
        "overlay",
        *files.stores,
        "--images",
        files.images,
        "--out",
        tmp_path / "p",
        "--sample",
        SAMPLES[3],
        "--json",
    )
    told = json.loads(capsys.readouterr().out)
    (path,) = map(Path, told["out"])
    assert path.name == "case 3_overlay.png"
    image = np.asarray(Image.open(files.images / SAMPLES[3]))
    assert np.array_equal(np.asarray(Image.open(path)), ek.overlay(image, files.masks, SAMPLES[3]))


def test_errors_of_masks(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.masks.write(tmp_path / "m.npz")
    ensk("draw", "errors", tmp_path / "m.npz", "--val", files.truth, "--out", tmp_path / "p", "--sample", SAMPLES[1])
    truth = ek.read_masks(files.truth)
    pairs = [(files.masks[SAMPLES[1], c].decode(), truth[SAMPLES[1], c].decode()) for c in truth.classes]
    expected = layers.error_layer(pairs).on(np.zeros((60, 80, 3), np.uint8))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p" / "case 1_errors.png")), expected)
    dialect, true = "base=0,order=F", tmp_path / "t.csv"
    ensk("convert", files.truth, "--out", true, "--csv", dialect, "-q")
    how = ("--val", true, "--val-csv", dialect, "--image-size", "60x80", "--sample", SAMPLES[1])
    ensk("draw", "errors", tmp_path / "m.npz", *how, "--out", tmp_path / "of csv")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "of csv" / "case 1_errors.png")), expected)
    one = {key: runs for key, runs in files.masks.items() if key[0] == SAMPLES[1]}
    other = {key: runs for key, runs in truth.items() if key[0] == SAMPLES[1]}
    assert f"Dice {ek.dice(ek.MaskSet(one), ek.MaskSet(other)).mean:.4f}" in capsys.readouterr().err


def test_what_members_dispute(files: Files, tmp_path: Path) -> None:
    ensk("draw", "disputed", *files.stores, "--out", tmp_path, "--width", 40, "-q")
    assert len(list(tmp_path.glob("*_disputed.png"))) == 4
    assert np.asarray(Image.open(tmp_path / "case 0_disputed.png")).shape == (30, 40, 3)
    each = [ek.Ensemble([store]).vote() for store in files.stores]
    whole = tmp_path / "whole"
    ensk("draw", "disputed", *files.stores, "--out", whole, "--sample", SAMPLES[0], "-q")
    votes = [[m[SAMPLES[0], c].decode() for m in each] for c in files.masks.classes]
    expected = layers.disagreement_layer(votes).on(np.zeros((60, 80, 3), np.uint8))
    assert np.array_equal(np.asarray(Image.open(whole / "case 0_disputed.png")), expected)


def test_some_classes_of_masks_and_of_stores(files: Files, tmp_path: Path) -> None:
    first, *others = files.masks.classes
    files.masks.write(tmp_path / "m.npz")
    one = {key: runs for key, runs in files.masks.items() if key[1] == first}
    expected = ek.overlay(np.zeros((60, 80, 3), np.uint8), ek.MaskSet(one), SAMPLES[0])
    for k, inputs in enumerate(([tmp_path / "m.npz"], files.stores)):
        for how in (("--only", first), ("--except", ",".join(others))):
            out = tmp_path / f"p{k}{how[0]}"
            ensk("draw", "overlay", *inputs, *how, "--out", out, "--sample", SAMPLES[0], "-q")
            assert np.array_equal(np.asarray(Image.open(out / "case 0_overlay.png")), expected)
        how = ("--val", files.truth, "--only", first)
        ensk("draw", "errors", *inputs, *how, "--out", tmp_path / f"e{k}", "--sample", SAMPLES[0], "-q")
    own = [(tmp_path / name / "case 0_errors.png").read_bytes() for name in ("e0", "e1")]
    assert own[0] == own[1]
    with refused(ek.MismatchError, "classes-unknown", "none"):
        ensk("draw", "overlay", *files.stores, "--only", "none", "--out", tmp_path / "none", "-q")


def test_draw_refuses_what_it_cannot_draw(files: Files, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "p", "-q")
    with refused(ek.UsageError, "option-invalid", "KIND"):
        ensk("draw", "heatmap", *files.stores, *out)
    with refused(ek.UsageError, "draw-inputs", "errors", "--val"):
        ensk("draw", "errors", *files.stores, *out)
    with refused(ek.UsageError, "draw-inputs", "1 members"):
        ensk("draw", "disputed", files.stores[0], *out)
    with refused(ek.IncompleteError, "sample-unknown", "nobody"):
        ensk("draw", "overlay", *files.stores, "--sample", "nobody", *out)
    ensk("draw", "overlay", *files.stores, *out)
    with refused(ek.UsageError, "output-exists", "case 0_overlay.png"):
        ensk("draw", "overlay", *files.stores, *out)


def test_sizes_that_no_file_has_are_those_of_images_at_any_depth(files: Files, tmp_path: Path) -> None:
    deep = tmp_path / "images" / "deep"
    deep.mkdir(parents=True)
    for s in SAMPLES:
        (deep / s).write_bytes((files.images / s).read_bytes())
    files.masks.write(tmp_path / "m.csv", format="handbone")
    ensk("draw", "overlay", tmp_path / "m.csv", "--images", tmp_path / "images", "--out", tmp_path / "p", "-q")
    image = np.asarray(Image.open(deep / SAMPLES[0]))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "p" / "case 0_overlay.png")), ek.overlay(image, files.masks, SAMPLES[0])
    )
    with refused(ek.UsageError, "image-size-missing", "--image-size"):
        ensk("draw", "overlay", tmp_path / "m.csv", "--out", tmp_path / "q", "-q")


def test_pictures_are_not_drawn_into_what_is_read_nor_over_a_file(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "p"
    words = ("draw", "overlay", files.stores[0], "--images", files.images, "-q", "--out")
    before = sorted(files.stores[0].rglob("*"))
    for folder in (files.stores[0], files.images):
        with refused(ek.UsageError, "output-is-input", folder.name):
            ensk(*words, folder)
    with refused(ek.UsageError, "path-inside-store"):
        ensk(*words, files.stores[0] / "logits")
    assert sorted(files.stores[0].rglob("*")) == before
    out.write_text("mine")
    with refused(ek.UsageError, "output-kind", "a folder is to be written"):
        ensk(*words, out, "--force")
    assert out.read_text() == "mine"


def test_options_of_a_truth_and_files_twice_are_refused(files: Files, tmp_path: Path) -> None:
    files.masks.write(tmp_path / "m.npz")
    for words in (("overlay", files.stores[0], "--void", "3"), ("overlay", tmp_path / "m.npz", "--val-format", "png")):
        with refused(ek.UsageError, "option-idle", words[2], "without a truth"):
            ensk("draw", *words, "--out", tmp_path / "p")
    with refused(ek.UsageError, "member-twice", "m.npz is named twice"):
        ensk("draw", "disputed", f"a={tmp_path / 'm.npz'}", f"b={tmp_path / 'm.npz'}", "--out", tmp_path / "p")


def test_ids_too_long_for_a_file_are_cut_and_kept_apart(tmp_path: Path) -> None:
    ids, runs = ["y" * 300 + "1", "y" * 300 + "2", "é" * 150], ek.Runs([0], [4], (4, 4))
    ek.MaskSet({(s, "a"): runs for s in ids}).write(tmp_path / "m.npz")
    ensk("draw", "overlay", tmp_path / "m.npz", "--out", tmp_path / "p", "-q")
    assert len(list((tmp_path / "p").iterdir())) == 3


def test_an_image_of_bits_is_black_and_white() -> None:
    shown = ek.overlay(MASK, {})
    assert np.array_equal(shown, np.repeat(255 * MASK[..., None], 3, axis=2))


def test_scores_are_not_drawn_as_masks() -> None:
    scores = np.full((20, 30), 0.1)
    for masks in ({"a": scores}, [RUNS, scores]):
        with refused(ek.UsageError, "array-kind", "float64", "probabilities >= 0.5"):
            ek.overlay(np.zeros((20, 30)), masks)


@pytest.mark.parametrize(
    ("width", "size"), [(1600, (3 * 5, 20)), (12, (9, 12))], ids=["voxels repeated", "some left out"]
)
def test_slices_of_a_volume_are_as_high_as_they_are_in_millimetres(
    tmp_path: Path, width: int, size: tuple[int, int]
) -> None:
    mask = np.zeros((3, 10, 20), bool)
    mask[1, 4:8, 5:15] = True
    ek.MaskSet({("s", "a"): ek.encode(mask)}).write(tmp_path / "m", format="nifti", spacing=(5, 1, 1))
    ensk("draw", "overlay", tmp_path / "m", "--width", width, "--out", tmp_path / "p")
    drawn = {p.stem.split()[1][0]: np.asarray(Image.open(p)) for p in (tmp_path / "p").iterdir()}
    across = drawn["y"]
    assert across.shape == (*size, 3)
    third = size[0] // 3
    assert not across[:third].any() and across[third : 2 * third].any() and not across[2 * third :].any()
    if width > 20:
        assert drawn["z"].shape == (10, 20, 3)
        assert drawn["x"].shape == (15, 10, 3)
        assert np.array_equal(across[third : 2 * third].any(axis=2).sum(axis=1), [10] * third)
