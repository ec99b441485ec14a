"""Exclusive classes: a member's logits as 16-bit codes, and counts of values that only exist at the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.scores.layouts import Codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ensemble_kit.masks.packed import ManyRuns
    from ensemble_kit.spec.fusion import Fusion, Upsample

ROOM = 1 << 26
"""Bytes of counts that are kept at a time: beyond, classes are counted in several passes."""


def codes(fusion: Fusion, upsample: Upsample) -> Codes:
    """Tell what the codes of exclusive classes become: scores as they are, or shares of the pixel."""
    return "shares" if upsample == "logits" and not fusion.mean.of_logits else "scores"


def encode(
    logits: NDArray[np.float16], temperature: float, order: NDArray[np.int64], fusion: Fusion, upsample: Upsample
) -> NDArray[np.uint16]:
    """Turn a member's logits (C, h, w) into codes of the same shape, classes in another order (rule 9).

    They are each logit's `Q` where it is interpolated or averaged, else the level of its softmax on the mean's scale.
    """
    if upsample == "logits" or fusion.mean.of_logits:
        return q(logits, temperature)[order]
    return fusion.mean.scale[levels(logits, temperature)[order]]


def q(logits: NDArray[np.float16], temperature: float) -> NDArray[np.uint16]:
    """Turn logits (C, h, w) into `Q`, of what each lies below its cell's largest."""
    from ensemble_kit.kernels import exclusive

    flat = logits.reshape(logits.shape[0], -1).astype(np.float32)
    out = np.empty(flat.shape, np.uint16)
    exclusive.exclusive_q(flat, temperature, out)
    return out.reshape(logits.shape)


def levels(logits: NDArray[np.float16], temperature: float) -> NDArray[np.uint16]:
    """Turn logits (C, h, w) into the levels of their softmax."""
    from ensemble_kit.kernels import fuse

    flat = logits.reshape(logits.shape[0], -1).astype(np.float32)
    out = np.empty(flat.shape, np.uint16)
    fuse.softmax_levels(flat, temperature, out)
    return out.reshape(logits.shape)


def counts(bands: NDArray[np.int64], truth: ManyRuns, laid: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Count the pixels of classes by level, each as `LevelCounts.of` returns it.

    Parameters
    ----------
    bands : int64 (n, 3), number of the class, low, high.
    laid : members, scoring, exponentials, axes.
    """
    from ensemble_kit.kernels import exclusive

    widest = int((bands[:, 2] - bands[:, 1]).max()) + 1
    step = max(1, ROOM // (16 * widest))
    for first in range(0, len(bands), step):
        own = bands[first : first + step]
        counted = np.zeros((len(own), widest, 2), np.int64)
        offsets = truth.offsets[first : first + len(own) + 1]
        exclusive.count(own[:, 0].copy(), own[:, 1:].copy(), truth.starts, truth.ends, offsets, counted, *laid)
        for (_, low, high), entries in zip(own.tolist(), counted, strict=True):
            inside, (above, above_tp) = entries[: high - low], entries[high - low].tolist()
            at_least = inside[::-1].cumsum(axis=0)[::-1] + entries[high - low]
            found = np.flatnonzero(inside[:, 0])
            yield (found + low).astype(np.uint16), at_least[found, 0], at_least[found, 1], above, above_tp
