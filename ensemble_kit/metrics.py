"""Overlap of masks, computed from counts: Dice and IoU, under a named convention (docs/concepts.md#rule-7-dice)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.errors import UsageError, check_kind
from ensemble_kit.masks import MaskSet, check_same_keys
from ensemble_kit.runs import overlaps
from ensemble_kit.spec import Convention, Empty

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Objective = Literal["mean", "pooled"]


def coefficients(metric: str) -> tuple[float, float, float]:
    """Return (a, b, c) of a metric: its score is `(a tp + eps) / (pred + b truth - c tp + eps)`.

    "dice" is (2, 1, 0); "iou" is (1, 1, 1); "f2", "f0.5" and so on are F-beta, (1 + beta², beta², 0).
    """
    if metric == "dice":
        return 2.0, 1.0, 0.0
    if metric == "iou":
        return 1.0, 1.0, 1.0
    try:
        beta = float(metric[1:]) if metric[:1] == "f" else -1.0
    except ValueError:
        beta = -1.0
    if not 0 < beta < float("inf"):
        raise UsageError(
            "option-invalid",
            "cannot measure",
            item=f"metric {metric!r}",
            fix="pass 'dice', 'iou', or F-beta as 'f2', 'f0.5'",
        )
    return 1 + beta**2, beta**2, 0.0


def overlap(tp: Any, pred: Any, truth: Any, convention: Convention, metric: str = "dice") -> NDArray[np.float64]:
    """Score pairs of masks from their counts; a skipped pair is NaN.

    Dice is `(2 tp + eps) / (pred + truth + eps)`; see `coefficients` for the others. Where both masks are empty the
    convention's value goes before `eps`.

    Parameters
    ----------
    tp, pred, truth : pixels in both, in the prediction, in the truth; integers of one shape.
    """
    a, b, c = coefficients(metric)
    tp, pred, truth = (np.asarray(v, np.float64) for v in (tp, pred, truth))
    nothing = pred + truth == 0
    foot = pred + b * truth - c * tp + convention.eps
    value = (a * tp + convention.eps) / np.where(nothing, 1.0, foot)
    return np.where(nothing, np.nan if convention.empty == "skip" else float(convention.empty), value)


def mean(values: NDArray[np.float64]) -> float:
    """Average what is not skipped, in exactly rounded sums: no order of samples or classes shows. NaN of nothing."""
    kept = values[~np.isnan(values)].tolist()
    return math.fsum(kept) / len(kept) if kept else math.nan


@dataclass(frozen=True)
class Measure:
    """What is maximised and reported: a metric, its convention, and how samples are reduced.

    Parameters
    ----------
    objective : "mean" averages over pairs that are not skipped; "pooled" pools a class's pixels over samples, and
        averages over classes.
    metric : see `coefficients`.
    convention : how empty masks count, and eps.
    """

    objective: Objective = "mean"
    metric: str = "dice"
    convention: Convention = field(default_factory=Convention)

    def __post_init__(self) -> None:
        coefficients(self.metric)
        if self.objective not in {"mean", "pooled"}:
            raise UsageError(
                "option-invalid",
                "cannot measure",
                item=f"objective={self.objective!r}",
                fix="pass 'mean' or 'pooled'",
            )

    def values(self, tp: Any, pred: Any, truth: Any) -> NDArray[np.float64]:
        """Score each pair."""
        return overlap(tp, pred, truth, self.convention, self.metric)

    def of_class(self, tp: Any, pred: Any, truth: Any) -> float:
        """Score one class from its counts per sample; NaN where every sample is skipped."""
        if self.objective == "pooled":
            return float(self.values(np.sum(tp), np.sum(pred), np.sum(truth)))
        return mean(self.values(tp, pred, truth))

    def of_all(self, tp: Any, pred: Any, truth: Any) -> float:
        """Score all classes from their counts (classes, samples)."""
        if self.objective == "pooled":
            return mean(self.values(np.sum(tp, axis=1), np.sum(pred, axis=1), np.sum(truth, axis=1)))
        return mean(self.values(tp, pred, truth))

    @property
    def title(self) -> str:
        """The metric's name, for tables."""
        return {"dice": "Dice", "iou": "IoU"}.get(self.metric, self.metric.upper())

    def __str__(self) -> str:
        return f"{self.objective} {self.title} ({self.convention})"


@dataclass(frozen=True)
class Overlap:
    """What `dice` and `iou` return: the counts of every (sample, class), and their reductions.

    Parameters
    ----------
    samples, classes : the rows and columns of the counts.
    tp, pred, truth : int64 (samples, classes), pixels in both, in the prediction, in the truth.
    convention, metric : how a pair is scored.
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
    eps : added to both sides of the fraction.
    empty : value of a pair whose masks are both empty, 1, 0 or "skip"; it goes before `eps`.

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
    check_same_keys(a, b, ("the prediction", "the truth"))
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
