"""Folds, honest scores, intervals, and what shrinks to the common threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning import resampling
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import group_of, make_folds, read_groups
from ensemble_kit.tuning.resampling import Resampler

Make = Callable[..., ek.LogitStore]


@given(st.lists(st.integers(0, 12), min_size=12, max_size=40), st.integers(3, 5), st.integers(0, 3))
def test_no_group_is_on_both_sides(numbers: list[int], folds: int, seed: int) -> None:
    samples = [f"s{k}_{n}" for k, n in enumerate(numbers)]
    names = group_of(samples, r"_(\d+)$")
    if len(set(names)) < folds:
        return
    made = make_folds(samples, folds, r"_(\d+)$", seed)
    assert sorted(np.concatenate(made).tolist()) == list(range(len(samples)))
    owners = [{names[k] for k in fold} for fold in made]
    assert sum(map(len, owners)) == len(set(names))
    assert all(fold.size for fold in made)
    again = make_folds(samples, folds, r"_(\d+)$", seed)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))


def test_groups_of_every_kind(tmp_path: Path) -> None:
    samples = ["ID1_L", "ID1_R", "ID2_L"]
    assert group_of(samples, None) == samples
    assert group_of(samples, "^ID[0-9]+") == ["ID1", "ID1", "ID2"]
    (tmp_path / "groups.csv").write_text("ID1_L,a\nID1_R,a\nID2_L,b\n")
    assert group_of(samples, read_groups(str(tmp_path / "groups.csv"))) == ["a", "a", "b"]
    assert read_groups("^ID") == "^ID"
    with pytest.raises(ek.MismatchError, match="1 of 3 have no group by the expression 'ID1': 'ID2_L'"):
        group_of(samples, "ID1")
    with pytest.raises(ek.UsageError, match="is not a regular expression"):
        group_of(samples, "(")
    (tmp_path / "bad.csv").write_text("ID1_L;a\n")
    with pytest.raises(ek.DamagedError, match="row 1 has 1 fields"):
        read_groups(str(tmp_path / "bad.csv"))
    for folds in (1, 2, 4):
        with pytest.raises(ek.UsageError, match="cannot cross-validate"):
            make_folds(samples, folds, None, 0)


def problem(
    make_store: Make, rng: np.random.Generator, best: dict[str, int], n: int = 12
) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Truths that are the class's mask at a level of its own, with a few pixels of noise."""
    logits = {f"p{k // 2}_{k}": smooth_logits(rng, (len(best), 12, 12)) for k in range(n)}
    ens = ek.Ensemble([make_store(logits, (48, 48), tuple(best))])
    truth = {}
    for sample in ens.samples:
        for c, (name, level) in enumerate(best.items()):
            noise = ek.encode(rng.random((48, 48)) < 0.02)
            truth[sample, name] = ens.sample(sample).runs(c, level) ^ noise
    return ens, ek.MaskSet(truth)


def test_out_of_fold_is_what_refitting_by_hand_gives(make_store: Make, rng: np.random.Generator) -> None:
    ens, truth = problem(make_store, rng, {"x": 15000, "y": 50000})
    groups = r"^(p\d+)_"
    tuned = ek.tune_thresholds(ens, truth, folds=3, groups=groups, shrink=False, seed=4)
    crossed = tuned.validation.crossed
    assert crossed is not None
    masks: dict[tuple[str, str], ek.Runs] = {}
    for k, fold in enumerate(make_folds(ens.samples, 3, groups, 4)):
        held = {ens.samples[i] for i in fold}
        rest = {s: ens.members[0].read(s) for s in ens.samples if s not in held}
        own = ek.Ensemble([make_store(rest, (48, 48), ens.classes)])
        found = ek.tune_thresholds(own, ek.MaskSet({key: truth[key] for key in truth if key[0] not in held}))
        assert [crossed.classes[c].levels[k] for c in ens.classes] == [found.levels[c] for c in ens.classes]
        for sample in held:
            for c, name in enumerate(ens.classes):
                masks[sample, name] = ens.sample(sample).runs(c, found.levels[name])
    scored = ek.dice(ek.MaskSet(masks), truth)
    assert crossed.scores["own"] == crossed.scores["tuned"] == pytest.approx(scored.mean, abs=1e-15)
    assert crossed.scores["half"] == ek.dice(ens.vote(0.5), truth).mean
    for name in ens.classes:
        assert crossed.classes[name].score == pytest.approx(scored.per_class[name], abs=1e-15)


