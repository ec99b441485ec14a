"""Distribution shift: what is measured, what is flagged, what is refused; and two sets side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.execution.executor import Threads
from ensemble_kit.kernels import reference as ref
from ensemble_kit.thresholds.comparison import SetComparison
from ensemble_kit.tuning.difference import Difference, holm, mann_whitney
from ensemble_kit.tuning.shift import compare

Make = Callable[..., ek.LogitStore]
IMAGE = (40, 50)


def ensembles(
    make_store: Make, rng: np.random.Generator, offset: float, n: int = 14
) -> tuple[ek.Ensemble, ek.Ensemble]:
    """Two sets of images; in the second, class "y" (stored first there) is brighter by `offset`."""
    sets = []
    for moved in (0.0, offset):
        logits = {f"s{k}": smooth_logits(rng, (2, 12, 15)) for k in range(n)}
        for z in logits.values():
            z[1] += np.float16(moved)
        classes = ("x", "y") if not moved else ("y", "x")
        sets.append(make_store({s: z if not moved else z[::-1] for s, z in logits.items()}, IMAGE, classes, member="m"))
    return ek.Ensemble([sets[0]]), ek.Ensemble([sets[1]])


def test_only_the_class_that_moved_is_flagged(make_store: Make, rng: np.random.Generator) -> None:
    val, test = ensembles(make_store, rng, 8.0)
    found = compare(val, test, executor=Threads(2))
    assert [c.name for c in found.classes] == ["x", "y"]
    assert found.shifted == ("y",)
    assert found.classes[1].area.standardised > 1
    again = compare(
        val, ek.Ensemble([make_store({"t": smooth_logits(rng, (2, 12, 15))}, IMAGE, ("x", "y"), member="m")])
    )
    assert again.shifted == ()  # one sample proves nothing
    report = found.report()
    assert len(report.rows) == 2
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert report.warnings[0].doubt.endswith(": 'y'")
    assert not again.report().warnings
    assert str(found) == "shifted classes: y (14 validation and 14 test samples)"
    assert list(found.table()["quantity"]) == ["area", "undecided"] * 2
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["shifted"] == ["y"]


@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.97])
def test_measures_are_those_of_the_dense_plane(make_store: Make, rng: np.random.Generator, threshold: float) -> None:
    val, test = ensembles(make_store, rng, 0.0, n=3)
    found = compare(val, test, [threshold, 0.4], undecided=(0.2, 0.7))
    for c, name in enumerate(val.classes):
        for ens, area, unsure in (
            (val, found.classes[c].area.validation, found.classes[c].undecided.validation),
            (test, found.classes[c].area.test, found.classes[c].undecided.test),
        ):
            for s, sample in enumerate(ens.samples):
                z = ens.members[0].read(sample)[ens.members[0].classes.index(name)]
                image = ref.image_from_logits([ref.q(z)], [65536], IMAGE, "probability")
                assert area[s] == (image >= ens.level_of((threshold, 0.4)[c])).mean()
                some, sure = (image >= ens.level_of(0.2)).sum(), (image >= ens.level_of(0.7)).sum()
                assert unsure[s] == ((some - sure) / some if some else 0.0)


def test_differences_at_the_ends() -> None:
    same, other = np.zeros(5), np.ones(5)
    assert mann_whitney(same, same) == 1.0
    assert Difference(same, same, 1.0).standardised == 0.0
    parted = Difference(same, other, 0.01)
    assert parted.standardised == np.inf
    assert parted.is_shifted
    assert parted.to_dict()["standardised"] is None
    assert not Difference(same, other, 0.2).is_shifted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_by_its_definition(values: list[float]) -> None:
    """Holm's own procedure: walk up the sorted values while each is at most alpha / (left to test)."""
    corrected = holm(values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for k, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
            if values[index] * (len(values) - k) > alpha:
                break
            rejected.add(index)
        assert {k for k, p in enumerate(corrected) if p <= alpha} == rejected
    assert all(p >= v for p, v in zip(corrected, values, strict=True))


def test_the_p_value_is_scipys(make_store: Make, rng: np.random.Generator) -> None:
    val, test = ensembles(make_store, rng, 8.0)
    area = compare(val, test).classes[1].area
    assert area.p == pytest.approx(4 * stats.mannwhitneyu(area.validation, area.test).pvalue)  # the smallest of four


def test_ensembles_must_be_alike(make_store: Make, rng: np.random.Generator) -> None:
    val, test = ensembles(make_store, rng, 0.0, n=2)
    stores = [m.path for m in test.members]
    logits = {"s0": smooth_logits(rng, (2, 12, 15))}
    other = make_store(logits, IMAGE, ("x", "z"), member="m")
    stranger = make_store(logits, IMAGE, ("x", "y"), member="n")
    for ens, what in (
        (ek.Ensemble([other]), "classes"),
        (ek.Ensemble([stranger]), "members"),
        (ek.Ensemble(stores, mean="logit"), "mean"),
        (ek.Ensemble(stores, upsample="scores"), "upsample"),
        (ek.Ensemble(stores, temperatures=[2]), "temperatures"),
    ):
        with pytest.raises(ek.MismatchError, match=f"two ensembles: {what}: "):
            compare(val, ens)
    for wrong in ((0.9, 0.1), (-0.1, 0.5), (0.2, 1.2)):
        with pytest.raises(ek.UsageError, match="undecided"):
            compare(val, test, undecided=wrong)


def truth_of(ens: ek.Ensemble, rng: np.random.Generator) -> ek.MaskSet:
    return ek.MaskSet({(s, c): ek.encode(rng.random(IMAGE) < 0.3) for s in ens.samples for c in ens.classes})


def test_two_sets_side_by_side(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val, _ = ensembles(make_store, rng, 0.0, n=6)
    truth = truth_of(val, rng)
    a = ek.tune_thresholds(val, truth)
    b = ek.tune_thresholds(ek.Ensemble(val.members, mean="logit"), truth, folds=3, empty=0)
    same = SetComparison(a, a)
    assert (same.differences, same.is_like_with_like) == ({}, True)
    assert same.report().lines == ["Both sets were made in the same way."]
    other = SetComparison(a, b)
    assert {"mean", "metric", "folds", "groups", "shrink"} <= set(other.differences)
    assert other.differences["mean"] == ("probability", "logit")
    assert not other.is_like_with_like
    assert "different metrics" in other.report().warnings[0].doubt
    assert all(len(row) == len(other.report().columns) for row in other.report().rows)

    a.save(tmp_path / "a.json")
    b.save(tmp_path / "b.json")
    app(["inspect", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json"], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert shown["differences"]["mean"] == ["probability", "logit"]
    assert [c["level"] for c in shown["classes"]] == [[a.levels[n], b.levels[n]] for n in ("x", "y")]
    app(["inspect", str(tmp_path / "a.json"), str(tmp_path / "b.json")], standalone_mode=False)
    assert "mean: probability in A, logit in B" in capsys.readouterr().out
    app(["inspect", str(tmp_path / "a.json"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["kind"] == "threshold set"
    with pytest.raises(ek.UsageError, match="3 paths"):
        app(["inspect", *[str(tmp_path / "a.json")] * 3], standalone_mode=False)


def test_sets_of_other_classes_are_not_compared(make_store: Make, rng: np.random.Generator) -> None:
    sets = []
    for classes in (("x", "y"), ("x", "z")):
        ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (2, 8, 8))}, IMAGE, classes)])
        sets.append(ek.tune_thresholds(ens, truth_of(ens, rng)))
    with pytest.raises(ek.MismatchError, match="only in the first: 'y'; only in the second: 'z'"):
        SetComparison(*sets)
