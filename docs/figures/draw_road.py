"""Draw the picture of README, docs/figures/road.png, from one of the demo's test images: logits, scores, runs.

    make figures                             python docs/figures/draw_road.py [FILE]

Nothing is drawn by hand: the demo's three networks are run on the image, fused and decided at 0.5.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import ConnectionPatch
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA, NETWORKS
from ensemble_kit.dumping import Recipe, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.formats.classes import read_classes

SAMPLE, CLASS = "0024.png", "nerve"
STEP = 5
"""Rows between two runs that are drawn, of all rows of the image."""


def main(out: Path) -> None:
    """Dump, fuse, decide and draw."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with tempfile.TemporaryDirectory() as folder:
        stores = dumped(Path(folder))
        ensemble = ek.Ensemble(stores)
        masks = ensemble.vote(0.5)
        c = ensemble.classes.index(CLASS)
        members = [store.read(SAMPLE)[store.classes.index(CLASS)].astype(np.float32) for store in stores]
        levels = ensemble.levels(SAMPLE)[c]
        mask = masks[SAMPLE, CLASS]

    figure = plt.figure(figsize=(9.6, 4.1), dpi=130)
    grid = figure.add_gridspec(3, 3, width_ratios=(1, 3.1, 3.1), wspace=0.3, hspace=0.12, left=0.06, right=0.985,
                               top=0.86, bottom=0.11)  # fmt: skip
    small = [figure.add_subplot(grid[k, 0]) for k in range(3)]
    for axis, name, logits in zip(small, NETWORKS, members, strict=True):
        show(axis, logits, cmap="RdBu_r", vmin=-8, vmax=8)
        axis.set_ylabel(f"{name}\n{logits.shape[0]} × {logits.shape[1]}", fontsize=8)
    middle, right = figure.add_subplot(grid[:, 1]), figure.add_subplot(grid[:, 2])
    show(middle, levels, cmap="magma", vmin=0, vmax=65535)
    show(right, np.asarray(Image.open(DATA / "test/images" / SAMPLE).convert("L")), cmap="gray")
    H, W = mask.shape
    rows = [(s // W, s % W, (e - 1) % W) for s, e in zip(mask.starts, mask.ends, strict=True) if s // W % STEP == 0]
    right.add_collection(LineCollection([[(a - 0.5, y), (b + 0.5, y)] for y, a, b in rows], colors="#ffb000", lw=1.6))

    small[0].set_title("LOGITS\n16-bit floats", fontsize=10)
    middle.set_title("SCORES\n16-bit integers, 0 … 65535", fontsize=10)
    right.set_title(f"RUNS\n{len(mask)} intervals of a {H} × {W} image", fontsize=10)
    words = " ".join(mask.text().split()[:8])
    right.set_xlabel(f"{SAMPLE},{CLASS},{words} …", fontsize=8, family="monospace")
    middle.set_xlabel(f"“{CLASS}” on the finest grid, {levels.shape[0]} × {levels.shape[1]}", fontsize=8)
    for left, other, told in ((small[1], middle, "fuse"), (middle, right, "decide")):
        arrow(left, other, told)
    figure.savefig(out, metadata={"Software": None})


def dumped(folder: Path) -> list[ek.LogitStore]:
    """Run the demo's networks on the one image."""
    (folder / "images").mkdir()
    shutil.copy(DATA / "test/images" / SAMPLE, folder / "images")
    recipe, classes = Recipe(Preprocess.load(DATA / "preprocess.json")), read_classes(DATA / "classes.txt")
    for name in NETWORKS:
        weights = DATA / "weights" / f"{name}.pt"
        dump_logits(f"ensemble_kit.demo.networks:{name}", folder / "images", classes, folder / name, recipe,
                    weights=weights, member=name)  # fmt: skip
    return [ek.LogitStore(folder / name) for name in NETWORKS]


def show(axis: Axes, values: np.ndarray, **options: object) -> None:
    """Show an array as squares, without ticks."""
    axis.imshow(values, interpolation="nearest", **options)
    axis.set(xticks=[], yticks=[])


def arrow(left: Axes, right: Axes, told: str) -> None:
    """Draw an arrow from one panel to the next."""
    figure = left.figure
    a, b = left.get_position(), right.get_position()
    y, x0, x1 = b.y0 + b.height / 2, a.x1 + 0.012, b.x0 - 0.012
    patch = ConnectionPatch((x0, y), (x1, y), "figure fraction", "figure fraction", arrowstyle="-|>", mutation_scale=18,
                            lw=2, color="#444444")  # fmt: skip
    figure.add_artist(patch)
    figure.text((x0 + x1) / 2, y + 0.03, told, ha="center", fontsize=10)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("road.png"))
