"""Volumes in `.npz`, `.npy` and label maps, and what their axes leave open; commands on files of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
import warm
from ensemble_kit.formats.sizes import parse_image_size
from ensemble_kit.masks.runs import of_slices

CLASSES = ("x", "y")


def labels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def masks_of(shapes: dict[str, tuple[int, ...]]) -> ek.MaskSet:
    maps = {sample: labels(shape, k) for k, (sample, shape) in enumerate(shapes.items())}
    return ek.MaskSet.from_labels(maps, CLASSES, first_value=1)


SETS = {
    "one size": {"a": (4, 5, 6), "b": (4, 5, 6)},
    "sizes": {"a": (4, 5, 6), "b": (2, 5, 3)},
    "one slice": {"a": (1, 5, 6), "b": (1, 5, 4)},
    "one volume": {"a": (1, 5, 3)},
    "volumes and images": {"a": (3, 5, 6), "b": (5, 6)},
}


@pytest.mark.parametrize("shapes", SETS.values(), ids=SETS)
@pytest.mark.parametrize(
    ("form", "path"),
    [("npz", "m.npz"), ("npy", "folder"), ("label-map", "m.npz"), ("label-map", "folder")],
    ids=["npz", "npy folder", "label map npz", "label map folder"],
)
def test_volumes_are_read_as_they_were_written(form: str, path: str, shapes: Any, tmp_path: Path) -> None:
    masks = masks_of(shapes)
    masks.write(tmp_path / path, format=form)
    found = ek.read_masks(tmp_path / path)
    assert dict(found) == dict(masks)
    assert [found.image_size(s) for s in found.samples] == list(shapes.values())


@given(hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 4)] * 3)))
def test_slices_make_the_runs_of_the_whole(mask: np.ndarray) -> None:
    assert of_slices(iter(mask), mask.shape) == ek.encode(mask)


def test_voids_of_volumes_are_kept(tmp_path: Path) -> None:
    first = labels((3, 4, 5))
    first[0, 0] = first[2, 3] = 255
    masks = ek.MaskSet.from_labels({"a": first}, CLASSES, first_value=1)
    for path in ("m.npz", "folder"):
        masks.write(tmp_path / path, format="label-map")
        assert ek.read_masks(tmp_path / path).void("a") == ek.encode(first == 255)


# --- what the axes of an array leave open --------------------------------------------------------------------


def test_N6_four_axes_are_a_volume_where_the_first_is_that_of_classes(tmp_path: Path) -> None:
    solid = np.random.default_rng(0).random((2, 4, 5, 6)) < 0.3
    np.save(tmp_path / "case.npy", solid)
    np.savez(tmp_path / "case.npz", case=solid)
    np.savez(tmp_path / "named.npz", samples=["case"], classes=CLASSES, masks=solid)
    for path in ("case.npy", "case.npz", "named.npz"):
        found = ek.read_masks(tmp_path / path, classes=CLASSES)
        assert (found.samples, found.image_size("case")) == (("case",), (4, 5, 6))
        assert np.array_equal(found["case", "y"].decode(), solid[1])


def test_as_many_samples_as_classes_are_images_but_for_a_size_of_three_numbers(tmp_path: Path) -> None:
    both = np.random.default_rng(0).random((2, 2, 5, 6)) < 0.3
    np.save(tmp_path / "m.npy", both)
    assert ek.read_masks(tmp_path / "m.npy", classes=CLASSES).samples == ("0", "1")
    found = ek.read_masks(tmp_path / "m.npy", classes=CLASSES, image_size=(2, 5, 6))
    assert np.array_equal(found["m", "x"].decode(), both[0])


def test_three_axes_of_one_class_need_a_size(tmp_path: Path) -> None:
    """They may be the masks of other classes."""
    solid = np.random.default_rng(0).random((4, 5, 6)) < 0.3
    np.save(tmp_path / "m.npy", solid)
    with pytest.raises(ek.MismatchError, match="with --image-size DxHxW a volume") as caught:
        ek.read_masks(tmp_path / "m.npy", classes=["x"])
    assert caught.value.code == "stack-shape"
    assert ek.read_masks(tmp_path / "m.npy", classes=["x"], image_size=(4, 5, 6))["m", "x"] == ek.encode(solid)


def test_a_stack_of_label_maps_is_images_or_by_its_size_a_volume(tmp_path: Path) -> None:
    solid = labels((4, 5, 6))
    np.save(tmp_path / "m.npy", solid)
    how: dict[str, Any] = {"format": "label-map", "classes": CLASSES, "first_value": 1}
    images = ek.read_masks(tmp_path / "m.npy", **how)
    assert images.samples == ("0", "1", "2", "3")
    assert "4 images: one volume is read by --image-size 4x5x6" in str(images.rule)
    one = ek.read_masks(tmp_path / "m.npy", image_size=(4, 5, 6), **how)
    assert np.array_equal(one.labels("m"), solid)


def test_a_folder_of_label_maps_of_volumes(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", labels((4, 5, 6)).astype(np.int64))
    found = ek.read_masks(tmp_path, "label-map", classes=CLASSES, first_value=1)
    assert found.image_size("b") == (4, 5, 6)
    np.save(tmp_path / "c.npy", labels((4, 5, 6)) > 0)
    with pytest.raises(ek.MismatchError, match="a volume of one class is read with --image-size DxHxW"):
        ek.read_masks(tmp_path, "label-map", classes=CLASSES, first_value=1)  # or the masks of four classes
    (tmp_path / "c.npy").unlink()
    np.save(tmp_path / "c.npy", np.full((5, 6, 3), 9, np.uint8))
    with pytest.raises(ek.MismatchError, match="save colours as PNG"):
        ek.read_masks(tmp_path, "label-map", classes=CLASSES, first_value=1)


@pytest.mark.parametrize("values", [(0, 2), (0, 1, 255)], ids=str)
def test_slices_of_other_values_are_no_mask(values: tuple[int, ...], tmp_path: Path) -> None:
    solid = np.zeros((1, 3, 4, 5), np.uint8)
    solid[0, : len(values), 0, 0] = values
    np.save(tmp_path / "m.npy", solid)
    with pytest.raises(ek.DamagedError, match="cannot read a binary mask"):
        ek.read_masks(tmp_path / "m.npy", classes=["x"])


@pytest.mark.parametrize("form", ["png", "coco", "handbone", "kaggle", "labelme"])
def test_formats_of_images_refuse_volumes(form: str, tmp_path: Path) -> None:
    out = tmp_path / ("o.csv" if form in {"handbone", "kaggle"} else "o")
    with pytest.raises(ek.UsageError, match="is 4 x 5 x 6, a volume · fix: pass --format nifti, nrrd, npz, npy"):
        masks_of(SETS["one size"]).write(out, format=form)
    assert not list(tmp_path.iterdir())


def test_formats_of_images_are_not_read_as_volumes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image_name,class,rle\na,x,1 3\n")
    (tmp_path / "m.json").write_text('{"imagePath": "a.png", "shapes": [], "version": "5", "flags": {}}')
    for path in ("m.csv", "m.json"):
        with pytest.raises(ek.UsageError, match=r"4 x 5 x 6 was passed for m\.|4 x 5 x 6 was passed for /") as caught:
            ek.read_masks(tmp_path / path, image_size=(4, 5, 6), classes=["x"])
        assert caught.value.code == "format-unfit"


def test_sizes_as_text() -> None:
    assert parse_image_size("40x512x256") == (40, 512, 256)
    for text in ("4x5x6x7", "4x", "x4", "0x3x4"):
        with pytest.raises(ek.UsageError):
            parse_image_size(text)


# --- commands and scores -------------------------------------------------------------------------------------


def run(*command: object) -> str:
    done = warm.ensk(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_members_of_volumes_are_voted_cleaned_scored_and_converted(tmp_path: Path) -> None:
    truth = masks_of({"a": (6, 20, 21), "b": (4, 9, 30)})
    rng = np.random.default_rng(3)
    for k in range(3):
        noisy = {s: np.where(rng.random(truth.image_size(s)) < 0.2, 0, truth.labels(s)) for s in truth.samples}
        ek.MaskSet.from_labels(noisy, CLASSES, first_value=1).write(tmp_path / f"m{k}.npz", format="label-map")
    truth.write(tmp_path / "truth.npz", format="label-map")
    files = [tmp_path / f"m{k}.npz" for k in range(3)]
    told = run("vote", *files, "--hard", "--rule", "drop-small:2", "--out", tmp_path / "v.npz", "--format", "label-map")
    assert "drop-small:2 (over 26 neighbours)" in told
    members = [ek.read_masks(file) for file in files]
    wanted = ek.hard_vote(members)
    found = ek.read_masks(tmp_path / "v.npz")
    assert all(found[key].overlap(runs) >= runs.area - 40 for key, runs in wanted.items())
    scored = run(
        "score", tmp_path / "v.npz", "--val", tmp_path / "truth.npz", "--json", "--confusion", tmp_path / "c.csv"
    )
    assert f"{ek.dice(found, truth).mean:.6f}"[:6] in scored
    run("convert", tmp_path / "v.npz", "--out", tmp_path / "folder", "--format", "label-map")
    assert dict(ek.read_masks(tmp_path / "folder")) == dict(found)


@given(st.integers(0, 2**32))
def test_scores_and_confusion_of_volumes_are_those_of_their_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4, 5), "b": (2, 6, 2)}
    maps = [{s: rng.choice([0, 1, 2, 255], n, p=[0.4, 0.3, 0.2, 0.1]) for s, n in shapes.items()} for _ in range(2)]
    ours, theirs = (ek.MaskSet.from_labels(m, CLASSES, first_value=1) for m in maps)
    table = ek.dice(ours.without_void(), theirs).table().set_index(["sample", "class"])
    counts = ek.confusion(ours.without_void(), theirs).by_sample
    for k, sample in enumerate(shapes):
        p, t = (m[sample] for m in maps)
        counted = t != 255
        for value, name in enumerate(CLASSES, start=1):
            row = table.loc[sample, name]
            tp, pred = ((p == value) & (t == value)).sum(), ((p == value) & counted).sum()
            assert (row["tp"], row["pred"], row["truth"]) == (tp, pred, (t == value).sum())
            assert counts[k][value - 1, value - 1] == tp


@pytest.mark.filterwarnings("ignore::ensemble_kit.errors.EnskWarning")
@given(st.integers(0, 2**32), st.sampled_from(["majority", "staple", "simple"]), st.booleans())
def test_fusions_of_volumes_are_those_of_the_same_voxels_as_an_image(seed: int, fusion: str, void: bool) -> None:
    rng = np.random.default_rng(seed)
    shape, flat = (3, 4, 5), (12, 5)
    truth = rng.integers(0, 3, shape)
    odd = [rng.choice([0, 1, 2, 255], shape, p=[0.4, 0.3, 0.3 - 0.1 * void, 0.1 * void]) for _ in range(3)]
    maps = [np.where(rng.random(shape) < 0.2, other, truth) for other in odd]
    solid, even = (
        [ek.MaskSet.from_labels({"a": m.reshape(size)}, CLASSES, first_value=1) for m in maps] for size in (shape, flat)
    )
    for by in ("class", "label") if fusion != "simple" else ("class",):
        a, b = (ek.hard_vote(members, by=by, fusion=fusion) for members in (solid, even))
        assert [a["a", c].starts.tolist() for c in CLASSES] == [b["a", c].starts.tolist() for c in CLASSES]
        assert a.image_size("a") == shape
        assert a.void("a").starts.tolist() == b.void("a").starts.tolist()
