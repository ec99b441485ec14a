"""Rules that are tuned with the thresholds: what tuning reports is what the vote gets, and nothing is better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.recipes.deciding import Deciding
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.class_options import gather_options
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.search.described import doubted_rules
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.statistics import Statistics, count

Make = Callable[..., ek.LogitStore]
IMAGE = (40, 50)


def case(
    seed: int, make_store: Make, samples: int = 6, varied: bool = False, void: bool = False
) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Three classes, noisy, that compete; truths that follow the scores, and some that are empty."""
    rng = np.random.default_rng(seed)
    ids = [f"s{k}" for k in range(samples)]
    sizes = {s: (40 + 8 * (k % 3) * varied, 50) for k, s in enumerate(ids)}
    stores = []
    for member in range(2):
        logits = {s: (3 * smooth_logits(rng, (3, 12, 15), 2) - 1).astype(np.float16) for s in ids}
        sized = sizes if varied else IMAGE
        stores.append(make_store(logits, sized, ("x", "y", "z"), member=f"m{member}"))
    ens = ek.Ensemble(stores)
    masks, voids = {}, {}
    for s in ids:
        for c, name in enumerate(ens.classes):
            drawn = ens.sample(s).runs(c, int(rng.integers(25000, 45000)))
            noise = ek.encode(rng.random(sizes[s]) < 0.05)
            masks[s, name] = drawn ^ noise if rng.random() < 0.7 else ek.encode(np.zeros(sizes[s], bool))
        if void:
            voids[s] = ek.encode(rng.random(sizes[s]) < 0.1)
    return ens, ek.MaskSet(masks, void=voids) if void else ek.MaskSet(masks)


@pytest.mark.parametrize("what", ["least-area", "compete", "compete,least-area"])
@pytest.mark.parametrize("kind", ["plain", "varied", "void"])
@pytest.mark.parametrize("folds", [None, 3], ids=["in-sample", "folds"])
def test_the_score_is_that_of_the_vote(what: str, kind: str, folds: int | None, make_store: Make) -> None:
    ens, truth = case(len(what), make_store, varied=kind == "varied", void=kind == "void")
    tuned = ek.tune_thresholds(ens, truth, search=what, folds=folds, shrink=False)
    masks = ens.vote(tuned)
    scored = ek.dice(masks, truth)
    assert scored.mean == tuned.score
    assert scored.per_class == tuned.per_class
    alone = ek.tune_thresholds(ens, truth, folds=folds, shrink=False)
    if folds is None:
        assert tuned.score >= alone.score
    kinds = {type(rule).kind for rule in parse_rules(tuned.rules)}
    assert kinds <= set(what.split(","))


def best_inside(ens: ek.Ensemble, truth: ek.MaskSet, name: str, others: dict[str, int], rules: list[str]) -> float:
    """The best score of a class over 100 levels, the others' levels given."""
    levels = np.linspace(0, 65535, 100).astype(int).tolist()
    scores = []
    for level in levels:
        masks = ens.vote(ek.Thresholds({**others, name: level}), rules=rules)
        scores.append(ek.dice(masks, truth).per_class[name])
    return max(scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [
        ["compete:0.8"],
        ["nested@z,x,y"],
        ["least-area:120@x"],
        ["compete:0.9@x,y", "nested@x,y", "least-area:60"],
    ],
    ids=["compete", "nested", "least area", "all"],
)
@pytest.mark.parametrize("kind", ["plain", "void"])
def test_thresholds_are_the_best_under_given_rules(rules: list[str], kind: str, make_store: Make) -> None:
    ens, truth = case(5, make_store, samples=5, void=kind == "void")
    for folds in (None, 3):
        tuned = ek.tune_thresholds(ens, truth, rules=rules, folds=folds)
        assert tuned.rules == tuple(rules)
        scored = ek.dice(ens.vote(tuned), truth)
        assert scored.mean == tuned.score
        assert scored.per_class == tuned.per_class
    if kind == "plain":
        for name in ens.classes:
            found = ek.dice(ens.vote(tuned), truth).per_class[name]
            assert found >= best_inside(ens, truth, name, tuned.levels, rules) - 1e-12


