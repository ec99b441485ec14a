"""How sure a store's member is, and how long a vote and a tuning of it take: measured on a few of its samples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.tuning.counting import HIGHS, LOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FEW = 3
"""Samples that are looked at."""

SURE = float(np.log(0.95 / 0.05))
"""A logit of 0.95; of exclusive classes as much as the first is ahead of the second."""


def regime(store: LogitStore) -> dict[str, Any]:
    """Read up to three samples, and measure the share of undecided cells and, of images, the seconds of all samples.

    Seconds are CPU time of one thread, of what a vote at 0.5 (or by argmax) and the counting of a tuning do. A first
    sample warms the kernels up.
    """
    missing = set(store.missing)
    held = [s for s in store.samples if s not in missing]
    few = [held[k] for k in sorted({len(held) * (2 * i + 1) // (2 * FEW) for i in range(FEW)})] if held else []
    if not few:
        return {}
    share = float(np.mean([_undecided(store, s) for s in few]))
    found: dict[str, Any] = {"undecided cells": f"{share:.1%} (between 0.05 and 0.95), of {len(few)} samples"}
    if store.rank == 2 and not any(store.mosaic(s) for s in few):
        found |= {f"seconds of a {name}, all samples": f"{t * len(held):.3g}" for name, t in _timed(store, few).items()}
    return found


def _undecided(store: LogitStore, sample: str) -> float:
    """Measure the share of a sample's cells, of each class or of exclusive ones together, that are undecided."""
    scene = store.mosaic(sample)
    tiles = [store.read(sample)] if scene is None else [store.read_tile(sample, k) for k in range(len(scene.boxes))]
    found = [_open_cells(np.asarray(tile, np.float32), store.activation) for tile in tiles]
    return float(sum(cells.sum() for cells in found) / sum(cells.size for cells in found))


def _open_cells(logits: NDArray[np.float32], activation: str) -> NDArray[np.bool_]:
    """Tell which cells are undecided: bool, of logits (C, h, w) as they are, of exclusive classes (h, w)."""
    if activation == "sigmoid":
        return np.asarray(np.abs(logits) < SURE)
    if len(logits) == 1:
        return np.zeros(logits.shape[1:], np.bool_)  # the only class has every cell
    second, first = np.partition(logits, -2, axis=0)[-2:]
    return np.asarray(first - second < SURE)


def _timed(store: LogitStore, few: Sequence[str]) -> dict[str, float]:
    """Measure CPU seconds a sample of a vote, and, of overlapping classes, of counting by level."""
    if store.activation == "softmax" and len(store.classes) == 1:
        return {}  # argmax has nothing to decide
    ensemble = Ensemble([store])
    inputs, decide = ensemble.inputs, ensemble.decision()
    bands = dict.fromkeys(range(len(store.classes)), (LOWS[0], HIGHS[0]))
    work: dict[str, Callable[[str], Any]] = {"vote": lambda s: decide(open_sample(inputs, s))}
    if store.activation == "sigmoid":
        work["tuning, counting alone"] = lambda s: open_sample(inputs, s).counts(bands)
    out = {}
    for name, job in work.items():
        job(few[0])
        begun = time.process_time()
        for sample in few:
            job(sample)
        out[name] = (time.process_time() - begun) / len(few)
    return out
