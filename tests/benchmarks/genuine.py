"""The main rows on logits of trained networks: the demo's on ultrasound, and those of hands.py on generated hands.

`--usgra` names a folder of USGRA-SEG (see examples/usgra): then its 40 test images are used. Without it, the 28 images
that ship with the demo are, and the rows say so. Every sample of a row is another image.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import inputs
import jobs
import numpy as np
import rivals
from inputs import indexed_truth
from measure import Row, reader
from PIL import Image

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
        few = enlarged(images, folder / "enlarged", 12 if scale.plane == inputs.PLANE else 2, scale.plane)
        tag = f", genuine logits of {few} images {'of USGRA-SEG' if usgra else 'of the demo'}, enlarged"
        stores = dump(folder / "enlarged", folder, one_grid, scale.plane // 2)
        yield from soft_votes(replace(scale, tag=tag), stores, compared=1)


def enlarged(images: Path, out: Path, count: int, height: int) -> int:
    """Write the first images of the commonest size anew, so many pixels high; return how many they are."""
    opened = {path: Image.open(path) for path in sorted(images.iterdir())}
    sizes = [image.size for image in opened.values()]
    width, old = max(set(sizes), key=sizes.count)
    chosen = [path for path, image in opened.items() if image.size == (width, old)][:count]
    out.mkdir()
    for path in chosen:
        opened[path].resize((width * height // old, height), Image.Resampling.BILINEAR).save(out / path.name)
    return len(chosen)


def hand_rows(scale: jobs.Scale) -> jobs.Rows:
    """Measure votes, masks and the search of thresholds on hands that no network was trained on."""
    import hands

    plane, C = scale.plane, len(hands.CLASSES)
    with tempfile.TemporaryDirectory(prefix="ensk-bench-") as made:
        images, truth = hands.images(Path(made), 8 if plane == inputs.PLANE else 2, plane)
        paths = hands.dump(images, Path(made))
        ensemble = ek.Ensemble(paths)
        samples = ensemble.samples
        tagged = replace(scale, tag=f", genuine logits of {len(samples)} generated hands")
        yield from soft_votes(tagged, paths, compared=1)
        yield hand_search(tagged, ensemble, truth)
        few = samples[:2]
        voted = [ek.Ensemble([p]).vote(0.5) for p in paths]
        masks = [[m[s, c].decode() for s in few for c in ensemble.classes] for m in voted]
        tagged = replace(scale, tag=f", genuine masks of {len(few)} generated hands, {C} bones each")
        yield from jobs.rle_of(tagged, masks[0])
        yield from jobs.rules_of(tagged, masks[0])
        yield jobs.hard_vote(tagged, masks)


def hand_search(scale: jobs.Scale, ensemble: ek.Ensemble, truth: ek.MaskSet) -> Row | None:
    """Measure the exact search of thresholds beside one trial on scores that are laid out already."""
    kept, C = jobs.in_memory(ensemble), len(ensemble.classes)
    logits = [m.read(s) for m in kept.members for s in ensemble.samples]
    others: dict[str, Any] = {}
    if scale.rivals:
        first = ensemble.samples[0]
        scores = np.mean([1 / (1 + np.exp(-m.read(first).astype(np.float32))) for m in kept.members], axis=0)
        drawn = np.stack([truth[first, c].decode() for c in ensemble.classes])
        levels = (scores * 65535 + 0.5).astype(np.uint16)
        others = rivals.threshold_rivals(levels[None], drawn[None], len(ensemble.samples))
    H, W = ensemble.image_size(ensemble.samples[0])
    return jobs.measured(
        scale, f"best of all 65,536 thresholds × {C} classes × {len(ensemble.samples)} samples at {H} × {W}",
        lambda: ek.tune_thresholds(ensemble, truth, jobs=1).score, others, "a search",
        reading=reader(logits), read_bytes=sum(z.nbytes for z in logits),
    )  # fmt: skip


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


def soft_votes(scale: jobs.Scale, paths: Sequence[Path], compared: int | None = None) -> jobs.Rows:
    for upsample in ("scores", "logits"):
        ensemble = ek.Ensemble(paths, upsample=upsample)
        (H, W), samples = commonest_size(ensemble)
        grids = " and ".join(sorted({f"{m.grid[0]}²" for m in ensemble.members}))
        label = f": {len(paths)} × {len(ensemble.classes)} × {grids} fp16 → CSV rows at {H} × {W}"
        yield jobs.soft_vote(scale, jobs.in_memory(ensemble), samples, upsample, (H, W), label, compared=compared)


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
    yield jobs.measured(
        scale, f"greedy selection of {len(ensemble.members)} members, 3 folds, {count}",
        lambda: ek.tune_thresholds(ensemble, truth, search="greedy", folds=3, jobs=1).score, {}, "a search",
        reading=reader(logits), read_bytes=sum(z.nbytes for z in logits),
    )  # fmt: skip
    yield jobs.size_row(scale, ensemble, truth, others[1], reader(logits), logits)
