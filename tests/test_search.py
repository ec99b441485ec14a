"""The joint search: exact trials, studies that survive being killed, greedy selection, honest scores, refusals."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
import warm
from conftest import smooth_logits, write_store
from ensemble_kit.execution.events import Progress
from ensemble_kit.execution.executor import Threads
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import tables
from ensemble_kit.kernels import undecided as kernels
from ensemble_kit.scores import exclusive, layouts, space
from ensemble_kit.spec.geometry import Box, Placement
from ensemble_kit.spec.mean import LOGIT, PROBABILITY, Mean
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning import gathered_counts, statistics
from ensemble_kit.tuning.class_statistics import ARRAYS
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.search import cleaning, collecting, described, greedy, joint, metric_search, studies
from ensemble_kit.tuning.search.kept_counts import KeptCounts
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.search.samplers import Dimension, Params
from ensemble_kit.tuning.search.shared_trials import SharedTrials
from ensemble_kit.tuning.search.storage import locked
from ensemble_kit.tuning.search.studies import Plan
from ensemble_kit.tuning.search.task import subset
from ensemble_kit.tuning.search.undecided import ClassPixels, Setting, Undecided
from ensemble_kit.tuning.search.units import Sizes

ENSK = Path(sys.executable).with_name("ensk")
IMAGE, CLASSES, NAMES = (40, 50), ("x", "y"), ("a", "b", "c")
BAND = (3277, 62260)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three members of ten samples, on grids of their own: noisy, noisier, and one of no use."""
    rng, folder = np.random.default_rng(7), tmp_path_factory.mktemp("search")
    truth: dict[str, np.ndarray] = {f"s{k}": smooth_logits(rng, (2, 10, 12), 4) - 3 for k in range(10)}
    out = []
    for name, noise, grid in zip(NAMES, (1.0, 3.0, 8.0), ((10, 12), (20, 25), (10, 12)), strict=True):
        logits = {}
        for sample, z in truth.items():
            rows = np.arange(grid[0]) * 10 // grid[0]
            cols = np.arange(grid[1]) * 12 // grid[1]
            logits[sample] = (z[:, rows][:, :, cols] + rng.normal(size=(2, *grid)) * noise).astype(np.float16)
        write_store(folder / f"{name}.zarr", logits, IMAGE, CLASSES, member=name)
        out.append(folder / f"{name}.zarr")
    exact = write_store(folder / "truth.zarr", {s: z.astype(np.float16) for s, z in truth.items()}, IMAGE, CLASSES)
    masks = ek.Ensemble([exact]).vote(0.5)
    empty = ek.Runs.empty(IMAGE)
    masks = ek.MaskSet({k: empty if k[0] in {"s3", "s4"} and k[1] == "y" else v for k, v in masks.items()})
    masks.write(folder / "val.csv", format="handbone")
    return out


@pytest.fixture(scope="session")
def ens(stores: list[Path]) -> ek.Ensemble:
    return ek.Ensemble(stores)


@pytest.fixture(scope="session")
def truth(stores: list[Path]) -> ek.MaskSet:
    return ek.read_masks(stores[0].with_name("val.csv"), format="handbone", image_size=IMAGE)


def both(band: tuple[int, int] = BAND) -> dict[int, tuple[int, int]]:
    return {0: band, 1: band}


# --- the undecided pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [BAND, (328, 65208), (20000, 40000)], ids=["band", "wide", "narrow"])
def test_undecided_pixels_are_those_that_numpy_finds(
    ens: ek.Ensemble, truth: ek.MaskSet, band: tuple[int, int]
) -> None:
    found = collecting.collect(ens, truth, both(band), executor=Threads(1))
    assert found.stride == 1
    for c, name in enumerate(ens.classes):
        own = found.classes[c]
        for s, sample in enumerate(ens.samples):
            images = [ref.rounded(ref.interpolate(ref.q(m.read(sample)[c]), IMAGE)) for m in ens.members]
            wanted = ref.undecided(np.stack(images), truth[sample, name].decode(), own.low, own.high)
            mine = own.values.T[own.offsets[s] : own.offsets[s + 1]]
            split = own.splits[s] - own.offsets[s]
            assert split == wanted[1]
            for part in (slice(None, split), slice(split, None)):
                assert sorted(mine[part].tolist()) == sorted(wanted[0][part].tolist())
            assert (own.above[s], own.above_hits[s], own.truth[s]) == wanted[2:]


