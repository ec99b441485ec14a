"""What commands work on while they are signalled, or short of memory: stores of every format, masks, images, a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import forms
import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek

NET = """
import os, torch
class Net(torch.nn.Module):
    def forward(self, x):
        if wait := int(os.environ.get("ENSK_WAIT", "0")):
            torch.randn(wait * 1500, 1500) @ torch.randn(1500, 1500)  # one step of Python
        return torch.cat([x.mean(1, keepdim=True) * 9 - 4, 3 - x[:, :1] * 7], 1)
"""
COUNT = 16
"""Samples of a store that commands work on."""
LARGE = {
    "one grid": forms.Form("one grid", (64, 64), (64, 64), (1280, 1280)),
    "grids": forms.Form("grids", None, (64, 64), (1280, 1280)),
    "volumes": forms.Form("volumes", None, (8, 16, 16), (24, 160, 160)),
    "scenes": forms.Form("scenes", None, (64, 64), (1280, 1280), tiles=((0, 0, 40, 64), (24, 0, 64, 64))),
}
"""The formats, with images that take some tenths of a second to work on."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores and masks of every format, and images with a network."""
    folder = tmp_path_factory.mktemp("ground")
    ids, draw = [f"s{k:03}" for k in range(COUNT)], np.random.default_rng(0)
    for form in LARGE.values():
        for name in (form.name, f"{form.name}2"):
            with ek.LogitWriter(folder / f"{name}.zarr", forms.CLASSES, ids, form.grid) as out:
                for s in ids:
                    coarse = draw.normal(size=(2, *(n // 8 for n in form.shape))) * 5
                    form.write(out, s, coarse.repeat(8, -1).repeat(8, -2).repeat(form.shape[0] // coarse.shape[1], 1).astype("f2")
                               if len(form.shape) == 3 else coarse.repeat(8, 1).repeat(8, 2).astype("f2"))  # fmt: skip
        ek.Ensemble([folder / f"{form.name}.zarr"]).vote(0.45).write(folder / f"{form.name}.npz")
    (folder / "net.py").write_text(NET)
    (folder / "classes.txt").write_text("radius\nulna\n")
    (folder / "images").mkdir()
    (folder / "arrays").mkdir()
    rows = ["tile,scene,row,column"]
    for k in range(16):
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "images" / f"{k:02}.png")
        np.save(folder / "arrays" / f"{k:02}.npy", draw.normal(size=(2, 32, 32)).astype("f4"))
        rows.append(f"{k:02}.png,scene {k // 4},{k % 4 // 2 * 32},{k % 2 * 32}")
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def work(ground: Path) -> Iterator[Path]:
    shutil.rmtree(ground / "work", ignore_errors=True)
    (ground / "work").mkdir()
    return ground / "work"
