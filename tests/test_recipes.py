"""What commands do between their options and their answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.recipes.tune import Tuning
from ensemble_kit.recipes.vote import HardVote
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
        voted = HardVote((path, path), thresholds, voting, {}).run()
        assert voted == ek.hard_vote([ens.vote(t) for t in thresholds], quorum=1)
        assert voted == ens.vote(0.3)


def test_folds_are_chosen_by_the_groups_there_are(store: ek.LogitStore) -> None:
    ens = ek.Ensemble([store])
    assert Tuning(ens, Measure()).split == 5
    assert Tuning(ens, Measure(), groups=groups_of(ens, 4)).split == 4
    few = Tuning(ens, Measure(), groups=groups_of(ens, 2))
    assert few.split is None
    assert few.warnings() == ["2 groups are too few to cross-validate: the score is in-sample only"]
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
    assert found.set.score == 1.0