@pytest.mark.parametrize(
    ("rules", "search", "told"),
    [
        (["fill-holes"], None, "fill-holes"),
        (["nested:grow@x,y"], None, "grow"),
        (["least-area:9", "compete:0.8"], None, "order"),
        (["compete:0.8", "compete:0.9"], None, "'compete:0.9'"),
        (["compete:0.8"], "compete", "search of compete"),
        (["compete:0.8"], "post", "post"),
        ([], "post,compete", "post"),
        (["least-area:9@nobody"], None, "nobody"),
    ],
    ids=["another kind", "grow", "order", "twice", "given and searched", "post", "post and compete", "unknown class"],
)
def test_rules_that_counts_do_not_tell_are_refused(
    rules: list[str], search: str | None, told: str, make_store: Make
) -> None:
    ens, truth = case(0, make_store, samples=1)
    with pytest.raises(ek.EnskError, match=told):
        ek.tune_thresholds(ens, truth, rules=rules, search=search)


@pytest.mark.slow
def test_the_search_goes_with_weights(make_store: Make) -> None:
    ens, truth = case(3, make_store, samples=6)
    search = Search(("weights", "compete", "least-area"), trials=3)
    tuned = ek.tune_thresholds(ens, truth, search=search, folds=3)
    assert ek.dice(ens.as_tuned(tuned).vote(tuned), truth).mean == tuned.score
    assert tuned.search["nested"]["out_of_fold"] == pytest.approx(tuned.validation.crossed.scores["tuned"])


@pytest.mark.parametrize(
    ("search", "rules"),
    [("least-area", []), (None, ["compete:0.8", "nested@x,z"]), ("least-area", ["nested@y,x,z"])],
    ids=["least area", "compete and nested", "least area and nested"],
)
def test_out_of_fold_is_what_sets_do_that_never_saw_the_fold(
    search: str | None, rules: list[str], make_store: Make
) -> None:
    ens, truth = case(11, make_store, samples=7)
    tuned = ek.tune_thresholds(ens, truth, search=search, rules=rules, folds=3)
    split, _ = folds_of(ens.samples, 3, None, 0)
    values = []
    for fold in split:
        rest, held = ([s for k, s in enumerate(ens.samples) if (k in fold) == side] for side in (False, True))
        others = ek.tune_thresholds(ens.on(rest), truth.arranged(tuple(rest), ens.classes), search=search, rules=rules)
        masks = ens.on(held).vote(others)
        values += ek.dice(masks, truth.arranged(tuple(held), ens.classes)).table()["value"].tolist()
    crossed = tuned.validation.crossed
    assert crossed is not None
    assert crossed.scores["tuned"] == pytest.approx(np.mean(values), abs=1e-12)
    assert crossed.score is not None
    assert crossed.score.value == crossed.scores["tuned"], "what the interval is of"


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32),
    st.sampled_from(["compete", "least-area", "compete,least-area"]),
    st.sampled_from(["mean", "pooled"]),
    st.sampled_from([1, 0, "skip"]),
    st.sampled_from([0.0, 1e-4]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 3]),
)
def test_every_convention_is_reported_as_voted(
    make_store: Make, seed: int, what: str, objective: Any, empty: Any, eps: float, varied: bool, void: bool, folds: Any
) -> None:
    ens, truth = case(seed, make_store, samples=4, varied=varied, void=void)
    tuned = ek.tune_thresholds(ens, truth, objective, empty, eps, search=what, folds=folds)
    scored = ek.dice(ens.vote(tuned), truth, eps, empty)
    assert np.array_equal(tuned.score, scored.mean if objective == "mean" else scored.pooled, equal_nan=True)
    if folds is None:
        assert not tuned.score < ek.tune_thresholds(ens, truth, objective, empty, eps).score


