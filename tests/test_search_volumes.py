"""Searches of weights, members and rules over volumes and windows: what trials look at, and what a search promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import ensemble_kit as ek
from ensemble_kit.decisions.connected import DropSmall
from ensemble_kit.execution.executor import Item, Threads
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.factors import tune_factors
from ensemble_kit.tuning.search import collecting, contending, sizes
from ensemble_kit.tuning.search.undecided import Setting
from ensemble_kit.tuning.search.units import Sizes, rule_of
from ensemble_kit.tuning.truth import Truth
from windowed import CLASSES, IMAGES, WINDOWS, evaluated_alone, made

KINDS = [(3, "whole"), (3, "a crop"), (3, "two crops"), (2, "a crop"), (2, "one window")]
WEIGHTS = ((1, 1), (3, 1), (1, 0), (0, 1))


def case(
    folder: Path, rank: int, windows: str, activation: Any, void: bool = False, **options: Any
) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Members, and as truth what they decide themselves, of one sample moved by a pixel."""
    ens = ek.Ensemble(made(folder, rank, activation, WINDOWS[windows][rank]), **options)
    steps = {"s": 1, "t": 0}
    mixed = {
        (sample, name): ek.encode(np.roll(runs.decode(), steps[sample], axis=-1))
        for (sample, name), runs in ens.vote(ek.Argmax()).items()
    }
    hidden = {"s": ek.encode(np.random.default_rng(0).random(IMAGES[rank]) < 0.1)} if void else {}
    return ens, ek.MaskSet(mixed, void=hidden)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "windows"), KINDS)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("stride", [1, 2])
def test_undecided_pixels_are_those_that_numpy_finds(
    tmp_path: Path, rank: int, windows: str, activation: Any, stride: int
) -> None:
    ens, truth = case(tmp_path, rank, windows, activation, void=True)
    bands = dict.fromkeys(range(3), (15000, 50000))
    build = collecting._Builder(ens.inputs, bands, 1.0)
    image, lattice = IMAGES[rank], np.zeros(IMAGES[rank], bool)
    lattice.reshape(-1, image[-1])[stride // 2 :: stride, stride // 2 :: stride] = True
    for sample in ens.samples:
        found = build.sample(Item(sample, Truth.of(truth, sample, CLASSES)), stride)
        alone = [evaluated_alone(ens, m, sample, activation == "sigmoid") for m in range(2)]
        say = np.array([own.say.any(axis=0) for own in alone])
        hidden = truth.void(sample)
        counts = lattice if hidden is None else lattice & ~hidden.decode()
        for c, name in enumerate(CLASSES):
            low, high = build.bands[c]
            levels, wanted = np.array([own.levels[c] for own in alone]), truth[sample, name].decode()
            for which in ((), (0,), (1,), (0, 1)):
                here = counts & (say == np.isin((0, 1), which).reshape(2, *[1] * rank)).all(axis=0)
                if which not in found[c]:
                    assert not here.any()
                    continue
                part, own = found[c][which], levels[list(which)]
                above = here & (own >= high).all(axis=0) if which else np.zeros_like(here)
                some = here & (own >= low).any(axis=0) & ~above
                assert part.above == above.sum()
                assert (part.above_hits, part.truth) == ((above & wanted).sum(), (here & wanted).sum())
                assert part.inside in {0, here.sum()}
                filled = np.where(np.isin((0, 1), which).reshape(2, *[1] * rank), levels, 0)
                for rows, pixels in (
                    (part.values[: part.hits], some & wanted),
                    (part.values[part.hits :], some & ~wanted),
                ):
                    assert sorted(rows.tolist()) == sorted(filled[:, pixels].T.tolist())


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "windows"), KINDS)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_trial_is_what_the_stores_give(tmp_path: Path, rank: int, windows: str, activation: Any) -> None:
    ens, truth = case(tmp_path, rank, windows, activation)
    measure = Measure()
    table = collecting.collect(ens, truth, dict.fromkeys(range(3), (0, 65536)), executor=Threads(1))
    factors = contending.collect(ens, truth) if activation == "softmax" else None
    for weights in WEIGHTS:
        setting = replace(Setting.uniform(ens), weights=tuple(map(float, weights)))
        fused = setting.applied(ens)
        exact = tune_from(statistics_for(fused, truth, measure), fused, measure)
        assert table.try_setting(setting, measure).score == pytest.approx(exact.score, abs=1e-9)
        if factors is not None:
            best = tune_factors(fused, truth, measure)
            tried = factors.try_setting(setting, measure)
            assert tried.score == round(best.score, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "windows"), KINDS)
