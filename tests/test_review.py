"""Expected Dice of masks against dense NumPy, for every decision; the list of samples that it makes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.rank import probabilities
from ensemble_kit.decisions.review import FLOOR, Review, expected_dice
from trying import ensk, refused

Make = Callable[..., ek.LogitStore]
CLASSES, IMAGE, SAMPLES = ("x", "y", "z"), (40, 50), ("a.png", "b.png", "c.png")


def members(make: Make, rng: np.random.Generator, grids: tuple[tuple[int, int], ...], **options: Any) -> list[Any]:
    return [
        make({s: smooth_logits(rng, (3, *grid)) for s in SAMPLES}, IMAGE, CLASSES, name=f"m{k}", **options)
        for k, grid in enumerate(grids)
    ]


def by_hand(p: np.ndarray, mask: np.ndarray, alone: bool) -> float:
    p = np.where(mask if alone and mask.any() else p >= FLOOR, p, 0).astype(np.float64)
    return float(2 * p[mask].sum() / (mask.sum() + p.sum()) if mask.any() else 1 - p.max())


HOW = {
    "thresholds": ("sigmoid", {}, 0.4, ()),
    "rules": ("sigmoid", {}, 0.4, ("drop-small:60", "fill-holes")),
    "nearly empty": ("sigmoid", {}, 0.9999, ("drop-small:60",)),
    "argmax of sigmoid": ("sigmoid", {}, ek.Argmax(), ()),
    "rank": ("sigmoid", {}, ek.RankRule(), ()),
    "mean of logits": ("sigmoid", {"mean": "logit"}, 0.4, ()),
    "power mean": ("sigmoid", {"mean": "power:0.5"}, 0.4, ()),
    "scores": ("sigmoid", {"upsample": "scores"}, 0.4, ()),
    "argmax": ("softmax", {}, None, ()),
    "argmax, no background": ("softmax", {}, ek.Argmax(background="x"), ()),
    "argmax of logits": ("softmax", {"mean": "logit"}, None, ()),
    "argmax of scores": ("softmax", {"upsample": "scores"}, None, ()),
    "rank of exclusive": ("softmax", {}, ek.RankRule(), ()),
    "thresholds of exclusive": ("softmax", {}, 0.6, ()),
}


@pytest.mark.parametrize(("activation", "fusion", "decision", "rules"), HOW.values(), ids=HOW)
@pytest.mark.parametrize("grids", [((12, 15), (12, 15)), ((12, 15), (24, 30))], ids=["one grid", "two grids"])
def test_expected_dice_is_that_of_dense_probabilities(
    grids: Any, activation: str, fusion: Any, decision: Any, rules: Any, make_store: Make, rng: Any, tmp_path: Path
) -> None:
    """The probabilities are those that `fuse` writes; with upsample="scores" a level is cut there, and rounded here."""
    ens = ek.Ensemble(members(make_store, rng, grids, activation=activation), weights=[2, 1], **fusion)
    found = ens.review(decision, rules)
    masks = ens.vote(decision, rules)
    ek.fuse(ens, tmp_path / "p", format="npz")
    assert (found.samples, found.classes) == (SAMPLES, masks.classes)
    for s, row in zip(SAMPLES, found.expected, strict=True):
        with np.load(tmp_path / "p" / f"{s}.npz") as held:
            p = held["probabilities"]
        alone = ens.decision(decision).excludes(ens.inputs)
        wanted = [by_hand(p[CLASSES.index(c)], masks[s, c].decode(), alone) for c in masks.classes]
        np.testing.assert_allclose(row, wanted, atol=1e-3 if "upsample" in fusion else 1e-6)


@given(hnp.arrays(np.uint16, st.integers(1, 60)), st.randoms(use_true_random=False))
def test_it_is_dice_where_scores_are_certain_and_never_leaves_0_to_1(levels: np.ndarray, random: Any) -> None:
    mask = np.array([random.random() < 0.5 for _ in levels])
    for values in (levels, np.where(levels < 40000, 0, 65535).astype(np.uint16)):
        found, pixels = np.unique(values, return_counts=True)
        hits = np.array([(mask & (values == v)).sum() for v in found])
        expected = expected_dice(found, pixels, hits, int(mask.sum()), probabilities())
        assert 0 <= expected <= 1
    truth = values == 65535
    both = truth.sum() + mask.sum()
    assert expected == pytest.approx(2 * (truth & mask).sum() / both if both else 1)


def test_nothing_that_occurs_is_a_certain_empty_mask() -> None:
    nothing = np.empty(0, np.int64)
    assert expected_dice(nothing.astype(np.uint16), nothing, nothing, 0, probabilities()) == 1


def test_a_sample_that_members_cannot_tell_comes_first(make_store: Make, rng: np.random.Generator) -> None:
    """The same object in three samples, in one of them at logits a tenth as large; any number of jobs."""
    z = np.where(smooth_logits(rng, (3, 12, 15)) > 1, 8, -8).astype(np.float16)
    ens = ek.Ensemble([make_store({"sure": z, "doubtful": z / 10, "again": z}, IMAGE, CLASSES)])
    found = ens.review()
    assert found.order == ("doubtful", "sure", "again")  # equal ones as they stand in the store
    assert found.expected[0].min() > 0.9
    assert found.expected[1].max() < 0.9
    np.testing.assert_array_equal(found.expected, ens.review(jobs=1).expected)
    assert found.table(2)["sample"].tolist() == ["doubtful", "sure"]
    assert found.table().columns.tolist() == ["rank", "sample", "score", "x", "y", "z"]


def test_the_file(tmp_path: Path) -> None:
    found = Review(("a,1", "b"), ("x", "score"), np.array([[1.0, 0.5], [0.25, 1 / 3]]), "a rule")
    found.write(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["rank", "sample", "score", "x", "class score"],
        ["1", "b", repr(0.25 / 2 + 1 / 6), "0.25", repr(1 / 3)],
        ["2", "a,1", "0.75", "1.0", "0.5"],
    ]
    with pytest.raises(ek.UsageError) as caught:
        found.write(tmp_path / "r.json")
    assert caught.value.code == "review-suffix"
    with pytest.raises(ek.UsageError, match="exists"):
        found.write(tmp_path / "r.csv", force=False)
    with pytest.raises(ek.UsageError, match="first=-1"):
        found.table(-1)


def test_the_command(make_store: Make, rng: np.random.Generator, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)))
    monkeypatch.chdir(tmp_path)
    command = ["review", "m0.zarr", "m1.zarr", "--out", "r.csv", "--rule", "fill-holes", "--thresholds", "0.4", "-q"]
    app([*command, "--dry-run"], standalone_mode=False)
    assert not Path("r.csv").exists()
    capsys.readouterr()
    app([*command, "--json", "--first", "2"], standalone_mode=False)
    answer = json.loads(capsys.readouterr().out)
    wanted = ek.Ensemble(stores).review(0.4, "fill-holes")
    assert [row["sample"] for row in answer["first"]] == list(wanted.order[:2])
    (_, _, _, own), *_ = wanted.rows()
    assert answer["first"][0]["expected"] == dict(zip(wanted.classes, own, strict=True))
    wanted.write("wanted.csv")
    assert Path("r.csv").read_bytes() == Path("wanted.csv").read_bytes()
    app([*command, "--force", "--first", "1"], standalone_mode=False)
    assert "the first 1 of 3 samples" in capsys.readouterr().out
    with pytest.raises(ek.UsageError) as caught:
        app(command, standalone_mode=False)
    assert caught.value.code == "output-exists"
    with pytest.raises(ek.ResourceError):
        app([*command, "--force", "--memory", "1KB"], standalone_mode=False)


def test_a_file_of_masks_is_not_taken_for_a_damaged_store(tmp_path: Path) -> None:
    ek.MaskSet({("x", "bone"): ek.encode(np.eye(4, dtype=bool))}).write(tmp_path / "m.npz")
    with refused(ek.DamagedError, "store-foreign", "it holds arrays, such as masks", "ensk vote --hard"):
        ensk("review", tmp_path / "m.npz", "--out", tmp_path / "r.csv")
