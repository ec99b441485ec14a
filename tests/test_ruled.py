"""Rules that are tuned with the thresholds: what tuning reports is what the vote gets, and nothing is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.rules import parse_rules

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
