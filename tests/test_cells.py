"""The fast path on grids wide enough for whole words of 64 cells: seams between words, ragged ends, every kind of member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import tables
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Box, Placement
from ensemble_kit.spec.mean import Mean, levels_of_q
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
    "eight times, spans of more quads than are evaluated together": {"grid": (24, 150), "image": (192, 1200)},
    "few columns": {"grid": (70, 9), "image": (280, 30)},
    "few columns, upsample scores": {"grid": (70, 15), "image": (70, 45), "upsample": "scores"},
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


SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda v: sum(v) > 0.01)


@given(
    q=st.lists(st.integers(0, 65535), min_size=4, max_size=4),
    spread=st.sampled_from([1, 10, 1000, 65535]),
    shares=SHARES,
)
def test_a_mean_of_levels_is_near_the_level_of_the_mean(q: list[int], spread: int, shares: list[float]) -> None:
    """What settles quads by their fused corners: rule 3's `P` bends by at most `LOGISTIC_BEND`."""
    corners = np.minimum(q[0] + np.array(q) % (spread + 1), 65535)
    weights = np.array(shares) / sum(shares)
    at_mean = int(tables.q_levels()[int(weights @ corners + 0.5)])
    mean = float(weights @ tables.q_levels()[corners])
    assert abs(at_mean - mean) <= tables.LOGISTIC_BEND * float(np.ptp(corners)) ** 2 / 8 + 5


def test_the_bend_is_that_of_the_logistic_curve() -> None:
    x = np.linspace(-16, 16, 200001)
    p = tables.sigmoid(x)
    steepest = float(np.abs(p * (1 - p) * (1 - 2 * p)).max()) * 65535 * (32 / 65535) ** 2
    assert 0.95 * tables.LOGISTIC_BEND < steepest < tables.LOGISTIC_BEND


class Held:
    """A member that holds the logits (1, h, w) of one sample."""

    classes, activation = ("x",), "sigmoid"

    def __init__(self, name: str, logits: np.ndarray, image: tuple[int, int]) -> None:
        self.member, self._logits, self._image = name, logits, image

    def read(self, sample: str) -> np.ndarray:
        return self._logits

    def placement(self, sample: str) -> Placement:
        _, h, w = self._logits.shape
        return Placement((h, w), Box(0, 0, h, w), self._image)


@pytest.mark.slow
@given(
    seed=st.integers(0, 1 << 32),
    shape=st.tuples(st.integers(2, 7), st.integers(2, 90), st.integers(1, 9)),
    middle=st.sampled_from([-2.9, 0.0, 0.7, 2.9]),
    spread=st.sampled_from([0.05, 0.3, 1.0, 3.0]),
    mean=st.sampled_from(["probability", "logit", "power:0.5"]),
)
def test_unsure_members_are_decided_and_counted_as_the_oracle_does(
    seed: int, shape: tuple[int, int, int], middle: float, spread: float, mean: str
) -> None:
    """Members that are all near one level, each with noise of its own: nearly every quad is mixed, many settle late."""
    rng, (h, w, up), how = np.random.default_rng(seed), shape, Mean.of(mean)
    image, names = (h * up, w * up), ("a", "b", "c")[: rng.integers(1, 4)]
    arrays = [(middle + spread * rng.normal(size=(1, h, w))).astype(np.float16) for _ in names]
    held = tuple(Held(name, z, image) for name, z in zip(names, arrays, strict=True))
    weights = integer_weights(rng.integers(1, 4, len(names)).tolist(), names)
    truth = np.repeat(rng.random((h * up, w)) < 0.5, up, axis=1)
    by_q = [ref.q(z[0]) for z in arrays]
    at_pixels = [levels_of_q(how)[ref.rounded(ref.interpolate(z, image))] for z in by_q]
    on_grid = ref.fuse(by_q if mean == "logit" else [how.scale[ref.level(z[0])] for z in arrays], list(weights))
    for upsample, wanted in (
        ("logits", ref.fuse(at_pixels, list(weights))),
        ("scores", ref.image_from_scores(on_grid, image)),
    ):
        sample = open_sample(Inputs(held, ("x",), Fusion(how, upsample, names, (weights,), (1.0,) * len(names))), "x")
        pixels, hits = ref.level_counts(wanted, truth)
        for level in rng.choice(wanted.reshape(-1), 3).tolist():
            for near in (level, min(level + 1, 65535)):
                assert sample.runs(0, near) == ek.encode(wanted >= near), (upsample, near)
            high = min(level + 2000, 65536)
            check_counts(sample.counts({0: (level, high)}, [ek.encode(truth)]).of(0), pixels, hits, level, high)
