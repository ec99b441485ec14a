"""`ensk merge`: what parts leave becomes the bytes of a whole run, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from trying import ensk

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
