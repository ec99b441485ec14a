"""Ensembles that reports are made of: overlapping classes, exclusive ones, and volumes, with truth and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import ensemble_kit as ek
from conftest import smooth_logits

SAMPLES = (*(f"case {k}.png" for k in range(8)), "<img src=x onerror=alert(1)> '\"&{{7*7}}.png")
CLASSES = ("bone", "<b>soft</b> & tissue", "rim")


@dataclass(frozen=True)
class Files:
    """Paths of stores, truth and images; and what they hold."""

    folder: Path
    stores: list[Path]
    truth: Path
    images: Path
    masks: ek.MaskSet


def make_files(
    folder: Path, activation: str = "sigmoid", size: tuple[int, int] = (60, 80), members: int = 3,
    classes: tuple[str, ...] = CLASSES, samples: tuple[str, ...] = SAMPLES,
) -> Files:  # fmt: skip
    """Write members of some samples whose truth is near to their vote, and images."""
    rng, grid = np.random.default_rng(7), (size[0] // 2, size[1] // 2)
    true = {s: smooth_logits(rng, (len(classes), *grid)).astype(np.float32) for s in samples}
    stores = [folder / f"member{m}.zarr" for m in range(members)]
    how: dict[str, Any] = {"activation": activation}
    for path in stores:
        with ek.LogitWriter(path, classes, samples, grid, member=path.stem, **how) as out:
            for s in samples:
                out.write(s, true[s] + 2 * smooth_logits(rng, (len(classes), *grid), 2.0), image_size=size)
    masks = ek.Ensemble(stores).vote()
    moved = {
        (s, c): ek.encode(np.roll(masks[s, c].decode(), k % 3, axis=1)) for k, s in enumerate(samples) for c in classes
    }
    ek.MaskSet(moved).write(folder / "truth.npz")
    (folder / "images").mkdir()
    for s in samples:
        grey = np.clip(true[s][0] * 10 + 128, 0, 255).astype(np.uint8)
        Image.fromarray(grey).resize(size[::-1]).save(folder / "images" / s)
    return Files(folder, stores, folder / "truth.npz", folder / "images", masks)
