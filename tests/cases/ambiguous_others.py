"""Folders, arrays, lists of classes, flips and images that can be read in two ways; `ambiguous` has the CSVs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cases.ambiguous import Arguments, Situation

NETWORK = """import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x)
"""


def _labels(folder: Path) -> Arguments:
    """Two classes, neither called background, and the values 0 and 1."""
    (folder / "gt").mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "gt" / "a.png")
    return ["convert", folder / "gt", "--classes", _classes(folder, "car", "bus"), "--out", folder / "out.npz"]


def _arrays(*classes: str) -> Callable[[Path], Arguments]:
    """Logits of three classes in an array that has three rows and three columns at its ends."""

    def make(folder: Path) -> Arguments:
        (folder / "arrays").mkdir()
        np.save(folder / "arrays" / "a.npy", np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32) * 5)
        names = _classes(folder, *classes)
        return ["dump-logits", folder / "arrays", "--images", _images(folder, 100), "--classes", names, *_out(folder)]

    return make


def _network(image: int, *more: object) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "net.py").write_text(NETWORK)
        names, images = _classes(folder, "lung_left", "lung_right", "heart"), _images(folder, image)
        return ["dump-logits", "net:Net", "--images", images, "--classes", names, "--size", 8, *more, *_out(folder)]

    return make


def _classes(folder: Path, *names: str) -> Path:
    (folder / "classes.txt").write_text("\n".join(names))
    return folder / "classes.txt"


def _images(folder: Path, value: int) -> Path:
    """One image of 8 x 8, of 16 bits where the value needs them."""
    (folder / "images").mkdir()
    pixels = np.full((8, 8), value, np.uint16) if value > 255 else np.full((8, 8, 3), value, np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    return folder / "images"


def _out(folder: Path) -> Arguments:
    return ["--out", folder / "out.zarr"]


SWAP = "lung_left=lung_right"
OTHERS = (
    Situation(
        "label maps without a background",
        _labels,
        {"--first-value 0": ["--first-value", 0], "--first-value 1": ["--first-value", 1]},
        "label-ambiguous",
    ),
    Situation(
        "an array with as many columns as classes",
        _arrays("x", "y", "z"),
        {"--axes chw if they stand first": ["--axes", "chw"], "--axes hwc if they stand last": ["--axes", "hwc"]},
        "array-axes",
        6,
    ),
    Situation(
        "a background among classes without an activation",
        lambda folder: [*_arrays("background", "y", "z")(folder), "--axes", "chw"],
        {"--activation softmax": ["--activation", "softmax"], "--activation sigmoid": ["--activation", "sigmoid"]},
        "activation-ambiguous",
    ),
    Situation(
        "classes that a vertical flip exchanges, or not",
        _network(100, "--tta", "vflip", "--swap-classes", SWAP),
        {
            f"--swap-classes 'hflip:{SWAP}' if their position": ["--swap-classes", f"hflip:{SWAP}"],
            f"--swap-classes 'handedness:{SWAP}' if their shape": ["--swap-classes", f"handedness:{SWAP}"],
        },
        "swap-ambiguous",
    ),
    Situation(
        "an image of 12 or of 16 bits",
        _network(3780),
        {"--range 0,4095 for 12 bits": ["--range", "0,4095"], "--range 0,65535": ["--range", "0,65535"]},
        "range-ambiguous",
    ),
)
