"""Factors: line searches against the oracle over every factor, and what tuning makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.kernels import factors as kernels
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import tables
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable, concatenated, room_of
from ensemble_kit.tuning.factors import tune_factors
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.gathering import gather
from ensemble_kit.tuning.linesearch import FactorSearch
from ensemble_kit.tuning.search import contending
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.search.undecided import Setting
from ensemble_kit.tuning.sweeps import Widening, fit

Values = list[np.ndarray]


MIOU = Measure("pooled", "iou", Convention(0.0, "skip"))


def table_of(values: Values, truth: Values, ratio: int, adds: bool = False) -> ContenderTable:
    """The table of samples given as F_c (C, n) and truth (n,), C for no class and -1 for void."""
    C, n, parts = len(values[0]), len(values), []
    decided = np.zeros((n, C + 1, C), np.int64)
    doubt = np.zeros((n, room_of(ratio, adds).shifts.size - 1, C, C), np.int32)
    far = np.zeros((*doubt.shape, 2), np.int32)
    for s, (v, t) in enumerate(zip(values, truth, strict=True)):
        labels = np.where(t < 0, kernels.VOID, t).astype(np.uint16)
        parts.append(kernels.gather(v, labels, room_of(ratio, adds), decided[s], far[s], doubt[s]))
    offsets = np.cumsum([0, *(p.truth.size for p in parts)])
    names = tuple(f"s{k}" for k in range(n)), tuple(f"c{k}" for k in range(C))
    return ContenderTable(*names, None, "", adds, ratio, concatenated(parts), offsets, decided, far, doubt)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Values, Values, list[int], bool]:
    """Scores of a few samples that lie close together, far apart, at 0 and at ties; truth with void and no class."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    C, adds = draw(st.integers(2, 5)), draw(st.booleans())
    spread, ties = draw(st.sampled_from([0.3, 2.0, 6.0])), draw(st.booleans())
    values, truth = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = int(rng.integers(1, 40))
        z = rng.normal(0, spread, (C, n)) + draw(st.sampled_from([0.0, 1.0])) * np.arange(C)[:, None]
        p = np.exp(z - z.max(0))
        v = 65535 * 65536 * (1 + (z - z.max(0)) / 32 if adds else p / p.sum(0))
        v = np.clip(np.floor(v), 0, 65535 * 65536).astype(np.int64)
        if ties:
            v = v >> 28 << 28
        values.append(v)
        t = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.5, 0.9])), v.argmax(0), rng.integers(-1, C + 1, n))
        truth.append(t)
    factors = np.clip(np.floor(65536 * np.exp(rng.normal(0, 0.7, C)) + 0.5), 512, 8388608).astype(int).tolist()
    return values, truth, factors if draw(st.booleans()) else [65536] * C, adds


measures = st.builds(
    Measure,
    st.sampled_from(["mean", "pooled"]),
    st.sampled_from(["iou", "dice", "f2"]),
    st.builds(Convention, st.sampled_from([0.0, 1e-4]), st.sampled_from([0, 1, "skip"])),
)


