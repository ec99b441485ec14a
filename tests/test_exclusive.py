"""Exclusive classes at the pixel: values, winners and counts against the oracle, in every order, mean and layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import exclusive, tables
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean

Make = Callable[..., ek.LogitStore]
HOSTILE = np.array([np.inf, -np.inf, 0, -0.0, 65504, -65504, 1.5, 1.5, -6e-8, 40], np.float16)


@dataclass(frozen=True)
class Drawn:
    """A member that holds one sample's logits."""

    member: str
    classes: tuple[str, ...]
    activation: Any
    logits: np.ndarray
    where: Placement

    def read(self, sample: str) -> np.ndarray:
        return self.logits

    def placement(self, sample: str) -> Placement:
        return self.where


def oracle(ens: Inputs) -> np.ndarray:
    """F_c of rule 10 of a whole image, int64 (C, H, W)."""
    f, image = ens.fusion, ens.members[0].placement("a").image
    softmax, late, power = ens.activation == "softmax", f.upsample == "logits", f.mean.scale
    cells = []
    for member, t in zip(ens.members, f.temperatures, strict=True):
        z, order = member.read("a"), [member.classes.index(c) for c in ens.classes]
        if late or f.mean.of_logits:
            q = ref.exclusive_q(z, t) if softmax else ref.q(z, t)
        else:
            q = power[ref.softmax_level(z, t) if softmax else ref.level(z, t)]
        cells.append(np.ascontiguousarray(q[order][:, *member.placement("a").box.slices]))
    weights = np.array(f.weights, np.int64)
    if late:
        scores = []
        for own in cells:
            q = np.stack([ref.rounded(ref.interpolate(c, image)) for c in own])
            q = q if f.mean.of_logits else power[ref.shares(q) if softmax else ref.level_of_q(q)]
            scores.append(q.astype(np.int64))
        return np.asarray(sum(w[:, None, None] * s for w, s in zip(weights.T, scores, strict=True)))
    places = [m.placement("a") for m in ens.members]
    if len({(p.grid, p.box) for p in places}) > 1:
        finest = max(places, key=lambda p: p.grid[0] * p.grid[1]).box.shape
        cells = [np.stack([ref.rounded(ref.interpolate(c, finest)) for c in own]) for own in cells]
    fused = [ref.fuse([own[c] for own in cells], list(f.weights[c])) for c in range(len(ens.classes))]
    return np.stack([ref.interpolate(c, image) for c in fused])


def oracle_levels(ens: Inputs, values: np.ndarray) -> np.ndarray:
    return (values + (32768 if ens.fusion.upsample == "logits" else 0)) >> 16


def oracle_label(ens: Inputs, values: np.ndarray, factors: list[int], least: int) -> np.ndarray:
    """The class of every pixel, -1 where there is none."""
    of_logits = ens.fusion.mean.of_logits
    label = ref.winners(values, factors, [ref.offset(w / 65536) for w in factors] if of_logits else None)
    levels = oracle_levels(ens, values)
    if of_logits and ens.activation == "softmax":
        levels = ref.shares(((values + 32768) >> 16).astype(np.uint16))
    label[np.take_along_axis(levels, label[None], 0)[0] < least] = -1
    return label


FUSIONS = [(u, m) for u in ("logits", "scores") for m in ("probability", "logit", "power:0.5", "power:0")]


@st.composite
def drawn_inputs(draw: st.DrawFn, activation: str) -> Inputs:
    upsample, mean = draw(st.sampled_from(FUSIONS))
    classes, count = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    image = draw(st.tuples(st.integers(1, 24), st.integers(1, 40)))
    one_grid, rng = draw(st.booleans()), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    names, members = tuple("abcdef"[:classes]), []
    for k in range(count):
        own = grid if one_grid else (int(rng.integers(1, 13)), int(rng.integers(1, 13)))
        z = smooth_logits(rng, (classes, *own), draw(st.sampled_from([0.3, 6.0, 60.0])))
        hostile = rng.random(z.shape) < draw(st.sampled_from([0, 0.3, 1]))
        z[hostile] = rng.choice(HOSTILE, int(hostile.sum()))
        if upsample == "scores":  # a softmax of infinities is not a number, and stores hold none
            z = np.clip(z, -65504, 65504)
        if draw(st.booleans()):
            z[:] = z[:1]  # equal logits
        y, x = (int(rng.integers(0, n)) for n in own)
        box = (y, x, int(rng.integers(y + 1, own[0] + 1)), int(rng.integers(x + 1, own[1] + 1)))
        where = Placement.of(own, image, box if draw(st.booleans()) else None)
        members.append(Drawn(f"m{k}", tuple(rng.permutation(names).tolist()), activation, z, where))
    temperatures = tuple(draw(st.sampled_from([1.0, 0.3, 2.5])) for _ in members)
    own_names = tuple(m.member for m in members)
    weights = tuple(integer_weights(row, own_names) for row in rng.integers(1, 5, (classes, count)).tolist())
    return Inputs(tuple(members), names, Fusion(Mean.of(mean), upsample, own_names, weights, temperatures))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@given(st.data())
