"""What commands do between their options and their answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.recipes import hard_vote
from ensemble_kit.recipes.hard_vote import HardVote
from ensemble_kit.recipes.members import members_of
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.spec.scoring import Measure

Make = Callable[..., ek.LogitStore]
IMAGE = (40, 50)


@pytest.fixture
def store(make_store: Make, rng: np.random.Generator) -> ek.LogitStore:
    return make_store({f"p{k}_a": smooth_logits(rng, (2, 16, 20)) for k in range(9)}, IMAGE, ("x", "y"))


def test_a_store_named_twice_is_voted_with_each_threshold(store: ek.LogitStore) -> None:
    voting: dict[str, Any] = {"quorum": 1, "weights": None, "ties": "off", "empty": "vote"}
    path = Path(store.path)
    ens = ek.Ensemble([store])
    for thresholds in ((0.3, 0.8), (0.8, 0.3)):
        voted = HardVote(tuple(members_of([path, path])), thresholds, voting, {}).run().whole()
        assert voted == ek.hard_vote([ens.vote(t) for t in thresholds], quorum=1)
        assert voted == ens.vote(0.3)


def test_a_hard_vote_holds_a_few_samples(store: ek.LogitStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All members vote on some samples at a time; the masks, and the progress, are those of all at once."""
    monkeypatch.setattr(hard_vote, "_AT_ONCE", 3)
    ens = ek.Ensemble([store])
    ens.vote(0.4).write(tmp_path / "m.npz")
    plan, told = (
        HardVote(tuple(members_of([*[Path(store.path)] * 2, tmp_path / "m.npz"])), (0.3, 0.8), {"quorum": 2}, {}),
        [],
    )
    stream = plan.run(listener=told.append)
    assert [len(piece.samples) for piece in stream.pieces()][:2] == [3, 3]
    assert stream.whole() == ek.hard_vote([ens.vote(t) for t in (0.3, 0.8, 0.4)], quorum=2)
    once = told[: len(told) // 2]
    n = 2 * len(ens.samples)
    assert [e.done for e in once] == list(range(n + 1))
    assert {e.total for e in once} == {n}


def test_a_hard_vote_names_its_masks_before_the_work(store: ek.LogitStore, tmp_path: Path) -> None:
    masks = ek.Ensemble([store]).vote(0.4).arranged(store.samples[2:6][::-1], ("y", "x"))
    masks.write(tmp_path / "m.npz")
    members, voting = tuple(members_of([Path(store.path), tmp_path / "m.npz"])), {"quorum": 1}
    plan = HardVote(members, (0.6,), voting, {}, parse_rules("drop-small:2"), common=True)
    names, voted = plan.names(), plan.run().whole()
    assert (names.samples, names.classes, names.extent) == (voted.samples, voted.classes, voted.extent)
    assert (voted.samples, voted.classes) == (store.samples[2:6], store.classes)
    assert not any(names.values())
    assert any(voted.values())


@pytest.mark.parametrize(
    ("code", "options"),
    [
        pytest.param("samples-differ", {}, id="other samples"),
        pytest.param("rule-class-unknown", {"rules": parse_rules("drop-small:2@z"), "common": True}, id="other class"),
        pytest.param("quorum-invalid", {"voting": {"quorum": 3}, "common": True}, id="quorum out of reach"),
        pytest.param("threshold-invalid", {"thresholds": (2.0,)}, id="threshold"),
        pytest.param("thresholds-count", {"thresholds": (0.5, 0.5)}, id="number of thresholds"),
        pytest.param("gate-needs-scores", {"rules": parse_rules("gate:0.5,3")}, id="gate"),
    ],
)
def test_a_hard_vote_is_refused_before_the_work(
    code: str, options: dict[str, Any], store: ek.LogitStore, tmp_path: Path
) -> None:
    masks = ek.Ensemble([store]).vote(0.4)
    masks.arranged(store.samples[:4], store.classes).write(tmp_path / "m.npz")
    given = {"thresholds": (0.5,), "voting": {}, "fusing": {}} | options
    with pytest.raises(ek.EnskError) as caught:
        HardVote(tuple(members_of([tmp_path / "m.npz", Path(store.path)])), **given)
    assert caught.value.code == code


def test_folds_are_chosen_by_the_groups_there_are(store: ek.LogitStore) -> None:
    ens = ek.Ensemble([store])
    assert Tuning(ens, Measure()).split == 5
    assert Tuning(ens, Measure(), groups=groups_of(ens, 4)).split == 4
    few = Tuning(ens, Measure(), groups=groups_of(ens, 2))
    assert few.split is None
    (told,) = few.warnings()
    assert told.doubt == "2 groups are too few to cross-validate: the score is in-sample only"
    assert "--groups" in told.fix
    assert Tuning(ens, Measure(), folds=None, groups=groups_of(ens, 2)).warnings() == []


def groups_of(ens: ek.Ensemble, count: int) -> dict[str, str]:
    return {s: f"g{k % count}" for k, s in enumerate(ens.samples)}


def test_a_notebook_gets_what_the_command_gives(make_store: Make, rng: np.random.Generator) -> None:
    logits = {f"s{k}": smooth_logits(rng, (1, 16, 20)) for k in range(8)}
    logits["s8"] = logits["s0"]
    ens = ek.Ensemble([make_store(logits, IMAGE, ("x",))])
    truth = ens.vote(0.45)
    with pytest.warns(UserWarning, match="1 pairs of samples have identical logits.*'s0 = s8'"):
        tuned = ek.tune_thresholds(ens, truth, folds="auto")
    crossed = tuned.validation.crossed
    assert crossed is not None
    assert crossed.folds == 5
    report = tuned.report()
    assert report.lines[0].startswith("Out of fold (5 folds of 9 groups)")
    shown = str(report).splitlines()
    assert shown[0] == report.title
    assert shown[1].split()[:3] == ["class", "threshold", "plateau"]
    assert shown[-1] == f"warning: {report.warnings[-1]}"
    with pytest.raises(ek.UsageError, match="folds='many'"):
        ek.tune_thresholds(ens, truth, folds="many")  # type: ignore[arg-type]
    found = Tuning(ens, Measure(), groups={s: "g" + s.replace("s8", "s0") for s in ens.samples}, compared=ens).run(
        truth
    )
    assert found.shift is not None
    assert not found.shift.shifted
    assert found.set.score == ek.dice(ens.vote(found.set), truth).mean


def test_a_set_for_another_fusion_says_how_to_fuse_as_it_was_tuned(store: ek.LogitStore) -> None:
    ens = ek.Ensemble([store])
    tuned = ek.tune_thresholds(ens, ens.vote(0.4))
    other = ens.with_fusion(mean="logit")
    with pytest.raises(ek.MismatchError, match=r"mean: .*leave --mean, .* out \(Ensemble.as_tuned\(set\)\)"):
        other.vote(tuned)
    assert other.as_tuned(tuned).vote(tuned) == ens.vote(tuned)
