"""Layouts: one sample's members, and what is the same for every sample, as kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.arguments import Axes, Grids, Members, Pixels, Reach, Scoring
from ensemble_kit.spec.geometry import Placement, Shape
from ensemble_kit.spec.mean import LOGIT, PROBABILITY, Mean, levels_of_q

Codes = Literal["levels", "q", "scores", "shares"]
"""What a 16-bit code becomes: the level of an fp16 logit, its `q`, what it is already (softmax, resampled), or, of
the `q` of exclusive classes, after interpolation, its share of all classes."""


class Recipe(NamedTuple):
    """How an ensemble's codes become levels: what `scoring` follows from."""

    codes: Codes
    temperatures: tuple[float, ...]
    mean: Mean
    interpolate_members: bool


# --- one sample ----------------------------------------------------------------------------------------------


def members(
    codes: Sequence[NDArray[np.uint16]],
    placements: Sequence[Placement],
    order: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> Members:
    """Lay out members' grids of codes (classes, h, w), C-contiguous; the caller keeps their memory alive."""
    located = [
        (c.__array_interface__["data"][0] + 2 * p.offset, 2 * p.grid[0] * p.grid[1], p.grid[1])
        for c, p in zip(codes, placements, strict=True)
    ]
    addresses, class_bytes, widths = np.array(located, np.int64).T.copy()
    laid = np.ascontiguousarray(order), np.ascontiguousarray(weights)  # another layout compiles the kernels again
    return Members(addresses, class_bytes, widths, class_bytes, *laid)


@lru_cache(maxsize=256)
def pixels(box: Shape, image: Shape) -> Pixels:
    """Lay out the pixels of an image behind the cells of a box that all members share."""
    from ensemble_kit.kernels import tables

    out: tuple[NDArray[np.int64], ...] = ()
    for n_in, n_out in zip(box, image, strict=True):
        near, fractions = tables.axis(n_in, n_out)
        out += np.searchsorted(near, np.arange(n_in + 1)), fractions
    return Pixels(*out)


@lru_cache(maxsize=16)
def axes(boxes: tuple[Shape, ...], image: Shape) -> Axes:
    """Lay out the cells of each member's box, of these shapes, around the pixels of an image."""
    from ensemble_kit.kernels import tables

    shapes = np.array(boxes, np.int64)
    (rows, row_fractions), (cols, col_fractions) = (
        map(np.stack, zip(*[tables.axis(n_in, n_out) for n_in in n_ins], strict=True))
        for n_ins, n_out in zip(shapes.T.tolist(), image, strict=True)
    )
    return Axes(rows, row_fractions, cols, col_fractions, shapes - 1)


def by_grid(placements: Sequence[Placement], used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the members that are used, those of one size of box after each other."""
    shapes = [p.box.shape for p in placements]
    return np.array(sorted(np.flatnonzero(used).tolist(), key=lambda m: shapes.index(shapes[m])), np.int64)


@lru_cache(maxsize=16)
def grids(boxes: tuple[Shape, ...], image: Shape) -> Grids:
    """Lay out the bands and strips of an image between the cells of boxes of these shapes."""
    return grids_of(axes(boxes, image))


def grids_of(given: Axes) -> Grids:
    """Lay out the bands and strips between these cells."""
    from ensemble_kit.kernels.desk import CELLS, PIXELS

    (row_at, upper), (col_at, cols) = stretches(given.rows), stretches(given.cols)
    between = np.maximum.reduceat(given.row_fractions, row_at[:-1], axis=1) > 0
    behind = ((0, 0), (0, PIXELS))
    return Grids(
        np.maximum(given.last[:, 1] + 1, CELLS),
        row_at,
        col_at,
        upper,
        np.minimum(upper + between, given.last[:, :1]),
        cols,
        (given.col_fractions.max(axis=1) > 0).astype(np.int64),
        given.row_fractions,
        np.pad(given.cols, behind).astype(np.int32),
        np.pad(given.col_fractions, behind).astype(np.int32),
        np.repeat(np.arange(cols.shape[1]), np.diff(col_at)),
    )


def stretches(cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pixels behind the same cells of each box: where they begin, and the cells (boxes, stretches)."""
    edges = np.flatnonzero((np.diff(cells, axis=1) != 0).any(axis=0)) + 1
    at = np.concatenate([[0], edges, [cells.shape[1]]])
    return at, np.ascontiguousarray(cells[:, at[:-1]])


# --- every sample --------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def order(members: tuple[tuple[str, ...], ...], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Find where each of `classes` stands in each member, int64 (C, M).

    It is 0 of a class that a member lacks, and in which it weighs nothing.
    """
    return np.array([[own.index(name) if name in own else 0 for own in members] for name in classes], np.int64)


@lru_cache(maxsize=16)
def weights(rows: tuple[tuple[int, ...], ...]) -> NDArray[np.int64]:
    """Weights as an array, int64 (C, M)."""
    return np.array(rows, np.int64)


@lru_cache(maxsize=16)
def scoring(recipe: Recipe) -> Scoring:
    """Make the tables by which codes become levels."""
    from ensemble_kit.kernels import tables

    codes, power = recipe.codes, recipe.mean.scale  # the identity, but for mean="power:R"
    floats = codes in {"levels", "q"}
    kinds = tuple(dict.fromkeys(recipe.temperatures)) if floats else (1.0,)
    made = [
        tables.identity() if not floats else tables.fp16_q(t) if codes == "q" else power[tables.fp16_levels(t)]
        for t in kinds
    ]
    table_of = [kinds.index(t) if floats else 0 for t in recipe.temperatures]
    last = power.copy() if codes == "shares" else levels_of_q(recipe.mean if recipe.interpolate_members else LOGIT)
    in_order = tables.fp16_codes_in_order() if floats else tables.identity()
    return Scoring(
        np.stack(made),
        np.array(table_of, np.int64),
        last,
        np.stack([last[t[in_order]] for t in made]),
        tables.key_masks(floats),
        recipe.interpolate_members,
        tables.LOGISTIC_BEND if recipe.mean == PROBABILITY else 0.0 if recipe.mean.of_logits else np.inf,
    )


@lru_cache(maxsize=256)
def reach(recipe: Recipe, low: tuple[int, ...], high: tuple[int, ...]) -> Reach:
    """Find the codes whose score is at least each low and each high level.

    They are one interval on the circle of 65,536: fp16's positive codes rise from +0, and its negative ones, from
    -0 on, follow the largest positive.
    """
    made, wanted, floats = scoring(recipe), np.array([low, high], np.int64).T, recipe.codes in {"levels", "q"}
    lowest, highest = (-0x7C01, 0x7C00) if floats else (-0x8000, 0x7FFF)  # from -inf to +inf, without NaN
    firsts, spans = [], []
    for by_key in made.by_key:
        key = np.searchsorted(by_key[lowest + 0x8000 : highest + 0x8001], wanted) + lowest
        if floats:
            first = np.maximum(key, 0)
            span = np.where(key >= 0, 0x7FFF - key, (key ^ 0x7FFF) & 0xFFFF)
        else:
            first, span = key + 0x8000, 0x7FFF - key
        firsts.append(first)
        spans.append(np.where(key > highest, -1, span))
    return Reach(*(np.ascontiguousarray(np.stack(v, axis=2)[..., made.table_of]) for v in (firsts, spans)))
