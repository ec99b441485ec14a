"""Void pixels of the truth (rule 12): what tuning reports is the score of its vote, to the last bit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ensemble_kit as ek
import warm
from conftest import smooth_logits, write_store
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.kernels import reference as ref
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning import calibration, statistics
from ensemble_kit.tuning.search import collecting, joint, sizes
from ensemble_kit.tuning.search.undecided import Setting
from ensemble_kit.tuning.statistics import source_of

IMAGE = (40, 50)
CLASSES = ("x", "y")
SAMPLES = tuple(f"s{k}" for k in range(6))


@pytest.fixture(scope="module")
def ens(tmp_path_factory: pytest.TempPathFactory) -> ek.Ensemble:
    """Two members that disagree."""
    folder, rng = tmp_path_factory.mktemp("void"), np.random.default_rng(5)
    base = {s: smooth_logits(rng, (2, 12, 15), 4) for s in SAMPLES}
    paths = []
    for name in ("a", "b"):
        noisy = {s: (z + rng.normal(size=z.shape)).astype(np.float16) for s, z in base.items()}
        paths.append(write_store(folder / f"{name}.zarr", noisy, IMAGE, CLASSES, member=name))
    return ek.Ensemble(paths)


def truth_with_void(ens: ek.Ensemble, seed: int) -> ek.MaskSet:
    """Masks near those of the members; void in some samples: blocks, nothing, or every pixel; masks lie in it too."""
    rng = np.random.default_rng(seed)
    masks, void = {}, {}
    for sample in ens.samples:
        for c, name in enumerate(ens.classes):
            mask = ens.sample(sample).runs(c, int(rng.integers(15000, 50000))).decode()
            masks[sample, name] = ek.encode(mask ^ (rng.random(IMAGE) < 0.02))
        share = rng.choice([0, 0.2, 0.6, 1])
        void[sample] = ek.encode(np.kron(rng.random((8, 10)) < share, np.ones((5, 5), bool)))
    return ek.MaskSet(masks, void=void)


def scored(found: ek.MaskSet, truth: ek.MaskSet, measure: Measure) -> float:
    """Dice by NumPy on bitmaps without the void pixels."""
    tp, pred, area = (np.zeros((len(CLASSES), len(SAMPLES)), np.int64) for _ in range(3))
    for s, sample in enumerate(SAMPLES):
        kept = ~truth.void(sample).decode()
        for c, name in enumerate(CLASSES):
            p, t = found[sample, name].decode() & kept, truth[sample, name].decode() & kept
            tp[c, s], pred[c, s], area[c, s] = (p & t).sum(), p.sum(), t.sum()
    return measure.of_all(tp, pred, area)


def check_score(ens: ek.Ensemble, seed: int, objective: Any, empty: Any, upsample: Any) -> None:
    fused = ek.Ensemble([m.path for m in ens.members], upsample=upsample)
    truth = truth_with_void(fused, seed)
    tuned = ek.tune_thresholds(fused, truth, objective, empty)
    masks, measure = fused.vote(tuned), Measure(objective, "dice", Convention(0.0, empty))
    found = ek.dice(masks, truth, empty=empty)
    assert np.array_equal(tuned.score, found.mean if objective == "mean" else found.pooled, equal_nan=True)
    assert np.array_equal(tuned.score, scored(masks, truth, measure), equal_nan=True)


@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_the_tuned_score_is_that_of_the_vote(ens: ek.Ensemble, objective: Any) -> None:
    check_score(ens, 0, objective, 1, "logits")


@pytest.mark.slow
@given(
    st.integers(0, 10**6),
    st.sampled_from(["mean", "pooled"]),
    st.sampled_from([1, 0, "skip"]),
    st.sampled_from(["logits", "scores"]),
)
def test_it_is_so_for_every_truth_and_convention(
    ens: ek.Ensemble, seed: int, objective: Any, empty: Any, upsample: Any
) -> None:
    check_score(ens, seed, objective, empty, upsample)


def test_counts_at_every_level_are_those_of_the_pixels_that_are_left(ens: ek.Ensemble) -> None:
    truth = truth_with_void(ens, 1)
    tables = statistics.count(ens, truth, dict.fromkeys(range(2), (0, 65536)))
    for s, sample in enumerate(SAMPLES):
        kept = ~truth.void(sample).decode()
        for c, name in enumerate(CLASSES):
            q = [ref.q(m.read(sample)[c]) for m in ens.members]
            levels = ref.image_from_logits(q, [32768, 32768], IMAGE, "probability")
            pixels, hits = ref.level_counts(levels[kept], truth[sample, name].decode()[kept])
            for level in (0, 1, 20000, 32768, 60000, 65535):
                tp, pred = tables[c].at(level)
                assert (pred[s], tp[s]) == (pixels[level], hits[level])


def test_without_void_pixels_nothing_changes_and_with_them_statistics_are_others(ens: ek.Ensemble) -> None:
    truth = truth_with_void(ens, 2)
    plain = ek.MaskSet(dict(truth))
    none = ek.MaskSet(dict(truth), void={s: ek.Runs.empty(IMAGE) for s in SAMPLES})
    assert source_of(ens, plain) == source_of(ens, none) != source_of(ens, truth)
    assert ek.tune_thresholds(ens, plain) == ek.tune_thresholds(ens, none)


@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_the_rank_rule_sees_the_whole_image_and_is_scored_without_void(ens: ek.Ensemble, objective: Any) -> None:
    truth, measure = truth_with_void(ens, 3), Measure(objective)
    masks = ens.vote(RankRule())
    for known in (None, calibration.full_statistics(ens, truth)):
        found = calibration.rank_scores(ens, truth, measure, statistics=known)
        assert found.score == scored(masks, truth, measure)
    histogram = calibration.level_histogram(ens, truth)
    left = sum(2 * (2000 - truth.void(s).area) for s in SAMPLES)
    zeros = sum(
        t.at(0)[1].sum() - t.at(1)[1].sum()
        for t in statistics.count(ens, truth, dict.fromkeys(range(2), (0, 65536))).values()
    )
    assert histogram[0, 1].sum() == left - zeros


@pytest.mark.parametrize("stride", [1, 2])
def test_undecided_pixels_leave_void_out(ens: ek.Ensemble, stride: int) -> None:
    truth = truth_with_void(ens, 4)
    budget = None if stride == 1 else 4000
    found = collecting.collect(ens, truth, dict.fromkeys(range(2), (6000, 60000)), budget)
    assert (found.stride == 1) == (stride == 1)
    at = slice(found.stride // 2, None, found.stride)
    for c, name in enumerate(CLASSES):
        own = found.classes[c]
        for s, sample in enumerate(SAMPLES):
            kept = ~truth.void(sample).decode()[at, at]
            images = [ref.rounded(ref.interpolate(ref.q(m.read(sample)[c]), IMAGE))[at, at][kept] for m in ens.members]
            hits = truth[sample, name].decode()[at, at][kept]
            wanted = ref.undecided(np.stack(images)[:, None], hits[None], own.low, own.high)
            mine, split = own.values.T[own.offsets[s] : own.offsets[s + 1]], own.splits[s] - own.offsets[s]
            assert split == wanted[1]
            for part in (slice(None, split), slice(split, None)):
                assert sorted(mine[part].tolist()) == sorted(wanted[0][part].tolist())
            assert (own.above[s], own.above_hits[s], own.truth[s]) == wanted[2:]


def test_a_trial_of_weights_is_exact(ens: ek.Ensemble) -> None:
    truth, measure = truth_with_void(ens, 6), Measure()
    table = collecting.collect(ens, truth, dict.fromkeys(range(2), (3277, 62260)))
    setting = Setting((3.0, 1.0), ens.fusion.mean, ens.fusion.temperatures)
    tuned = ek.tune_thresholds(setting.applied(ens), truth)
    assert table.try_setting(setting, measure).score == pytest.approx(tuned.score, abs=1e-11)


def cleaned_truth(ens: ek.Ensemble, seed: int) -> ek.MaskSet:
    """The members' own masks without their small components, so that rules help; with void."""
    void = truth_with_void(ens, seed)
    masks = ens.vote(0.5, rules=("drop-small:30", "fill-holes"))
    return ek.MaskSet(dict(masks), void={s: void.void(s) for s in SAMPLES if void.void(s).area < 2000})


