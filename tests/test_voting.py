"""Hard votes and the rule in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from ensemble_kit.decisions.hard import rule_of

KEY = ("s", "x")


def members(*masks: Any) -> list[ek.MaskSet]:
    return [ek.MaskSet({KEY: ek.encode(np.atleast_2d(m))}) for m in masks]


@given(st.data())
def test_against_counting(data: st.DataObject) -> None:
    masks = data.draw(st.lists(hnp.arrays(np.bool_, (4, 5)), min_size=1, max_size=7))
    weights = data.draw(st.lists(st.sampled_from([0, 0.1, 0.25, 1, 2, 3]), min_size=len(masks), max_size=len(masks)))
    if not any(weights):
        weights[0] = 1
    ties, empty = data.draw(st.sampled_from(["off", "on"])), data.draw(st.sampled_from(["vote", "abstain"]))
    scaled = [round(w * 20) for w in weights]
    counting = [(m, w) for m, w in zip(masks, scaled, strict=True) if empty == "vote" or m.any()]
    sums = sum((w * m.astype(int) for m, w in counting), np.zeros((4, 5), int))
    total = sum(w for _, w in counting)
    quorum = data.draw(st.none() | st.sampled_from([w for w in weights if w] + [sum(scaled) / 20]))
    if total == 0:
        wanted = np.zeros((4, 5), bool)
    elif quorum is not None:
        wanted = sums >= round(quorum * 20)
    else:
        wanted = 2 * sums >= total if ties == "on" else 2 * sums > total
    voted = ek.hard_vote(members(*masks), weights=weights, quorum=quorum, ties=ties, empty=empty)
    assert voted[KEY] == ek.encode(wanted)


@given(st.lists(hnp.arrays(np.bool_, (4, 5)), min_size=2, max_size=6), st.randoms())
def test_order_never_matters(masks: list[np.ndarray], random: Any) -> None:
    weights = [random.randint(1, 5) for _ in masks]
    order = random.sample(range(len(masks)), len(masks))
    one = ek.hard_vote(members(*masks), weights=weights)
    assert one == ek.hard_vote(members(*(masks[k] for k in order)), weights=[weights[k] for k in order])


def test_and_or_majority() -> None:
    three = members([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0])
    assert ek.hard_vote(three)[KEY].text() == "1 2"
    assert ek.hard_vote(three, quorum=3)[KEY].text() == "1 1"
    assert ek.hard_vote(three, quorum=1)[KEY].text() == "1 3"
    two = members([1, 1, 0], [1, 0, 0])
    assert ek.hard_vote(two)[KEY].text() == "1 1"
    assert ek.hard_vote(two, ties="on")[KEY].text() == "1 2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": 5}, "on where ≥ 3 of 5"),
        ({"members": 3}, "on where ≥ 2 of 3"),
        ({"members": 1}, "on where ≥ 1 of 1"),
        ({"members": 4}, "on where ≥ 3 of 4 (an exact half is off)"),
        ({"members": 4, "ties": "on"}, "on where ≥ 2 of 4 (an exact half is on)"),
        ({"members": 5, "ties": "on"}, "on where ≥ 3 of 5"),
        ({"members": 2}, "on where ≥ 2 of 2 (an exact half is off); this is an AND of the members"),
        ({"members": 2, "ties": "on"}, "on where ≥ 1 of 2 (an exact half is on); this is an OR of the members"),
        ({"members": 3, "quorum": 3}, "on where ≥ 3 of 3; this is an AND of the members"),
        ({"members": 3, "quorum": 1}, "on where ≥ 1 of 3; this is an OR of the members"),
        ({"members": 3, "quorum": 2}, "on where ≥ 2 of 3"),
        ({"members": 3, "weights": [2, 1, 1]}, "on where the weight is more than half of 4"),
        ({"members": 3, "weights": [2, 1, 1], "quorum": 2.5}, "on where the weight is ≥ 2.5 of 4"),
        ({"members": 2, "weights": [1, 9]}, "on where the weight is more than half of 10"),
    ],
    ids=str,
)  # fmt: skip
def test_the_rule_in_words(options: dict[str, Any], words: str) -> None:
    assert str(rule_of(**options)) == words


def test_decimal_weights_reach_their_sum() -> None:
    three = members([1], [1], [1])
    assert ek.hard_vote(three, weights=[0.1, 0.1, 0.1], quorum=0.3)[KEY].area == 1


def test_abstaining() -> None:
    masks = members([1, 1, 0], [0, 0, 0], [0, 0, 0])
    assert ek.hard_vote(masks)[KEY].area == 0
    voted = ek.hard_vote(masks, empty="abstain")
    assert voted[KEY].area == 2
    assert voted.rule is not None
    assert "abstains" in voted.rule
    assert ek.hard_vote(members([0], [0]), empty="abstain")[KEY].area == 0


@pytest.mark.parametrize(
    "options",
    [
        {"quorum": 0}, {"quorum": -1}, {"quorum": 4}, {"quorum": float("nan")}, {"weights": [1, 1]},
        {"weights": [0, 0, 0]}, {"weights": [1, -1, 1]}, {"weights": [1, float("nan"), 1]}, {"ties": "maybe"},
        {"empty": "skip"}, {"weights": [1, float("inf"), 1]},
    ],
    ids=str,
)  # fmt: skip
def test_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError, match="cannot vote"):
        ek.hard_vote(members([1], [1], [0]), **options)


def test_members_must_fit() -> None:
    a = ek.MaskSet({("s", "x"): ek.encode([[1, 0]]), ("t", "x"): ek.encode([[1, 0]])})
    with pytest.raises(ek.IncompleteError, match="'t'"):
        ek.hard_vote([a, ek.MaskSet({("s", "x"): ek.encode([[1, 0]])})])
    with pytest.raises(ek.MismatchError, match="'y'"):
        ek.hard_vote([a, ek.MaskSet({("s", "y"): ek.encode([[1, 0]]), ("t", "y"): ek.encode([[1, 0]])})])
    with pytest.raises(ek.MismatchError, match="1 x 2 in member 1"):
        ek.hard_vote([a, ek.MaskSet({("s", "x"): ek.encode([[1]]), ("t", "x"): ek.encode([[1]])})])
    with pytest.raises(ek.UsageError, match="no member"):
        ek.hard_vote([])


@pytest.mark.parametrize(
    ("members", "options", "why"),
    [
        (3, {}, "the members: it is of type int · fix: pass a list of MaskSets"),
        ([3], {}, "member 1: it is of type int · fix: pass a MaskSet"),
        (None, {"weights": 2}, "weights: it is of type int · fix: pass a list of numbers, one per member"),
    ],
    ids=["number", "list of numbers", "one weight"],
)
def test_other_types_are_refused(members: Any, options: dict[str, Any], why: str) -> None:
    own = ek.MaskSet({("x", "bone"): ek.Runs([0], [2], (2, 2))})
    with pytest.raises(ek.UsageError) as caught:
        ek.hard_vote([own] if members is None else members, **options)
    assert why in str(caught.value)
