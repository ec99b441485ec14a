"""Post-processing of classes that exclude each other, against a dense oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import ensemble_kit as ek
from ensemble_kit.decisions.clean import apply_rules
from ensemble_kit.decisions.connected import FillHoles
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.kernels import components, contacts, reference
from ensemble_kit.masks.packed import ManyRuns

NAMES = ("a", "b", "c")
RULES = [
    ["drop-small:3"],
    ["keep-largest"],
    ["fill-holes"],
    ["fill-holes:2,connectivity=4", "drop-small:4,connectivity=4", "keep-largest:2"],
    ["drop-small:5@b", "keep-largest@c,a"],
]
STRUCTURE = {4: ndimage.generate_binary_structure(2, 1), 8: np.ones((3, 3), bool)}


@st.composite
def label_maps(draw: st.DrawFn, least: int = 0) -> np.ndarray:
    """Values 0 … 2 of the classes, 3 without a class, 4 void; some smooth, some noise."""
    shape = draw(st.tuples(st.integers(1, 10), st.integers(1, 12)))
    if draw(st.booleans()):
        return draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4 - least)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fields = ndimage.uniform_filter(rng.random((5 - least, *shape)), (0, 3, 3), mode="nearest")
    return fields.argmax(0)


def set_of(labels: np.ndarray) -> ek.MaskSet:
    void = {"s": ek.encode(labels == 4)}
    return ek.MaskSet({("s", n): ek.encode(labels == k) for k, n in enumerate(NAMES)}, void=void)


def cleaned(labels: np.ndarray, rules: list[str]) -> np.ndarray:
    """What the rules do, pixel by pixel: 0 … 2 of the classes, 3 without one, 4 void without one."""
    labels = labels.copy()
    for rule in parse_rules(rules):
        connectivity = rule.neighbours(labels.shape)
        for k, name in enumerate(NAMES):
            if not rule.covers(name):
                continue
            before = labels == k
            after = rule.apply(ek.encode(before)).decode()
            labels[after] = k
            lost, count = ndimage.label(before & ~after, STRUCTURE[connectivity])
            labels[lost > 0] = 5
            given = []
            for part in (lost == n for n in range(1, count + 1)):
                sides = [reference.contacts(part, labels == value) for value in range(4)]
                most = max(sides)
                given.append((part, k if most == 0 else sides.index(most)))
            for part, value in given:
                labels[part] = value
    return labels


@pytest.mark.parametrize("rules", RULES, ids=" ".join)
@given(labels=label_maps())
def test_classes_that_exclude_each_other_still_do(labels: np.ndarray, rules: list[str]) -> None:
    done = apply_rules(set_of(labels), rules)
    wanted = cleaned(labels, rules)
    assert done.exclusive
    for k, name in enumerate(NAMES):
        assert np.array_equal(done["s", name].decode(), wanted == k), (name, labels)


@pytest.mark.parametrize("rules", RULES, ids=" ".join)
@given(labels=label_maps(least=2))
def test_a_partition_stays_one(labels: np.ndarray, rules: list[str]) -> None:
    """Every pixel has a class before and afterwards: no hole is left."""
    done = apply_rules(set_of(labels), rules)
    assert done.exclusive
    assert sum(done["s", name].area for name in NAMES) == labels.size


@given(labels=label_maps(), connectivity=st.sampled_from([4, 8]))
def test_contacts_are_the_oracles(labels: np.ndarray, connectivity: int) -> None:
    masks = [ek.encode(labels == k) for k in range(5)]
    H, W = labels.shape
    starts, ends, numbers, areas = components.components(masks[0].starts, masks[0].ends, H, W, connectivity)
    found = contacts.contacts(starts, ends, numbers, areas.size, *ManyRuns.of(masks), 1, H, W)
    parts, count = ndimage.label(labels == 0, STRUCTURE[connectivity])
    order = sorted(range(1, count + 1), key=lambda n: int((parts == n).reshape(-1).argmax()))
    whole = np.ones_like(labels, bool)
    for row, n in zip(found.tolist(), order, strict=True):
        others = [reference.contacts(parts == n, m) for m in [*(labels == k for k in range(5)), whole]]
        inside = others.pop(0)
        assert (row[1:-1], row[-1] - row[0]) == (others[:-1], others[-1] - inside)


def test_a_hole_takes_what_lies_in_it() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [2, 2, 2, 2]])
    done = apply_rules(set_of(labels), [FillHoles(classes=("a",))])
    assert done.labels("s", [0, 1, 2]).tolist() == [[0] * 4] * 3 + [[2] * 4]
    assert "shares most of their border" in str(done.rule)


def test_the_neighbour_with_most_of_the_border_gets_the_pixels() -> None:
    labels = np.array([[1, 1, 2], [1, 0, 2], [1, 1, 2]])
    assert apply_rules(set_of(labels), "drop-small:2@a").labels("s", [0, 1, 2])[1, 1] == 1
    labels = np.array([[1, 2], [0, 2], [1, 1]])
    assert apply_rules(set_of(labels), "drop-small:2@a").labels("s", [0, 1, 2])[1, 0] == 1
    labels = np.array([[2, 0, 1]])
    assert apply_rules(set_of(labels), "drop-small:2@a").labels("s", [0, 1, 2]).tolist() == [
        [2, 1, 1]
    ]  # ties: the first


def test_without_a_neighbour_nothing_is_taken() -> None:
    labels = np.array([[0, 4], [4, 4]])
    assert apply_rules(set_of(labels), "drop-small:2").labels("s", [0, 1, 2]).tolist() == [[0, 255], [255, 255]]


def test_overlapping_and_single_classes_are_cleaned_alone() -> None:
    small = ek.encode(np.eye(3) > 0)
    both = ek.MaskSet({("s", "a"): small, ("s", "b"): small})
    done = apply_rules(both, "drop-small:4")
    assert ([m.area for m in done.values()], done.rule) == ([0, 0], None)
    assert apply_rules(ek.MaskSet({("s", "a"): small}), "drop-small:4")["s", "a"].area == 0
