"""Scores and reports: what a figure is called, what a warning advises, the gain to expect, scores of samples."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.errors import Caution
from ensemble_kit.recipes.score import score
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.crossed import UNKNOWN, CrossValidation, Interval
from ensemble_kit.tuning.calibration import rank_scores
from ensemble_kit.tuning.folds import make_folds

Make = Callable[..., ek.LogitStore]
IMAGE, CLASSES = (40, 50), ("x", "y")
SAMPLES = tuple(f"s{k}" for k in range(9))


def ensk(*arguments: object) -> None:
    app([*map(str, arguments)], standalone_mode=False)


def drawn(make_store: Make, rng: np.random.Generator, scale: float = 3.0) -> tuple[ek.Ensemble, ek.MaskSet]:
    """An ensemble whose probabilities are too sure by `scale`, with its truth drawn of the right ones."""
    logits = {s: smooth_logits(rng, (2, 20, 25), 2.0) for s in SAMPLES}
    sure = {s: (scale * z.astype(np.float32)).astype(np.float16) for s, z in logits.items()}
    ens = ek.Ensemble([make_store(sure, IMAGE, CLASSES, name="sure")])
    plain = ek.Ensemble([make_store(logits, IMAGE, CLASSES, name="plain")])
    truth = {}
    for s in SAMPLES:
        p = plain.sample(s).values(0, IMAGE[0]) / 2**32
        for c, name in enumerate(CLASSES):
            truth[s, name] = ek.encode(rng.random(IMAGE) < p[c])
    return ens, ek.MaskSet(truth)


def masks(rng: np.random.Generator, share: float) -> ek.MaskSet:
    """Masks, some of them empty."""
    return ek.MaskSet(
        {(s, c): ek.encode((rng.random(IMAGE) < share) & (rng.random() < 0.7)) for s in SAMPLES for c in CLASSES}
    )


# --- names -----------------------------------------------------------------------------------------------------------


def test_mean_iou_over_pairs_is_not_called_miou(rng: np.random.Generator) -> None:
    """The pooled column is mIoU only where classes in neither side are left out."""
    a, b = masks(rng, 0.2), masks(rng, 0.2)
    (first, *_) = score(a, b, "iou").reports()
    assert first.legend == (
        'IoU per image: of a class the mean over its samples, in the row "all" the mean over all pairs of sample and '
        'class, which is not mIoU. IoU pooled: of a class over the pixels of all samples, in the row "all" the mean over '
        "classes, which is not mIoU. Positives: samples whose truth has the class. Both empty = 1, eps = 0; every class "
        "counts."
    )
    skipped = score(a, b, "iou", Convention(empty="skip")).reports()[0].legend
    assert "the mean over classes, mIoU." in skipped
    assert skipped.count("not mIoU") == 1  # the column per image is still not
    without = score(a, b, "dice", background="x").reports()[0]
    assert "without 'x'" in without.legend and without.rows[-1][0] == "all without x"


def test_every_table_says_once_what_its_columns_are(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    """As text, as JSON and as HTML; of a set, of its file, of two sets, and of scores."""
    _, truth = drawn(make_store, rng)
    stores, val = [tmp_path / "sure.zarr"], tmp_path / "val.npz"
    truth.write(val, format="npz")
    ensk("tune-thresholds", *stores, "--val", val, "--out", tmp_path / "a.json")
    told = capsys.readouterr().out
    legend = 'Dice of a class the mean over its samples, in the row "all" the mean over all pairs of sample and class'
    assert told.count(legend) == 1
    for part in ("both empty = 1, eps = 0", "Out of fold: Dice on samples that did not choose.", "Plateau:", "Gain:"):
        assert part in told
    found = ek.ThresholdSet.load(tmp_path / "a.json")
    assert legend.replace('"', "&quot;") in found._repr_html_()
    for command in (["inspect", tmp_path / "a.json"], ["inspect", tmp_path / "a.json", tmp_path / "a.json"]):
        ensk(*command)
        assert legend in " ".join(capsys.readouterr().out.split())
        ensk(*command, "--json")
        assert legend in json.loads(capsys.readouterr().out)["legend"]
    ensk("tune-thresholds", *stores, "--val", val, "--out", tmp_path / "b.json", "--json", "--objective", "pooled")
    assert "over the pixels of all samples" in json.loads(capsys.readouterr().out)["legend"]
    ensk("score", val, "--val", val, "--json")
    assert "the mean over all pairs" in json.loads(capsys.readouterr().out)["legend"]


# --- warnings --------------------------------------------------------------------------------------------------------


def test_the_calibration_warning_is_short_and_says_what_to_do(make_store: Make, rng: np.random.Generator) -> None:
    names = tuple(f"class {k}" for k in range(31))
    ens = ek.Ensemble([make_store({"s": smooth_logits(rng, (31, 12, 15))}, IMAGE, names)])
    truth = ek.MaskSet({("s", c): ens.sample("s").runs(k, 64000) for k, c in enumerate(names)})
    found = ek.tune_thresholds(ens, truth)
    (told,) = [w for w in found.report().warnings if "calibrated" in w.doubt]
    off = sorted(found.classes, key=lambda c: (-c.calibration.distance, c.name))
    assert f"{sum(c.calibration.is_off for c in off)} of 31 classes" in told.doubt
    assert [c.name for c in off if f"{c.name} " in told.doubt] == [c.name for c in off[:3]]
    assert len(str(told)) < 400 and "decide by this set" in told.fix
    half = replace(found, classes=tuple(replace(c, level=ens.level_of(0.5)) for c in found.classes))
    (told,) = [w for w in half.report().warnings if "calibrated" in w.doubt]
    assert "0.5" not in told.fix  # which is what this set decides by


def test_a_warning_is_printed_with_its_action(capsys: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    masks(rng, 0.2).write(tmp_path / "m.npz", format="npz")
    masks(rng, 0.2).write(tmp_path / "n.npz", format="npz")
    ensk("vote", tmp_path / "m.npz", tmp_path / "n.npz", "--out", tmp_path / "o.npz", "--format", "npz")
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warned and all(" · fix: " in line for line in warned), warned
    assert str(Caution("it is odd", "look at it")) == "it is odd · fix: look at it"


# --- the gain to expect ----------------------------------------------------------------------------------------------


def crossed(groups: int, folds: int, gain: Interval) -> CrossValidation:
    return CrossValidation(folds, groups, True, {"tuned": 0.6, "half": 0.5}, gain, 32768, {})


def test_what_to_expect_of_new_samples_is_students_prediction_interval() -> None:
    """Against the formula by hand: 41 groups, 5 folds, an interval that is 2 · 1.96 standard errors of 0.1 wide."""
    width = 0.2 * 1.959963984540054
    measured = Interval(0.1, 0.1 - width / 2, 0.1 + width / 2)
    found = crossed(41, 5, measured).expected()
    assert found is not None
    error = 0.1 * np.sqrt(41 / 40)  # s / √n, of n - 1 degrees of freedom
    assert found.high - 0.1 == pytest.approx(2.0210753903 * error * np.sqrt(1 + 5 / 4 + 1), rel=1e-9)
    assert found.low == pytest.approx(0.2 - found.high, rel=1e-9)
    many = crossed(41, 5, measured).expected(10**9)
    assert many is not None and many.high - 0.1 == pytest.approx(
        2.0210753903 * error * 1.5, rel=1e-6
    )  # what no number of samples mends


def test_what_the_folds_decided_and_what_all_samples_did_are_both_spanned() -> None:
    """Folds that took 0.5 say nothing of a threshold that all samples chose."""
    narrow, wide = Interval(0.0, -0.001, 0.001), Interval(0.02, 0.0, 0.04)
    both = replace(crossed(41, 5, narrow), as_decided=wide).expected()
    alone = [crossed(41, 5, i).expected() for i in (narrow, wide)]
    assert both is not None and alone[0] is not None and alone[1] is not None
    assert both == Interval(0.0, min(alone[0].low, alone[1].low), alone[1].high)
    assert replace(crossed(41, 5, narrow), as_decided=UNKNOWN).expected() is None


def test_the_gain_as_decided_is_that_of_the_sets_own_thresholds_out_of_fold(
    make_store: Make, rng: np.random.Generator
) -> None:
    """By votes: each fold with the thresholds that the others chose, of the classes that keep their own."""
    ens, _ = drawn(make_store, rng)
    truth = ek.MaskSet(
        {(s, c): ens.sample(s).runs(k, 22000 + 10768 * k) for s in SAMPLES for k, c in enumerate(CLASSES)}
    )
    found = ek.tune_thresholds(ens, truth, folds=3, choose="shrunk")
    half, own = ens.vote(0.5), {}
    levels = {c: v.levels for c, v in found.validation.crossed.classes.items()}  # type: ignore[union-attr]
    for k, fold in enumerate(make_folds(ens.samples, 3, None, 0)):
        for s in (ens.samples[i] for i in fold):
            for c, name in enumerate(CLASSES):
                own[s, name] = ens.sample(s).runs(c, levels[name][k])
    keeps = {c: v.keeps for c, v in found.validation.crossed.classes.items()}  # type: ignore[union-attr]
    assert all(keeps.values())
    decided = ek.MaskSet(own)
    gain = ek.dice(decided, truth).mean - ek.dice(half, truth).mean
    assert found.validation.crossed.as_decided.value == pytest.approx(gain, abs=1e-12)  # type: ignore[union-attr]


def test_the_report_states_both_intervals_and_a_plain_set_gains_nothing(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens, truth = drawn(make_store, rng)
    own = ek.tune_thresholds(ens, truth, folds=3, shrink=False)
    (line,) = [line for line in own.report().lines if line.startswith("Gain")]
    expected, gain = own.gain_on_new, own.validation.crossed.gain  # type: ignore[union-attr]
    assert expected is not None and expected.low < gain.low < gain.high < expected.high
    assert f"{gain} (95 % confidence interval of the mean gain)" in line
    assert f"on 9 new groups of the same kind expect {expected.low:+.4f} to {expected.high:+.4f}" in line
    exact = ek.MaskSet({(s, c): ens.sample(s).runs(k, 32768) for s in SAMPLES for k, c in enumerate(CLASSES)})
    plain = ek.tune_thresholds(ens, exact, folds=3)
    assert plain.is_plain and plain.gain_on_new == Interval(0.0, 0.0, 0.0)
    assert "gains and loses nothing" in " ".join(plain.report().lines)
    assert ek.tune_thresholds(ens, truth).gain_on_new is None
    for choose in ("bagged", "shrunk", "own"):  # a file holds what predictions take; older ones do not
        tuned = ek.tune_thresholds(ens, truth, folds=3, choose=choose)
        tuned.save(tmp_path / "set.json")
        read = ek.ThresholdSet.load(tmp_path / "set.json")
        assert (read.choose, read.gain_on_new, read.score_on_new) == (choose, tuned.gain_on_new, tuned.score_on_new)
        assert read.report().lines == tuned.report().lines
        raw = json.loads((tmp_path / "set.json").read_text())
        del raw["search"]["choose"], raw["validation"]["out_of_fold"]["as_decided"]
        del raw["validation"]["out_of_fold"]["score"]
        (tmp_path / "older.json").write_text(json.dumps(raw))
        older = ek.ThresholdSet.load(tmp_path / "older.json")
        assert older.choose == ("shrunk" if choose == "shrunk" else "own")
        assert older.gain_on_new == (None if choose == "shrunk" else tuned.gain_on_new)
        assert older.score_on_new is None


def test_the_score_to_expect_is_students_prediction_from_the_bootstrap(
    make_store: Make, rng: np.random.Generator
) -> None:
    """Against a loop that draws samples, and the formula of a prediction by hand."""
    ens, truth = drawn(make_store, rng)
    tuned = ek.tune_thresholds(ens, truth, folds=3, choose="own")
    crossed = tuned.validation.crossed
    assert crossed is not None and crossed.score is not None
    masks = {}
    for k, fold in enumerate(make_folds(ens.samples, 3, None, 0)):
        for s in (ens.samples[i] for i in fold):
            for c, name in enumerate(CLASSES):
                masks[s, name] = ens.sample(s).runs(c, crossed.classes[name].levels[k])
    scored = ek.dice(ek.MaskSet(masks), truth)
    by_sample = scored.table().groupby("sample", sort=False)["value"].mean().to_numpy()
    drawings = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), size=2000)
    low, high = np.quantile(drawings @ by_sample / 9, [0.025, 0.975])
    assert (crossed.score.value, crossed.score.low, crossed.score.high) == pytest.approx((scored.mean, low, high))
    wide = (high - low) / 2 / 1.959964 * 2.306004 * np.sqrt(9 / 8) * np.sqrt(1 + 3 / 2 + 9 / 9)
    expected = tuned.score_on_new
    assert expected is not None
    assert (expected.low, expected.high) == pytest.approx((scored.mean - wide, scored.mean + wide), abs=1e-6)


# --- the rank rule and its set ---------------------------------------------------------------------------------------


def test_the_rank_rule_takes_the_temperature_that_the_set_records(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    ens, truth = drawn(make_store, rng)
    truth.write(tmp_path / "val.npz", format="npz")
    store, val, out = tmp_path / "sure.zarr", tmp_path / "val.npz", tmp_path / "set.json"
    ensk("tune-thresholds", store, "--val", val, "--rank", "--out", out)
    tuned = ek.ThresholdSet.load(out)
    temperature = tuned.rank_temperature
    assert temperature is not None and 2 < temperature < 4  # drawn too sure by 3
    ensk("vote", store, "--decide", "rank", "--thresholds", out, "--out", tmp_path / "v.npz", "--format", "npz")
    voted = ek.read_masks(tmp_path / "v.npz")
    assert voted == ens.vote(RankRule(temperature)) == ens.vote(RankRule.of(tuned))
    assert voted != ens.vote(RankRule())
    assert ek.dice(voted, truth).mean == rank_scores(ens, truth, Measure(), temperature).score
    assert f"temperature {temperature:g}" in capsys.readouterr().err
    own = ["--rank-temperature", "1.5", "--out", tmp_path / "w.npz", "--format", "npz"]
    ensk("vote", store, "--decide", "rank", "--thresholds", out, *own)
    assert ek.read_masks(tmp_path / "w.npz") == ens.vote(RankRule(1.5))


def test_a_set_without_a_temperature_says_so(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    ens, truth = drawn(make_store, rng)
    ek.tune_thresholds(ens, truth).save(tmp_path / "set.json")
    to = ["--out", tmp_path / "v.npz", "--format", "npz"]
    ensk("vote", tmp_path / "sure.zarr", "--decide", "rank", "--thresholds", tmp_path / "set.json", *to)
    told = capsys.readouterr().err
    assert "records no temperature" in told and "tune it with --rank" in told
    ensk("vote", tmp_path / "sure.zarr", "--decide", "rank", *to, "--force")
    assert "takes scores for probabilities" in capsys.readouterr().err


def test_a_rank_rule_that_loses_to_a_half_is_warned_of(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    """Objects that are mostly absent: the rule hardly ever leaves a mask empty, 0.5 does."""
    logits, truth = {}, {}
    for k, s in enumerate(SAMPLES):  # calibrated: 2 % of the pixels at -4 are true, 90 % of those at 2
        z, true = np.full((2, *IMAGE), -4.0), rng.random((2, *IMAGE)) < (0.1 if k < 2 else 0)
        if k < 2:
            z[:, 10:30, 10:30], true[:, 10:30, 10:30] = 2, rng.random((2, 20, 20)) < 0.9
        logits[s] = z.astype(np.float16)
        truth |= {(s, c): ek.encode(own) for c, own in zip(CLASSES, true, strict=True)}
    make_store(logits, IMAGE, CLASSES, name="m")
    ek.MaskSet(truth).write(tmp_path / "val.npz", format="npz")
    store, out = tmp_path / "m.zarr", tmp_path / "set.json"
    ensk("tune-thresholds", store, "--val", tmp_path / "val.npz", "--rank", "--folds", "3", "--out", out, "--json")
    answer = capsys.readouterr()
    found = json.loads(answer.out)
    score, plain = found["rank"]["scaled"], found["validation"]["out_of_fold"]["scores"]["half"]
    assert plain > 0.9
    assert score < 0.3
    words = f"loses to 0.5 out of fold: {score:.4f}, 0.5 {plain:.4f} · fix: decide as the set does"
    assert words in answer.err


def test_an_impossible_fitted_temperature_is_a_damaged_set(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens, truth = drawn(make_store, rng)
    found = Tuning(ens, Measure(), None, rank=True).run(truth).set
    found.save(tmp_path / "set.json")
    value = json.loads((tmp_path / "set.json").read_text())
    value["search"]["scaling"]["temperature"] = 0
    (tmp_path / "set.json").write_text(json.dumps(value))
    with pytest.raises(ek.DamagedError, match="its fitted temperature is 0"):
        ek.ThresholdSet.load(tmp_path / "set.json")


# --- one threshold for all classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["mean", "pooled"])
@pytest.mark.parametrize("empty", [1, 0, "skip"])
@pytest.mark.parametrize("shift", [0.0, 6.0], ids=["in the first band", "beyond it"])
def test_the_shared_threshold_is_the_best_of_all_levels(
    objective: Any, empty: Any, shift: float, make_store: Make, rng: np.random.Generator
) -> None:
    """Brute force: the same level for every class, every level that occurs."""
    logits = {s: (smooth_logits(rng, (2, 6, 5), 3.0) - shift).astype(np.float16) for s in SAMPLES[:4]}
    ens = ek.Ensemble([make_store(logits, (9, 8), CLASSES)], upsample="scores")
    near = np.quantile(np.concatenate([ens.levels(s).reshape(-1) for s in logits]), 0.7)
    truth = ek.MaskSet(
        {
            (s, c): ens.sample(s).runs(k, int(near * rng.uniform(0.6, 1.4)))
            for s in logits
            for k, c in enumerate(CLASSES)
        }
    )
    found = ek.tune_thresholds(ens, truth, objective, empty, shared=True)
    (level,) = set(found.levels.values())
    values = np.stack([ens.sample(s).values(0, 9) >> 16 for s in logits])  # an effective level is the value's floor
    measure = Measure(objective, "dice", Convention(empty=empty))
    areas = np.stack([[truth[s, c].area for s in logits] for c in CLASSES])
    drawn_truth = np.stack([[truth[s, c].decode() for c in CLASSES] for s in logits])

    def of(at: int) -> float:
        on = values >= at
        tp, pred = ((v.sum((2, 3)).T) for v in (on & drawn_truth, on))
        return measure.of_all(tp[seen], pred[seen], areas[seen])  # a class without positives has no say

    seen = areas.sum(1) > 0
    assert of(level) == pytest.approx(max(of(at) for at in [*np.unique(values).tolist(), 65535]), abs=1e-12)
    scored = ek.dice(ens.vote(found), truth, empty=empty)
    assert found.score == (scored.mean if objective == "mean" else scored.pooled)


@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_the_best_shared_threshold_may_lie_beyond_the_band_that_proves_each_class(
    objective: Any, make_store: Make
) -> None:
    """Each class's best level is proved by the first band, 0.05 to 0.95; that of both together lies at 0.03."""
    chances = {  # of 100 true pixels, then of false ones
        "x": ([(0.08, 99), (0.06, 1)], [(0.06, 10), (0.03, 2)]),
        "y": ([(0.6, 50), (0.03, 50)], [(0.1, 160)]),
    }
    p, true = np.full((2, 1000), 0.001), np.arange(1000) < 100
    for own, (hits, misses) in zip(p, chances.values(), strict=True):
        for first, steps in ((0, hits), (100, misses)):
            values = [chance for chance, count in steps for _ in range(count)]
            own[first : first + len(values)] = values
    store = make_store({"s": np.log(p / (1 - p)).astype(np.float16).reshape(2, 20, 50)}, (20, 50), CLASSES)
    ens = ek.Ensemble([store], upsample="scores")
    truth = ek.MaskSet({("s", c): ek.encode(true.reshape(20, 50)) for c in CLASSES})
    assert {c.band for c in ek.tune_thresholds(ens, truth, objective).classes} == {(3277, 62260)}
    found = ek.tune_thresholds(ens, truth, objective, shared=True)
    assert found.score == pytest.approx((200 / (100 + 112) + 200 / (100 + 260)) / 2, abs=1e-12)
    assert 0.001 < found.thresholds["x"] <= 0.03 + 1e-4
    assert ek.dice(ens.vote(found), truth).mean == found.score


