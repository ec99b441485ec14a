"""`--search auto`: the ladder's counts against votes, its choice, and that it never loses to the start out of fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.execution.events import nobody
from ensemble_kit.execution.executor import Threads
from ensemble_kit.metrics.overlap import dice
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.class_options import unions_of
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.gathering import exclusive_truth
from ensemble_kit.tuning.search import auto
from ensemble_kit.tuning.search.bench import Bench
from ensemble_kit.tuning.search.factor_bench import FactorBench
from ensemble_kit.tuning.search.ladder import Candidate
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.search.threshold_bench import ThresholdBench
from ensemble_kit.tuning.truth import true_areas

Make = Callable[..., ek.LogitStore]
CLASSES = ("a", "b", "c")
SAMPLES = tuple("pqrstuvw")
IMAGE = (20, 24)


def ensemble(make: Make, activation: str = "sigmoid", noise: float = 2.0) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Two members that see the truth through noise, too high in class b; some images have no class c."""
    rng = np.random.default_rng(7)
    truth, logits = {}, [dict[str, np.ndarray](), dict[str, np.ndarray]()]
    for k, sample in enumerate(SAMPLES):
        field = smooth_logits(rng, (3, 10, 12), 3.0).astype(np.float32)
        if k % 3 == 0:
            field[2] = -4
        for own in logits:
            seen = field + noise * smooth_logits(rng, (3, 10, 12), 1.0) + np.array([0, 1, -0.5])[:, None, None]
            own[sample] = seen.astype(np.float16)
        grown = field.repeat(2, axis=1).repeat(2, axis=2)
        label = np.where(grown.max(0) > 0, grown.argmax(0), 3)
        for c, name in enumerate(CLASSES):
            truth[sample, name] = ek.encode(label == c)
    stores = [make(own, IMAGE, CLASSES, activation=activation) for own in logits]
    return ek.Ensemble(stores), ek.MaskSet(truth)


def bench_of(ens: ek.Ensemble, truth: ek.MaskSet, kind: type[Bench]) -> Bench:
    split = make_folds(SAMPLES, 4, None, 0)
    measure = Measure("mean", "dice", Convention(0.0, 1))
    truth = exclusive_truth(ens, truth) if kind is FactorBench else truth
    return kind(ens, truth, measure, true_areas(SAMPLES, truth, CLASSES), split, None, Threads(1), nobody)


START = Candidate((1, 1), "probability")
THRESHOLDS = {
    "start": START,
    "thresholds": replace(START, kind="fitted"),
    "least areas": replace(START, kind="areas"),
    "competition": replace(START, ratio=0.8),
    "competition and least areas": replace(START, kind="areas", ratio=0.9),
    "logits": replace(START, kind="areas", ratio=1.0, mean="logit"),
    "one member": replace(START, shares=(0, 1), kind="fitted"),
    "a member twice": replace(START, shares=(2, 1), kind="areas", ratio=0.7),
    "rules": replace(START, kind="areas", ratio=0.8, rules=("keep-largest", "fill-holes")),
    "rank rule": replace(START, kind="rank"),
}
FACTORS = {
    "start": START,
    "factors": replace(START, kind="fitted"),
    "logits": replace(START, kind="fitted", mean="logit"),
    "rules": replace(START, kind="fitted", rules=("drop-small:1%",)),
    "least area": replace(START, rules=("least-area:5%",)),
    "rank rule": replace(START, kind="rank"),
}


@pytest.mark.parametrize("candidate", THRESHOLDS.values(), ids=THRESHOLDS)
def test_counts_are_those_of_the_vote(candidate: Candidate, make_store: Make) -> None:
    check_counts(candidate, ThresholdBench, *ensemble(make_store))


@pytest.mark.parametrize("candidate", FACTORS.values(), ids=FACTORS)
def test_counts_of_factors_are_those_of_the_vote(candidate: Candidate, make_store: Make) -> None:
    check_counts(candidate, FactorBench, *ensemble(make_store, "softmax"))