def objective(measure: Measure) -> Callable[[np.ndarray], float]:
    """The measure of confusion matrices (samples, C + 1, C)."""

    def score(confusion: np.ndarray) -> float:
        tp, pred = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(1)
        found = measure.of_all(tp.T, pred.T, confusion.sum(2)[:, :-1].T)
        return 1.0 if np.isnan(found) else found

    return score


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(cases(), measures, st.sampled_from(RATIOS), st.integers(0, 4))
def test_line_searches_are_the_oracle(case: Any, measure: Measure, ratio: int, c: int) -> None:
    values, truth, factors, adds = case
    c %= len(factors)
    table = table_of(values, truth, ratio, adds)
    wanted = ref.line_search(values, truth, factors, c, objective(measure), adds)
    search = FactorSearch(table, measure, factors=factors)
    found = search.search(c)
    assert found.is_certain or ratio < RATIOS[-1]
    if found.is_certain:
        assert (found.factor, found.score, found.plateau) == wanted
    else:
        assert found.score <= wanted[1]
    again = FactorSearch(table, measure, factors=search.factors)
    assert np.array_equal(again.tp, search.tp)
    assert np.array_equal(again.pred, search.pred)
    assert again.score == found.score


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("adds", [False, True], ids=["factors multiply", "factors add"])
def test_fits_that_end_at_factors_far_apart_are_exact(seed: int, adds: bool) -> None:
    """A table holds for factors within its ratio: wider ones are taken where those of other classes are further apart."""
    rng, values, truth = np.random.default_rng(seed), list[np.ndarray](), list[np.ndarray]()
    for _ in range(3):
        z = rng.normal(0, 4, (4, 60))
        p = np.exp(z - z.max(0))
        values.append(np.floor(65535 * 65536 * (1 + (z - z.max(0)) / 32 if adds else p / p.sum(0))).astype(np.int64))
        truth.append(rng.choice(4, 60, p=[0.05, 0.05, 0.8, 0.1]))
    wider = Widening(lambda ratio: table_of(values, truth, ratio, adds), [table_of(values, truth, RATIOS[0], adds)])
    found = fit(wider.tables[0], MIOU, wider)
    assert found == fit(table_of(values, truth, RATIOS[-1], adds), MIOU, wider)
    offsets = tables.offsets(np.array(found.factors)).tolist() if adds else None
    won = [ref.winners(v[:, :, None], list(found.factors), offsets)[:, 0] for v in values]
    confusion = np.stack([ref.confusion_of(w, t, 4) for w, t in zip(won, truth, strict=True)])
    assert found.score == pytest.approx(objective(MIOU)(confusion), abs=1e-12)


# --- ensembles ----------------------------------------------------------------------------------------------

CLASSES, IMAGE, GRID = ("background", "a", "b", "c"), (30, 40), (12, 16)
Make = Callable[..., ek.LogitStore]


def case(make_store: Make, samples: int = 4, members: int = 2, seed: int = 0, **options: Any) -> ek.Ensemble:
    """Softmax members that mostly agree."""
    rng = np.random.default_rng(seed)
    names = [f"s{k}" for k in range(samples)]
    shared = {s: smooth_logits(rng, (len(CLASSES), *GRID), 3.0) for s in names}
    stores = [
        make_store(
            {s: (z + smooth_logits(rng, z.shape, 1.0)).astype(np.float16) for s, z in shared.items()},
            IMAGE, CLASSES, activation="softmax", member=f"m{m}",
        )
        for m in range(members)
    ]  # fmt: skip
    return ek.Ensemble(stores, **options)


def truth_of(ens: ek.Ensemble, seed: int = 0, void: bool = True) -> ek.MaskSet:
    """Label maps near what the ensemble sees, with classes that are larger than it thinks, and void."""
    rng, labels = np.random.default_rng(seed), {}
    ens = ens.with_fusion(mean="probability")
    for sample in ens.samples:
        values = ens.sample(sample).values(0, IMAGE[0])
        found = (values * np.array([1.0, 1.6, 0.5, 1.0])[:, None, None]).argmax(0)
        wrong = rng.random(IMAGE) < 0.05
        found[wrong] = rng.integers(0, len(CLASSES), int(wrong.sum()))
        if void:
            found[rng.random(IMAGE) < 0.1] = 255
        labels[sample] = found.astype(np.uint8)
    return ek.MaskSet.from_labels(labels, CLASSES)


FUSIONS: dict[str, dict[str, Any]] = {
    "logits": {},
    "scores": {"upsample": "scores"},
    "mean of logits": {"mean": "logit"},
    "weights by class": {"weights": [[1, 2, 1, 3], [2, 1, 1, 1]]},
    "temperatures": {"temperatures": [0.5, 2.0]},
}


