"""Overlap of masks, computed from counts: Dice and IoU, under a named convention (docs/concepts.md#rule-7-dice)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import UsageError, check_kind, some
from ensemble_kit.masks.alignment import check_aligned
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.once import once
from ensemble_kit.spec.scoring import Convention, Empty, Measure, Reduction, mean, overlap

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


COLUMNS = ("sample", "class", "tp", "pred", "truth", "value")
"""Of the table of every pair: pixels in both, in the prediction, in the truth, and the score."""
_AT_ONCE = 4096
"""Pairs that are counted in one call."""


@dataclass(frozen=True, repr=False)
class Overlap:
    """The counts of every (sample, class), and the scores that they give.

    Parameters
    ----------
    samples, classes : the rows and columns of the counts.
    tp, pred, truth : int64 (samples, classes), pixels that are on in both, in the prediction, in the truth.
    convention, metric : how a pair of masks is scored.
    background : a class that is left out of means over classes.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    truth: NDArray[np.int64]
    convention: Convention
    metric: str = "dice"
    background: str | None = None

    @once
    def values(self) -> NDArray[np.float64]:
        """Score of every pair, float64 (samples, classes); NaN where it is skipped."""
        return overlap(self.tp, self.pred, self.truth, self.convention, self.metric)

    @property
    def mean(self) -> float:
        """Mean over all (sample, class) pairs that are not skipped."""
        return self.score(self._measure("mean"))

    @property
    def per_class(self) -> dict[str, float]:
        """Mean over the samples of each class."""
        return {c: mean(self.values[:, k]) for k, c in enumerate(self.classes)}

    @property
    def pooled_per_class(self) -> dict[str, float]:
        """Score of each class with its pixels pooled over samples."""
        pooled = overlap(self.tp.sum(0), self.pred.sum(0), self.truth.sum(0), self.convention, self.metric)
        return dict(zip(self.classes, pooled.tolist(), strict=True))

    @property
    def pooled(self) -> float:
        """Mean over classes of the pooled scores."""
        return self.score(self._measure("pooled"))

    def score(self, measure: Measure) -> float:
        """Score the counts by another measure, of another metric, convention, reduction or background.

        Raises
        ------
        UsageError
            The measure's background is not among the classes.
        """
        check_background(measure.background, self.classes)
        kept = [k for k, c in enumerate(self.classes) if c != measure.background]
        return measure.of_all(self.tp.T[kept], self.pred.T[kept], self.truth.T[kept])

    def under(self, measure: Measure) -> Overlap:
        """Return the same counts under the metric, the convention and the background of a measure."""
        check_background(measure.background, self.classes)
        return replace(self, convention=measure.convention, metric=measure.metric, background=measure.background)

    def _measure(self, reduction: Reduction) -> Measure:
        return Measure(reduction, self.metric, self.convention, self.background)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that neither the truth nor the prediction has in any sample."""
        areas = (self.pred + self.truth).sum(0).tolist()
        return tuple(name for name, area in zip(self.classes, areas, strict=True) if not area)

    def table(self) -> pd.DataFrame:
        """Return a pandas frame: sample, class, tp, pred, truth, value; a row for each pair.

        Its `attrs["convention"]` says how `value` was scored; it is NaN where a pair is skipped.
        """
        import pandas as pd

        n, c = self.values.shape
        names = np.repeat(np.array(self.samples, object), c), np.tile(np.array(self.classes, object), n)
        counts = (v.reshape(-1) for v in (self.tp, self.pred, self.truth, self.values))
        out = pd.DataFrame(dict(zip(COLUMNS, (*names, *counts), strict=True)))
        out.attrs["convention"] = f"{self.metric}: {self.convention}"
        return out

    def __repr__(self) -> str:
        return f"Overlap({self})"

    def __str__(self) -> str:
        pairs = len(self.samples) * len([c for c in self.classes if c != self.background])
        without = "" if self.background is None else f", without {self.background!r}"
        return f"{self.metric} {self.mean:.6f} (mean over {pairs} pairs; {self.convention}{without})"


def dice(a: MaskSet, b: MaskSet, eps: float = 0.0, empty: Empty = 1, background: str | None = None) -> Overlap:
    """Dice of predictions `a` against truth `b`, joined by (sample, class).

    The truth's void pixels count neither as prediction nor as truth (docs/concepts.md#rule-12-void).

    Parameters
    ----------
    eps : added to the numerator and the denominator.
    empty : score of a pair whose masks are both empty: 1, 0 or "skip"; "skip-truth" leaves out pairs without truth.
        It takes precedence over `eps`.
    background : a class that is left out of means over classes.

    Raises
    ------
    IncompleteError
        `a` lacks samples of `b`.
    MismatchError
        `a` has samples that `b` lacks, or classes or image sizes differ.
    UsageError
        Another value of `empty` or `eps`; a background that is not among the classes.

    Examples
    --------
    >>> from ensemble_kit import MaskSet, Runs
    >>> a = MaskSet({("x", "bone"): Runs([0], [2], (2, 2))})
    >>> b = MaskSet({("x", "bone"): Runs([1], [3], (2, 2))})
    >>> dice(a, b).mean
    0.5
    """
    return _count(a, b, Convention(eps, empty), "dice", background)


def iou(a: MaskSet, b: MaskSet, eps: float = 0.0, empty: Empty = 1, background: str | None = None) -> Overlap:
    """Intersection over union of predictions `a` against truth `b`; parameters and errors as for `dice`."""
    return _count(a, b, Convention(eps, empty), "iou", background)


def _count(a: MaskSet, b: MaskSet, convention: Convention, metric: str, background: str | None) -> Overlap:
    check_comparable(a, b)
    check_background(background, b.classes)
    step = max(1, _AT_ONCE // max(len(b.classes), 1))
    found = [_counts_of(a, b, b.samples[k : k + step]) for k in range(0, len(b.samples), step)]
    tp, pred, truth = (np.concatenate(v).reshape(len(b.samples), len(b.classes)) for v in zip(*found, strict=True))
    return Overlap(b.samples, b.classes, tp, pred, truth, convention, metric, background)


def _counts_of(a: MaskSet, b: MaskSet, samples: Sequence[str]) -> tuple[NDArray[np.int64], ...]:
    """Count hits, pixels and truth pixels of every pair of some samples: so runs are copied some at a time."""
    found, wanted = ([masks[s, c] for s in samples for c in b.classes] for masks in (a, b))
    pred = np.array([m.area for m in found], np.int64)
    if b.has_void:  # void pixels count neither as prediction nor as truth
        left_out = [void for void in map(b.void, samples) for _ in b.classes]
        wanted = [mask - void if void else mask for mask, void in zip(wanted, left_out, strict=True)]
        pred -= overlaps(found, left_out)
    return overlaps(found, wanted), pred, np.array([m.area for m in wanted], np.int64)


def check_comparable(a: MaskSet, b: MaskSet) -> None:
    """Refuse a prediction and a truth that cannot be compared, and two without a mask, whose score is not a number.

    Raises
    ------
    IncompleteError, MismatchError
        As for `check_aligned`.
    UsageError
        Neither has a mask.
    """
    check_kind("the prediction", a, MaskSet)
    check_kind("the truth", b, MaskSet)
    check_aligned(a.extent, b.extent, ("the prediction", "the truth"))
    if not b.samples or not b.classes:
        raise UsageError("masks-none", "cannot compare masks", item="there is none", fix="pass at least one mask")


def check_background(name: str | None, classes: tuple[str, ...]) -> None:
    """Refuse a background that is not among the classes.

    Raises
    ------
    UsageError
        It names the classes.
    """
    if name is not None and name not in classes:
        what, item = "cannot leave out the background", f"{name!r} is not among the classes: {some(classes)}"
        raise UsageError("background-unknown", what, item=item, fix="name one of the classes")
