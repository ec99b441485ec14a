"""Labels that do not mean the same on both sides: no pixel is right, or more are as the classes' neighbours."""

from __future__ import annotations

from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.metrics.confusion import Confusion
from ensemble_kit.metrics.overlap import dice


def shifted(counted: Confusion) -> str | None:
    """Ask whether labels are shifted by one, where that would make more pixels right, and more than half of them."""
    inner = counted.counts[:-1, :-1]
    right, best, every = int(inner.trace()), max(int(inner.trace(k)) for k in (-1, 1)), int(inner.sum())
    if best <= right or 2 * best <= every:
        return None
    shares = f"{right / every:.1%} of the pixels as the classes are named, {best / every:.1%} as their neighbours"
    return f"labels shifted by one? {shares} in the list"


def without_hits(prediction: MaskSet, truth: MaskSet) -> str | None:
    """Say what may mend masks that are right at no pixel of any class; None where one is right, or a side is empty.

    Returns
    -------
    ": labels shifted by one?" where shifting the classes by one would make half of the truth's pixels right, else "".
    """
    counted = dice(prediction, truth)
    if counted.tp.any() or not counted.truth.any() or not counted.pred.any():
        return None
    names, pixels = truth.classes, int(counted.truth.sum())
    for ours, theirs in ((names[1:], names[:-1]), (names[:-1], names[1:])):
        met = overlaps(
            [prediction[s, name] for s in truth.samples for name in ours],
            [truth[s, name] - truth.void(s) for s in truth.samples for name in theirs],
        )
        if 2 * int(met.sum()) > pixels:
            return ": labels shifted by one?"
    return ""