@pytest.mark.parametrize("options", FUSIONS.values(), ids=FUSIONS)
@pytest.mark.parametrize("background", [None, "background"], ids=["all written", "background"])
@pytest.mark.parametrize(("objective", "metric"), [("pooled", "iou"), ("mean", "dice")], ids=["mIoU", "mean Dice"])
def test_the_score_is_that_of_the_vote(
    make_store: Make, options: dict[str, Any], background: str | None, objective: Any, metric: str, tmp_path: Path
) -> None:
    ens = case(make_store, **options)
    truth = truth_of(ens)
    tuned = ek.tune_thresholds(ens, truth, objective, metric=metric, background=background)
    masks = ens.vote(tuned)
    assert masks.exclusive
    scored = getattr(ek, metric)(masks, truth.arranged(truth.samples, masks.classes))
    assert tuned.score == (scored.pooled if objective == "pooled" else scored.mean)
    per_class = scored.pooled_per_class if objective == "pooled" else scored.per_class
    assert {name: tuned.per_class[name] for name in masks.classes} == per_class
    assert tuned.score > tuned.validation.in_sample_at_half
    tuned.save(tmp_path / "set.json")
    assert ek.ThresholdSet.load(tmp_path / "set.json") == tuned


def test_the_default_is_miou_without_absent_classes(make_store: Make) -> None:
    ens = case(make_store)
    truth = truth_of(ens)
    rest, gone = ens.classes[:-1], ens.classes[-1]
    without = {(s, c): truth[s, c] if c in rest else ek.Runs.empty(ens.image_size(s)) for s, c in truth}
    truth = ek.MaskSet(without, void={s: truth[s, gone] | truth.void(s) for s in truth.samples})
    tuned = ek.tune_thresholds(ens, truth)
    assert (tuned.measure.is_miou, tuned.score) == (True, ek.confusion(ens.vote(tuned), truth).miou)
    assert ek.tune_thresholds(ens, truth, metric="dice").measure.convention.empty == 1


@pytest.mark.parametrize("options", FUSIONS.values(), ids=FUSIONS)
def test_a_least_probability_is_recorded_and_scored(make_store: Make, options: dict[str, Any]) -> None:
    ens = case(make_store, **options)
    truth = truth_of(ens)
    plain = ek.tune_thresholds(ens, truth, background="background")
    tuned = ek.tune_thresholds(ens, truth, background="background", least=0.6)
    assert [c.factor for c in tuned.factors] == [c.factor for c in plain.factors]
    assert tuned.decision.least == 0.6
    masks = ens.vote(tuned)
    assert masks.rule.endswith("below 0.6 it has no class")
    scored = ek.iou(masks, truth.arranged(truth.samples, masks.classes), empty="skip")
    assert tuned.score == scored.pooled != plain.score
    assert {name: tuned.per_class[name] for name in masks.classes} == scored.pooled_per_class
    with pytest.raises(ek.UsageError, match="least"):
        ek.tune_thresholds(ens, truth, decide="threshold", least=0.6)
    with pytest.raises(ek.UsageError, match="probability in"):
        ek.tune_thresholds(ens, truth, least=1.5)


def test_no_single_factor_is_better(make_store: Make) -> None:
    ens = case(make_store, samples=2)
    truth = truth_of(ens)
    tuned = ek.tune_thresholds(ens, truth)
    factors = {c.name: c.factor / 65536 for c in tuned.factors}
    assert factors["background"] == 1
    for name in CLASSES[1:]:
        for change in (0.3, 0.7, 0.9, 1.1, 1.5, 3.0):
            other = ens.vote(ek.Argmax({**factors, name: min(factors[name] * change, 128)}))
            assert ek.iou(other, truth).pooled < tuned.score + 1e-5


