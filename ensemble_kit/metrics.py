"""Overlap of masks, computed from counts: Dice and IoU, under a named convention (docs/concepts.md#rule-7-dice)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import check_kind
from ensemble_kit.masks.alignment import check_aligned
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.spec.scoring import Convention, Empty, mean, overlap

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """The counts of every (sample, class), and the scores that they give.

    Parameters
    ----------
    samples, classes : the rows and columns of the counts.
    tp, pred, truth : int64 (samples, classes), pixels that are on in both, in the prediction, in the truth.
    convention, metric : how a pair of masks is scored.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    truth: NDArray[np.int64]
    convention: Convention
    metric: str = "dice"

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Score of every pair, float64 (samples, classes); NaN where it is skipped."""
        return overlap(self.tp, self.pred, self.truth, self.convention, self.metric)

    @property
    def mean(self) -> float:
        """Mean over all (sample, class) pairs that are not skipped."""
        return mean(self.values)

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
        return mean(np.array(list(self.pooled_per_class.values())))

    def table(self) -> pd.DataFrame:
        """Return a pandas frame: sample, class, tp, pred, truth, value; a row for each pair."""
        import pandas as pd

        n, c = self.values.shape
        return pd.DataFrame(
            {
                "sample": np.repeat(np.array(self.samples, object), c),
                "class": np.tile(np.array(self.classes, object), n),
                "tp": self.tp.reshape(-1),
                "pred": self.pred.reshape(-1),
                "truth": self.truth.reshape(-1),
                "value": self.values.reshape(-1),
            }
        )

    def __str__(self) -> str:
        return f"{self.metric} {self.mean:.6f} (mean over {self.values.size} pairs; {self.convention})"


def dice(a: MaskSet, b: MaskSet, eps: float = 0.0, empty: Empty = 1) -> Overlap:
    """Dice of predictions `a` against truth `b`, joined by (sample, class).

    Parameters
    ----------
    eps : added to the numerator and the denominator.
    empty : score of a pair whose masks are both empty: 1, 0 or "skip". It takes precedence over `eps`.

    Raises
    ------
    IncompleteError
        `a` lacks samples of `b`.
    MismatchError
        `a` has samples that `b` lacks, or classes or image sizes differ.

    Examples
    --------
    >>> from ensemble_kit import MaskSet, Runs
    >>> a = MaskSet({("x", "bone"): Runs([0], [2], (2, 2))})
    >>> b = MaskSet({("x", "bone"): Runs([1], [3], (2, 2))})
    >>> dice(a, b).mean
    0.5
    """
    return _count(a, b, Convention(eps, empty), "dice")


def iou(a: MaskSet, b: MaskSet, eps: float = 0.0, empty: Empty = 1) -> Overlap:
    """Intersection over union of predictions `a` against truth `b`; parameters and errors as for `dice`."""
    return _count(a, b, Convention(eps, empty), "iou")


def _count(a: MaskSet, b: MaskSet, convention: Convention, metric: str) -> Overlap:
    check_kind("the prediction", a, MaskSet)
    check_kind("the truth", b, MaskSet)
    check_aligned(a.extent, b.extent, ("the prediction", "the truth"))
    keys = [[(s, c) for c in b.classes] for s in b.samples]
    return Overlap(
        b.samples,
        b.classes,
        overlaps([a[k] for row in keys for k in row], [b[k] for row in keys for k in row]).reshape(len(keys), -1),
        np.array([[a[k].area for k in row] for row in keys], np.int64),
        np.array([[b[k].area for k in row] for row in keys], np.int64),
        convention,
        metric,
    )