def test_the_shared_threshold_is_written_with_its_score_out_of_fold(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    ens, truth = drawn(make_store, rng)
    truth.write(tmp_path / "val.npz", format="npz")
    stores = [tmp_path / "sure.zarr", "--val", tmp_path / "val.npz", "--folds", "3"]
    ensk("tune-thresholds", *stores, "--shared", "--out", tmp_path / "shared.json")
    assert "One threshold for all classes: " in capsys.readouterr().out
    found = ek.ThresholdSet.load(tmp_path / "shared.json")
    scores = found.validation.crossed.scores  # type: ignore[union-attr]
    assert len(set(found.levels.values())) == 1 and found.search["shared"] is True
    usual = ek.tune_thresholds(ens, truth, folds=3).validation.crossed.scores  # type: ignore[union-attr]
    assert scores["tuned"] == scores["shared"] == usual["shared"]
    assert found == ek.tune_thresholds(ens, truth, folds=3, shared=True)
    with pytest.raises(ek.UsageError) as caught:
        ensk("tune-thresholds", *stores, "--shared", "--search", "post", "--out", tmp_path / "no.json")
    assert caught.value.code == "option-idle"


# --- scores of samples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["1", "skip"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_scores_by_sample_are_those_of_numpy(
    suffix: str, empty: str, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    a, b = masks(rng, 0.3), masks(rng, 0.3)
    a.write(tmp_path / "a.npz", format="npz")
    b.write(tmp_path / "b.npz", format="npz")
    out = tmp_path / f"out{suffix}"
    ensk("score", tmp_path / "a.npz", "--val", tmp_path / "b.npz", "--empty", empty, "--by-sample", out)
    if suffix == ".csv":
        with out.open(newline="") as file:
            held = list(csv.DictReader(file))
        assert {row["convention"] for row in held} == {
            f"dice: {'both empty = 1' if empty == '1' else 'both empty are skipped'}, eps = 0"
        }
        rows = [{**row, "value": float(row["value"]) if row["value"] else None} for row in held]
    else:
        value = json.loads(out.read_text())
        assert (value["metric"], value["convention"]) == ("dice", {"empty": 1 if empty == "1" else "skip", "eps": 0.0})
        rows = value["rows"]
    table = ek.dice(a, b, empty=1 if empty == "1" else "skip").table()
    assert list(table.columns) == ["sample", "class", "tp", "pred", "truth", "value"]
    assert len(rows) == len(table) == len(SAMPLES) * len(CLASSES)
    wanted = [(s, c) for s in SAMPLES for c in CLASSES]
    for row, (s, c), entry in zip(rows, wanted, table.itertuples(index=False), strict=True):
        p, t = a[s, c].decode(), b[s, c].decode()
        counts = int((p & t).sum()), int(p.sum()), int(t.sum())
        both = counts[1] + counts[2]
        dice = 2 * counts[0] / both if both else (1.0 if empty == "1" else None)
        assert (row["sample"], row["class"], *(int(row[k]) for k in ("tp", "pred", "truth"))) == (s, c, *counts)
        assert row["value"] == dice
        assert tuple(entry)[:5] == (s, c, *counts)
    capsys.readouterr()
    ensk("score", tmp_path / "a.npz", "--val", tmp_path / "b.npz", "--empty", empty, "--json")
    mean = json.loads(capsys.readouterr().out)["mean"]
    assert np.mean([row["value"] for row in rows if row["value"] is not None]) == pytest.approx(mean, abs=1e-12)


def test_scores_by_sample_are_refused_under_another_suffix_and_over_a_file(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    masks(rng, 0.3).write(tmp_path / "a.npz", format="npz")
    both = [tmp_path / "a.npz", "--val", tmp_path / "a.npz"]
    with pytest.raises(ek.UsageError) as caught:
        ensk("score", *both, "--by-sample", tmp_path / "out.xlsx")
    assert caught.value.code == "by-sample-suffix"
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ek.UsageError) as caught:
        ensk("score", *both, "--by-sample", tmp_path / "out.csv")
    assert caught.value.code == "output-exists" and (tmp_path / "out.csv").read_text() == "mine"
