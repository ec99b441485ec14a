"""The arithmetic of docs/concepts.md in plain NumPy: dense, slow, and the last word.

Nothing here is fast and nothing here is called by the product: every kernel is tested to agree with it to the
last bit.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels import tables
from ensemble_kit.kernels.tables import Levels

# --- rules 1 and 2: levels of one member, fusing -------------------------------------------------------------


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ(x)."""
    with np.errstate(over="ignore"):
        return np.asarray(np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x))), np.float64)


def level(z: NDArray[np.float16], temperature: float = 1.0) -> Levels:
    """S(z) = floor(65535 σ(z / T) + 0.5)."""
    with np.errstate(invalid="ignore"):
        s = sigmoid(z.astype(np.float64) / temperature)
    return np.floor(65535 * np.nan_to_num(s, nan=1.0) + 0.5).astype(np.uint16)


def q(z: NDArray[np.float16], temperature: float = 1.0) -> Levels:
    """Q(z) = floor((clip(z / T, -16, 16) + 16) / 32 · 65535 + 0.5)."""
    return np.floor((np.clip(z.astype(np.float64) / temperature, -16, 16) + 16) / 32 * 65535 + 0.5).astype(np.uint16)


def level_of_q(values: Levels) -> Levels:
    """P(q) = floor(65535 σ(32 q / 65535 - 16) + 0.5)."""
    return np.floor(65535 * sigmoid(32 * values.astype(np.float64) / 65535 - 16) + 0.5).astype(np.uint16)


def softmax_level(z: NDArray[np.float16], temperature: float = 1.0) -> Levels:
    """Levels of exclusive classes (C, h, w): the softmax over classes in float32, its exponential rounded to it."""
    logits = z.astype(np.float32)
    e = np.exp((logits - logits.max(axis=0)).astype(np.float64) / temperature).astype(np.float32)
    total = np.zeros(e.shape[1:], np.float32)
    for part in e:
        total += part
    return np.floor(np.float32(65535) * (e / total) + np.float32(0.5)).astype(np.uint16)


def fuse(members: list[Levels], weights: list[int]) -> Levels:
    """(Σ W · S + 32768) >> 16, with Σ W = 65536."""
    total = sum(w * s.astype(np.int64) for w, s in zip(weights, members, strict=True))
    return np.asarray((np.asarray(total) + 32768) >> 16).astype(np.uint16)


# --- rule 3: from grid to image ------------------------------------------------------------------------------


def axis(n_in: int, n_out: int) -> list[tuple[int, int]]:
    """(i, f) of every output index."""
    pairs = []
    for o in range(n_out):
        num = max((2 * o + 1) * n_in - n_out, 0)
        i = num // (2 * n_out)
        f = (256 * (num - 2 * n_out * i) + n_out) // (2 * n_out)
        pairs.append((n_in - 1, 0) if i >= n_in - 1 else (i, f))
    return pairs


def interpolate(grid: Levels, image: tuple[int, int]) -> NDArray[np.int64]:
    """The level × 65536 of every pixel of `image`, from the cells of a box (h, w)."""
    g = grid.astype(np.int64)
    (h, w), (height, width) = g.shape, image
    ys, xs = axis(h, height), axis(w, width)
    iy, fy = np.array([p[0] for p in ys]), np.array([p[1] for p in ys])[:, None]
    ix, fx = np.array([p[0] for p in xs]), np.array([p[1] for p in xs])[None, :]
    jy, jx = np.minimum(iy + 1, h - 1), np.minimum(ix + 1, w - 1)
    a, b = g[iy][:, ix], g[iy][:, jx]
    c, d = g[jy][:, ix], g[jy][:, jx]
    return np.asarray((256 - fy) * ((256 - fx) * a + fx * b) + fy * ((256 - fx) * c + fx * d))


def rounded(value: NDArray[np.int64]) -> Levels:
    """(value + 32768) >> 16."""
    return ((value + 32768) >> 16).astype(np.uint16)


def image_from_logits(members: list[Levels], weights: list[int], image: tuple[int, int], mean: str) -> Levels:
    """Effective levels with upsample="logits": `members` are Q on each member's own box."""
    interpolated = [rounded(interpolate(m, image)) for m in members]
    return fuse(interpolated if mean == "logit" else [level_of_q(m) for m in interpolated], weights)


