"""Fused values of images and volumes, of members that saw windows, in plain NumPy: rules 2, 3, 5, 9, 10 and 15.

Dense and slow: every pixel of every member. `kernels.rows` is tested to agree with it to the last bit.
"""

import math
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels.tables import Levels


class Seen(NamedTuple):
    """What one member saw of a sample.

    Parameters
    ----------
    logits : float16 (C, *cells), of its box, in the order of the answer's classes.
    cells : of the whole grid, box or not: the member with the most is the finest.
    window : for each axis the first pixel of the image that the box covers, and the one behind the last.
    nearest : for each axis, whether it takes the nearest cell.
    temperature : what its logits are divided by.
    weights : float (C,), as they were given.
    name : which tells between equal remainders.
    """

    logits: NDArray[np.float16]
    cells: int
    window: tuple[tuple[int, int], ...]
    nearest: tuple[bool, ...]
    temperature: float
    weights: tuple[float, ...]
    name: str


def axis(points: list[tuple[int, int]], window: tuple[int, int], n_in: int, nearest: bool) -> list[tuple[int, int]]:
    """(i, f) of points p / q of an axis of the image, in pixels from its edge: of an index `(2 o + 1) / 2`."""
    n_out, pairs = window[1] - window[0], []
    for p, q in points:
        cell, unit = 2 * (p - window[0] * q) * n_in, 2 * q * n_out  # cells from the window's edge: cell / unit
        if nearest:
            pairs.append((min(max(cell // unit, 0), n_in - 1), 0))
            continue
        num = max(cell - q * n_out, 0)
        i = num // unit
        f = (512 * (num - unit * i) + unit) // (2 * unit)
        pairs.append((n_in - 1, 0) if i >= n_in - 1 else (i, f))
    return pairs


def pixels(n: int) -> list[tuple[int, int]]:
    """Centres of the pixels of an axis."""
    return [(2 * o + 1, 2) for o in range(n)]


def centres(n_in: int, window: tuple[int, int]) -> list[tuple[int, int]]:
    """Centres of the cells of an axis, in pixels of the image."""
    return [(2 * window[0] * n_in + (2 * i + 1) * (window[1] - window[0]), 2 * n_in) for i in range(n_in)]


def interpolate(grid: Levels, points: list[list[tuple[int, int]]], member: Seen) -> NDArray[np.int64]:
    """The level × 256^axes at every combination of the points of each axis; outside the window as at its edge."""
    value = grid.astype(np.int64)
    for a, own in enumerate(points):
        n = grid.shape[a]
        pairs = np.array(axis(own, member.window[a], n, member.nearest[a]))
        near, f = pairs[:, 0], pairs[:, 1].reshape([-1 if k == a else 1 for k in range(grid.ndim)])
        value = (256 - f) * value.take(near, a) + f * value.take(np.minimum(near + 1, n - 1), a)
    return value


def rounded(value: NDArray[np.int64], axes: int) -> Levels:
    """(value + 2^15) >> 16 of two axes, (value + 2^23) >> 24 of three."""
    return ((value + (1 << (8 * axes - 1))) >> (8 * axes)).astype(np.uint16)


def integer_weights(rows: list[float], names: list[str]) -> list[int]:
    """Integers that add up to 65536, by the largest remainder; of weights that are all 0, zeros."""
    exact = [Fraction(str(float(w))) for w in rows]
    if not sum(exact):
        return [0] * len(rows)
    shares = [w * 65536 / sum(exact) for w in exact]
    whole = [math.floor(s) for s in shares]
    for k in sorted(range(len(whole)), key=lambda k: (whole[k] - shares[k], names[k]))[: 65536 - sum(whole)]:
        whole[k] += 1
    return whole


class Values(NamedTuple):
    """Of every pixel and class: F_c of rule 10, int64 (C, *image); whether a member has a say; and the level."""

    values: NDArray[np.int64]
    say: NDArray[np.bool_]
    levels: NDArray[np.int64]


def fused(
    members: list[Seen],
    image: tuple[int, ...],
    softmax: bool,
    upsample: Literal["logits", "scores"],
    of_logits: bool = False,
) -> Values:
    """Fuse members at every pixel, with mean="probability" or "logit"."""
    shape = len(members[0].logits), *image
    values, say = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    covers = np.zeros((len(members), *image), np.bool_)
    for m, member in enumerate(members):
        covers[m][tuple(slice(*edges) for edges in member.window)] = True
    patterns = np.unique(covers.reshape(len(members), -1), axis=1).T
    for pattern in patterns:
        inside = np.all(covers == pattern.reshape(-1, *[1] * len(image)), axis=0)
        some = [member for member, here in zip(members, pattern, strict=True) if here]
        if not some:
            continue
        names = [m.name for m in some]
        weights = np.array([integer_weights([m.weights[c] for m in some], names) for c in range(shape[0])])
        found = (_late if upsample == "logits" else _early)(some, weights, image, softmax, of_logits)
        values[:, inside], say[:, inside] = found[:, inside], weights.sum(axis=1)[:, None] > 0
    half = 32768 if upsample == "logits" else 0
    return Values(values * say, say, ((values * say + half) >> 16))


def _late(
    members: list[Seen], weights: NDArray[np.int64], image: tuple[int, ...], softmax: bool, of_logits: bool
) -> NDArray[np.int64]:
    """upsample="logits": interpolate each member's `q`, turn it into levels, fuse."""
    total = np.zeros((len(weights), *image), np.int64)
    for m, member in enumerate(members):
        q = (ref.exclusive_q if softmax else ref.q)(member.logits, member.temperature)
        points = [pixels(n) for n in image]
        q = np.stack([rounded(interpolate(own, points, member), len(image)) for own in q])
        score = q if of_logits else ref.shares(q) if softmax else ref.level_of_q(q)
        total += weights[:, m].reshape(-1, *[1] * len(image)) * score.astype(np.int64)
    return total


def _early(
    members: list[Seen], weights: NDArray[np.int64], image: tuple[int, ...], softmax: bool, of_logits: bool
) -> NDArray[np.int64]:
    """upsample="scores": fuse at the centres of the finest member's cells, interpolate the fused level."""
    finest = max(members, key=lambda m: m.cells)
    points = [centres(n, w) for n, w in zip(finest.logits.shape[1:], finest.window, strict=True)]
    scores = []
    for member in members:
        if of_logits:
            own = (ref.exclusive_q if softmax else ref.q)(member.logits, member.temperature)
        else:
            own = (ref.softmax_level if softmax else ref.level)(member.logits, member.temperature)
        scores.append(np.stack([rounded(interpolate(cells, points, member), len(image)) for cells in own]))
    level = [ref.fuse([own[c] for own in scores], row) for c, row in enumerate(weights.tolist())]
    values = np.stack([interpolate(cells, [pixels(n) for n in image], finest) for cells in level])
    return values >> 8 if len(image) == 3 else values


def winners(found: Values, factors: list[int], of_logits: bool, background: int | None) -> NDArray[np.int64]:
    """The class of every pixel by rule 10; where no member has a say the background, -1 where none is."""
    column = np.array(factors).reshape(-1, *[1] * (found.values.ndim - 1))
    if of_logits:
        offsets = [ref.offset(w / 65536) for w in factors]
        scores = found.values + np.array(offsets).reshape(column.shape)
    else:
        scores = found.values * column
    label = np.where(found.say, scores, np.iinfo(np.int64).min).argmax(axis=0)
    return np.where(found.say.any(axis=0), label, -1 if background is None else background)