def test_statistics_keep_areas_where_pixels_are_void(tmp_path: Path, make_store: Make) -> None:
    ens, truth = case(1, make_store, samples=3, void=True)
    tables = count(ens, truth, dict.fromkeys(range(3), (3277, 62260)), areas=True)
    kept = Statistics(ens.samples, ens.classes, tuple(tables[c] for c in range(3)), "x")
    kept.save(tmp_path / "counts.npz")
    loaded = Statistics.load(tmp_path / "counts.npz")
    assert kept.tells_areas
    assert loaded.tells_areas
    for a, b in zip(kept.tables, loaded.tables, strict=True):
        assert np.array_equal(a.areas[0], b.areas[0])
        assert np.array_equal(a.areas[1], b.areas[1])
        assert (a.areas[0] >= a.pred).all()
        assert (a.areas[0] > a.pred).any()


def test_the_command_writes_rules_that_the_vote_applies(
    tmp_path: Path, make_store: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        app(list(arguments), standalone_mode=False)
        told = capsys.readouterr()
        return " ".join((told.out + told.err).split())

    ens, truth = case(2, make_store, samples=5)
    truth.write(tmp_path / "val.npz", "npz")
    stores = [str(store.path) for store in ens.members]
    out, masks = tmp_path / "set.json", tmp_path / "voted.npz"
    shared = ["--val", str(tmp_path / "val.npz"), "--folds", "3"]
    told = run("tune-thresholds", *stores, *shared, "--search", "compete,least-area", "--out", str(out))
    assert "Rules with these thresholds" in told
    assert "out of fold; thresholds alone" in told
    tuned = ek.ThresholdSet.load(out)
    run("vote", *stores, "--thresholds", str(out), "--out", str(masks))
    assert ek.dice(ek.read_masks(masks), truth).mean == tuned.score
    run("tune-thresholds", *stores, *shared, "--rule", "compete:0.8", "--out", str(out), "--force")
    assert ek.ThresholdSet.load(out).rules == ("compete:0.8",)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rules": ["compete:0.8"], "search": "compete"}, "search of compete"),
        ({"rules": ["least-area:9", "compete:0.8"]}, "order"),
        ({"rules": ["least-area:9"], "search": "least-area"}, "for every class"),
        ({"rules": ["least-area:9@x", "least-area:1%@y,z"], "search": "least-area"}, "for every class"),
        ({"rules": ["compete:0.8"], "choose": "bagged"}, "--choose bagged with rules"),
        ({"search": "compete", "choose": "shrunk"}, "--choose shrunk with rules"),
        ({"search": "least-area,weights", "choose": "shared"}, "--choose shared with rules"),
        ({"search": "auto", "rules": ["compete:0.8"], "folds": 3}, "leave --rule out"),
        ({"search": "auto", "choose": "own", "folds": 3}, "--choose"),
    ],
    ids=str,
)
def test_options_without_effect_are_refused_before_any_count(
    options: dict[str, Any], told: str, make_store: Make
) -> None:
    ens, truth = case(0, make_store, samples=3)
    with pytest.raises(ek.UsageError, match=told):
        ek.tune_thresholds(ens, truth, listener=lambda event: pytest.fail("it counted"), jobs=1, **options)


def test_classes_that_exclude_each_other_do_not_compete(make_store: Make, rng: np.random.Generator) -> None:
    logits = {s: rng.normal(size=(2, 6, 6)).astype(np.float16) for s in "ab"}
    ens = ek.Ensemble(make_store(logits, (6, 6), ("x", "y"), activation="softmax"))
    with pytest.raises(ek.UsageError, match="leave compete out"):
        ek.tune_thresholds(ens, ens.vote(), decide="threshold", search="compete")


@pytest.mark.parametrize("options", [{"search": "compete,least-area"}, {"rules": ["compete:0.8"]}], ids=str)
def test_a_set_with_rules_records_that_each_class_has_its_own_optimum(
    options: dict[str, Any], make_store: Make
) -> None:
    ens, truth = case(1, make_store)
    tuned = ek.tune_thresholds(ens, truth, folds=3, **options)
    assert tuned.choose == "own"
    assert tuned.search["ruled"]["without"]["choose"] == "bagged"
    assert not [line for line in tuned.report().lines if "bagged" in line]