def test_the_exact_size_is_counted_without_void(ens: ek.Ensemble) -> None:
    truth = cleaned_truth(ens, 9)
    found = sizes.search(ens, truth, ek.tune_thresholds(ens, truth), [1, 5, 25, 60])
    assert found.rule is not None
    levels = Thresholds(dict(zip(ens.classes, found.levels, strict=True)))
    assert found.score == scored(ens.vote(levels, rules=[found.rule]), truth, Measure())
    curves = sizes.curves(ens, truth, dict.fromkeys(range(2), (20000, 45000)), [1, 25], Measure())
    for level in (20000, 30000, 45000):
        masks = ens.vote(Thresholds(dict.fromkeys(ens.classes, level)), rules=["drop-small:25"])
        mean = sum(curves[c].scores[level - 20000, 1] for c in range(2)) / 2
        assert mean == pytest.approx(scored(masks, truth, Measure()), abs=1e-12)


@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_rules_that_a_study_finds_are_counted_without_void(ens: ek.Ensemble, objective: Any) -> None:
    truth, measure = cleaned_truth(ens, 10), Measure(objective)
    found = joint.tune(ens, truth, measure, joint.Search(("post",), trials=40))
    assert found.rules
    assert found.score == scored(ens.vote(found), truth, measure)


@pytest.mark.slow
@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_searched_weights_and_rules_are_scored_as_their_vote_is(
    ens: ek.Ensemble, objective: Any, folds: int | None
) -> None:
    truth, measure = truth_with_void(ens, 7), Measure(objective)
    found = joint.tune(ens, truth, measure, joint.Search(("weights", "post"), trials=40), folds)
    assert len(set(found.fusion.weights[0])) == 2  # the search went somewhere
    assert found.score == scored(ens.as_tuned(found).vote(found), truth, measure)


