"""Labels that do not mean the same on both sides: no pixel is right, or more would be by other names of the classes."""

from __future__ import annotations

import numpy as np

from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.metrics.confusion import Confusion, confusion
from ensemble_kit.metrics.overlap import dice


def shifted(counted: Confusion) -> str | None:
    """Ask whether labels are shifted by one, where that would make more pixels right, and more than half of them."""
    inner = counted.counts[:-1, :-1]
    right, best, every = int(inner.trace()), max(int(inner.trace(k)) for k in (-1, 1)), int(inner.sum())
    if best <= right or 2 * best <= every:
        return None
    shares = f"{right / every:.1%} of the pixels as the classes are named, {best / every:.1%} as their neighbours"
    return f"labels shifted by one? {shares} in the list"


def exchanged(counted: Confusion) -> str | None:
    """Ask whether two classes are exchanged: most pixels of each are predicted as the other."""
    inner, areas = counted.counts[:-1, :-1], counted.counts.sum(axis=1)[:-1]
    mostly = 2 * inner > areas[:, None]  # rows are the truth, so no class is mostly predicted as two
    pairs = [(a, b) for a, b in np.argwhere(mostly & mostly.T).tolist() if a < b]
    if not pairs:
        return None
    a, b = pairs[0]
    names = counted.classes
    ours, theirs = f"{inner[a, b] / areas[a]:.1%} of {names[a]!r}", f"{inner[b, a] / areas[b]:.1%} of {names[b]!r}"
    more = f"; {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
    return f"classes exchanged? {ours} is predicted as {names[b]!r}, and {theirs} as {names[a]!r}{more}"


def mistaken(counted: Confusion) -> str | None:
    """Say what looks like labels that do not mean the same on both sides; None where nothing does."""
    return shifted(counted) or exchanged(counted)


def doubted(prediction: MaskSet, truth: MaskSet) -> str | None:
    """Say what looks like labels that do not mean the same on both sides; None where nothing does, or a side is empty.

    That is masks that are right at no pixel of any class; and of exclusive classes, of which a few pixels are right by
    chance, also those that a shift by one or an exchange of two classes would mend.
    """
    counted = dice(prediction, truth)
    if not counted.truth.any() or not counted.pred.any():
        return None
    if counted.tp.any():
        exclusive = prediction.exclusive and truth.exclusive
        return mistaken(confusion(prediction, truth)) if exclusive else None
    return "no pixel of any class is right" + _mended(prediction, truth, int(counted.truth.sum()))


def _mended(prediction: MaskSet, truth: MaskSet, pixels: int) -> str:
    """Ask about a shift by which half of the truth's pixels would be right; else "". Classes may overlap."""
    names = truth.classes
    for ours, theirs in ((names[1:], names[:-1]), (names[:-1], names[1:])):
        met = overlaps(
            [prediction[s, name] for s in truth.samples for name in ours],
            [truth[s, name] - truth.void(s) for s in truth.samples for name in theirs],
        )
        if 2 * int(met.sum()) > pixels:
            return ": labels shifted by one?"
    return ""
