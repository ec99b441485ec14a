"""Masks at some rows and columns, and layers of colour, against dense NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from ensemble_kit.masks import layers
from ensemble_kit.masks.sampling import axes_within, centres, sampled

SHAPES = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
)


@given(SHAPES.flatmap(lambda shape: hnp.arrays(bool, shape)), st.data())
def test_samples_are_those_of_the_drawn_mask(mask: np.ndarray, data: st.DataObject) -> None:
    axes = [np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))), np.int64) for n in mask.shape]
    assert np.array_equal(sampled(ek.encode(mask), axes), mask[np.ix_(*axes)])


@given(st.integers(1, 5000), st.integers(1, 600))
def test_centres_are_spread_evenly_and_inside(size: int, count: int) -> None:
    found = centres(size, count)
    assert found.size == min(size, count)
    assert found[0] >= 0
    assert found[-1] < size
    assert (np.diff(found) > 0).all()
    assert found[0] == size // (2 * found.size)


@pytest.mark.parametrize(
    ("shape", "expected"), [((2048, 1024), (512, 256)), ((30, 20), (30, 20)), ((1, 4000), (1, 512))]
)
def test_thumbnails_keep_the_aspect(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tuple(axis.size for axis in axes_within(shape, 512)) == expected


PAIRS = hnp.arrays(bool, (2, 3, 5, 6))


@given(PAIRS)
def test_an_error_layer_names_every_pixel_of_every_class(pairs: np.ndarray) -> None:
    predicted, true = pairs
    index = layers.error_layer(zip(predicted, true, strict=True)).index
    too_much, missed = (predicted & ~true).any(0), (true & ~predicted).any(0)
    right = (predicted & true).any(0) & ~too_much & ~missed
    assert np.array_equal(index == 1, right)
    assert np.array_equal(index == 2, too_much & ~missed)
    assert np.array_equal(index == 3, missed & ~too_much)
    assert np.array_equal(index == 4, missed & too_much)


@given(hnp.arrays(bool, (3, 4, 5, 6)))
def test_disagreement_is_that_of_the_most_disputed_class(votes: np.ndarray) -> None:
    ayes = votes.sum(1)  # (classes, h, w) of four members
    expected = (np.minimum(ayes, 4 - ayes) / 2).max(0)
    assert np.array_equal(layers.disagreement_layer(votes).index, np.ceil(expected * 6))


@given(hnp.arrays(bool, (7, 8)), st.integers(1, 3))
def test_an_outline_is_what_lies_next_to_the_outside(mask: np.ndarray, pen: int) -> None:
    inner = np.pad(mask, 1, mode="edge")
    for _ in range(pen):
        core = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = np.pad(core, 1, mode="edge")
    assert np.array_equal(layers.outline(mask, pen), mask & ~inner[1:-1, 1:-1])


@pytest.mark.parametrize("opacity", [0, 90, 255], ids=["transparent", "between", "opaque"])
def test_a_layer_is_mixed_with_the_image_by_its_opacity(opacity: int) -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    layer = layers.Layer(
        np.array([[0, 1, 1], [1, 0, 0]], np.uint8), np.array([[0, 0, 0, 0], [200, 40, 7, opacity]], np.uint8)
    )
    share = opacity / 255
    expected = np.where(layer.index[..., None] == 1, image * (1 - share) + np.array([200, 40, 7]) * share, image)
    assert np.abs(layer.on(image).astype(float) - expected).max() <= 0.5


def test_the_smaller_class_is_seen_and_every_outline_in_full() -> None:
    planes = np.zeros((2, 6, 6), bool)
    planes[0, 1:5, 1:5] = planes[1, 3:, 3:] = True
    layer = layers.class_layer(planes)
    assert layer.index[3, 3] == layer.index[3, 4] == 4  # outline of the second
    assert layer.index[5, 5] == 3
    assert layer.index[2, 2] == 1
    assert layer.colours[2].tolist() == [*layers.CLASSES[0], 255]


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


DEUTERANOPE = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
"""What a deuteranope sees of linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1)."""


def test_colours_of_errors_differ_for_a_colour_blind_reader() -> None:
    colours = [layers.FOUND, layers.INVENTED, layers.MISSED, layers.MISTAKEN]
    seen = [DEUTERANOPE @ (np.array(c) / 255) ** 2.2 for c in colours]
    apart = [
        np.linalg.norm(np.cbrt(np.clip(a, 0, 1)) - np.cbrt(np.clip(b, 0, 1)))
        for k, a in enumerate(seen)
        for b in seen[:k]
    ]
    assert min(apart) > 0.2