def test_rules_that_lose_out_of_fold_are_warned_of(make_store: Make) -> None:
    ens, truth = case(1, make_store)
    tuned = ek.tune_thresholds(ens, truth, folds=3, rules=["least-area:1000"])
    crossed = tuned.validation.crossed
    assert crossed is not None
    best = max(crossed.scores["half"], tuned.search["ruled"]["without"]["out_of_fold"])
    assert crossed.scores["tuned"] < best
    (told,) = doubted_rules(tuned)
    assert f"{crossed.scores['tuned']:.4f}" in told.doubt
    assert f"{best:.4f}" in told.doubt
    assert not doubted_rules(ek.tune_thresholds(ens, truth, folds=3))


def test_classes_that_do_not_compete_are_counted_by_themselves(make_store: Make) -> None:
    ens, truth = case(1, make_store)
    split = folds_of(ens.samples, None, None, 0)[0]
    how = ens, truth, Measure("mean", "dice"), split, (0.8,), [0, 1], False
    together = gather_options(*how)[0.8]
    apart = gather_options(*how, at_once=1)[0.8]
    assert [dict(c.own) for c in together] == [dict(c.own) for c in apart]


def voting(ens: ek.Ensemble, tuned: ek.ThresholdSet, *rules: str, kind: str | None = None) -> SoftVote:
    return SoftVote.of(ens, Deciding(tuned, kind), parse_rules(rules))


def test_a_vote_tells_which_rules_of_a_set_it_does_not_apply(make_store: Make) -> None:
    ens, truth = case(1, make_store)
    tuned = ek.tune_thresholds(ens, truth, rules=["compete:0.8@x,y", "least-area:2"])
    assert not voting(ens, tuned).doubts()
    (told,) = voting(ens, tuned, "drop-small:3").doubts()
    assert "compete:0.8@x,y and least-area:2" in told.doubt
    assert "--rule compete:0.8@x,y --rule least-area:2 --rule drop-small:3" in told.fix
    assert not voting(ens, tuned, "compete:0.8@x,y", "least-area:2", "drop-small:3").doubts()
    (told,) = voting(ens, tuned, kind="rank").doubts()
    assert "not applied" in told.doubt
    assert "--rule compete:0.8@x,y --rule least-area:2" in told.fix


def test_a_least_area_beyond_every_image_is_warned_of(make_store: Make) -> None:
    ens, truth = case(1, make_store, samples=3)
    (told,) = SoftVote.of(ens, Deciding(0.5), parse_rules(["least-area:2001", "least-area:2000"])).doubts()
    assert "'least-area:2001'" in told.doubt
    assert "2000 pixels" in told.doubt
    with pytest.warns(UserWarning, match="empties every mask"):
        ek.tune_thresholds(ens, truth, rules=["least-area:2001"])


@pytest.mark.parametrize("rule", ["compete:2", "blur:3", "least-area:0", "least-area:5@x,x"])
def test_a_set_with_a_rule_that_cannot_be_read_is_named(rule: str, tmp_path: Path, make_store: Make) -> None:
    ens, truth = case(1, make_store, samples=3)
    path = tmp_path / "set.json"
    ek.tune_thresholds(ens, truth, rules=["least-area:2"]).save(path)
    path.write_text(path.read_text().replace("least-area:2", rule))
    tuned = ek.ThresholdSet.load(path)
    for vote in (lambda: ens.vote(tuned), lambda: voting(ens, tuned)):
        with pytest.raises(ek.DamagedError, match=r"set\.json.*correct it in the file"):
            vote()


def test_predicted_scores_are_scores(make_store: Make) -> None:
    ens, _ = case(1, make_store)
    truth = ens.vote(0.5)
    bad = ens.samples[0]
    other = {(s, c): truth[s, c] ^ ek.encode(np.ones(IMAGE, bool)) if s == bad else truth[s, c]
             for s in truth.samples for c in truth.classes}  # fmt: skip
    found = ek.tune_thresholds(ens, ek.MaskSet(other), folds=3)
    crossed = found.validation.crossed
    assert crossed is not None
    expected = crossed.expected_score(1)
    assert expected is not None
    assert (expected.low, expected.high) == (0.0, 1.0)
    assert crossed.score is not None
    assert 0 < expected.value < 1
