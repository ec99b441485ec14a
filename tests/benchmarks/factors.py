"""Factors of argmax: gathering contenders, a sweep of line searches, a tuning with folds; beside trials of factors.

A sweep finds the best of all factors of every class; a trial scores one vector of factors on fused scores in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import argmax
import jobs
import numpy as np
import rivals
from measure import Bar
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.execution.executor import Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.gathering import ExclusiveTruth, GatherContenders
from ensemble_kit.tuning.linesearch import FactorSearch

MIOU = Measure("pooled", "iou", Convention(0.0, "skip"))
LIMIT = "pixels with two classes within the ratio are evaluated exactly"
TRIALS = 50
FOLDED = 15  # samples of the tuning with folds


def rows(scale: jobs.Scale) -> jobs.Rows:
    """Measure one sample of C 19, smooth and with rough logits, and a tuning with five folds."""
    quick = scale.plane < jobs.Scale().plane
    C, (h, w) = 19, (64, 128) if quick else (256, 512)
    logits, image = argmax.class_logits(5, C, (h, w)), (4 * h, 4 * w)
    for name, times in (("sure", 4), ("rough", 1)):
        own = [(z.astype(np.float32) * times).astype(np.float16) for z in logits]
        yield from one_sample(scale, argmax.in_memory(own, image, "logits", "probability"), image, name)
    yield whole(scale, 5 if quick else FOLDED)


def one_sample(scale: jobs.Scale, inputs: Inputs, image: tuple[int, int], name: str) -> jobs.Rows:
    """Measure gathering a sample's contenders, and a sweep over all classes."""
    label = f"{len(inputs.members)} × {len(inputs.classes)} classes, {name} logits, {image[0]} × {image[1]}"
    item, work = Item("x", near_truth(inputs, image)), GatherContenders(inputs, RATIOS[0])
    found = work(item)
    ends, pixels = np.array([0, found.contenders.truth.size]), image[0] * image[1]
    counts = found.decided[None], found.far[None], found.doubt[None]
    table = ContenderTable(("x",), inputs.classes, None, "", False, RATIOS[0], found.contenders, ends, *counts)
    note = f"{100 * ends[1] / pixels:.0f} % of pixels kept, {found.contenders.classes.size / ends[1]:.1f} classes each"
    members = [m.read("x") for m in inputs.members]
    fused = (open_sample(inputs, "x").values(0, image[0]) / 65536).astype(np.float32)
    truth = labels_of(item.truth, image, len(inputs.classes))
    others = argmax.label_rivals(members, image, inputs) if scale.rivals else {}
    yield jobs.measured(
        scale, f"contenders of factors: {label}", lambda: work(item), others, "a sample", (), LIMIT, read=members, note=note
    )  # fmt: skip

    def sweep() -> None:
        search = FactorSearch(table, MIOU)
        for c in table.free:
            search.search(c)

    bars = (Bar("seconds", 0.04),) if name == "sure" else ()
    others = trials(fused, truth) if scale.rivals else {}
    yield jobs.measured(
        scale, f"a sweep of all factors: {label}", sweep, others, "a sample", bars, "each pixel kept is visited", note=note
    )  # fmt: skip


def whole(scale: jobs.Scale, samples: int) -> Any:
    """Measure a tuning with five folds, from stores to the set."""
    C, grid, image = 7, (64, 64), (256, 256)
    names, classes = [f"s{k}" for k in range(samples)], [f"class {c}" for c in range(7)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"m{m}.zarr" for m in range(3)]
        made = [argmax.class_logits(3, C, grid, seed) for seed in range(samples)]
        for m, path in enumerate(paths):
            with ek.LogitWriter(path, classes, names, grid, "softmax", f"m{m}") as out:
                for name, members in zip(names, made, strict=True):
                    out.write(name, members[m], image)
        ensemble = ek.Ensemble(paths)
        first = near_truth(ensemble.inputs, image, names[0])
        runs = {
            (s, c): mask for s in names for c, mask in zip(classes, masks_of(ensemble.inputs, image, s), strict=True)
        }
        fused = (open_sample(ensemble.inputs, names[0]).values(0, image[0]) / 65536).astype(np.float32)
        others = trials(fused, labels_of(first, image, C), samples * 6) if scale.rivals else {}
        return jobs.measured(
            scale, f"factors with five folds: {samples} samples, 3 × 7 classes, 64² → 256²",
            lambda: ek.tune_thresholds(ensemble, MaskSet(runs), folds=5, jobs=1), others, "", (), LIMIT,
            note=f"others: {TRIALS} trials for all samples and for each fold",
        )  # fmt: skip


# --- inputs --------------------------------------------------------------------------------------------------


def masks_of(inputs: Inputs, image: tuple[int, int], sample: str = "x") -> list[Runs]:
    """Masks near what the ensemble sees, with classes larger or smaller than it thinks, a few pixels away."""
    C = len(inputs.classes)
    factors = (65536 * np.exp(np.random.default_rng(0).normal(0, 0.3, C))).astype(int).tolist()
    won = open_sample(inputs, sample).winners(factors)
    return [ek.encode(np.roll(won.mask(c, image).decode(), (3, 3), (0, 1))) for c in range(C)]


def near_truth(inputs: Inputs, image: tuple[int, int], sample: str = "x") -> ExclusiveTruth:
    """The same, as a pass takes it."""
    return ExclusiveTruth(ManyRuns.of(masks_of(inputs, image, sample)), Runs.empty(image))


def labels_of(truth: ExclusiveTruth, image: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """The truth as a label map."""
    return np.stack([truth.masks.mask(c, image).decode() for c in range(classes)]).argmax(0)


# --- rivals --------------------------------------------------------------------------------------------------


def trials(fused: NDArray[np.float32], truth: NDArray[np.int64], times: int = 1) -> dict[str, Callable[[], Any]]:
    """Score vectors of factors on fused scores (C, H, W), as people write it: one trial, and a study of 50."""
    C, factors = len(fused), np.linspace(0.8, 1.2, len(fused), dtype=np.float32)

    def score(factors: Sequence[float]) -> float:
        won = (fused * np.asarray(factors, np.float32)[:, None, None]).argmax(0)
        counts = np.bincount((truth * C + won).ravel(), minlength=C * C).reshape(C, C)
        hits = np.diagonal(counts)
        return float(np.nanmean(hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)))

    made: dict[str, Callable[[], Any]] = {}
    if times == 1:
        made["NumPy, one trial"] = lambda: score(factors)
        torch, metrics = rivals.optional("torch"), rivals.optional("torchmetrics.classification")
        if torch and metrics:
            scores, labels, scale = torch.from_numpy(fused), torch.from_numpy(truth), torch.from_numpy(factors)
            metric = metrics.MulticlassJaccardIndex(C)
            made["torch + torchmetrics, one trial"] = lambda: metric((scores * scale[:, None, None]).argmax(0), labels)
    if optuna := rivals.optional("optuna"):

        def study() -> None:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            sampler = optuna.samplers.TPESampler(seed=0)
            asked = optuna.create_study(direction="maximize", sampler=sampler)
            asked.optimize(lambda t: score([t.suggest_float(str(c), 1 / 8, 8, log=True) for c in range(C)]), 2)

        made[f"Optuna, {TRIALS} trials of NumPy"] = rivals.scaled(study, TRIALS / 2 * times)
    return made
