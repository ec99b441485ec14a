"""What values mean: of a softmax, of 12 bits, of windows and z-scores (N2, N5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ensemble_kit as ek
from cases.dumps import GREY, SIDES, dump, first_channel, put, refused, stored
from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe

# --- N2: what a softmax made, for overlapping classes ---------------------------------------------------------


class Softmax(nn.Module):
    """Two classes that exclude each other: as logits, or after an activation."""

    def __init__(self, after: str = "") -> None:
        super().__init__()
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.stack([x[:, 0] * 4 - 2, 1 - x[:, 1] * 3], 1)
        return getattr(torch, self.after)(z, dim=1) if self.after else z


PAIR = ("lesion", "skin")


def right_labels() -> np.ndarray:
    g = GREY / np.float32(255)
    return (1 - g * 3 > g * 4 - 2).astype(np.uint8)


def labels_of(tmp_path: Path) -> np.ndarray:
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert store.activation == "softmax"
    return ek.Ensemble([tmp_path / "m.zarr"]).vote().labels("a.png", {name: k for k, name in enumerate(store.classes)})


@pytest.mark.parametrize(
    ("after", "recipe", "code", "exit_code", "then"),
    [
        ("log_softmax", {}, "logits-exclusive", 3, {"activation": "softmax"}),
        ("log_softmax", {"activation": "sigmoid"}, "logits-exclusive", 3, {"activation": "softmax"}),
        ("softmax", {}, "logits-are-probabilities", 3, {"activation": "softmax", "domain": "probabilities"}),
        ("softmax", {"domain": "probabilities"}, "probabilities-exclusive", 3, {"activation": "softmax"}),
    ],
    ids=["log-softmax", "log-softmax, sigmoid given", "softmax for logits", "softmax for sigmoid"],
)
def test_N2_what_a_softmax_made_is_not_taken_for_sigmoid(tmp_path, after, recipe, code, exit_code, then) -> None:
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, Softmax(after), Recipe(Preprocess(16), **recipe), PAIR)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    for name, value in then.items():
        assert f"--{name} {value}" in caught.value.fix
    dump(tmp_path, Softmax(after), Recipe(Preprocess(16), **{**recipe, **then}), PAIR)
    assert np.array_equal(labels_of(tmp_path), right_labels())


def test_N2_a_background_among_sigmoid_classes_is_asked_about(tmp_path) -> None:
    names = ("background", "skin")
    error = refused("activation-ambiguous", tmp_path, Softmax(), Recipe(Preprocess(16)), classes=names)
    assert error.exit_code == 2
    assert "--activation softmax" in error.fix
    assert "--activation sigmoid" in error.fix
    dump(tmp_path, Softmax(), Recipe(Preprocess(16), activation="sigmoid"), names)
    assert ek.LogitStore(tmp_path / "m.zarr").activation == "sigmoid"
    dump(tmp_path, Softmax(), Recipe(Preprocess(16), activation="softmax"), names, force=True)
    assert np.array_equal(labels_of(tmp_path), right_labels())


@pytest.mark.parametrize("names", [("bg", "a"), ("_background_", "a"), ("a", "Background"), ("void_0", "a")], ids=str)
def test_N2_a_writer_asks_about_a_background(tmp_path, names) -> None:
    with pytest.raises(ek.UsageError) as caught:
        ek.LogitWriter(tmp_path / "m.zarr", names, ["a"], (4, 4))
    assert caught.value.code == "activation-ambiguous"
    assert not (tmp_path / "m.zarr").exists()
    ek.LogitWriter(tmp_path / "m.zarr", names, ["a"], (4, 4), activation="sigmoid").close()
    ek.LogitWriter(tmp_path / "one.zarr", names[:1], ["a"], (4, 4)).close()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_N2_a_writer_looks_at_its_first_sample(tmp_path, kind) -> None:
    z = np.random.default_rng(0).normal(size=(3, 8, 8))
    log_p = (z - np.log(np.exp(z).sum(0))).astype(np.float32)
    own: Any = torch.from_numpy(log_p) if kind == "torch" else log_p
    with ek.LogitWriter(tmp_path / "m.zarr", list("abc"), ["a"], (8, 8), activation="sigmoid") as out:
        with pytest.raises(ek.DamagedError, match="--activation softmax") as caught:
            out.write("a", own, (8, 8))
        assert caught.value.code == "logits-exclusive"
        assert out.missing == ["a"]
        out.write("a", own + 1, (8, 8))  # shifted: no logarithms of probabilities, and no evidence
    with ek.LogitWriter(tmp_path / "p.zarr", list("abc"), ["a"], (8, 8), domain="probabilities") as out:
        with pytest.raises(ek.DamagedError) as caught:
            out.write("a", np.exp(log_p), (8, 8))
        assert caught.value.code == "probabilities-exclusive"
    with ek.LogitWriter(tmp_path / "s.zarr", list("abc"), ["a"], (8, 8), "sigmoid", domain="probabilities") as out:
        out.write("a", np.exp(log_p), (8, 8))  # each class by itself, as the user said
    with pytest.raises(ek.DamagedError, match="--activation softmax"):
        ek.vote([log_p])
    assert np.array_equal(ek.vote([log_p], activation="softmax"), z.argmax(0))


def test_N2_one_map_more_than_classes_is_explained(tmp_path) -> None:
    error = refused("classes-count", tmp_path, Softmax(), Recipe(Preprocess(16)), classes=("skin",))
    assert "the background" in error.fix
    assert "--activation softmax" in error.fix


# --- N5: what values mean -------------------------------------------------------------------------------------


SCAN = np.random.default_rng(2).integers(0, 4096, (16, 16)).astype(np.uint16)


def scan(tmp_path: Path, recipe: Recipe, values: np.ndarray = SCAN, **options: Any) -> np.ndarray:
    put(tmp_path / "images" / "a.png", values)
    dump(tmp_path, first_channel(3), recipe, **options)
    return stored(tmp_path)[0]


def test_N5_twelve_bits_are_never_read_as_sixteen(tmp_path) -> None:
    with pytest.raises(ek.UsageError) as caught:
        scan(tmp_path, Recipe(Preprocess(16)))
    assert caught.value.code == "range-ambiguous"
    assert "--range 0,4095" in caught.value.fix
    assert "--range 0,65535" in caught.value.fix
    read = scan(tmp_path, Recipe(Preprocess(16, range=(0, 4095))))
    assert np.allclose(read, SCAN / 4095, atol=1e-3)
    assert abs(read.mean() - 0.5) < 0.05
    kept = ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]
    assert kept["range"] == [0, 4095]
    x, _ = Preprocess.from_dict(kept).apply(SCAN)
    assert np.allclose(x[0], SCAN / np.float32(4095), atol=1e-6)
    dark = scan(tmp_path, Recipe(Preprocess(16, range=(0, 65535))), force=True)
    assert np.allclose(dark, SCAN / 65535, atol=1e-4)


def test_N5_one_bright_image_settles_sixteen_bits(tmp_path) -> None:
    put(tmp_path / "images" / "b.png", SCAN * 16)
    said: list[str] = []
    assert np.allclose(scan(tmp_path, Recipe(Preprocess(16)), say=said.append), SCAN / 65535, atol=1e-4)
    assert "16-bit images: values are divided by 65535" in "".join(said)


@pytest.mark.parametrize(
    ("prep", "right"),
    [
        (Preprocess(16, window=(2000, 1000)), np.clip((SCAN - 1500.0) / 1000, 0, 1)),
        (Preprocess(16, normalise="zscore"), (SCAN - SCAN.mean()) / SCAN.std()),
        (Preprocess(16, normalise="zscore", range=(1000, 3000)), None),
    ],
    ids=["window", "zscore", "range and zscore"],
)
def test_N5_windows_and_z_scores(tmp_path, prep, right) -> None:
    if right is None:
        cut = np.clip(SCAN, 1000, 3000).astype(np.float64)
        right = (cut - cut.mean()) / cut.std()
    assert np.allclose(scan(tmp_path, Recipe(prep)), right, atol=2e-3)
    kept = Preprocess.from_dict(ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"])
    assert kept == prep
    assert np.allclose(kept.apply(SCAN)[0][0], right, atol=1e-5)


def test_N5_values_come_before_resizing_and_padding_is_the_mean(tmp_path) -> None:
    prep = Preprocess((16, 32), "letterbox", normalise="zscore")
    x, box = prep.apply(SCAN)
    assert box == (0, 8, 16, 24)
    assert np.all(x[:, :, :8] == 0)
    assert np.allclose(x[0, :, 8:24], (SCAN - SCAN.mean()) / SCAN.std(), atol=1e-5)
    colours = np.stack([SCAN, SCAN // 2 + 7, SCAN * 3], axis=2)
    y, _ = Preprocess((16, 16), normalise="zscore").apply(colours)
    assert np.allclose(y, x[:, :, 8:24], atol=1e-2)  # each channel by itself, as nnU-Net does it


@pytest.mark.parametrize(
    ("values", "text"),
    [(np.full((4, 5), -500, np.int16), "no scale"), (np.full((4, 5), 300.0, np.float32), "300")],
    ids=["Hounsfield units", "floats"],
)
def test_N5_values_without_a_scale_need_a_range(tmp_path, values, text) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", values)
    with pytest.raises(ek.DamagedError, match=text) as caught:
        dump(tmp_path, first_channel(1), Recipe(Preprocess(16, channels=1)))
    assert "--range LO,HI" in str(caught.value)
    recipe = Recipe(Preprocess((4, 5), channels=1, range=(-1000, 1000)))
    dump_logits(first_channel(1), tmp_path / "images", SIDES, tmp_path / "m.zarr", recipe, ids="stem", device="cpu")
    assert np.allclose(ek.LogitStore(tmp_path / "m.zarr").read("a")[0], (values + 1000) / 2000, atol=1e-3)


@pytest.mark.parametrize(
    "bad",
    [{"range": (1, 1)}, {"range": (2, 1)}, {"range": 3}, {"window": (1, 0)}, {"range": (0, 1), "window": (1, 2)},
     {"normalise": "minmax"}, {"normalise": "zscore", "mean": (0.5, 0.5, 0.5)}, {"channels": 0}, {"channels": True},
     {"count": 1}, {"channels": "grey", "count": 2}, {"channels": "grey", "count": 1, "mean": (0.1, 0.2, 0.3)},
     {"channels": 4, "mean": (0.1, 0.2, 0.3)}],
    ids=str,
)  # fmt: skip
def test_N5_impossible_preprocessing_is_refused(bad) -> None:
    with pytest.raises(ek.UsageError, match="preprocess"):
        Preprocess(8, **bad)
