from __future__ import annotations

import pytest
from hand_bones.classes import CLASSES, swapped

import ensemble_kit as ek


def test_the_competition_has_29_bones_in_its_order():
    assert len(CLASSES) == len(set(CLASSES)) == 29
    assert CLASSES[0] == "finger-1"
    assert CLASSES[18:20] == ("finger-19", "Trapezium")
    assert CLASSES[-3:] == ("Pisiform", "Radius", "Ulna")


def test_a_flip_exchanges_none_of_them():
    assert swapped() == list(range(29))


def test_a_flip_exchanges_the_pairs_that_are_named_and_is_its_own_inverse():
    names = ["a-left", "middle", "a-right", "b-left", "b-right"]
    order = swapped(names, {"a-left": "a-right", "b-right": "b-left"})
    assert order == [2, 1, 0, 4, 3]
    assert [order[k] for k in order] == list(range(5))
    assert swapped(names, {"a-left": "a-right", "a-right": "a-left"})[:3] == [2, 1, 0]


@pytest.mark.parametrize("pairs", [{"Radius": "radius"}, {"Radius": "Ulna", "Lunate": "Ulna"}])
def test_a_pair_that_cannot_be_is_refused(pairs):
    with pytest.raises(ek.MismatchError, match=r"Ulna|radius"):
        swapped(CLASSES, pairs)
