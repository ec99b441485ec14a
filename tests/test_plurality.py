"""Votes over label maps, and what void means in a hard vote, against a pixel-by-pixel oracle."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.hard import rule_of

WITH, WITHOUT = ("background", "road", "sky"), ("road", "sky", "tree")
SHAPE = (5, 7)
VOID = -1


def masks_of(labels: np.ndarray, classes: Sequence[str]) -> ek.MaskSet:
    """Label 0 is no class, k + 1 the k-th class, -1 void."""
    masks = {("a", name): ek.encode(labels == k) for k, name in enumerate(classes, start=1)}
    return ek.MaskSet(masks, void={"a": ek.encode(labels == VOID)})


def labels_of(masks: ek.MaskSet) -> np.ndarray:
    out = np.zeros(masks.image_size("a"), int)
    for k, name in enumerate(masks.classes, start=1):
        out[masks["a", name].decode()] = k
    out[masks.void("a").decode()] = VOID
    return out


def pixel(
    labels: list[int], weights: list[int], classes: Sequence[str], ties: str, quorum: Any, empty: list[bool]
) -> int:
    """The label of one pixel, by the words of the rule."""
    has = "background" in classes
    votes: dict[int, int] = {}
    for label, weight, silent in zip(labels, weights, empty, strict=True):
        if label == VOID or silent or (has and label == 0) or not weight:
            continue
        votes[label] = votes.get(label, 0) + weight
    if not votes:
        return VOID
    best = max(votes.values())
    tied = sorted(label for label, v in votes.items() if v == best)
    if quorum is not None and best < quorum:
        return VOID
    if len(tied) == 1 or ties == "first":
        return tied[0]
    return VOID if ties == "off" else (classes.index("background") + 1 if has else 0)


@given(st.data())
def test_labels_of_the_most_members(data: st.DataObject) -> None:
    classes = data.draw(st.sampled_from([WITH, WITHOUT]))
    members = data.draw(st.integers(1, 4))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=members, max_size=members).filter(any))
    quorum = data.draw(st.one_of(st.none(), st.integers(1, sum(weights))))
    ties = data.draw(st.sampled_from(["off", "first", "background"]))
    empty = data.draw(st.sampled_from(["vote", "abstain"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = [rng.integers(-1, 4, SHAPE) * int(rng.random() < 0.8) for _ in range(members)]
    silent = [empty == "abstain" and not (m > 0).any() for m in labels]
    wanted = np.array([
        pixel([int(m[y, x]) for m in labels], weights, classes, ties, quorum, silent)
        for y in range(SHAPE[0]) for x in range(SHAPE[1])
    ]).reshape(SHAPE)  # fmt: skip
    voted = ek.hard_vote([masks_of(m, classes) for m in labels], weights, quorum, ties, empty, by="label")
    got = labels_of(voted)
    if "background" in classes:  # without a class is void already
        assert not voted.has_void
        got[got == 0] = VOID
    assert np.array_equal(got, wanted)
    assert np.array_equal(voted.labels("a") == 255, wanted == VOID)
    assert voted.exclusive
    assert voted.rule == str(rule_of(members, weights, quorum, ties, empty, "label"))


@given(st.data())
def test_void_pixels_abstain_in_a_vote_by_class(data: st.DataObject) -> None:
    members = data.draw(st.integers(1, 4))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=members, max_size=members).filter(any))
    quorum = data.draw(st.one_of(st.none(), st.integers(1, sum(weights))))
    ties, empty = data.draw(st.sampled_from(["off", "on"])), data.draw(st.sampled_from(["vote", "abstain"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = [rng.integers(-1, 4, SHAPE) * int(rng.random() < 0.8) for _ in range(members)]
    voted = ek.hard_vote([masks_of(m, WITHOUT) for m in labels], weights, quorum, ties, empty)
    for k, name in enumerate(WITHOUT, start=1):
        able = [w * (m != VOID) * (empty == "vote" or (m == k).any()) for m, w in zip(labels, weights, strict=True)]
        total, on = sum(able), sum(a * (m == k) for a, m in zip(able, labels, strict=True))
        half = Fraction(1, 2)
        enough = on >= quorum if quorum else (on >= total * half if ties == "on" else on > total * half)
        assert np.array_equal(voted["a", name].decode(), enough & (total > 0))
    assert not voted.has_void


WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "each pixel takes the label of the most members (of 3); a tie is void"),
    "first": ({"ties": "first"}, "each pixel takes the label of the most members (of 3); a tie takes the first of the classes"),
    "weights and quorum": (
        {"weights": [1, 0.5, 0.5], "quorum": 1.5, "ties": "background"},
        "each pixel takes the label of the most weight (of 2); a tie is background; below 1.5 it is void",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "words"), WORDS.values(), ids=WORDS)
def test_the_rule_in_words(options: dict[str, Any], words: str) -> None:
    assert str(rule_of(3, by="label", **options)) == words


@pytest.mark.parametrize(
    "options",
    [{"by": "pixel"}, {"by": "label", "ties": "on"}, {"ties": "first"}, {"by": "label", "quorum": 9}],
    ids=str,
)
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError, match="cannot vote"):
        ek.hard_vote([masks_of(np.ones(SHAPE, int), WITH)] * 2, **options)


def test_overlapping_classes_have_no_labels() -> None:
    both = ek.MaskSet({("a", name): ek.Runs([0], [3], SHAPE) for name in WITH})
    with pytest.raises(ek.MismatchError, match="two classes of member 2 overlap"):
        ek.hard_vote([masks_of(np.ones(SHAPE, int), WITH), both], by="label")


def test_the_command_line_votes_by_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [np.array([[1, 1, 2, 3]]), np.array([[1, 2, 2, 1]]), np.array([[3, 2, 2, 2]])]
    for k, labels in enumerate(members):
        masks_of(labels, WITHOUT).write(tmp_path / f"{k}.csv", format="handbone")
    paths = [str(tmp_path / f"{k}.csv") for k in range(3)]
    app(["vote", *paths, "--by", "label", "--ties", "first", "--image-size", "1x4", "--out", str(tmp_path / "o.csv")],
        standalone_mode=False)  # fmt: skip
    voted = ek.read_masks(tmp_path / "o.csv", image_size=(1, 4))
    assert labels_of(voted.arranged(("a",), WITHOUT)).tolist() == [[1, 2, 2, 1]]
    assert "a tie takes the first of the classes" in capsys.readouterr().err
