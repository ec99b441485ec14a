"""The main rows on logits of trained networks: the demo's three on ultrasound, which ship with the project.

`--usgra` names a folder of USGRA-SEG (see examples/usgra): then its 40 test images are used. Without it, the 28 images
that ship with the demo are, and the rows say so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import rivals
from inputs import indexed_truth
from measure import reader

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA, NETWORKS
from ensemble_kit.dumping import Recipe, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.formats.classes import read_classes
from thresholds import planes


def rows(scale: jobs.Scale, usgra: Path | None) -> jobs.Rows:
    with tempfile.TemporaryDirectory(prefix="ensk-bench-") as made:
        folder = Path(made)
        parts = [usgra / "test"] if usgra else [DATA / "val", DATA / "test"]
        images = folder / "images"
        images.mkdir()
        for part in parts:
            for image in sorted((part / "images").iterdir()):
                shutil.copyfile(image, images / image.name)
        count = len(list(images.iterdir()))
        scale = replace(
            scale,
            tag=f", genuine logits of {count} images {'of USGRA-SEG' if usgra else 'of the demo'}",
            note="" if usgra else "USGRA-SEG itself is not here",
        )
        own = dump(images, folder, NETWORKS)
        truth = {} if usgra else {key: runs for p in parts for key, runs in ek.read_masks(p / "masks").items()}
        names = ek.LogitStore(own[0]).samples
        yield from of_stores(scale, own, indexed_truth(parts[0] / "masks", names) if usgra else ek.MaskSet(truth))
        one_grid = [name for name in NETWORKS if name != "unet"]
        yield from soft_votes(scale, dump(images, folder, one_grid, 512))


def dump(images: Path, folder: Path, names: Sequence[str], size: int | None = None) -> list[Path]:
    """Dump some of the demo's networks, at the size that they were trained at or at another one."""
    preprocess, classes = Preprocess.load(DATA / "preprocess.json"), read_classes(DATA / "classes.txt")
    recipe = Recipe(replace(preprocess, size=(size, size)) if size else preprocess)
    out = [folder / f"{name}_{size}.zarr" for name in names]
    for name, path in zip(names, out, strict=True):
        weights = DATA / "weights" / f"{name}.pt"
        dump_logits(f"ensemble_kit.demo.networks:{name}", images, classes, path, recipe, weights=weights, member=name)
    return out


def commonest_size(ensemble: ek.Ensemble) -> tuple[tuple[int, int], list[str]]:
    """Return the size that most images have, and their names: masks of one size can lie in one array."""
    sizes = [ensemble.image_size(s) for s in ensemble.samples]
    plane = max(set(sizes), key=sizes.count)
    return plane, [s for s, size in zip(ensemble.samples, sizes, strict=True) if size == plane]


def soft_votes(scale: jobs.Scale, paths: Sequence[Path]) -> jobs.Rows:
    for upsample in ("scores", "logits"):
        ensemble = ek.Ensemble(paths, upsample=upsample)
        (H, W), samples = commonest_size(ensemble)
        grids = " and ".join(sorted({f"{m.grid[0]}²" for m in ensemble.members}))
        label = f": {len(paths)} × {len(ensemble.classes)} × {grids} fp16 → CSV rows at {H} × {W}"
        yield jobs.soft_vote(scale, jobs.in_memory(ensemble), samples, upsample, (H, W), label)


def of_stores(scale: jobs.Scale, paths: Sequence[Path], truth: ek.MaskSet) -> jobs.Rows:
    """Measure the main rows; masks are those of the samples of the commonest size."""
    yield from soft_votes(scale, paths)
    ensemble = ek.Ensemble(paths)
    _, samples = commonest_size(ensemble)
    voted = [ek.Ensemble([p]).vote(0.5) for p in paths]
    masks = [[m[s, c].decode() for s in samples for c in ensemble.classes] for m in voted]
    yield from jobs.rle_of(scale, masks[0])
    yield from jobs.rules_of(scale, masks[0])
    yield jobs.hard_vote(scale, masks)
    yield from searches(scale, ensemble, truth, samples)


def searches(scale: jobs.Scale, ensemble: ek.Ensemble, truth: ek.MaskSet, samples: Sequence[str]) -> jobs.Rows:
    """Measure the exact searches from stores, beside trials on scores that are laid out already."""
    others: list[dict[str, Any]] = [{}, {}]
    if scale.rivals:
        few = samples[:4]
        levels = np.stack([p for s, p in zip(ensemble.samples, planes(ensemble), strict=True) if s in few])
        drawn = np.stack([[truth[s, c].decode() for c in ensemble.classes] for s in few])
        others = [make(levels, drawn, len(ensemble.samples)) for make in (rivals.threshold_rivals, rivals.size_trials)]
    logits = [m.read(s) for m in ensemble.members for s in ensemble.samples]
    count = f"{len(ensemble.classes)} classes × {len(ensemble.samples)} samples"
    yield jobs.measured(
        scale, f"best of all 65,536 thresholds × {count}", lambda: ek.tune_thresholds(ensemble, truth, jobs=1).score,
        others[0], "a search", reading=reader(logits), read_bytes=sum(z.nbytes for z in logits),
    )  # fmt: skip
    yield jobs.size_row(scale, ensemble, truth, others[1], reader(logits), logits)