def test_void_counts_nowhere(make_store: Make) -> None:
    ens = case(make_store)
    truth = truth_of(ens, void=False)
    void = {s: ek.encode(np.random.default_rng(k).random(IMAGE) < 0.3) for k, s in enumerate(ens.samples)}
    with_void = ek.MaskSet(dict(truth.items()), void=void)
    cut = ek.MaskSet({(s, c): runs - void[s] for (s, c), runs in truth.items()}, void=void)
    tuned = ek.tune_thresholds(ens, with_void)
    assert tuned == ek.tune_thresholds(ens, with_void)
    assert tuned.factors == ek.tune_thresholds(ens, cut).factors
    assert tuned.factors != ek.tune_thresholds(ens, truth).factors


@pytest.mark.slow
@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_folds_judge_what_did_not_choose(make_store: Make, mean: str) -> None:
    ens = case(make_store, samples=9, mean=mean)
    truth = truth_of(ens)
    tuned = ek.tune_thresholds(ens, truth, folds=3, seed=2)
    crossed = tuned.validation.crossed
    assert crossed is not None
    split = make_folds(ens.samples, 3, None, 2)
    counts = {"tp": [], "pred": [], "truth": []}
    for k, fold in enumerate(split):  # each fold voted with the factors that the others chose
        rest = [s for j, s in enumerate(ens.samples) if j not in fold]
        chosen = ek.tune_thresholds(ens.on(rest), truth.arranged(rest, CLASSES))
        assert [c.levels[k] for c in crossed.classes.values()] == [c.factor for c in chosen.factors]
        held = [ens.samples[j] for j in fold]
        scored = ek.iou(ens.on(held).vote(chosen), truth.arranged(held, CLASSES))
        for name, values in counts.items():
            values.append(getattr(scored, name).sum(0))
    tp, pred, area = (np.sum(v, axis=0) for v in counts.values())
    assert crossed.scores["own"] == Measure("pooled", "iou").of_all(tp[:, None], pred[:, None], area[:, None])
    assert crossed.scores["one"] == ek.iou(ens.vote(), truth).pooled
    assert crossed.scores["tuned"] > crossed.scores["one"]
    assert "factor" in tuned.report().columns


def test_statistics_answer_a_second_question(make_store: Make, tmp_path: Path) -> None:
    ens = case(make_store)
    truth = truth_of(ens)
    kept: list[ContenderTable] = []
    first = tune_factors(ens, truth, MIOU, keep=kept.append)
    kept[0].save(tmp_path / "kept.npz")
    known = ContenderTable.load(tmp_path / "kept.npz")
    assert ek.tune_thresholds(ens, truth, statistics=known) == first
    second = ek.tune_thresholds(ens, truth, "mean", metric="dice", statistics=known)
    assert second == ek.tune_thresholds(ens, truth, "mean", metric="dice")
    for other, options in ((ens.with_fusion(weights=[1, 3]), {}), (ens, {"background": "background"})):
        with pytest.raises(ek.MismatchError) as caught:
            ek.tune_thresholds(other, truth, statistics=known, **options)
        assert caught.value.code == "statistics-differ"


@pytest.mark.parametrize("name", ["truth", "offsets", "classes", "values", "begins", "decided", "far", "doubt"])
def test_damaged_statistics_are_refused(make_store: Make, tmp_path: Path, name: str) -> None:
    ens = case(make_store, samples=1, members=1)
    gather(ens, truth_of(ens), RATIOS[0]).save(tmp_path / "kept.npz")
    with np.load(tmp_path / "kept.npz") as file:
        arrays = dict(file)
    for damaged in (arrays[name][:-1], arrays[name].astype(np.float32), arrays[name] * 0 + 7):
        np.savez(tmp_path / "bad.npz", **{**arrays, name: damaged})
        alike = damaged.dtype == arrays[name].dtype and damaged.shape == arrays[name].shape
        if alike and name in {"values", "decided", "far", "doubt"}:
            continue  # other numbers, all of them possible
        with pytest.raises(ek.DamagedError, match="do not fit each other"):
            ContenderTable.load(tmp_path / "bad.npz")


