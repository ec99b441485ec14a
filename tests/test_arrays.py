"""`ek.vote`: arrays in memory are decided as their stores are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

import ensemble_kit as ek
from conftest import EXAMPLES, smooth_logits
from ensemble_kit.kernels import reference_volumes as oracle

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
        ([], {}), ([np.zeros((2, 3))], {}), ([np.full((2, 3, 4, 4), -1.0), np.full((2, 4, 4), -1.0)], {}),
        ([np.full((2, 3, 4, 4), -1.0)], {"image_size": (8, 8)}), (np.full((2, 4, 4), -1.0), {}),
        ([np.full((2, 4, 4), -1.0), np.full((3, 4, 4), -1.0)], {}), ([np.full((2, 4, 4), -1.0)], {"weights": [1, 2]}),
        ([np.full((2, 4, 4), -1.0)], {"activation": "relu"}), ([np.full((2, 4, 4), -1.0)], {"decision": "argmax"}),
    ],
    ids=["none", "two axes", "a volume and an image", "an image's size", "one array", "classes", "weights", "activation", "decision"],
)  # fmt: skip
def test_what_cannot_be_voted(arrays: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError):
        ek.vote(arrays, **options)


def test_nan_is_refused() -> None:
    with pytest.raises(ek.DamagedError, match="member 0"):
        ek.vote([np.full((2, 4, 4), np.nan)])
    volume = np.full((2, 3, 4, 4), -1.0)
    volume[1, 2, 3, 3] = np.nan
    with pytest.raises(ek.DamagedError, match="member 1"):
        ek.vote([np.full((2, 3, 4, 4), -1.0), volume])
    with pytest.raises(ek.DamagedError, match="lies in"):
        ek.vote([np.full((2, 3, 4, 4), 0.25)])


@settings(max_examples=max(3, EXAMPLES // 6))
@given(
    activation=st.sampled_from(["sigmoid", "softmax"]),
    grids=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3),
    image=st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 14)),
    domain=st.sampled_from(["logits", "probabilities"]),
    seed=st.integers(0, 999),
)
def test_volumes_are_decided_as_stores_and_as_the_oracle_say(
    tmp_path_factory: pytest.TempPathFactory, activation: Any, grids: Any, image: Any, domain: Any, seed: int
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("v")
    arrays = [rng.normal(0, 4, (3, *grid)).astype(np.float32) for grid in grids]
    if domain == "probabilities":
        of = softmax if activation == "softmax" else expit
        arrays = [np.asarray(of(a, **({"axis": 0} if activation == "softmax" else {})), np.float64) for a in arrays]
    weights = rng.integers(1, 5, len(arrays)).tolist()
    for k, (array, grid) in enumerate(zip(arrays, grids, strict=True)):
        how: Any = {"activation": activation, "member": f"m{k}", "domain": domain}
        with ek.LogitWriter(path / f"{k}.zarr", CLASSES, ["a"], grid=grid, **how) as out:
            out.write("a", array, image)
    ens = ek.Ensemble([path / f"{k}.zarr" for k in range(len(arrays))], weights=weights)
    options: Any = {"weights": weights, "activation": activation, "domain": domain, "image_size": image}
    seen = [
        oracle.Seen(m.read("a"), int(np.prod(m.placement("a").grid)), tuple((0, n) for n in image), (False,) * 3, 1.0,
                    (w,) * 3, m.member)
        for m, w in zip(ens.members, weights, strict=True)
    ]  # fmt: skip
    wanted = oracle.fused(seen, image, activation == "softmax", "logits")
    levels = (0.3, 0.5, 0.6)
    got = ek.vote(arrays, decision=list(levels), **options)
    assert got.dtype == bool
    assert got.shape == (3, *image)
    assert np.array_equal(got, np.stack([ens.vote(list(levels))["a", c].decode() for c in CLASSES]))
    edges = np.array([ens.level_of(v) for v in levels]).reshape(3, 1, 1, 1)
    assert np.array_equal(got, wanted.levels >= edges)
    labels = ek.vote(arrays, decision=ek.Argmax({"1": 1.5}), **options)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, oracle.winners(wanted, [65536, 98304, 65536], False, None))


def test_a_volume_is_converted_slab_by_slab(rng: np.random.Generator) -> None:
    z = rng.normal(0, 3, (4, 12, 16, 16)).astype(np.float32).repeat(8, 1).repeat(8, 2).repeat(8, 3)
    assert ek.vote([z[:, :2]], activation="softmax").shape == (2, 128, 128)  # what is compiled and kept
    tracemalloc.start()
    labels = ek.vote([z], activation="softmax")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (labels == z.argmax(0)).mean() > 0.99  # but for ties in 16 bits
    assert peak < z.nbytes // 2  # what a copy in half precision alone would take