@pytest.mark.slow
def test_rules_look_at_the_whole_image(tmp_path: Path) -> None:
    """A component counts as large by its void pixels too, and a gate passes by them."""
    z = np.full((1, 8, 8), -9, np.float16)
    z[0, 0, :4] = z[0, 5, 5] = 9
    ens = ek.Ensemble([write_store(tmp_path / "m.zarr", dict.fromkeys(SAMPLES, z), (8, 8), ("x",))])
    row, spot = ek.Runs([0], [4], (8, 8)), ek.Runs([45], [46], (8, 8))
    truth = ek.MaskSet({(s, "x"): row for s in SAMPLES}, void={s: ek.Runs([1], [4], (8, 8)) for s in SAMPLES})
    found = joint.tune(ens, truth, Measure(), joint.Search.of("post"))
    assert found.rules and found.score == 1 == ek.dice(ens.vote(found), truth).mean
    assert ens.vote(found)["s0", "x"] == row and not ens.vote(found)["s0", "x"] & spot


def test_a_metric_of_ones_own_gets_the_void(ens: ek.Ensemble) -> None:
    from ensemble_kit.tuning.search import metric_search
    from ensemble_kit.tuning.search.studies import Plan

    truth = truth_with_void(ens, 8)
    metric: Callable[..., float] = lambda a, b: ek.dice(a, b).mean  # noqa: E731
    found = metric_search.tune(ens, truth, metric, Plan(3), name="own")
    assert found.search["best"] >= round(ek.tune_thresholds(ens, truth).score, 9) - 1e-9


def test_tuning_says_how_much_is_void(ens: ek.Ensemble) -> None:
    void = {"s0": ek.Runs([0], [1200], IMAGE), "s3": ek.Runs([0], [2000], IMAGE)}
    truth = ek.MaskSet(dict(ens.vote(0.5)), void=void)
    found = Tuning(ens, Measure(), folds=None).run(truth)
    assert "Void: 26.67% of the truth's pixels, in 2 of 6 samples, do not count." in found.report.lines
    assert found.set.score == 1


@pytest.mark.parametrize(
    "options", [{"objective": "per-class"}, {"objective": "per-image"}, {"empty": "skip-truth"}], ids=str
)
def test_measures_that_only_score_are_not_tuned(ens: ek.Ensemble, options: Any) -> None:
    with pytest.raises(ek.UsageError, match=str(*options.values())):
        ek.tune_thresholds(ens, truth_with_void(ens, 0), **options)


# --- files ---------------------------------------------------------------------------------------------------


def label_maps(folder: Path) -> Path:
    """A folder of two label maps: 0 background, 1 road, 2 car, 255 void."""
    folder.mkdir()
    for k in range(2):
        values = np.array([[0, 1, 1, 255], [2, 2, k, 255]], np.uint8)
        Image.fromarray(values).save(folder / f"s{k}.png")
    return folder


def ensk(*words: object) -> subprocess.CompletedProcess[str]:
    return warm.ensk(*words)


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.npz", "masks"])
def test_a_format_without_void_refuses_it(name: str, tmp_path: Path) -> None:
    maps = ek.read_masks(label_maps(tmp_path / "gt"), "label-map", classes=["background", "road", "car"])
    with pytest.raises(ek.MismatchError, match="4 pixels of 2 samples: 's0"):
        maps.write(tmp_path / name)
    assert not (tmp_path / name).exists()
    maps.without_void().write(tmp_path / name)
    maps.write(tmp_path / "again", format="label-map")
    again = ek.read_masks(tmp_path / "again", "label-map")
    assert [again.void(s) for s in again.samples] == [maps.void(s) for s in maps.samples]
    assert not ek.hard_vote([maps, maps, maps]).has_void


@pytest.mark.slow
def test_the_command_line_scores_and_converts_label_maps_with_void(tmp_path: Path) -> None:
    truth, classes = label_maps(tmp_path / "gt"), tmp_path / "classes.txt"
    classes.write_text("background\nroad\ncar\n")
    refused = ensk("convert", truth, "--from", "label-map", "--classes", classes, "--out", tmp_path / "a.npz")
    assert refused.returncode == 6 and "--drop-void" in refused.stderr
    taken = ensk(
        "convert", truth, "--from", "label-map", "--classes", classes, "--out", tmp_path / "a.npz", "--drop-void"
    )
    assert taken.returncode == 0, taken.stderr
    ran = ensk(
        "score", tmp_path / "a.npz", "--val", truth, "--val-format", "label-map", "--convention", "mmseg", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["named"]["score"] == told["exclusive"]["miou"] == told["exclusive"]["accuracy"] == 1
    assert told["void"] == {"pixels": 4, "share": 0.25}
    assert ensk("score", tmp_path / "a.npz", "--val", truth, "--convention", "kaggle").returncode == 2
