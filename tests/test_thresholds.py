"""Threshold sets: what fits, what is refused, what a file may hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.spec.mean import Mean
from ensemble_kit.thresholds.finding import find

Make = Callable[..., ek.LogitStore]


@pytest.fixture
def tuned(make_store: Make, rng: np.random.Generator) -> tuple[list[ek.LogitStore], ek.ThresholdSet]:
    stores = [make_store({"a": smooth_logits(rng, (2, 8, 8))}, (32, 32), ("x", "y"), name=n) for n in ("fpn", "unet")]
    ens = ek.Ensemble(stores, weights=[1, 2])
    truth = ek.MaskSet({("a", c): ek.encode(rng.random((32, 32)) < 0.3) for c in ("x", "y")})
    return stores, ek.tune_thresholds(ens, truth)


def test_a_set_that_does_not_fit_says_which(
    tuned: tuple[list[ek.LogitStore], ek.ThresholdSet], make_store: Make, rng: np.random.Generator
) -> None:
    stores, found = tuned
    assert ek.Ensemble(stores, weights=[1, 2]).vote(found) == ek.Ensemble(stores).as_tuned(found).vote(found)
    other = make_store({"a": smooth_logits(rng, (2, 8, 8))}, (32, 32), ("x", "y"), name="dilated")
    classes = [
        make_store({"a": smooth_logits(rng, (2, 8, 8))}, (32, 32), ("x", "z"), member=n) for n in ("fpn", "unet")
    ]
    cases: list[tuple[ek.Ensemble, str]] = [
        (ek.Ensemble(stores), "weights"),
        (ek.Ensemble(stores[:1]), "members"),
        (ek.Ensemble([stores[0], other], weights=[1, 2]), "members"),
        (ek.Ensemble(stores, weights=[1, 2], mean="logit"), "mean"),
        (ek.Ensemble(stores, weights=[1, 2], upsample="scores"), "upsample"),
        (ek.Ensemble(stores, weights=[1, 2], temperatures=[1, 2]), "temperatures"),
        (ek.Ensemble(classes, weights=[1, 2]), "classes"),
    ]
    for ens, what in cases:
        with pytest.raises(ek.MismatchError, match=f"another ensemble: {what}: tuned for"):
            ens.vote(found)
    with pytest.raises(ek.MismatchError, match="tuned for fpn 1, unet 2, asked for fpn 1, unet 1"):
        ek.Ensemble(stores).vote(found)


def test_other_weights_of_the_same_network_are_another_model(make_store: Make, rng: np.random.Generator) -> None:
    def member(digest: str) -> ek.LogitStore:
        logits = {"a": smooth_logits(rng, (1, 8, 8))}
        return make_store(logits, (32, 32), ("x",), member="unet", provenance={"network_sha256": digest})

    truth = ek.MaskSet({("a", "x"): ek.encode(rng.random((32, 32)) < 0.3)})
    found = ek.tune_thresholds(ek.Ensemble([member("old")]), truth)
    with pytest.raises(ek.MismatchError, match="model of member 'unet'"):
        ek.Ensemble([member("new")]).vote(found)
    ek.Ensemble([member("old")]).vote(found)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda d: d.update(format="ensk.thresholds/9"),
    "no fusion": lambda d: d.pop("fusion"),
    "level beyond the last": lambda d: d["classes"][0].update(level=70000),
    "level of a fraction": lambda d: d["classes"][0].update(level=1.5),
    "level of a boolean": lambda d: d["classes"][0].update(level=True),
    "a class twice": lambda d: d["classes"].append(d["classes"][0]),
    "unknown mean": lambda d: d["fusion"].update(mean="median"),
    "weights of another sum": lambda d: d["fusion"]["weights"].update(x=[1, 2]),
    "unknown convention": lambda d: d["metric"].update(empty=7),
    "no classes": lambda d: d.update(classes=None),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_file_that_says_impossible_things(
    edit: Callable[[dict[str, Any]], object], tuned: tuple[list[ek.LogitStore], ek.ThresholdSet], tmp_path: Path
) -> None:
    content = tuned[1].to_dict()
    edit(content)
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(ek.DamagedError, match="cannot read a threshold set"):
        ek.ThresholdSet.load(tmp_path / "set.json")


TEXTS = {
    "empty": "",
    "cut": "{",
    "a list": "[]",
    "null": "null",
    "NaN": '{"format": NaN}',
    "a key twice": '{"a": 1, "a": 2}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_file_that_is_not_a_set(text: str, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(ek.DamagedError, match="cannot read a threshold set"):
        ek.ThresholdSet.load(tmp_path / "set.json")


def test_find(
    tuned: tuple[list[ek.LogitStore], ek.ThresholdSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ek.IncompleteError, match="holds no set"):
        find("mine")
    (tmp_path / "thresholds").mkdir()
    tuned[1].save("thresholds/mine.json")
    assert find("mine") == find("mine.json") == Path("thresholds/mine.json")
    with pytest.raises(ek.IncompleteError, match="holds 'mine'"):
        find("other")


def test_shown_thresholds_come_back(make_store: Make, rng: np.random.Generator) -> None:
    store = make_store({"a": smooth_logits(rng, (1, 8, 8))}, (32, 32), ("x",))
    for mean in ("probability", "logit", "power:0.5", "power:0"):
        ens = ek.Ensemble([store], mean=mean)
        for level in (0, 1, 500, 32767, 32768, 65000, 65534, 65535):
            if mean == "logit" and level in {0, 65535}:
                continue  # every probability below σ(-16) is level 0
            assert ens.level_of(Mean.of(mean).probability_of(level)) == level