def test_what_does_not_fit_is_refused(make_store: Make) -> None:
    ens = case(make_store, samples=4)
    truth = truth_of(ens)
    overlap = ek.MaskSet({key: ek.encode(np.ones(IMAGE, bool)) for key in truth})
    wider = ek.MaskSet({**truth, **{(s, "sky"): ek.Runs.empty(IMAGE) for s in truth.samples}})
    lacking = truth.arranged(truth.samples, CLASSES[1:])
    large = ek.MaskSet({key: ek.Runs.empty((60, 80)) for key in truth})
    for wrong, options, code in (
        (overlap, {}, "truth-overlaps"),
        (wider, {}, "classes-differ"),
        (lacking, {}, "classes-differ"),
        (large, {}, "image-size-differs"),
        (truth, {"folds": 5}, "folds-invalid"),
        (truth, {"background": "sky"}, "option-invalid"),
        (truth, {"decide": "rank"}, "option-invalid"),
        (truth, {"decide": "threshold", "background": "background"}, "decide-invalid"),
        (truth, {"search": "post"}, "option-invalid"),
    ):
        with pytest.raises(ek.EnskError) as caught:
            ek.tune_thresholds(ens, wrong, **options)
        assert caught.value.code == code
    assert ek.tune_thresholds(ens, lacking, background="background").decision.background == "background"


def test_a_member_that_is_right_nowhere_is_told(make_store: Make) -> None:
    z = np.zeros((len(CLASSES), *GRID), np.float16)
    z[1] = 9
    samples = ("x", "y")
    bad = make_store(dict.fromkeys(samples, z), IMAGE, CLASSES, activation="softmax", member="bad")
    truth = ek.MaskSet.from_labels({s: np.zeros(IMAGE, np.uint8) for s in samples}, CLASSES)
    with pytest.warns(UserWarning, match=r"member 'bad'.* 2 samples.* labels shifted by one\?"):
        ek.tune_thresholds(ek.Ensemble([bad]), truth)


# --- the joint search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mean": "logit"}], ids=["probability", "logit"])
def test_a_trial_is_what_the_stores_give(make_store: Make, options: dict[str, Any]) -> None:
    ens = case(make_store, members=3, **options)
    truth, measure = truth_of(ens), Measure("pooled", "iou")
    table = contending.collect(ens, truth)
    assert table.stride == 1
    for weights in ([1, 1, 1], [1, 0, 0], [3, 1, 2]):
        setting = replace(Setting.uniform(ens), weights=tuple(map(float, weights)))
        tried = table.try_setting(setting, measure)
        exact = tune_factors(setting.applied(ens), truth, measure)
        assert tried.levels == tuple(c.factor for c in exact.factors)
        assert tried.score == round(exact.score, 12)