def image_from_scores(fused: Levels, image: tuple[int, int]) -> Levels:
    """Effective levels with upsample="scores": on iff value >= t · 65536, that is iff value >> 16 >= t."""
    return (interpolate(fused, image) >> 16).astype(np.uint16)


# --- rule 9: exclusive classes -------------------------------------------------------------------------------


def exclusive_q(z: NDArray[np.float16], temperature: float = 1.0) -> Levels:
    """Q_c = floor((max(d_c, -32) + 32) / 32 · 65535 + 0.5) of (C, h, w), d_c = (z_c - max_k z_k) / T.

    ±inf is read as ±65504.
    """
    logits = np.clip(z.astype(np.float64), -65504, 65504)
    d = (logits - logits.max(axis=0)) / temperature
    return np.floor((np.maximum(d, -32) + 32) / 32 * 65535 + 0.5).astype(np.uint16)


def exponentials() -> NDArray[np.int64]:
    """E[q] = floor(2^30 · exp(32 (q - 65535) / 65535) + 0.5), int64 (65536,)."""
    return np.floor(2.0**30 * np.exp(32 * (np.arange(65536) - 65535) / 65535) + 0.5).astype(np.int64)


def shares(q: Levels) -> Levels:
    """S_c = (131070 E[r_c] + Σ_k E[r_k]) // (2 Σ_k E[r_k]) of (C, ...), r_c = q_c + 65535 - max_k q_k."""
    e = exponentials()[q.astype(np.int64) + 65535 - q.astype(np.int64).max(axis=0)]
    total = e.sum(axis=0)
    return ((131070 * e + total) // (2 * total)).astype(np.uint16)


# --- rule 10: argmax -----------------------------------------------------------------------------------------


def winners(values: NDArray[np.int64], factors: list[int], offsets: list[int] | None = None) -> NDArray[np.int64]:
    """The class of the largest F_c · w_c, or with `offsets` (mean="logit") F_c + o_c; ties to the first class."""
    column = np.array(factors if offsets is None else offsets, np.int64)[:, None, None]
    return np.asarray((values * column if offsets is None else values + column).argmax(axis=0))


def factor(number: float) -> int:
    """Integer of a factor: floor(65536 · factor + 0.5)."""
    return int(np.floor(65536 * number + 0.5))


def offset(number: float) -> int:
    """floor(65536 · 65535 / 32 · ln(factor) + 0.5), what a factor adds with mean="logit"."""
    return int(np.floor(65536 * 65535 / 32 * np.log(number) + 0.5))


# --- rule 11: factors ----------------------------------------------------------------------------------------

LEAST_FACTOR, MOST_FACTOR = 512, 8388608
"""The integers of 1/128 and 128."""


def confusion_of(winner: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Pixels by the class of the truth (rows; the last: no class) and the winner, (C + 1, C). Truth < 0 is void."""
    counted = truth >= 0
    cells = truth[counted] * classes + winner[counted]
    return np.bincount(cells, minlength=(classes + 1) * classes).reshape(classes + 1, classes)


def least_factor(values: NDArray[np.int64], factors: list[int], c: int, logit: bool = False) -> NDArray[np.int64]:
    """The smallest integer w_c in 512 … 8388608 at which class c wins each pixel of (C, n); 8388609: none does.

    Class c wins iff F_c w_c > F_k w_k for the classes k before it and >= for those behind it.
    """
    every = np.array(factors, np.int64)[:, None]
    scaled = values + tables.offsets(every) if logit else values * every
    scaled[:c] += 1
    need = np.delete(scaled, c, axis=0).max(axis=0)
    if logit:
        return LEAST_FACTOR + np.searchsorted(_offsets(), need - values[c])
    own = np.maximum(values[c], 1)
    least = np.where(need <= 0, 0, np.where(values[c] == 0, MOST_FACTOR + 1, -(-need // own)))
    return np.clip(least, LEAST_FACTOR, MOST_FACTOR + 1)


def line_search(
    values: list[NDArray[np.int64]],
    truth: list[NDArray[np.int64]],
    factors: list[int],
    c: int,
    objective: Callable[[NDArray[np.int64]], float],
    logit: bool = False,
) -> tuple[int, float, tuple[int, int]]:
    """The best factor of class c with the others fixed: itself, its score, and the range of equal scores around it.

    Parameters
    ----------
    values, truth : F_c (C, n) and truth (n,) of each sample.
    objective : scores the confusion matrices (samples, C + 1, C).
    """
    steps = [least_factor(v, factors, c, logit) for v in values]
    starts = sorted({LEAST_FACTOR, *np.concatenate(steps).tolist()} - {MOST_FACTOR + 1})
    scores = []
    for start in starts:  # between two of these no winner changes
        now = [*factors[:c], start, *factors[c + 1 :]]
        offsets = tables.offsets(np.array(now)).tolist() if logit else None
        won = [winners(v[:, :, None], now, offsets)[:, 0] for v in values]
        scores.append(objective(np.stack([confusion_of(w, t, len(now)) for w, t in zip(won, truth, strict=True)])))
    spans: list[tuple[int, int]] = []
    for start, stop, score in zip(starts, [*starts[1:], MOST_FACTOR + 1], scores, strict=True):
        if score < max(scores):
            continue
        joins = bool(spans) and spans[-1][1] == start - 1
        spans = [*spans[:-1], (spans[-1][0], stop - 1)] if joins else [*spans, (start, stop - 1)]
    best, span = min(((min(max(65536, low), high), (low, high)) for low, high in spans), key=lambda s: _from_one(s[0]))
    return best, max(scores), span


@lru_cache(maxsize=1)
def _offsets() -> NDArray[np.int64]:
    return tables.offsets(np.arange(LEAST_FACTOR, MOST_FACTOR + 1))


def _from_one(factor: int) -> tuple[float, int]:
    """How far a factor is from 1 in its logarithm; of two as far, the smaller comes first."""
    return max(factor, 65536) / min(factor, 65536), factor


# --- rule 4: decision; runs ----------------------------------------------------------------------------------


def encode(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of the runs of a flat mask."""
    edges = np.diff(np.concatenate([[0], mask.reshape(-1).astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def label_runs(labels: NDArray[np.integer], values: list[int]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Runs of each value of a label map."""
    return [encode(labels == value) for value in values]


def painted(masks: list[NDArray[np.bool_]], values: list[int], empty: int) -> NDArray[np.int64]:
    """The value of every pixel: that of the last mask which has it, `empty` where none has."""
    out = np.full(masks[0].shape, empty, np.int64)
    for mask, value in zip(masks, values, strict=True):
        out[mask] = value
    return out


def overlapping(masks: list[NDArray[np.bool_]]) -> bool:
    """Whether any pixel lies in two masks."""
    return bool((np.sum(masks, axis=0) > 1).any())


def unfiltered(rows: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Rows of a PNG (height, 1 + bytes) without their filters, `step` bytes a pixel."""
    out = np.zeros((len(rows) + 1, rows.shape[1] - 1 + step), np.int64)  # with zeros above and to the left
    for y, row in enumerate(rows.tolist(), 1):
        for x, byte in enumerate(row[1:], step):
            a, b, c = (int(v) for v in (out[y, x - step], out[y - 1, x], out[y - 1, x - step]))
            nearest = min((a, b, c), key=lambda v: abs(a + b - c - v))
            out[y, x] = (byte + (0, a, b, (a + b) // 2, nearest)[row[0]]) % 256
    return out[1:, step:].astype(np.uint8)


def contacts(component: NDArray[np.bool_], mask: NDArray[np.bool_]) -> int:
    """How many pixel sides, or faces of voxels, a component shares with a mask."""
    count = 0
    for axis in range(component.ndim):
        a, b = np.moveaxis(component, axis, 0), np.moveaxis(mask, axis, 0)
        count += int((a[1:] & b[:-1]).sum()) + int((a[:-1] & b[1:]).sum())
    return count


def text(mask: NDArray[np.bool_], order: str = "C", base: int = 1, relative: bool = False) -> str:
    """The RLE text of a mask."""
    starts, ends = encode(mask if order == "C" else mask.T)
    words, last = [], None
    for s, e in zip(starts.tolist(), ends.tolist(), strict=True):
        words += [s + base if last is None or not relative else s - last, e - s]
        last = e
    return " ".join(map(str, words))


def parse(text: str, size: int, base: int = 1, relative: bool = False) -> NDArray[np.bool_] | None:
    """Draw an RLE text as a flat mask of `size` pixels; None where it breaks the grammar."""
    words = text.split(" ") if text.strip(" ") else []
    if len(words) % 2 or not all(word.isdecimal() and str(int(word)) == word for word in words):
        return None
    mask, behind = np.zeros(size, np.bool_), 0
    for k in range(0, len(words), 2):
        start = behind + int(words[k]) if relative and k else int(words[k]) - base
        length = int(words[k + 1])
        if length < 1 or start < behind or start + length > size:
            return None
        behind = start + length
        mask[start:behind] = True
    return mask


def level_counts(levels: Levels, truth: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels at or above each of the 65,536 levels, and truth pixels among them."""
    pixels = np.bincount(levels.reshape(-1), minlength=65536)
    hits = np.bincount(levels[truth].reshape(-1), minlength=65536)
    return np.cumsum(pixels[::-1])[::-1].astype(np.int64), np.cumsum(hits[::-1])[::-1].astype(np.int64)


# --- rule 14: rules across classes ---------------------------------------------------------------------------


def compete(chances: Levels, masks: NDArray[np.bool_], ratio: float) -> NDArray[np.bool_]:
    """Masks (C, H, W) without the pixels where 65536 p_c < R max_k p_k, R = floor(65536 ratio + 0.5)."""
    p = chances.astype(np.int64)
    return np.asarray(masks & (65536 * p >= factor(ratio) * p.max(axis=0)))


# --- rules 6, 7 and 12: hard vote, Dice, void ----------------------------------------------------------------


def weighted_vote(masks: list[NDArray[np.bool_]], weights: list[int], need: int) -> NDArray[np.bool_]:
    """On where the weights of the members that are on add up to at least `need`."""
    total = sum(w * m.astype(np.int64) for w, m in zip(weights, masks, strict=True))
    return np.asarray(np.asarray(total) >= need)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_], eps: float, empty: float) -> float:
    """(2 |a∩b| + eps) / (|a| + |b| + eps); `empty` where both are empty."""
    if not a.any() and not b.any():
        return empty
    return float((2 * int((a & b).sum()) + eps) / (int(a.sum()) + int(b.sum()) + eps))


def confusion(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], void: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels outside `void` (H, W) by true and predicted class, int64 (C + 1, C + 1), the last none, of (C, H, W)."""
    none = len(truth)
    a, b = (np.where(m.any(0), m.argmax(0), none)[~void] for m in (predicted, truth))
    return np.bincount(b * (none + 1) + a, minlength=(none + 1) ** 2).reshape(none + 1, none + 1).astype(np.int64)


# --- the joint search ----------------------------------------------------------------------------------------


def undecided(
    members: NDArray[np.uint16], truth: NDArray[np.bool_], low: int, high: int
) -> tuple[NDArray[np.uint16], int, int, int, int]:
    """Values (n, M) of the pixels of images (M, H, W) that neither all lie below `low` nor all reach `high`.

    Hits first, each kind in the order of rows; then how many are hits, pixels above, hits among them, hits in all.
    """
    flat, wanted = members.reshape(len(members), -1).T, truth.reshape(-1)
    above, below = (flat >= high).all(1), (flat < low).all(1)
    kept = ~above & ~below
    hits = flat[kept & wanted]
    return np.concatenate([hits, flat[kept & ~wanted]]), len(hits), above.sum(), (above & wanted).sum(), wanted.sum()


def kept_components(areas: list[int], hits: list[int], least: int, most: int) -> tuple[int, int]:
    """Pixels and hits of the components of at least `least` pixels, the `most` largest of them (0: all)."""
    large = sorted((k for k, a in enumerate(areas) if a >= least), key=lambda k: -areas[k])
    kept = large[: most or None]
    return sum(areas[k] for k in kept), sum(hits[k] for k in kept)
