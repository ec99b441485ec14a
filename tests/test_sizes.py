"""Exact thresholds x sizes of the smallest component: every count against scipy, and the search that uses them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.decisions.connected import DropSmall
from ensemble_kit.execution.executor import Item, Threads
from ensemble_kit.kernels import sizes as kernels
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.search import sizes
from ensemble_kit.tuning.search.described import describe
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.truth import Truth

CLASSES, SIZES = ("x", "y"), (1, 2, 3, 5, 8, 20, 60, 10**6)
BAND = (3277, 62260)
CASES = {
    "image is the grid": {"image": (24, 30), "upsample": "scores"},
    "scores, upsampled": {"image": (53, 64), "upsample": "scores"},
    "logits, upsampled": {"image": (53, 64), "upsample": "logits"},
    "logit mean": {"image": (53, 64), "upsample": "scores", "mean": "logit"},
    "two grids": {"image": (53, 64), "upsample": "logits", "grids": ((24, 30), (12, 15))},
    "two grids, scores": {"image": (53, 64), "upsample": "scores", "grids": ((24, 30), (12, 15))},
    "smaller image": {"image": (11, 13), "upsample": "logits"},
}
Pair = tuple[ek.Ensemble, ek.MaskSet]


def make_pair(
    folder: Path,
    rng: np.random.Generator,
    image: tuple[int, int],
    grids: tuple[tuple[int, int], ...] = ((24, 30),) * 2,
    classes: tuple[str, ...] = CLASSES,
    samples: int = 4,
    **options: Any,
) -> Pair:
    """Make two noisy members, and truth that differs from them."""
    members = []
    for m, grid in enumerate(grids):
        logits = {
            f"s{k}": (smooth_logits(rng, (len(classes), *grid), 6) + rng.normal(size=(len(classes), *grid)) * 2 - 1.5)
            for k in range(samples)
        }
        arrays = {s: z.astype(np.float16) for s, z in logits.items()}
        members.append(write_store(folder / f"m{m}.zarr", arrays, image, classes, member=f"m{m}"))
    ensemble = ek.Ensemble(members, **options)
    moved = {key: ek.encode(np.roll(r.decode(), 1, axis=1)) for key, r in ensemble.vote(0.4).items()}
    moved["s0", classes[0]] = ek.Runs.empty(image)
    return ensemble, ek.MaskSet(moved)


@pytest.fixture
def pair(tmp_path: Path, rng: np.random.Generator) -> Pair:
    return make_pair(tmp_path, rng, (24, 30), upsample="scores")


def counted_by_scipy(mask: np.ndarray, truth: np.ndarray, size: int) -> tuple[int, int]:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    stays = np.bincount(labels.reshape(-1)) >= size
    stays[0] = False
    left = stays[labels]
    return int(left.sum()), int((left & truth).sum())


def dice(pred: int, tp: int, truth: int) -> float:
    return 1.0 if pred + truth == 0 else 2 * tp / (pred + truth)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("band", [BAND, (0, LEVELS), (30000, 30001)], ids=["band", "everything", "one level"])
def test_every_level_and_size_counts_as_labelling_the_mask_does(
    case: dict[str, Any], band: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    ensemble, truth = make_pair(tmp_path, rng, **case)
    bands = dict.fromkeys(range(2), band)
    found = sizes.curves(ensemble, truth, bands, SIZES, Measure(), Threads(1))
    work = sizes.CountSizes(ensemble.inputs, tuple(bands.items()), tuple(map(DropSmall, SIZES)))
    low, high = band[0], min(band[1], LEVELS - 1)
    for level in {low, high, *rng.integers(low, high + 1, 12).tolist()}:
        means = np.zeros((2, len(SIZES)))
        for sample in ensemble.samples:
            fused, rows = ensemble.sample(sample), work(Item(sample, Truth.of(truth, sample, CLASSES)))
            for c, name in enumerate(CLASSES):
                mask, wanted = fused.runs(c, level), truth[sample, name]
                levels, pred, tp, area = rows[c]
                assert area == wanted.area
                row = np.flatnonzero(levels >= level)[-1]
                for j, size in enumerate(SIZES):
                    left = DropSmall(size).apply(mask)
                    assert (pred[row, j], tp[row, j]) == (left.area, (left & wanted).area)
                    assert (left.area, (left & wanted).area) == counted_by_scipy(mask.decode(), wanted.decode(), size)
                    means[c, j] += dice(left.area, (left & wanted).area, wanted.area) / len(ensemble.samples)
        for c in range(2):
            np.testing.assert_allclose(found[c].scores[level - low], means[c], rtol=0, atol=1e-12)


def test_pixels_are_evaluated_as_the_vote_decides_them(tmp_path: Path, rng: np.random.Generator) -> None:
    for k, case in enumerate(CASES.values()):
        (tmp_path / str(k)).mkdir()
        ensemble, _ = make_pair(tmp_path / str(k), rng, **case)
        fused = ensemble.sample("s1")
        H, W = fused.image
        positions, levels = fused.pixels(1, ek.Runs([0], [H * W], (H, W)))
        assert positions.tolist() == list(range(H * W))
        for level in rng.integers(1, LEVELS, 20).tolist():
            assert ek.encode((levels >= level).reshape(H, W)) == fused.runs(1, level)


def test_the_plane_of_nodes_is_handed_back_empty(rng: np.random.Generator) -> None:
    nodes = np.zeros((1, 14, 17), np.int32)
    above = ek.encode(rng.random((12, 15)) < 0.2)
    band = ek.encode(rng.random((12, 15)) < 0.5) - above
    positions = np.flatnonzero(band.decode().reshape(-1))
    levels = rng.integers(1, 9, positions.size).astype(np.uint16)
    falling = np.argsort(levels, kind="stable")[::-1].copy()
    kernels.by_level(
        above.starts, above.ends, positions, levels, falling, band.starts, band.ends, np.array([1, 4]), nodes
    )
    assert not nodes.any()


def test_threads_and_passes_make_no_difference(pair: Pair) -> None:
    ensemble, truth = pair
    bands = dict.fromkeys(range(2), BAND)
    one, many = (sizes.curves(ensemble, truth, bands, SIZES, Measure(), Threads(n)) for n in (1, 4))
    assert all(np.array_equal(one[c].scores, many[c].scores) for c in bands)
    tuned = ek.tune_thresholds(ensemble, truth)
    whole = sizes.search(ensemble, truth, tuned, SIZES)
    assert sizes.search(ensemble, truth, tuned, SIZES, memory=1).to_dict() == whole.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["dice", "iou", "f2"])
def test_the_best_size_and_levels_are_the_best_of_all(metric: str, tmp_path: Path, rng: np.random.Generator) -> None:
    ensemble, truth = make_pair(tmp_path, rng, (24, 30), samples=2, upsample="scores")
    measure = Measure("mean", metric, Convention(0.0, 1))
    tuned = ek.tune_thresholds(ensemble, truth, metric=metric)
    found = sizes.search(ensemble, truth, tuned, (1, 4, 16))
    occur = np.unique(np.concatenate([ensemble.levels(s).reshape(-1) for s in ensemble.samples]))
    fused = [ensemble.sample(s) for s in ensemble.samples]
    masks = [[[f.runs(c, level) for f in fused] for level in occur[occur > 0].tolist()] for c in range(len(CLASSES))]
    best = []
    for size in (1, 4, 16):
        means = []
        for c, name in enumerate(CLASSES):
            scores, wanted = [], [truth[s, name] for s in ensemble.samples]
            for at_level in masks[c]:
                left = [DropSmall(size).apply(m) for m in at_level]
                counts = zip(*(((m & w).area, m.area, w.area) for m, w in zip(left, wanted, strict=True)), strict=True)
                scores.append(measure.of_class(*map(np.array, counts)))
            means.append(max(scores))
        best.append(np.mean(means))
    assert found.score == pytest.approx(max(best), abs=1e-12)
    assert found.rule == (None, DropSmall(4), DropSmall(16))[int(np.argmax(best))]
    assert found.certain


def test_the_bounds_beyond_the_band_hold(pair: Pair) -> None:
    ensemble, truth = pair
    narrow, whole = (
        sizes.curves(ensemble, truth, dict.fromkeys(range(2), band), SIZES, Measure(), Threads(1))
        for band in ((25000, 40000), (0, LEVELS))
    )
    for c, j in itertools.product(range(2), range(len(SIZES))):
        beyond = np.concatenate([whole[c].scores[:25000, j], whole[c].scores[40001:LEVELS, j]])
        assert narrow[c].outside(j, Measure()) >= beyond.max() - 1e-12
        assert whole[c].outside(j, Measure()) == 0


def test_where_the_band_hides_the_best_level_nothing_is_certain(pair: Pair) -> None:
    ensemble, truth = pair
    tuned = ek.tune_thresholds(ensemble, truth)
    for curve in tuned.curves.values():
        object.__setattr__(curve.table, "low", 60000)
        object.__setattr__(curve.table, "high", 60001)
    assert not sizes.search(ensemble, truth, tuned, (1, 4)).certain


def specks(folder: Path, rng: np.random.Generator, **options: Any) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Make one member that is right but for specks all over, of which some are as certain as the object."""
    logits, masks = {}, {}
    for k in range(6):
        z = np.full((1, 40, 50), -6.0)
        z[0][rng.random((40, 50)) < 0.03] = 4
        z[0, 8:30, 10:36] = 3 + rng.normal(size=(22, 26)) * 0.2
        logits[f"s{k}"] = z.astype(np.float16)
        mask = np.zeros((40, 50), bool)
        mask[8:30, 10:36] = True
        masks[f"s{k}", "x"] = ek.encode(mask)
    return ek.Ensemble([write_store(folder / "m.zarr", logits, (40, 50), ("x",))], **options), ek.MaskSet(masks)