@pytest.mark.parametrize("what", ["weights", "greedy", "weights,mean,temperature,post"])
def test_what_a_search_promises_is_what_its_vote_scores(tmp_path: Path, rank: int, windows: str, what: str) -> None:
    ens, truth = case(tmp_path, rank, windows, "sigmoid")
    found = ek.tune_thresholds(ens, truth, search=what)
    masks = ens.as_tuned(found).vote(found)
    assert found.score == pytest.approx(ek.dice(masks, truth).mean, abs=1e-12)
    assert found.score >= ek.tune_thresholds(ens, truth).score - 1e-12 or "mean" in what


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "windows"), KINDS)
def test_a_search_for_argmax(tmp_path: Path, rank: int, windows: str) -> None:
    ens, truth = case(tmp_path, rank, windows, "softmax")
    found = ek.tune_thresholds(ens, truth, search="greedy")
    assert found.decision.kind == "argmax"
    masks = ens.as_tuned(found).vote(found)
    assert found.score == pytest.approx(ek.confusion(masks, truth).miou, abs=1e-12)


def grown(folder: Path, places: list[Geometry | None], seed: int = 0) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Noisy balls in volumes, some of which say how large their voxels are, and the balls as truth."""
    shape, samples = (8, 20, 22), [f"s{k}" for k in range(len(places))]
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    ball = 1.5 - 5 * np.sqrt(sum(a**2 for a in axes))
    rng, truth = np.random.default_rng(seed), {}
    with ek.LogitWriter(folder / "m.zarr", ["ball"], samples, activation="sigmoid", member="m") as out:
        for sample, place in zip(samples, places, strict=True):
            z = (ball + rng.normal(0, 1.2, shape))[None].astype(np.float16)
            out.write(sample, z, shape, geometry=place)
            truth[sample, "ball"] = ek.encode(ball > 0)
    return ek.Ensemble(folder / "m.zarr"), ek.MaskSet(truth)


SPACINGS = [Geometry.of(np.diag([1.0, 1, k, 1])) for k in (1, 2, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("in_mm3", [False, True])
def test_every_level_and_size_counts_as_labelling_a_volume_does(tmp_path: Path, in_mm3: bool) -> None:
    ens, truth = grown(tmp_path, list(SPACINGS))
    tried, low, high = (1.0, 2.0, 3.0, 7.0, 30.0, 1e6), 20000, 60000
    work = sizes.CountSizes(ens.inputs, ((0, (low, high)),), tuple(rule_of(v, in_mm3) for v in tried))
    for sample, place in zip(ens.samples, SPACINGS, strict=True):
        wanted = truth[sample, "ball"].decode()
        ((levels, pred, tp, area),) = work(Item(sample, Truth.of(truth, sample, ["ball"])))
        assert area == wanted.sum()
        for level in (low, 33000, 47111, high):
            row = np.flatnonzero(levels >= level)[-1]
            labels, _ = ndimage.label(ens.sample(sample).runs(0, level).decode(), np.ones((3, 3, 3)))
            voxels = np.bincount(labels.reshape(-1))
            for j, size in enumerate(tried):
                least = int(np.ceil(size / place.voxel_volume)) if in_mm3 else size
                stays = voxels >= least
                stays[0] = False
                assert (pred[row, j], tp[row, j]) == (stays[labels].sum(), (stays[labels] & wanted).sum())


@pytest.mark.slow
@pytest.mark.parametrize("places", [SPACINGS, [None] * 3, [*SPACINGS[:2], None]], ids=["mm3", "voxels", "one unknown"])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_rules_of_volumes_are_searched(tmp_path: Path, places: Any, objective: Any) -> None:
    ens, truth = grown(tmp_path, places)
    found = ek.tune_thresholds(ens, truth, objective=objective, search="post")
    masks = ens.vote(found)
    scored = ek.dice(masks, truth)
    assert found.score == pytest.approx(scored.mean if objective == "mean" else scored.pooled, abs=1e-9)
    assert found.score > ek.tune_thresholds(ens, truth, objective=objective).score + 0.01
    assert found.rules
    assert any("mm3" in rule for rule in found.rules) == (None not in places)
    assert not any("gate" in rule for rule in found.rules) or None in places


def test_a_rule_in_mm3_drops_by_each_samples_spacing(tmp_path: Path) -> None:
    ens, _ = grown(tmp_path, list(SPACINGS))
    own = Sizes.of(ens)
    assert own.in_mm3
    assert own.least(9.999).tolist() == [10, 5, 3]
    assert own.rule(9.999) == DropSmall(min_mm3=10.0)
    tried = own.spread(np.array([[100, 100, 100]]), 5)
    assert tried[0] == 1.0
    assert own.least(tried[0]).tolist() == [1, 1, 1]
    assert tried == sorted(tried)
    assert tried[-1] == 200
    assert Sizes().spread(np.array([[100, 50, 0]]), 3) == [1, 9, 75]
