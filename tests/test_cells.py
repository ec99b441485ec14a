"""The fast path on grids wide enough for whole words of 64 cells: seams between words, ragged ends, every kind of member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import reference as ref
from test_scores import check_counts, effective_levels

Make = Callable[..., ek.LogitStore]

CASES: dict[str, dict[str, Any]] = {
    "one word": {"grid": (9, 64), "image": (20, 131)},
    "one word and a cell, upsample scores": {"grid": (70, 65), "image": (140, 130), "upsample": "scores"},
    "two words": {"grid": (6, 128), "image": (24, 512)},
    "two words, mean logit": {"grid": (6, 128), "image": (24, 512), "mean": "logit"},
    "ragged words, mean logit, upsample scores": {
        "grid": (6, 191),
        "image": (7, 191),
        "upsample": "scores",
        "mean": "logit",
    },
    "weights and temperatures": {
        "grid": (8, 130),
        "image": (32, 520),
        "weights": [5, 0, 1],
        "temperatures": [1.0, 2.0, 0.5],
    },
    "fewer rows, weights, upsample scores": {
        "grid": (8, 130),
        "image": (5, 520),
        "weights": [5, 0, 1],
        "upsample": "scores",
    },
    "boxes": {"grid": (8, 140), "image": (32, 520), "boxes": [(1, 3, 8, 133), (0, 10, 7, 140), (1, 0, 8, 130)]},
    "softmax": {"grid": (8, 140), "image": (32, 520), "activation": "softmax", "upsample": "scores"},
    "image as the grid": {"grid": (70, 130), "image": (70, 130)},
    "image as the grid, upsample scores": {"grid": (70, 130), "image": (70, 130), "upsample": "scores"},
    "half the rows, upsample scores": {"grid": (70, 130), "image": (35, 260), "upsample": "scores"},
    "four times, upsample scores": {
        "grid": (70, 130),
        "image": (280, 520),
        "upsample": "scores",
    },  # more pixels in the band than are sorted
    "image narrower than the grid": {
        "grid": (8, 140),
        "image": (32, 139),
    },  # a image narrower than the grid: blocks, not cells
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("scale", [0.4, 6.0, 60.0])
def test_wide_grids(case: dict[str, Any], scale: float, make_store: Make, rng: np.random.Generator) -> None:
    stores = []
    for k in range(3):
        z = smooth_logits(rng, (2, *case["grid"]), scale)
        z[rng.random(z.shape) < 0.02] = rng.choice(np.array([0, -0.0, np.inf, -np.inf, 6e-8, -6e-8, 65504], np.float16))
        if case.get("activation") == "softmax":
            z = np.clip(z, -60000, 60000)
        boxes = {"a": case["boxes"][k]} if "boxes" in case else None
        activation = case.get("activation", "sigmoid")
        stores.append(make_store({"a": z}, case["image"], ("x", "y"), boxes=boxes, activation=activation))
    ens = ek.Ensemble(stores, **{k: case[k] for k in ("weights", "mean", "upsample", "temperatures") if k in case})
    fused = ens.sample("a")
    for c in range(2):
        wanted = effective_levels(ens, "a", c)
        levels = [0, 1, 20000, 32767, 32768, 32769, 65535, *rng.choice(wanted.reshape(-1), 3).tolist()]
        for level in levels:
            assert fused.runs(c, level) == ek.encode(wanted >= level), (c, level)
        both = fused.decide({1 - c: levels[5], c: levels[2]})
        assert both.masks(fused.image) == [fused.runs(1 - c, levels[5]), fused.runs(c, levels[2])]
        truth = rng.random(wanted.shape) < rng.choice([0, 0.01, 0.5, 1])
        pixels, hits = ref.level_counts(wanted, truth)
        for low, high in ((0, 65536), (3277, 62260), (32768, 32769), (0, 1)):
            counted = fused.counts({1 - c: (1, 2), c: (low, high)}, [ek.encode(~truth), ek.encode(truth)])
            check_counts(counted.of(1), pixels, hits, low, high)


def test_many_short_runs_outgrow_their_room(make_store: Make) -> None:
    z = np.where(np.indices((96, 128)).sum(axis=0) % 2, 8, -8).astype(np.float16)[None]  # a chessboard
    ens = ek.Ensemble([make_store({"a": np.repeat(z, 3, axis=0)}, (384, 512), ("x", "y", "z"))])
    levels = {0: 32768, 2: 40000}
    for c, runs in zip(levels, ens.sample("a").decide(levels).masks((384, 512)), strict=True):
        assert runs == ek.encode(effective_levels(ens, "a", c) >= levels[c])