def test_real_gains_are_kept_and_noise_is_not(make_store: Make, rng: np.random.Generator) -> None:
    ens, truth = problem(make_store, rng, {"low": 8000, "half": 32768, "high": 58000})
    tuned = ek.tune_thresholds(ens, truth, folds=4)
    crossed = tuned.validation.crossed
    assert crossed is not None
    assert crossed.classes["low"].keeps
    assert crossed.classes["high"].keeps
    assert abs(tuned.levels["low"] - 8000) < 2000
    assert abs(tuned.levels["half"] - 32768) < 3000
    assert crossed.scores["tuned"] > crossed.scores["half"]
    assert crossed.gain.low > 0
    nothing = ek.MaskSet({k: ek.encode(rng.random((48, 48)) < 0.3) for k in truth})
    shrunk = ek.tune_thresholds(ens, nothing, folds=4)
    assert shrunk.validation.crossed is not None
    assert shrunk.score == ek.dice(ens.vote(shrunk), nothing).mean


def test_the_interval_covers(rng: np.random.Generator) -> None:
    """Against a plain loop of resampled groups."""
    truth = rng.integers(50, 90, (2, 10))
    one = (rng.integers(30, 50, (2, 10)), rng.integers(50, 80, (2, 10)))
    two = (rng.integers(20, 50, (2, 10)), rng.integers(50, 80, (2, 10)))
    names = [f"g{k // 2}" for k in range(10)]
    for objective in ("mean", "pooled"):
        measure = Measure(objective)  # type: ignore[arg-type]
        (gains,) = Resampler(names, 3).gains(measure, [(one, two, truth)], resamples=50)
        drawn = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=50)
        for k, counts in enumerate(drawn):
            picked = np.repeat(np.arange(10), counts[np.arange(10) // 2])
            wanted = [measure.of_all(tp[:, picked], pred[:, picked], truth[:, picked]) for tp, pred in (one, two)]
            assert gains[k] == pytest.approx(wanted[0] - wanted[1], abs=1e-12)


def test_resamples_are_the_same_however_many_are_drawn_at_a_time(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = rng.integers(50, 90, (3, 40))
    outcomes = [(rng.integers(30, 50, (3, 40)), rng.integers(50, 80, (3, 40))) for _ in range(3)]
    pairs = [(outcomes[0], outcomes[1], truth), (outcomes[2], outcomes[0], truth)]
    judge = Resampler([f"g{k // 2}" for k in range(40)], 5)
    for measure in (Measure("mean"), Measure("pooled")):
        together = judge.gains(measure, pairs, np.arange(7, 33), 300)
        alone = [judge.gains(measure, [pair], np.arange(7, 33), 300)[0] for pair in pairs]
        np.testing.assert_array_equal(together, alone)
        monkeypatch.setattr(resampling, "DRAWN", 26 * 7)
        np.testing.assert_allclose(judge.gains(measure, pairs, np.arange(7, 33), 300), together, atol=1e-12)
        monkeypatch.undo()


def test_statistics_answer_a_second_question(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    from ensemble_kit.tuning.statistics import Statistics

    ens, truth = problem(make_store, rng, {"x": 15000, "y": 50000})
    measure = Measure()
    counted = statistics_for(ens, truth, measure, folds=3)
    counted.save(tmp_path / "s.npz")
    loaded = Statistics.load(tmp_path / "s.npz")
    assert statistics_for(ens, truth, measure, folds=3, known=loaded) is loaded
    one = tune_from(loaded, ens, measure, folds=3)
    assert one.to_dict() == ek.tune_thresholds(ens, truth, folds=3).to_dict()
    other = ek.MaskSet({k: ~v for k, v in truth.items()})
    with pytest.raises(ek.MismatchError, match="another truth"):
        statistics_for(ens, other, measure, known=loaded)
    with pytest.raises(ek.IncompleteError, match="does not exist"):
        Statistics.load(tmp_path / "none.npz")
    whole = (tmp_path / "s.npz").read_bytes()
    k = len(whole) // 2  # in an array; the first bytes can be a header's, of which some mean nothing
    for hurt in (b"", whole[:-100], whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :], b"PK" + bytes(100)):
        (tmp_path / "s.npz").write_bytes(hurt)
        with pytest.raises(ek.DamagedError, match="cannot read statistics"):
            Statistics.load(tmp_path / "s.npz")
    np.savez(tmp_path / "o.npz", head=np.array([{"a": 1}], object))
    with pytest.raises(ek.DamagedError):
        Statistics.load(tmp_path / "o.npz")


def test_a_cross_validated_set_survives_its_file(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    ens, truth = problem(make_store, rng, {"x": 15000, "y": 50000})
    tuned = ek.tune_thresholds(ens, truth, folds=3)
    tuned.save(tmp_path / "set.json")
    again = ek.ThresholdSet.load(tmp_path / "set.json")
    assert again.to_dict() == tuned.to_dict()
