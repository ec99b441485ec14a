"""`ensk inspect STORE --speed`: how sure a member is, and how long it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.recipes.regime import regime
from trying import ensk, refused

SET = Path(__file__).parent.parent / "thresholds" / "demo.json"
Make = Callable[..., ek.LogitStore]


def logits(share: float) -> np.ndarray:
    """Of 2 classes × 10 × 10 cells a share at logit 0.5, the others at -8."""
    z = np.full(200, -8.0, np.float16)
    z[: round(200 * share)] = 0.5
    return z.reshape(2, 10, 10)


def test_the_share_of_undecided_cells_is_that_of_the_samples(make_store: Make) -> None:
    store = make_store({"a": logits(0.5), "b": logits(0.25), "c": logits(0)}, (40, 40), ("x", "y"))
    found = regime(store)
    assert found["undecided cells"] == "25.0% (between 0.05 and 0.95), of 3 samples"
    times = [float(v) for k, v in found.items() if k.startswith("seconds")]
    assert len(times) == 2
    assert all(0 <= t < 60 for t in times)


def test_exclusive_classes_are_undecided_where_two_are_close(make_store: Make) -> None:
    z = np.stack([np.zeros((10, 10)), np.where(np.arange(100).reshape(10, 10) < 30, 1.0, 9.0)]).astype(np.float16)
    found = regime(make_store({"a": z}, (40, 40), ("x", "y"), activation="softmax"))
    assert found["undecided cells"] == "30.0% (between 0.05 and 0.95), of 1 samples"
    assert [k for k in found if "tuning" in k] == []


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "not asked for"])
def test_the_command_tells_it_when_asked(asked: bool, make_store: Make) -> None:
    store: Any = make_store({"a": logits(0.5)}, (40, 40), ("x", "y"))
    done = warm.ensk("inspect", store.path, *(["--speed"] if asked else []), "--json")
    assert done.returncode == 0
    assert ("undecided cells" in json.loads(done.stdout)) is asked


def test_the_only_class_of_exclusive_ones_is_decided_everywhere(make_store: Make) -> None:
    found = regime(make_store({"a": logits(0.25)[:1]}, (40, 40), ("x",), activation="softmax"))
    assert found == {"undecided cells": "0.0% (between 0.05 and 0.95), of 1 samples"}


@pytest.mark.parametrize("kind", ["masks", "two members", "a set"])
def test_speed_of_what_is_no_store_is_refused(kind: str, make_store: Make, tmp_path: Path) -> None:
    stores: list[Any] = [make_store({"a": logits(0.5)}, (40, 40), ("x", "y")).path for _ in "ab"]
    ek.Ensemble(stores[:1]).vote().write(tmp_path / "m.npz")
    paths = {"masks": [tmp_path / "m.npz"], "two members": stores, "a set": [SET]}[kind]
    with refused(ek.UsageError, "option-idle", "--speed", "pass one store"):
        ensk("inspect", *paths, "--speed")


def test_a_scene_is_measured_tile_by_tile(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "s.zarr", ["x", "y"], ["a"], grid=None) as out:
        tiles = [np.full((2, 4, 8), 0.5), np.full((2, 4, 6), -8.0)]
        out.write_tiles("a", tiles, [(0, 0, 4, 8), (0, 6, 4, 12)], (4, 12), (8, 24))
    assert regime(ek.LogitStore(tmp_path / "s.zarr")) == {
        "undecided cells": f"{32 / 56:.1%} (between 0.05 and 0.95), of 1 samples"
    }
