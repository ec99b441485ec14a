"""Look-up tables over all 65,536 codes: what a 16-bit value becomes, computed once in float64.

The formulas are those of docs/concepts.md, rules 1 to 3 and 9.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Levels = NDArray[np.uint16]

LOGIT_RANGE = 16.0
"""Logits are clipped to ±16 before they become 16-bit `q`."""


def sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """σ(x) in float64, without overflow."""
    value = np.asarray(x, np.float64)
    e = np.exp(-np.abs(value))
    return np.where(value >= 0, 1 / (1 + e), e / (1 + e))


def level_of_probability(p: NDArray[np.float64]) -> Levels:
    """floor(65535 p + 0.5) as uint16."""
    return np.floor(65535.0 * p + 0.5).astype(np.uint16)


def q_of_logit(x: ArrayLike) -> Levels:
    """Q: floor((clip(x, -16, 16) + 16) / 32 * 65535 + 0.5) as uint16."""
    clipped = np.clip(np.asarray(x, np.float64), -LOGIT_RANGE, LOGIT_RANGE)
    return np.floor((clipped + LOGIT_RANGE) / (2 * LOGIT_RANGE) * 65535.0 + 0.5).astype(np.uint16)


def logit_of_q(q: ArrayLike) -> NDArray[np.float64]:
    """32 q / 65535 - 16, the middle of what rounds to `q`."""
    return 32.0 * np.asarray(q, np.float64) / 65535.0 - 16.0


@lru_cache(maxsize=32)
def fp16_levels(temperature: float) -> Levels:
    """S of every fp16 code, uint16 (65536,). NaN codes hold 0; no store has them."""
    return _frozen(level_of_probability(sigmoid(_fp16_logits(temperature))))


@lru_cache(maxsize=32)
def fp16_q(temperature: float) -> Levels:
    """Q of every fp16 code, uint16 (65536,)."""
    return _frozen(q_of_logit(_fp16_logits(temperature)))


@lru_cache(maxsize=1)
def q_levels() -> Levels:
    """P: the level of every `q`, uint16 (65536,)."""
    return _frozen(level_of_probability(sigmoid(logit_of_q(np.arange(65536)))))


LOGISTIC_BEND = 65535 * (2 * LOGIT_RANGE / 65535) ** 2 / 10
"""Above the second derivative of a level by its `q`: that of the logistic curve is at most 1 / (6 √3) = 0.0962."""


@lru_cache(maxsize=1)
def identity() -> Levels:
    """Every value as it is, uint16 (65536,)."""
    return _frozen(np.arange(65536, dtype=np.uint16))


@lru_cache(maxsize=1)
def fp16_codes_in_order() -> Levels:
    """The fp16 code whose order-preserving key is k - 32768, for k = 0 … 65535."""
    key = np.arange(-32768, 32768).astype(np.int16)
    return _frozen((key ^ ((key >> 15) & 0x7FFF)).view(np.uint16))


@lru_cache(maxsize=2)
def key_masks(float_codes: bool) -> NDArray[np.int16]:
    """What turns a code into a key of type int16 that is ordered as scores are, for codes of fp16 or scores themselves.

    The key is `(code ^ ((code >> 15) & key_masks[0])) ^ key_masks[1]`. Made of a flag inside a kernel, the masks were
    known to LLVM, which then turned a loop over codes into two without vector instructions: four times as long.
    """
    return np.array([0x7FFF, 0] if float_codes else [0, -0x8000], np.int16)


@lru_cache(maxsize=1)
def exponentials() -> NDArray[np.int64]:
    """E: floor(2^30 exp(32 (q - 65535) / 65535) + 0.5) of every `q` of exclusive classes, int64 (65536,)."""
    table = np.floor(2.0**30 * np.exp(32 * (np.arange(65536) - 65535) / 65535) + 0.5).astype(np.int64)
    table.setflags(write=False)
    return table


def offsets(factors: ArrayLike) -> NDArray[np.int64]:
    """What integer factors, 65536 for 1, add to fused `q`: floor(65536 · 65535 / 32 · ln(factor) + 0.5)."""
    return np.floor(65536 * 65535 / 32 * np.log(np.asarray(factors, np.float64) / 65536) + 0.5).astype(np.int64)


@lru_cache(maxsize=32)
def power_table(r: float) -> Levels:
    """Every level on the scale of the power mean, monotone uint16 (65536,).

    floor(65535 (s / 65535)^r + 0.5) for 0 < r <= 1; the geometric mean's scale, r = 0, is the logarithm, sixteen
    octaves long: floor(65535 max(0, 1 + log2(s / 65535) / 16) + 0.5).
    """
    return _frozen(level_of_probability(power_share(np.arange(65536) / 65535, r)))


def power_share(p: ArrayLike, r: float) -> NDArray[np.float64]:
    """Map probabilities to the scale of the power mean, [0, 1] to [0, 1], as `power_table` states it."""
    value = np.asarray(p, np.float64)
    if r > 0:
        return np.asarray(value**r)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(0, 1 + np.log2(value) / 16))


def probability_of_power(level: ArrayLike, r: float) -> NDArray[np.float64]:
    """Return the probability whose level on the scale of `power_table(r)` is `level`."""
    share = np.asarray(level, np.float64) / 65535
    return np.asarray(share ** (1 / r) if r > 0 else np.where(share == 0, 0.0, 2.0 ** (16 * (share - 1))))


@lru_cache(maxsize=2)
def entropies(binary: bool) -> NDArray[np.int64]:
    """The entropy that every level adds, in bits × 2^24, int64 (65537,): floor(2^24 h + 0.5).

    `h = -p log2 p - (1 - p) log2(1 - p)` of a class by itself (binary), `-p log2 p` of one of exclusive classes.
    The last entry, behind the last level, is 0.
    """
    p = np.arange(65536) / 65535
    h = _bits(p) + _bits(1 - p) if binary else _bits(p)
    table = np.append(np.floor(2.0**24 * h + 0.5), 0).astype(np.int64)
    table.setflags(write=False)
    return table


def _bits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-p * np.log2(np.where(p > 0, p, 1)))


def axis(n_in: int, n_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left neighbour and fraction (of 256) of the right one of each output index: half-pixel centres, edges clamped."""
    return cells_around(2 * np.arange(n_out, dtype=np.int64) + 1, 1, (0, n_out), n_in)


def cells_around(
    centres: NDArray[np.int64], unit: int, window: tuple[int, int], n_in: int, nearest: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cell before each point of an axis, and fraction (of 256) of the cell behind it, by rules 3, 5 and 15.

    Parameters
    ----------
    centres : int64 (n,), points of the image's axis, in halves of `1 / unit` pixels.
    window : first pixel, and the one behind the last, that the cells cover.
    n_in : cells.
    nearest : take the nearer cell, with a fraction of 0.
    """
    n_out = (window[1] - window[0]) * unit
    inside = (centres - 2 * window[0] * unit) * n_in
    if nearest:
        return np.clip(inside // (2 * n_out), 0, n_in - 1), np.zeros_like(inside)
    numerator = np.maximum(inside - n_out, 0)
    i = numerator // (2 * n_out)
    f = (256 * (numerator - 2 * n_out * i) + n_out) // (2 * n_out)
    at_edge = i >= n_in - 1
    return np.where(at_edge, n_in - 1, i), np.where(at_edge, 0, f)


def _fp16_logits(temperature: float) -> NDArray[np.float64]:
    z = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16).astype(np.float64)
    return np.where(np.isnan(z), -np.inf, z) / temperature


def _frozen(table: Levels) -> Levels:
    table.setflags(write=False)
    return table