def check_counts(candidate: Candidate, kind: type[Bench], ens: ek.Ensemble, truth: ek.MaskSet) -> None:
    bench = bench_of(ens, truth, kind)
    assert bench.prepare([candidate]) == [candidate]
    for which in unions_of(4):
        decision, rules = (RankRule(None), ()) if candidate.kind == "rank" else bench.decided(candidate, which)
        found = dice(bench.fused(candidate).vote(decision, rules=rules), truth)
        held = np.concatenate([f for j, f in enumerate(bench.folds) if j not in which or len(which) == 4])
        tp, pred = bench.counts(candidate, which)
        assert np.array_equal(tp[:, held], found.tp.T[:, held])
        assert np.array_equal(pred[:, held], found.pred.T[:, held])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_set_scores_what_its_vote_scores(activation: str, make_store: Make, tmp_path: Path) -> None:
    ens, truth = ensemble(make_store, activation)
    found = ek.tune_thresholds(ens, truth, folds=4, search="auto", objective="mean", metric="dice", empty=1, jobs=1)
    record, crossed = found.search["auto"], found.validation.crossed
    voted = dice(ens.as_tuned(found).vote(found), truth)
    assert found.score == found.measure.of_all(voted.tp.T, voted.pred.T, voted.truth.T)
    assert crossed is not None
    start = record["ladder"][0]["out_of_fold"]
    assert record["fell_back"] == (record["out_of_fold"] < start)
    assert crossed.scores["tuned"] >= start - 1e-9  # never what loses to the start
    taken = [rung["out_of_fold"] for rung in record["ladder"] if rung["taken"]]
    assert taken == sorted(taken)
    found.save(tmp_path / "set.json")
    loaded = ek.ThresholdSet.load(tmp_path / "set.json")
    assert loaded == found
    assert ens.as_tuned(loaded).vote(loaded) == ens.as_tuned(found).vote(found)
    again = ek.tune_thresholds(ens, truth, folds=4, search="auto", objective="mean", metric="dice", empty=1, jobs=2)
    assert again == found  # the same for any number of threads
    assert "Chosen: " in str(auto.report(found))


@pytest.mark.slow
def test_noise_that_competition_removes_is_found(make_store: Make) -> None:
    """Where pixels of exclusive things are claimed by several classes, competition is a step that is taken."""
    ens, truth = ensemble(make_store, noise=3.0)
    found = ek.tune_thresholds(ens, truth, folds=4, search="auto", jobs=1)
    assert any(rule.startswith("compete:") for rule in found.rules)
    assert found.search["auto"]["out_of_fold"] > found.search["auto"]["ladder"][0]["out_of_fold"]


def test_when_time_is_up_what_is_counted_decides(make_store: Make) -> None:
    ens, truth = ensemble(make_store)
    found = ek.tune_thresholds(ens, truth, folds=4, search=Search(("auto",), timeout=1e-9), jobs=1)
    record = found.search["auto"]
    assert record["stopped"]
    assert [rung["step"] for rung in record["ladder"]] == ["start", "thresholds or factors", "least areas"]
    assert record["passes"] == 2  # to count, and for the set's report


def test_the_fix_of_a_search_without_folds_works(make_store: Make) -> None:
    """From Python no folds are the default."""
    ens, truth = ensemble(make_store)
    search = Search(("auto",), timeout=1e-9)
    with pytest.raises(ek.UsageError, match="pass folds='auto'"):
        ek.tune_thresholds(ens, truth, search=search)
    assert ek.tune_thresholds(ens, truth, search=search, folds="auto", jobs=1).search["auto"]["stopped"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no folds": ({"folds": None}, "judged out of fold"),
    "a choice": ({"choose": "own"}, "--choose .* with --search auto"),
    "a rule": ({"rules": ("compete:0.8",)}, "fix: leave --rule out"),
    "with weights": ({"search": "auto,weights"}, "auto alone"),
}


@pytest.mark.parametrize(("options", "told"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(options: dict[str, Any], told: str, make_store: Make) -> None:
    ens, truth = ensemble(make_store)
    with pytest.raises(ek.UsageError, match=told):
        ek.tune_thresholds(ens, truth, **{"folds": 4, "search": "auto", **options})


def test_two_groups_are_too_few(make_store: Make) -> None:
    ens, truth = ensemble(make_store)
    groups = {s: "one" if s < "s" else "two" for s in SAMPLES}
    with pytest.raises(ek.UsageError, match="three groups"):
        ek.tune_thresholds(ens, truth, folds="auto", groups=groups, search="auto")


def test_auto_keeps_no_study() -> None:
    with pytest.raises(ek.UsageError, match="--storage"):
        Search(("auto",), storage="sqlite:///x.db")