def test_a_budget_of_memory_takes_every_second_pixel(make_store: Make) -> None:
    ens = case(make_store)
    truth, whole = truth_of(ens), contending.collect(ens, truth_of(ens))
    half = contending.collect(ens, truth, memory=whole.scores.nbytes // 3)
    assert half.stride == 2
    assert 0 < half.pixels < whole.pixels / 3
    assert half.table.areas.sum() + (half.table.decided[:, -1].sum()) <= 4 * 15 * 20


@pytest.mark.slow
@pytest.mark.parametrize("what", ["greedy", "weights", "weights,mean"])
@pytest.mark.parametrize("folds", [None, 3], ids=["plain", "nested"])
def test_a_search_keeps_what_is_better(make_store: Make, what: str, folds: int | None) -> None:
    good = case(make_store, samples=6, members=1)
    truth = truth_of(good)
    noise = {
        s: np.random.default_rng(k).normal(0, 2, (4, *GRID)).astype(np.float16) for k, s in enumerate(good.samples)
    }
    ens = ek.Ensemble([good.members[0], make_store(noise, IMAGE, CLASSES, activation="softmax", member="noise")])
    search = Search(tuple(what.split(",")), trials=6)
    tuned = ek.tune_thresholds(ens, truth, search=search, folds=folds, groups=None)
    assert tuned.score == ek.iou(ens.as_tuned(tuned).vote(tuned), truth).pooled
    plain = ek.tune_thresholds(ens, truth)
    assert tuned.score > plain.score
    assert tuned.fusion.weights[0][0] > 32768
    if folds:
        assert tuned.search["nested"]["gain_over_uniform"][0] > 0
        assert tuned.validation.crossed.scores.keys() == {"tuned", "uniform", "one"}


# --- gathering ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", FUSIONS.values(), ids=FUSIONS)
@pytest.mark.parametrize("grids", [(GRID,), (GRID, (7, 9))], ids=["one grid", "two grids"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_settled_pixels_are_those_that_no_factor_changes(
    make_store: Make, options: dict[str, Any], grids: tuple[tuple[int, int], ...], ratio: int
) -> None:
    rng = np.random.default_rng(ratio)
    stores = [
        make_store(
            {"s": (40 * smooth_logits(np.random.default_rng(0), (4, *grid), 4.0)).astype(np.float16)},
            IMAGE, CLASSES, activation="softmax", member=f"m{m}",
        )
        for m, grid in enumerate([*grids, grids[0]][:2])
    ]  # fmt: skip
    ens = ek.Ensemble(stores, **options)
    scores = ens.sample("s")
    labels = rng.integers(0, 5, IMAGE).astype(np.uint16)
    labels[:2] = kernels.VOID
    room = room_of(ratio, ens.fusion.mean.of_logits)
    decided, doubt = np.zeros((5, 4), np.int64), np.zeros((room.shifts.size - 1, 4, 4), np.int32)
    far = np.zeros((*doubt.shape, 2), np.int32)
    masks, void = ManyRuns.of([ek.encode(labels == c) for c in range(4)]), ek.encode(labels == kernels.VOID)
    parts = list(scores.open_values(masks, void, ratio, decided))
    values, truth = np.concatenate([v for v, _ in parts], axis=1), np.concatenate([t for _, t in parts])
    settled = decided.sum()
    assert settled + truth.size == labels.size - 2 * IMAGE[1]
    found = kernels.gather(values, truth, room, decided, far, doubt)
    all_decided, all_far, all_doubt = (np.zeros_like(v) for v in (decided, far, doubt))
    whole = kernels.gather(
        scores.values(0, IMAGE[0]).reshape(4, -1), labels.ravel(), room, all_decided, all_far, all_doubt
    )
    assert settled > 0
    assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    assert np.array_equal(decided, all_decided)
    assert np.array_equal(far, all_far)
    assert np.array_equal(doubt, all_doubt)


# --- the command line ---------------------------------------------------------------------------------------


def test_the_command_tunes_factors_of_softmax_stores(make_store: Make, tmp_path: Path, capsys: Any) -> None:
    ens = case(make_store, samples=6)
    truth = truth_of(ens, void=False)
    truth.write(tmp_path / "val", format="label-map")
    stores, out, kept = [str(m.path) for m in ens.members], tmp_path / "set.json", tmp_path / "kept.npz"
    asked = ["tune-thresholds", *stores, "--val", str(tmp_path / "val"), "--out", str(out), "--folds", "3"]
    for force in ([], ["--force"]):
        app([*asked, "--statistics", str(kept), *force], standalone_mode=False)
    said = capsys.readouterr()
    assert "plateau" in said.out
    assert said.err.count("counting 6/6") <= 1  # the second run reads the statistics
    tuned = ek.ThresholdSet.load(out)
    assert tuned.decision.kind == "argmax"
    assert tuned.measure == MIOU
    assert tuned.factors == ek.tune_thresholds(ens, truth, folds=3).factors
    app([*asked, "--least", "0.6", "--force"], standalone_mode=False)
    assert "no class where its largest probability is below 0.6" in capsys.readouterr().out.replace("\n", " ")
    assert ek.ThresholdSet.load(out).decision.least == 0.6
