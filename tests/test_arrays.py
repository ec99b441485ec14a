"""`ek.vote`: arrays in memory are decided as their stores are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits

Make = Callable[..., ek.LogitStore]
CLASSES = ("0", "1", "2")


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_arrays_are_decided_as_stores_are(activation: Any, make_store: Make, rng: np.random.Generator) -> None:
    arrays = [smooth_logits(rng, (3, 10, 13)), smooth_logits(rng, (3, 20, 26))]
    stores = [
        make_store({"a": z}, (40, 52), CLASSES, activation=activation, member=f"m{k}") for k, z in enumerate(arrays)
    ]
    ens = ek.Ensemble(stores, weights=[2, 1])
    options = {"weights": [2, 1], "activation": activation, "image_size": (40, 52)}
    for decision in (0.4, [0.2, 0.5, 0.7], ek.RankRule()):
        masks = ens.vote(decision)
        got = ek.vote(arrays, decision=decision, **options)
        assert got.dtype == bool
        assert np.array_equal(got, np.stack([masks["a", c].decode() for c in CLASSES]))
    sure = ek.vote(arrays, decision=ek.Argmax({"1": 2}, least=0.6), **options)
    masks = ens.vote(ek.Argmax({"1": 2}, least=0.6))
    assert sure.dtype == np.uint8
    assert all(np.array_equal(sure == k, masks["a", c].decode()) for k, c in enumerate(CLASSES))
    assert (sure == 255).any()
    assert ek.vote(arrays, activation=activation).shape == ((10, 13) if activation == "softmax" else (3, 10, 13))


def test_probabilities_and_other_frameworks(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor(smooth_logits(rng, (3, 8, 9)), dtype=torch.float32)
    labels = ek.vote([z], activation="softmax")
    assert np.array_equal(labels, z.argmax(0).numpy())
    p = z.softmax(0)
    assert (ek.vote([p], activation="softmax", domain="probabilities") == labels).mean() > 0.99


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        ([], {}), ([np.zeros((2, 3))], {}), (np.full((2, 4, 4), -1.0), {}),
        ([np.full((2, 4, 4), -1.0), np.full((3, 4, 4), -1.0)], {}), ([np.full((2, 4, 4), -1.0)], {"weights": [1, 2]}),
        ([np.full((2, 4, 4), -1.0)], {"activation": "relu"}), ([np.full((2, 4, 4), -1.0)], {"decision": "argmax"}),
    ],
    ids=["none", "two axes", "one array", "classes", "weights", "activation", "decision"],
)  # fmt: skip
def test_what_cannot_be_voted(arrays: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError):
        ek.vote(arrays, **options)


def test_nan_is_refused() -> None:
    with pytest.raises(ek.DamagedError, match="member 0"):
        ek.vote([np.full((2, 4, 4), np.nan)])
