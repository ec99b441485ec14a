"""Bounds of a trial on undecided pixels against every level scored in plain NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.kernels import coarse, reference_coarse, undecided
from ensemble_kit.kernels.arguments import Score, UndecidedPixels

BANDS = [(3277, 4900), (0, 700), (64900, 65536), (20000, 20100), (40000, 40000), (1, 512)]
SCORES = [(2.0, 1.0, 0.0), (1.0, 1.0, 1.0), (5.0, 4.0, 0.0)]


def pixels_of(rng: np.random.Generator, members: int, groups: int, band: tuple[int, int]) -> UndecidedPixels:
    """Draw some groups of pixels around a band, some of them empty; no more hits than there can be."""
    sizes = rng.choice([0, 1, 31, 32, 90, 300], groups)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    splits = offsets[:-1] + rng.integers(0, sizes + 1)
    middle = rng.integers(band[0], band[1] + 1, offsets[-1])
    noise = rng.normal(0, rng.choice([20, 900]), (members, offsets[-1]))
    values = np.clip(middle + noise, 0, 65535).astype(np.uint16)
    peaks = np.empty((members, -(-int(offsets[-1]) // undecided.STRIP)), np.uint16)
    undecided.put_peaks(values, peaks)
    above = rng.choice([0, 0, 5, 400], groups)
    hits = rng.integers(0, above + 1)
    truth = splits - offsets[:-1] + hits + rng.choice([0, 0, 30], groups)
    return UndecidedPixels(values, peaks, offsets, splits, above, hits, truth, sizes + above + truth)


@settings(max_examples=60)
@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(1, 2),
    st.sampled_from(BANDS),
    st.sampled_from(SCORES),
    st.sampled_from([0.0, 1e-4]),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_largest_sum_of_scores_is_the_oracles(
    members: int,
    samples: int,
    sets: int,
    band: tuple[int, int],
    metric: tuple[float, float, float],
    eps: float,
    empty: float,
    fills: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pixels = pixels_of(rng, members, samples * sets, band)
    weights = rng.multinomial(65536, rng.dirichlet(np.ones(members)), sets).astype(np.uint32)
    weights[0] *= np.uint32(seed % 4 > 0)  # a set without a say
    unions = np.column_stack([np.ones(samples, np.bool_), np.arange(samples) % 2 == 0])
    score, peaks = Score(*metric, eps, empty, skip=False), np.empty(2)
    asked = np.arange(samples), unions, weights, fills, *band, score
    coarse.find_peaks(pixels, *asked, 1e-10, np.empty(undecided.STRIP * (1 + seed % 3) + 1, np.uint32), peaks)
    np.testing.assert_allclose(peaks, reference_coarse.peaks(pixels, *asked), rtol=0, atol=1e-9)