def test_values_winners_and_counts_are_the_oracles(activation: str, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(activation))
    fused, values = open_sample(inputs, "a"), oracle(inputs)
    C, H, W = values.shape
    first = data.draw(st.integers(0, H))
    assert np.array_equal(fused.values(0, H), values)
    assert np.array_equal(fused.values(first, H), values[:, first:])
    factors = data.draw(st.lists(st.sampled_from([65536, 512, 70000, 8388608]), min_size=C, max_size=C))
    levels = oracle_levels(inputs, values)
    least = int(data.draw(st.sampled_from([0, 32768, 65535, int(levels.max()), 65536])))
    label = oracle_label(inputs, values, factors, least)
    decided = fused.winners(factors, least or None).masks((H, W))
    assert decided == [ek.encode(label == c) for c in range(C)]
    chosen = data.draw(st.permutations(range(C)))[: data.draw(st.integers(1, C))]
    wanted = {c: int(data.draw(st.sampled_from([0, 1, 30000, 65535, int(levels[c].max()), 65536]))) for c in chosen}
    assert fused.decide(wanted).masks((H, W)) == [ek.encode(levels[c] >= t) for c, t in wanted.items()]
    cuts = data.draw(st.lists(st.sampled_from([0, 20000, 32768, 65536]), min_size=C, max_size=C))
    able = levels >= np.array(cuts)[:, None, None]
    label = np.where(able.any(0), np.where(able, values, -1).argmax(0), -1)
    assert fused.claims(cuts).masks((H, W)) == [ek.encode(label == c) for c in range(C)]
    truth = np.random.default_rng(C).random((C, H, W)) < 0.4
    bands = {c: data.draw(st.sampled_from([(0, 65536), (1, 65535), (20000, 40000)])) for c in chosen}
    counted = fused.counts(bands, [ek.encode(truth[c]) for c in bands])
    for k, (c, (low, high)) in enumerate(bands.items()):
        pixels, hits = ref.level_counts(levels[c].astype(np.uint16), truth[c])
        pixels, hits = np.append(pixels, 0), np.append(hits, 0)
        occur = low + np.flatnonzero(-np.diff(pixels[low : high + 1]))
        got = counted.of(k)
        assert np.array_equal(got[0], occur)
        assert np.array_equal(got[1], pixels[occur])
        assert np.array_equal(got[2], hits[occur])
        assert got[3:] == (pixels[high], hits[high])
    positions, found = fused.pixels(0, ek.encode(truth[0]))
    assert np.array_equal(positions, np.flatnonzero(truth[0]))
    assert np.array_equal(found, levels[0].reshape(-1)[positions])


@given(st.integers(1, 6), st.integers(1, 5000), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.01, 0.3, 7.5]))
def test_q_of_exclusive_classes(classes: int, cells: int, seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 65536, (classes, cells)).astype(np.uint16).view(np.float16)
    z = np.where(np.isnan(z) | (rng.random(z.shape) < 0.1), rng.choice(HOSTILE, z.shape), z)
    out = np.empty(z.shape, np.uint16)
    exclusive.exclusive_q(z.astype(np.float32), temperature, out)
    assert np.array_equal(out, ref.exclusive_q(z, temperature))


def test_tables_are_the_oracles() -> None:
    assert np.array_equal(tables.exponentials(), ref.exponentials())
    factors = np.array([512, 65535, 65536, 70001, 8388608])
    assert tables.offsets(factors).tolist() == [ref.offset(w / 65536) for w in factors.tolist()]


def test_many_classes_are_counted_in_several_passes(
    make_store: Make, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ens = ek.Ensemble(
        [make_store({"a": smooth_logits(rng, (5, 8, 8))}, (20, 30), tuple("abcde"), activation="softmax")]
    )
    bands = dict.fromkeys(range(5), (0, 65536))
    truth = [ek.encode(rng.random((20, 30)) < 0.5) for _ in range(5)]
    whole = ens.sample("a").counts(bands, truth)
    monkeypatch.setattr("ensemble_kit.scores.exclusive.ROOM", 2 * 16 * 65537)
    parts = ens.sample("a").counts(bands, truth)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
