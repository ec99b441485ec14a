"""Patterns of votes, counted from runs, and expectation maximisation over them, against plain NumPy on bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.decisions.patterns import Ballots, Votes, together
from ensemble_kit.kernels import patterns as kernels
from ensemble_kit.kernels import reference_patterns as reference


def votes_of(maps: np.ndarray, kinds: int, unlabelled: int) -> Votes:
    """Votes of label maps (M, H, W): 0 is no label, 1 … kinds labels, -1 void."""
    masks = [[ek.encode(m == k) for k in range(1, kinds + 1)] for m in maps]
    return Votes.of(masks, [ek.encode(m == -1) for m in maps], maps[0].size, unlabelled)


def table(votes: Votes | Ballots) -> dict[tuple[int, ...], int]:
    return dict(zip(map(tuple, votes.labels.tolist()), votes.pixels.tolist(), strict=True))


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([0, -1]), st.integers(0, 2**32 - 1))
def test_patterns_are_those_of_the_pixels(members: int, kinds: int, unlabelled: int, seed: int) -> None:
    maps = np.random.default_rng(seed).integers(-1, kinds + 1, (members, 5, 9))
    votes = votes_of(maps, kinds, unlabelled)
    wanted = np.where(maps < 0, -1, maps + unlabelled).reshape(members, -1).astype(np.int16)
    assert table(votes) == reference.patterns(wanted)
    assert np.array_equal(votes.labels[np.repeat(votes.which, np.diff(votes.edges, append=45))].T, wanted)
    assert (np.diff(votes.which) != 0).all()  # neighbours of one pattern are one stretch


def test_many_patterns_and_many_members() -> None:
    maps = (np.random.default_rng(0).random((13, 128, 128)) < 0.5).astype(int)
    votes = votes_of(maps, 1, 0)
    assert len(votes.pixels) > 7000
    assert table(votes) == reference.patterns(maps.reshape(13, -1).astype(np.int16))
    wide = votes_of(np.repeat(maps, 8, axis=0), 1, 0)
    assert wide.labels.shape[1] == 104
    assert sorted(wide.pixels) == sorted(votes.pixels)


def test_nobody_marks_anything() -> None:
    votes = votes_of(np.zeros((3, 4, 4), int), 1, 0)
    assert (votes.edges.tolist(), votes.labels.tolist(), votes.pixels.tolist()) == ([0], [[0, 0, 0]], [16])


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_samples_together_are_one_large_sample(samples: int, seed: int) -> None:
    maps = np.random.default_rng(seed).integers(-1, 3, (samples, 3, 4, 5))
    several = [votes_of(own, 2, 0) for own in maps]
    ballots, which = together(several, 3)
    assert table(ballots) == reference.patterns(np.concatenate(maps, axis=1).reshape(3, -1).astype(np.int16))
    for votes, index in zip(several, which, strict=True):
        assert np.array_equal(ballots.labels[index], votes.labels)


@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-120]))
def test_expectation_and_maximisation_are_the_oracles(members: int, kinds: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(-1, kinds, (30, members)), axis=0).astype(np.int16)
    pixels = rng.integers(0, 50, len(labels))
    theta, prior = rng.random((members, kinds, kinds)) * scale, rng.random(kinds)
    theta[:, :, 0] *= rng.random() < 0.8
    weights = np.empty((len(labels), kinds))
    kernels.expect(labels, theta, prior, weights)
    assert weights.tobytes() == reference.expect(labels, theta, prior).tobytes()
    made = np.empty_like(theta)
    kernels.maximise(labels, pixels, weights, made)
    assert made.tobytes() == reference.maximise(labels, pixels, weights).tobytes()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_estimates_are_the_two_in_turn(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(0, 2, (12, 4)), axis=0).astype(np.int16)
    pixels, weights = rng.integers(1, 50, len(labels)), rng.dirichlet((1, 1), len(labels))
    prior, own, last = np.array([0.6, 0.4]), weights.copy(), np.full((4, 2, 2), np.inf)
    theta, made, change = kernels.estimate(labels, pixels, own, prior, 1e-3, most)
    for k in range(made):
        wanted = reference.maximise(labels, pixels, weights)
        weights = reference.expect(labels, wanted, prior)
        moved, last = np.abs(wanted - last).max(), wanted
        assert k == made - 1 or moved > 1e-3
    assert theta.tobytes() == wanted.tobytes()
    assert own.tobytes() == weights.tobytes()
    assert change == moved
    assert made == most or change <= 1e-3


@pytest.mark.parametrize("members", [64, 2000])
def test_many_members_do_not_underflow(members: int) -> None:
    """Half of them are certain of one label, half of the other: products of 1e-10 alone would be 0."""
    labels = np.tile(np.array([0, 1], np.int16), members // 2)[None]
    theta = np.tile(np.array([[1 - 1e-10, 1e-10], [1e-10, 1 - 1e-10]]), (members, 1, 1))
    weights = np.empty((1, 2))
    kernels.expect(labels, theta, np.array([0.25, 0.75]), weights)
    assert weights[0] == pytest.approx([0.25, 0.75])