def test_tuning_takes_the_exact_size_where_it_wins(tmp_path: Path, rng: np.random.Generator) -> None:
    ensemble, truth = specks(tmp_path, rng)
    tuned = ek.tune_thresholds(ensemble, truth, search=Search(("post",), trials=1))
    record = tuned.search["post"]
    assert round(tuned.score, 9) == record["exact"]["score"] > record["best"]
    assert any("the best of all levels at each of" in line and "certain" in line for line in describe(tuned))
    assert list(tuned.rules) == [record["exact"]["rule"]]
    assert tuned.score == ek.dice(ensemble.vote(tuned), truth).mean
    assert record["exact"]["certain"]
    assert len(record["exact"]["sizes"]) > 10


@pytest.mark.parametrize("options", [{"objective": "pooled"}, {"empty": "skip"}], ids=["pooled", "skip"])
def test_scores_that_do_not_add_up_are_searched_by_trials_alone(
    options: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    ensemble, truth = specks(tmp_path, rng)
    tuned = ek.tune_thresholds(ensemble, truth, search=Search(("post",), trials=12), **options)
    assert "exact" not in tuned.search["post"]
    assert any(rule.startswith("drop-small") for rule in tuned.rules)


def test_classes_that_share_a_threshold_keep_it(tmp_path: Path, rng: np.random.Generator) -> None:
    ensemble, truth = make_pair(tmp_path, rng, (24, 30), samples=8)
    tuned = ek.tune_thresholds(ensemble, truth, folds=4, choose="shrunk")
    crossed = tuned.validation.crossed
    assert crossed is not None
    shared = [c for c, name in enumerate(CLASSES) if not crossed.classes[name].keeps]
    found = sizes.search(ensemble, truth, tuned, SIZES)
    assert shared
    assert all(found.levels[c] == tuned.classes[c].level for c in shared)
