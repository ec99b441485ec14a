"""Argmax of class maps in integers, sixteen pixels at a time, against the oracle: the same label at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.kernels import every_pixel, tables
from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores import class_maps
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean, levels_of_q

FACTORS = [65536, 65536, 512, 40000, 70000, 8388608]
TABLES: dict[str, np.ndarray] = {
    "as they are": tables.identity(),
    "probabilities": levels_of_q(Mean.of("probability")),
    "geometric": levels_of_q(Mean.of("power:0")),
}


def drawn_maps(draw: st.DrawFn, classes: int, grids: list[tuple[int, int]]) -> list[np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = draw(st.sampled_from([1, 5, 300, 65535]))  # few values: many ties
    maps = [rng.integers(0, most + 1, (classes, *grid)).astype(np.uint16) for grid in grids]
    return [m + np.uint16(draw(st.sampled_from([0, 65535 - most]))) for m in maps]


def check(
    maps: list[np.ndarray], weights: np.ndarray, image: tuple[int, int], table: np.ndarray | None,
    factors: list[int], offsets: list[int] | None, least: int,
) -> None:  # fmt: skip
    C = maps[0].shape[0]
    between = [np.stack([ref.interpolate(c, image) for c in own]) for own in maps]
    if table is None:
        values = between[0]
    else:
        scores = [table[ref.rounded(v)].astype(np.int64) for v in between]
        values = np.asarray(sum(w[:, None, None] * s for w, s in zip(weights.T, scores, strict=True)))
    label = ref.winners(values, factors, offsets)
    levels = (values + (0 if table is None else 32768)) >> 16
    label[np.take_along_axis(levels, label[None], 0)[0] < least] = -1
    scale = np.array(factors) if offsets is None else np.ones(C, np.int64)
    decided = class_maps.winners(
        maps,
        [Placement.of(m.shape[1:], image) for m in maps],
        np.repeat(np.arange(C)[:, None], len(maps), axis=1),
        weights,
        table,
        scale,
        np.zeros(C, np.int64) if offsets is None else np.array(offsets),
        least,
    )
    assert decided.masks(image) == [ek.encode(label == c) for c in range(C)]


@pytest.mark.parametrize("table", [*TABLES, "one map"])
@given(data=st.data())
def test_labels_are_the_oracles(table: str, data: st.DataObject) -> None:
    draw = data.draw
    C, M = draw(st.integers(1, 9)), 1 if table == "one map" else draw(st.integers(1, 3))
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 40))
    grids = [draw(sizes)] * M if draw(st.booleans()) else [draw(sizes) for _ in range(M)]
    image = draw(st.one_of(st.just(grids[0]), st.tuples(st.integers(1, 40), st.integers(1, 90))))
    weights = np.full((C, 1), 65536)
    if M > 1:
        cuts = np.sort(np.array(draw(st.lists(st.integers(0, 65536), min_size=C * (M - 1), max_size=C * (M - 1)))))
        cuts = np.sort(cuts.reshape(M - 1, C).T, axis=1)
        weights = np.diff(np.concatenate([np.zeros((C, 1)), cuts, np.full((C, 1), 65536)], axis=1)).astype(np.int64)
    factors = draw(st.one_of(st.just([65536] * C), st.lists(st.sampled_from(FACTORS), min_size=C, max_size=C)))
    offsets: Any = [ref.offset(f / 65536) for f in factors] if table == "as they are" and draw(st.booleans()) else None
    least = draw(st.sampled_from([0, 0, 1, 30000, 65535, 65536]))
    check(drawn_maps(draw, C, grids), weights, image, TABLES.get(table), factors, offsets, least)


def test_wider_and_taller_than_a_tile_and_its_bands(rng: np.random.Generator) -> None:
    wide, tall = 2 * every_pixel.TILE + 5, 2 * every_pixel.BANDS + 3
    maps = [rng.integers(0, 65536, (3, tall, wide // 2)).astype(np.uint16), rng.integers(0, 9, (3, 4, 7), np.uint16)]
    weights = np.array([[65536, 0], [40000, 25536], [1, 65535]])
    for factors in ([65536] * 3, [65536, 70000, 512]):
        check(maps, weights, (2 * tall, wide), TABLES["probabilities"], factors, None, 0)


def test_equal_scores_under_factors_go_to_the_first_class() -> None:
    """3/2 of 2 levels is 3 levels; in float32 too close to call, so that integers must."""
    maps = [np.stack([np.full((2, 40), v, np.uint16) for v in (20000, 30000, 20000)])]
    for factors, first in (([98304, 65536, 65536], 0), ([65536, 65536, 98304], 1), ([98303, 65536, 98305], 2)):
        check(maps, np.full((3, 1), 65536), (2, 40), None, factors, None, 0)
        label = ref.winners(np.stack([ref.interpolate(c, (2, 40)) for c in maps[0]]), factors)
        assert (label == first).all()