@pytest.mark.parametrize("stride", [1, 3, 70])
def test_undecided_pixels_of_exclusive_classes(stride: int, rng: np.random.Generator) -> None:
    """Members' shares of the pixel are what is kept: of all classes together, from grids of their own."""
    boxes = [Box(0, 0, 10, 12), Box(2, 1, 20, 25)]
    placements = [Placement((20, 25), box, IMAGE) for box in boxes]
    codes = [exclusive.q(smooth_logits(rng, (3, 20, 25), 3), 1.0) for _ in boxes]
    order = np.array([[0, 2], [1, 1], [2, 0]])
    images = []
    for code, box, own in zip(codes, boxes, order.T, strict=True):
        inside = [np.ascontiguousarray(code[c][box.slices]) for c in own]
        images.append(ref.shares(np.stack([ref.rounded(ref.interpolate(z, IMAGE)) for z in inside])))
    truth = rng.random((3, *IMAGE)) < 0.4
    truth[1], truth[2, :, 3:] = True, False
    scoring = layouts.scoring(layouts.Recipe("shares", (1.0,) * 2, LOGIT, interpolate_members=True))
    laid = layouts.members(codes, placements, order, np.ones((3, 2), int)), scoring
    few, band = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride)), (20000, 40000)
    found = exclusive.undecided(laid, space.of_whole(placements), [band] * 3, stride, [ek.encode(t) for t in truth])
    for c in range(3):
        wanted = ref.undecided(np.stack([i[c] for i in images])[few], truth[c][few[1:]], *band)
        assert found[c][1:] == wanted[1:]
        for part in (slice(None, wanted[1]), slice(wanted[1], None)):
            assert sorted(found[c][0][part].tolist()) == sorted(wanted[0][part].tolist())


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 40, 70])
@pytest.mark.parametrize("image", [(40, 50), (33, 70), (5, 1)], ids=str)
def test_every_stride_th_pixel_is_gathered(image: tuple[int, int], stride: int, rng: np.random.Generator) -> None:
    boxes = [Box(0, 0, 10, 12), Box(2, 1, 20, 25), Box(0, 3, 9, 11)]
    placements = [Placement((20, 25), box, image) for box in boxes]
    grids = [np.ascontiguousarray(smooth_logits(rng, (1, 20, 25), 6)) for _ in boxes]
    inside = [g[0][b.slices] for g, b in zip(grids, boxes, strict=True)]
    few = (slice(stride // 2, None, stride),) * 2
    images = np.stack([ref.rounded(ref.interpolate(ref.q(z), image))[few] for z in inside])
    truth = rng.random(image) < 0.4
    scoring = layouts.scoring(layouts.Recipe("q", (1.0,) * 3, LOGIT, interpolate_members=True))
    laid = layouts.members([g.view(np.uint16) for g in grids], placements, np.zeros((1, 3), int), np.ones((1, 3), int))
    band = (30000, 36000)
    keys = np.searchsorted(np.maximum.accumulate(scoring.by_key[0]), band) - 32768
    runs = ek.encode(truth)
    axes = layouts.axes(tuple(b.shape for b in boxes), image)
    found = kernels.gather(
        0, laid, scoring, axes, *band, *np.repeat(keys[:, None], 3, 1), stride, runs.starts, runs.ends
    )
    wanted = ref.undecided(images, truth[few], *band)
    assert found[1:] == wanted[1:]
    for part in (slice(None, wanted[1]), slice(wanted[1], None)):
        assert sorted(found[0][part].tolist()) == sorted(wanted[0][part].tolist())


def brute_force(ens: ek.Ensemble, truth: ek.MaskSet, measure: Measure, low: int, high: int) -> tuple[float, ...]:
    """Best score of each class over the levels low … high, from counts of every level."""
    every = np.arange(len(ens.samples))
    tables_ = statistics.count(ens, truth, {0: (0, 65536), 1: (0, 65536)}, Threads(1))
    curves = [Curve(tables_[c], measure, [every]).scores([0])[low : high + 1] for c in (0, 1)]
    return tuple(float(curve.max()) for curve in curves)


@pytest.mark.parametrize("objective", ["mean", "pooled"])
@pytest.mark.parametrize("empty", [1, 0, "skip"])
@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_a_trial_is_exact(ens: ek.Ensemble, truth: ek.MaskSet, objective: Any, empty: Any, mean: str) -> None:
    rng = np.random.default_rng(len(objective) + 7 * len(mean))
    measure = Measure(
        objective, str(rng.choice(["dice", "iou", "f2"])), Convention(float(rng.choice([0, 1e-4])), empty)
    )
    ens = ek.Ensemble(ens.members, mean=mean)
    band = BAND if mean == "probability" else (20000, 45000)
    table = collecting.collect(ens, truth, both(band), executor=Threads(2))
    summed = collecting.collect(ens, truth, both(band), executor=Threads(1), by_weights=True)
    own = table.classes[0]
    scale = tables.q_levels() if mean == "probability" else tables.identity()
    low, high = int(scale[own.low - 1]) + 1, int(scale[own.high])
    for k in range(12):
        weights = tuple(rng.random(3).round(3)) if k > 3 else ((1.0,) * 3, (1.0, 0, 0), (0, 0, 1.0), (0, 3.0, 1))[k]
        setting = Setting(weights, Mean.of(mean), (1.0,) * 3)
        trial = table.try_setting(setting, measure, jobs=1 + k % 2)
        assert summed.try_setting(setting, measure) == trial
        fused = setting.applied(ens)
        wanted = brute_force(fused, truth, measure, low, high)
        if empty != "skip":  # with skipped pairs classes weigh by how many of theirs count
            assert trial.score == pytest.approx(np.mean(wanted), abs=1e-11)
        masks = fused.vote([level / 65535 for level in trial.levels]) if mean == "probability" else None
        if masks is not None:
            counts = metric_search.counts(masks, truth, ens.classes)
            assert measure.of_all(*counts) == pytest.approx(trial.score, abs=1e-11)
            per_class = [measure.of_class(*(v[c] for v in counts)) for c in (0, 1)]
            assert per_class == pytest.approx(wanted, abs=1e-11)


def test_a_trial_on_some_samples_is_one_of_an_ensemble_of_them(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    table = collecting.collect(ens, truth, both())
    some = np.array([1, 2, 5, 8])
    part, its_truth = subset(ens, truth, some)
    alone = collecting.collect(part, its_truth, both())
    setting = Setting((0.2, 0.5, 0.3), PROBABILITY, (1.0,) * 3)
    assert table.try_setting(setting, Measure(), some) == alone.try_setting(setting, Measure())


@pytest.mark.parametrize("objective", ["mean", "pooled"])
@pytest.mark.parametrize("empty", [1, "skip"])
@pytest.mark.parametrize("by_weights", [False, True])
def test_trials_on_several_unions_of_samples_are_those_on_each(
    ens: ek.Ensemble, truth: ek.MaskSet, objective: Any, empty: Any, by_weights: bool
) -> None:
    table = collecting.collect(ens, truth, both(), by_weights=by_weights)
    measure, every = Measure(objective, convention=Convention(0, empty)), np.arange(10)
    unions = [every, every[2:7], every[::3], every[3:5]]  # s3 and s4 lack a class
    shared = SharedTrials(table, unions[:3])
    for weights in ((1.0, 1.0, 1.0), (0.2, 0.5, 0.3), (0.0, 1.0, 0.0)):
        setting = Setting(weights, PROBABILITY, (1.0,) * 3)
        alone = [table.try_setting(setting, measure, union) for union in unions]
        assert table.try_on(setting, measure, unions) == alone
        assert [shared.try_setting(setting, measure, union) for union in (*unions, None)] == [*alone, alone[0]]


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 6), st.sampled_from(["dice", "iou", "f2", "f0.5"]), st.sampled_from([0, 1]),
       st.sampled_from([0.0, 1e-4, 1.0]), st.integers(0, 10**6))  # fmt: skip
def test_an_estimate_is_the_score_of_a_trial(
    members: int, samples: int, metric: str, empty: Any, eps: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low, high = [(3277, 62260), (0, 65536), (20000, 20100), (65000, 65536), (40000, 40000), (1, 512)][seed % 6]
    sets = [(), ((0,), tuple(range(members)))][seed % 2]
    groups, classes = samples * max(len(sets), 1), []
    for spread in (9000, 300):
        sizes = rng.choice([0, 0, 1, 31, 32, 90, 700], groups)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        splits = offsets[:-1] + rng.integers(0, sizes + 1) * rng.integers(0, 2, groups)
        middle = rng.integers(low, high + 1, offsets[-1]) if seed % 3 else np.full(offsets[-1], (low + high) // 2)
        values = np.clip(middle + rng.normal(0, spread, (members, offsets[-1])), 0, 65535).astype(np.uint16)
        above = rng.choice([0, 0, 5, 400], groups)
        hits = rng.integers(0, above + 1)
        truth = splits - offsets[:-1] + hits + rng.choice([0, 0, 30], groups)
        inside = sizes + above + truth
        classes.append(ClassPixels(low, high, values, offsets, splits, above, hits, truth, inside, bool(seed % 5 == 0)))
    table = Undecided(tuple("abcde"[:members]), (1.0,) * members, "summed", 1, tuple(classes), sets)
    measure = Measure("mean", metric, Convention(eps, empty))
    unions = [np.arange(samples), np.arange(samples)[::2], np.array([samples - 1])]
    assert table.can_estimate(measure)
    for weights in (rng.integers(0, 3, members) + (np.arange(members) == 0), rng.random(members)):
        setting = Setting(tuple(float(w) for w in weights), PROBABILITY, (1.0,) * members)
        wanted = [trial.score for trial in table.try_on(setting, measure, unions)]
        assert table.estimate_on(setting, measure, unions) == pytest.approx(wanted, abs=1e-10)
        shared = SharedTrials(table, unions)
        for union, score in zip(unions, wanted, strict=True):
            least, most = shared.bound(setting, measure, union)
            assert least < score < most


@pytest.mark.parametrize("in_file", [False, True])
def test_counts_of_a_fold_are_taken_from_those_of_all_samples(
    in_file: bool, ens: ek.Ensemble, truth: ek.MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a fold are in a file where those of all samples are."""
    if in_file:
        monkeypatch.setattr(gathered_counts, "AT_ONCE", 10_000)
        monkeypatch.setattr(gathered_counts, "HELD", 20_000)
    passes: list[Progress] = []
    kept = KeptCounts(ens, truth, Threads(1), lambda event: passes.append(event) if event.done == 0 else None)
    fused = [
        ens.with_fusion(weights=dict(zip(NAMES, w, strict=True))) for w in ((1, 1, 1), (1, 2, 3), (3, 1, 1), (5, 1, 0))
    ]
    some, wide = np.array([1, 2, 5, 8]), {0: BAND, 1: (328, 65208)}
    part, its_truth = subset(ens, truth, some)

    def check(k: int, bands: dict[int, tuple[int, int]], counted: int) -> None:
        before = len(passes)
        taken = kept.take(fused[k].fusion, bands, some)
        assert len(passes) - before == counted
        wanted = statistics.count(part.with_fusion(fused[k].fusion), its_truth, bands, Threads(1))
        assert taken.keys() == wanted.keys()
        for c, table in taken.items():
            for name in ("low", "high", *ARRAYS):
                assert np.array_equal(getattr(table, name), getattr(wanted[c], name)), name
            assert (table.mapped is None) is not in_file

    check(0, both(), 1)
    check(0, {1: (20000, 30000)}, 0)
    check(0, wide, 1)
    check(0, both(), 0)
    for k in (1, 2, 3):
        check(k, both(), 1)
    check(2, both(), 0)
    check(0, both(), 1)  # the first made room


def test_a_nested_search_counts_each_fusion_once(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    passes: list[Progress] = []
    found = joint.tune(
        ens, truth, Measure(), "greedy", 3, listener=lambda event: passes.append(event) if event.done == 0 else None
    )
    chosen = {tuple(fold["weights"]) for fold in found.search["nested"]["folds"]}
    fusions = {(21846, 21845, 21845), found.fusion.weights[0], *chosen}
    assert sum(event.verb == "counting" for event in passes) <= len(fusions) + 2  # and bands that are widened


@pytest.mark.parametrize("choose", ["own", "bagged", "shrunk", "shared"])
def test_thresholds_are_the_same_whether_they_are_judged_or_not(
    ens: ek.Ensemble, truth: ek.MaskSet, choose: Any
) -> None:
    measure = Measure()
    counted = statistics_for(ens, truth, measure, 3)
    judged, plain = (tune_from(counted, ens, measure, 3, choose=choose, judged=judged) for judged in (True, False))
    assert judged.validation.crossed is not None
    assert plain == replace(judged, validation=replace(judged.validation, crossed=None), created=plain.created)


def test_temperatures_and_scores_are_nearly_exact(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    table = collecting.collect(ens, truth, both((328, 65208)), hottest=3.0)
    setting = Setting((1.0, 0.5, 0.1), PROBABILITY, (2.0, 0.7, 3.0))
    wanted = brute_force(setting.applied(ens), truth, Measure(), 3277, 62260)
    assert table.try_setting(setting, Measure()).score == pytest.approx(np.mean(wanted), abs=2e-3)
    coarse = ek.Ensemble([ens.members[0], ens.members[2]], upsample="scores")
    table = collecting.collect(coarse, truth, both())
    assert table.kind == "level"
    setting = Setting((1.0, 0.2), PROBABILITY, (1.0,) * 2)
    wanted = brute_force(setting.applied(coarse), truth, Measure(), 3277, 62260)
    assert table.try_setting(setting, Measure()).score == pytest.approx(np.mean(wanted), abs=1e-3)


def test_memory_is_kept_by_looking_at_fewer_pixels(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    whole = collecting.collect(ens, truth, both())
    thin = collecting.collect(ens, truth, both(), memory=whole.bytes // 3)
    assert thin.stride == 2
    assert thin.bytes <= whole.bytes // 3
    setting = Setting((1.0,) * 3, PROBABILITY, (1.0,) * 3)
    assert thin.try_setting(setting, Measure()).score == pytest.approx(
        whole.try_setting(setting, Measure()).score, abs=0.05
    )
    tuned = joint.tune(ens, truth, Measure(), Search(("weights",), trials=3, memory=whole.bytes // 3))
    assert f"one pixel of {tuned.search['stride'] ** 2} " in " ".join(described.describe(tuned))
    assert tuned.score == ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=6), min_size=1, max_size=5),
       st.integers(1, 6), st.integers(0, 4))  # fmt: skip
def test_kept_components_are_those_of_plain_python(groups: list[list[tuple[int, int]]], least: int, most: int) -> None:
    offsets = np.cumsum([0, *(len(g) for g in groups)])
    areas = np.array([a for g in groups for a, _ in g], np.int64)
    hits = np.array([min(a, h) for g in groups for a, h in g], np.int64)
    pred, tp = np.empty(len(groups), np.int64), np.empty(len(groups), np.int64)
    kernels.kept_components(offsets, areas, hits, np.array([least]), most, pred, tp)
    for k, group in enumerate(groups):
        own = [a for a, _ in group], [min(a, h) for a, h in group]
        assert (pred[k], tp[k]) == ref.kept_components(*own, least, most)


# --- the power of the mean -----------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.0, 0.05, 0.5, 0.95])
def test_power_tables_are_monotone_and_end_at_the_ends(r: float) -> None:
    table = tables.power_table(r)
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (table[0], table[-1]) == (0, 65535)
    s = np.array([1, 700, 30000, 65000])
    exact = 65535 * ((s / 65535) ** r if r else np.maximum(0, 1 + np.log2(s / 65535) / 16))
    assert np.abs(table[s] - exact).max() <= 0.5 + 1e-9
    back = tables.probability_of_power(table[s], r)
    assert back[1:] == pytest.approx(s[1:] / 65535, rel=1e-3 if r > 0.05 else 0.05)


@pytest.mark.parametrize("upsample", ["logits", "scores"])
@pytest.mark.parametrize("r", [0.0, 0.5])
def test_a_power_mean_votes_as_numpy_does(ens: ek.Ensemble, r: float, upsample: Any) -> None:
    two = ek.Ensemble([ens.members[0], ens.members[2]], weights=[2, 1], mean=f"power:{r:g}", upsample=upsample)
    scale, level = tables.power_table(r), two.level_of(0.3)
    assert level == int(65535 * (0.3**r if r > 0 else 1 + np.log2(0.3) / 16) + 0.5)
    for sample in ens.samples[:3]:
        for c in (0, 1):
            logits = [m.read(sample)[c] for m in two.members]
            if upsample == "logits":
                images = [ref.rounded(ref.interpolate(ref.q(z), IMAGE)) for z in logits]
                values = ref.fuse([scale[ref.level_of_q(p)] for p in images], list(two.fusion.weights[0]))
            else:
                grid = ref.fuse([scale[ref.level(z)] for z in logits], list(two.fusion.weights[0]))
                values = ref.image_from_scores(grid, IMAGE)
            assert (two.sample(sample).runs(c, level).decode() == (values >= level)).all()


def test_means_that_are_none_are_refused(ens: ek.Ensemble) -> None:
    for mean in ("power:1", "power:-0.1", "power:x", "power", "harmonic", "power:nan"):
        with pytest.raises(ek.UsageError, match="0 <= R < 1"):
            ek.Ensemble(ens.members, mean=mean)


# --- greedy --------------------------------------------------------------------------------------------------


@given(st.integers(2, 4), st.integers(1, 5), st.integers(0, 10**6))
def test_greedy_is_what_plain_python_does(members: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values: dict[tuple[float, ...], float] = {}

    def objective(counts: tuple[int, ...]) -> float:
        share = tuple(round(n / sum(counts), 9) for n in counts)
        return values.setdefault(share, float(rng.integers(0, 9)))

    names = [f"m{k}" for k in range(members)]

    def bound(counts: tuple[int, ...]) -> tuple[float, float]:
        own = np.random.default_rng([seed, *counts])
        return objective(counts) - own.integers(0, 3), objective(counts) + own.integers(0, 3)

    found = greedy.select(names, objective, steps)
    assert greedy.select(names, objective, steps, bound=bound) == found
    counts, scores = [0] * members, []
    for _ in range(steps):
        tried = [[n + (j == k) for j, n in enumerate(counts)] for k in range(members)]
        counts = max(tried, key=lambda t: objective(tuple(t)))
        scores.append(objective(tuple(counts)))
    kept = int(np.argmax(scores)) + 1
    assert (found.score, found.kept) == (max(scores), kept)
    assert np.bincount(found.path[:kept], minlength=members).tolist() == list(found.counts)


def test_greedy_finds_the_best_of_all_small_ensembles(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    table = collecting.collect(ens, truth, both())
    start = Setting.uniform(ens)

    def score(counts: tuple[int, ...]) -> float:
        return table.try_setting(Setting(counts, start.mean, start.temperatures), Measure()).score

    every = {c: score(c) for c in itertools.product(range(4), repeat=3) if sum(c) in {1, 2, 3}}
    found = greedy.select(ens.fusion.members, score, 3)
    assert found.score == max(every.values())
    tuned = ek.tune_thresholds(ens, truth, search="greedy")
    assert tuned.search["method"] == "greedy"
    assert tuned.score >= found.score - 1e-11
    assert tuned.score == ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean


# --- studies -------------------------------------------------------------------------------------------------

SPACE = [Dimension("u", 0, 1, grid=(0.0, 0.5, 1.0)), Dimension("v", 1, 100, log=True, grid=(1, 10, 100))]
FIRST = {"u": 0.9, "v": 90.0}


def hill(params: Params) -> float:
    return -((params["u"] - 0.3) ** 2) - (np.log(params["v"] / 7) ** 2) / 10


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "grid"])
def test_a_resumed_study_ends_as_one_that_was_not_stopped(sampler: Any, tmp_path: Path) -> None:
    whole = studies.run(Plan(30, sampler=sampler), SPACE, [FIRST], hill, {})
    assert whole.trials[0] == hill(FIRST)
    url = f"sqlite:///{tmp_path}/study.db"
    for trials in (1, 7, 8, 30):
        part = studies.run(Plan(trials, None, url, "s", sampler), SPACE, [FIRST], hill, {"a": 1})
        assert part.trials == whole.trials[:trials]
    assert (part.best, part.value, part.number) == (whole.best, whole.value, whole.number)
    if sampler == "grid":
        assert whole.stopped == "grid exhausted"
        assert len(whole.trials) == 1 + 9
    else:
        assert whole.value > -0.05
        assert studies.run(Plan(30, sampler=sampler, seed=1), SPACE, [FIRST], hill, {}).trials != whole.trials


def test_a_study_can_be_opened_by_optuna(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    done = studies.run(Plan(5, None, url, "s"), SPACE, [FIRST], hill, {"a": 1})
    study = optuna.load_study(study_name="s", storage=url)
    assert [t.value for t in study.trials] == list(done.trials)
    assert study.best_params == done.best
    assert study.trials[0].params == FIRST
    assert {t.state.name for t in study.trials} == {"COMPLETE"}


def test_studies_of_something_else_and_broken_storages_are_refused(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"

    def again(about: dict[str, Any], **changed: Any) -> None:
        studies.run(Plan(**{"trials": 3, "storage": url, "study": "s", **changed}), SPACE, [FIRST], hill, about)

    again({"a": 1})
    for about, changed in (({"a": 2}, {}), ({"a": 1}, {"seed": 5}), ({"a": 1}, {"sampler": "grid"})):
        with pytest.raises(ek.MismatchError, match="is of another") as caught:
            again(about, **changed)
        assert (caught.value.code, caught.value.exit_code) == ("study-differs", 6)
    foreign = optuna.create_study(study_name="theirs", storage=url, direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ek.MismatchError, match="theirs"):
        again({"a": 1}, study="theirs")
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no database at all, but long enough to be taken for one" * 99)
    for storage, code, exit_code in (
        (f"sqlite:///{bad}", "storage-damaged", 3),
        ("nonsense", "storage-invalid", 2),
        ("what://x", "storage-invalid", 2),
        (f"sqlite:///{tmp_path}/no/such.db", "storage-invalid", 2),
    ):
        with pytest.raises(ek.EnskError) as caught_other:
            again({"a": 1}, storage=storage)
        assert (caught_other.value.code, caught_other.value.exit_code) == (code, exit_code)
    with locked(f"sqlite:///{tmp_path}/study.db"), pytest.raises(ek.LockedError, match="in use"):
        again({"a": 1})
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE trial_values SET value = 'junk' WHERE trial_id = 2")
    with pytest.raises(ek.DamagedError):
        again({"a": 1})
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE alembic_version SET version_num = 'v9.9.9.z'")
        db.execute("UPDATE version_info SET schema_version = 99")
    with pytest.raises(ek.UsageError) as refused:
        again({"a": 1})
    assert (refused.value.code, refused.value.exit_code) == ("storage-version", 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_objective_that_is_not_a_finite_number_is_refused(value: float) -> None:
    with pytest.raises(ek.DamagedError, match=f"trial 0 scored {value}"):
        studies.run(Plan(5), SPACE, [FIRST], lambda _: value, {})


def test_nothing_but_skipped_pairs_is_refused(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    low = ek.Ensemble(ens.members)
    nothing = ek.MaskSet(dict.fromkeys(truth, ek.Runs.empty(IMAGE)))
    table = collecting.collect(low, nothing, both())
    assert np.isfinite(table.try_setting(Setting.uniform(low), Measure(convention=Convention(0, "skip"))).score)
    none = np.zeros(0, np.int64)
    assert np.isnan(table.try_setting(Setting.uniform(low), Measure(), none).score)


def test_timeout_ends_a_study_with_the_best_so_far() -> None:
    def slow(params: Params) -> float:
        time.sleep(0.02)
        return hill(params)

    done = studies.run(Plan(10**6, timeout=0.2), SPACE, [FIRST], slow, {})
    assert done.stopped == "timeout"
    assert 1 <= len(done.trials) < 50
    assert done.value == max(done.trials)


# --- the whole search ----------------------------------------------------------------------------------------


def test_a_search_beats_or_equals_the_uniform_ensemble_and_is_deterministic(
    stores: list[Path], ens: ek.Ensemble, truth: ek.MaskSet
) -> None:
    plain = ek.tune_thresholds(ens, truth)
    tuned = ek.tune_thresholds(ens, truth, search=Search(("weights",), trials=25))
    assert tuned.score > plain.score
    assert tuned.search["uniform"]["in_sample"] == pytest.approx(plain.score, abs=1e-9)
    assert tuned.score == pytest.approx(tuned.search["best"], abs=1e-9)
    assert tuned.score == ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean
    other = ek.tune_thresholds(ek.Ensemble(stores[::-1]), truth, search=Search(("weights",), trials=25), jobs=1)
    assert other.to_dict() == tuned.to_dict()
    ours = dict(zip(tuned.fusion.members, tuned.fusion.weights[0], strict=True))
    assert ours["a"] > ours["c"]


def test_all_that_can_be_searched_is_searched_at_once(ens: ek.Ensemble, truth: ek.MaskSet, tmp_path: Path) -> None:
    wanted = Search(("weights", "temperature", "post"), trials=12, sampler="cmaes")
    tuned = joint.tune(ens, truth, Measure(), wanted)
    assert tuned.score == ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean
    assert set(tuned.search["post"]["params"]) >= {"drop-small", "keep-largest", "fill-holes"}
    tuned.save(tmp_path / "set.json")
    assert ek.ThresholdSet.load(tmp_path / "set.json").to_dict() == tuned.to_dict()


def test_rules_are_found_where_they_help(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    logits, masks = {}, {}
    for k in range(6):
        z = np.full((1, 40, 50), -6.0)
        z[0, 8:30, 10:36] = 4
        z[0, 15:18, 20:23] = -6  # a hole
        specks = rng.random((40, 50)) < 0.02
        z[0][specks] = 5
        logits[f"s{k}"] = z.astype(np.float16)
        mask = np.zeros(IMAGE, bool)
        mask[8:30, 10:36] = True
        masks[f"s{k}", "x"] = ek.encode(mask)
    ens = ek.Ensemble([write_store(tmp_path / "m.zarr", logits, IMAGE, ("x",))])
    truth = ek.MaskSet(masks)
    tuned = ek.tune_thresholds(ens, truth, search=Search(("post",), trials=30))
    assert tuned.score > ek.tune_thresholds(ens, truth).score + 0.02
    assert "fill-holes" in tuned.rules
    assert tuned.score == ek.dice(ens.vote(tuned), truth).mean
    assert cleaning.rules_of({"drop-small": 1, "keep-largest": 0, "fill-holes": 0}, Sizes()) == ()


def test_softmax_members_are_searched_too(tmp_path: Path, truth: ek.MaskSet, rng: np.random.Generator) -> None:
    members = []
    for name in ("p", "q"):
        logits = {}
        for sample in truth.samples:
            inside = np.stack([truth[sample, c].decode()[2::4, 2::4] for c in CLASSES])
            first = np.where(inside.any(0), 0, 3)
            logits[sample] = (np.stack([first, *(3.0 * inside)]) + rng.normal(size=(3, 10, 12)) * 2).astype(np.float16)
        members.append(
            write_store(tmp_path / f"{name}.zarr", logits, IMAGE, ("rest", *CLASSES), activation="softmax", member=name)
        )
    ens = ek.Ensemble(members)
    nothing = {(s, "rest"): ek.Runs.empty(IMAGE) for s in truth.samples}
    whole = ek.MaskSet({**truth, **nothing})
    tuned = ek.tune_thresholds(ens, whole, search=Search(("weights",), trials=8), decide="threshold")
    assert tuned.score == ek.dice(ens.as_tuned(tuned).vote(tuned), whole).mean
    assert tuned.score == pytest.approx(tuned.search["best"], abs=2e-3)
    with pytest.raises(ek.UsageError, match="softmax"):
        ek.tune_thresholds(ens, whole, search="temperature", decide="threshold")


@pytest.mark.slow
def test_a_searched_set_fits_the_schema(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    import jsonschema

    schema = json.loads((Path(__file__).parent.parent / "thresholds/schema.json").read_text())
    tuned = joint.tune(ens, truth, Measure(), Search(("weights", "post"), trials=4), folds=3)
    jsonschema.validate(json.loads(json.dumps(tuned.to_dict())), schema)


def test_out_of_fold_scores_are_of_the_whole_procedure(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    """The nested score, done by hand: tune without a fold, vote the fold, score all folds' masks together."""
    wanted = Search(("weights",), trials=6)
    tuned = joint.tune(ens, truth, Measure(), wanted, folds=3, choose="own")
    folds = make_folds(ens.samples, 3, None, 0)
    masks: dict[tuple[str, str], ek.Runs] = {}
    uniform: dict[tuple[str, str], ek.Runs] = {}
    for k, fold in enumerate(folds):
        rest = np.sort(np.concatenate([f for j, f in enumerate(folds) if j != k]))
        part, its_truth = subset(ens, truth, rest)
        chosen = joint.tune(part, its_truth, Measure(), wanted)
        assert list(chosen.fusion.weights[0]) == tuned.search["nested"]["folds"][k]["weights"]
        held, _ = subset(ens, truth, fold)
        masks.update(held.as_tuned(chosen).vote(chosen))
        uniform.update(held.vote(ek.tune_thresholds(part, its_truth)))
    nested = tuned.search["nested"]
    assert ek.dice(ek.MaskSet(masks), truth).mean == pytest.approx(nested["out_of_fold"], abs=1e-9)
    assert ek.dice(ek.MaskSet(uniform), truth).mean == pytest.approx(nested["uniform_out_of_fold"], abs=1e-9)
    crossed = tuned.validation.crossed
    assert crossed is not None
    assert crossed.scores["tuned"] == pytest.approx(nested["out_of_fold"], abs=1e-9)
    assert "gain over uniform" in " ".join(described.describe(tuned))


def test_what_cannot_be_searched_is_refused(ens: ek.Ensemble, truth: ek.MaskSet, tmp_path: Path) -> None:
    for what in ("", "weights,weights", "greedy,weights", "speed"):
        with pytest.raises(ek.UsageError, match="what="):
            ek.tune_thresholds(ens, truth, search=what)
    for bad in ({"trials": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"sampler": "magic"}):
        with pytest.raises(ek.UsageError):
            Search(**bad)  # type: ignore[arg-type]
    alone = ek.Ensemble([ens.members[0]])
    with pytest.raises(ek.UsageError, match="of one member"):
        ek.tune_thresholds(alone, truth, search="weights")
    with pytest.raises(ek.UsageError, match="mean='logit'"):
        ek.tune_thresholds(ek.Ensemble(ens.members, mean="logit"), truth, search="mean")
    one = ens.members[0]
    with ek.LogitWriter(tmp_path / "twin.zarr", one.classes, one.samples, one.grid, member=one.member) as out:
        for k, s in enumerate(one.samples):
            out.write(s, one.read(s) if k else -one.read(s), one.image_size(s), one.box(s))
    with pytest.raises(ek.MismatchError, match="tell members apart"):
        ek.tune_thresholds(ek.Ensemble([one, tmp_path / "twin.zarr"]), truth, search="weights")
    with pytest.raises(ek.UsageError, match="one parameter"):
        ek.tune_thresholds(ens, truth, search=Search(("mean",), trials=3, sampler="cmaes"))


# --- a metric of one's own -----------------------------------------------------------------------------------


def test_a_metric_of_ones_own_is_maximised_and_compared(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    def worst(prediction: ek.MaskSet, wanted: ek.MaskSet) -> float:
        return float(np.min(ek.dice(prediction, wanted, empty=1).values))

    found = metric_search.tune(ens, truth, worst, Plan(15), name="worst", folds=3)
    exact = ek.tune_thresholds(ens, truth)
    assert found.search["exact_optimum"] == pytest.approx(worst(ens.vote(exact), truth), abs=1e-9)
    assert found.search["half"] == pytest.approx(worst(ens.vote(0.5), truth), abs=1e-9)
    assert found.search["best"] == pytest.approx(worst(ens.vote(found), truth), abs=1e-9)
    assert found.search["best"] >= max(found.search["exact_optimum"], found.search["half"])
    assert found.score == ek.dice(ens.vote(found), truth).mean
    assert set(found.search["nested"]) == {"folds", "out_of_fold", "exact_out_of_fold"}
    assert len(metric_search.describe(found)) == 2
    same = metric_search.tune(ens, truth, metric_search.of_measure(Measure()), Plan(4), name="dice")
    assert same.levels == exact.levels


def test_metrics_that_fail_are_named(ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    with pytest.raises(ek.DamagedError, match="scored nan with"):
        metric_search.tune(ens, truth, lambda p, t: float("nan"), Plan(3))
    with pytest.raises(ek.UsageError, match="'own': ZeroDivisionError"):
        metric_search.tune(ens, truth, lambda p, t: 1 / 0, Plan(3))
    with pytest.raises(ek.UsageError, match="nothing_here"):
        metric_search.load("nothing_here:at_all")
    with pytest.raises(ek.UsageError, match="not callable"):
        metric_search.load("math:pi")


# --- the command line ----------------------------------------------------------------------------------------


def command(stores: list[Path], out: Path, *more: object) -> list[str]:
    val = stores[0].with_name("val.csv")
    words = [
        "ensk",
        "tune-thresholds",
        *stores,
        "--val",
        val,
        "--format",
        "handbone",
        "--out",
        out,
        "--folds",
        0,
        *more,
    ]
    return [str(w) for w in words]


def ensk(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(*words, cwd=cwd)


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_end(stores: list[Path], tmp_path: Path) -> None:
    options = ("--search", "weights", "--trials", 30, "--study", "s")
    whole = ensk(tmp_path, *command(stores, tmp_path / "whole.json", *options))
    assert whole.returncode == 0, whole.stderr
    words = command(stores, tmp_path / "killed.json", *options, "--storage", "sqlite:///killed.db")
    process = warm.Process(*words, cwd=tmp_path)
    for _ in range(600):
        if finished(tmp_path / "killed.db") >= 5 or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.json").exists()
    before = finished(tmp_path / "killed.db")
    assert 5 <= before < 30
    again = ensk(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert finished(tmp_path / "killed.db") == 30
    other = ensk(tmp_path, *command(stores[:2], tmp_path / "o.json", *options, "--storage", "sqlite:///killed.db"))
    assert (other.returncode, "error[study-differs]" in other.stderr) == (6, True)


def finished(path: Path) -> int:
    """Trials that a study file holds."""
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.1) as db:
            return int(db.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.slow
def test_an_interrupted_search_says_the_best_and_writes_nothing(stores: list[Path], tmp_path: Path) -> None:
    words = command(stores, tmp_path / "set.json", "--search", "weights", "--trials", 10**6)
    words += ["--storage", "sqlite:///s.db"]
    process = warm.Process(*words, cwd=tmp_path)
    while finished(tmp_path / "s.db") < 3 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "ended while searching: best 0." in talk
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"]


@pytest.mark.slow
def test_the_command_line_searches(stores: list[Path], tmp_path: Path, truth: ek.MaskSet, ens: ek.Ensemble) -> None:
    ran = ensk(tmp_path, *command(stores, tmp_path / "g.json", "--search", "greedy", "--trials", 10))
    assert ran.returncode == 0, ran.stderr
    assert "Greedy selection took" in ran.stdout
    tuned = ek.ThresholdSet.load(tmp_path / "g.json")
    assert tuned.score == pytest.approx(ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean, abs=1e-9)
    (tmp_path / "own_metric.py").write_text("import ensemble_kit as ek\n\ndef f(p, t):\n    return ek.iou(p, t).mean\n")
    own = ("--metric", "own_metric:f", "--method", "optuna", "--trials", 4, "--json")
    ran = ensk(tmp_path, *command(stores, tmp_path / "o.json", *own))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["search"]["metric"] == "own_metric:f"
    ran = ensk(tmp_path, *command(stores, tmp_path / "x.json", "--metric", "own_metric:f"))
    assert (ran.returncode, "error[metric-needs-trials]" in ran.stderr) == (2, True)
    ran = ensk(tmp_path, *command(stores, tmp_path / "x.json", "--search", "speed"))
    assert ran.returncode == 2
    assert not (tmp_path / "x.json").exists()
