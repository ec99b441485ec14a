"""How an overlap of masks is scored, from counts: a metric, its convention, and how samples are reduced."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ensemble_kit.errors import UsageError, check_choice, check_kind, check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

Empty = Literal[0, 1, "skip", "skip-truth"]


@dataclass(frozen=True)
class Convention:
    """How an overlap is scored (docs/concepts.md#rule-7-dice); one value used by tuning, scoring and report alike.

    Parameters
    ----------
    eps : added to both sides of the fraction; 0 by default. Boostcamp hand-bone scoring is 1e-4.
    empty : value of a pair whose two masks are both empty: 1, 0, or "skip". It takes precedence over `eps`.
        "skip-truth" leaves out every pair whose truth is empty, whatever is predicted; it is for scoring, not tuning.

    Raises
    ------
    UsageError
        Another value of `empty`; an eps that is negative or not finite.
    """

    eps: float = 0.0
    empty: Empty = 1

    def __post_init__(self) -> None:
        check_choice("empty", self.empty, (1, 0, "skip", "skip-truth"), "cannot score empty masks", "convention")
        check_number(
            "eps",
            self.eps,
            "pass a finite eps of at least 0",
            least=0,
            what="cannot smooth a fraction",
            code="convention",
        )

    def __str__(self) -> str:
        skipped = {"skip": "both empty are skipped", "skip-truth": "pairs without truth are skipped"}
        empty = skipped.get(str(self.empty), f"both empty = {self.empty}")
        return f"{empty}, eps = {self.eps:g}"


Objective = Literal["mean", "pooled"]
"""What tuning can maximise."""
Reduction = Literal["mean", "pooled", "per-class", "per-image"]
"""What a score can be; the last two differ from "mean" where pairs are skipped."""


REDUCTIONS: dict[Reduction, str] = {
    "mean": "the mean over all pairs of sample and class",
    "pooled": "each class over the pixels of all samples, then the mean over classes",
    "per-class": "the mean over samples for each class, then the mean over classes",
    "per-image": "the mean over classes in each sample, then the mean over samples",
}
"""Each reduction in words."""


def coefficients(metric: str) -> tuple[float, float, float]:
    """Return (a, b, c) of a metric: its score is `(a tp + eps) / (pred + b truth - c tp + eps)`.

    "dice" is (2, 1, 0); "iou" is (1, 1, 1); "f2", "f0.5" and so on are F-beta, (1 + beta², beta², 0).

    Raises
    ------
    UsageError
        Another metric.
    """
    check_kind("the metric", metric, str)
    if metric == "dice":
        return 2.0, 1.0, 0.0
    if metric == "iou":
        return 1.0, 1.0, 1.0
    try:
        beta = float(metric[1:]) if metric[:1] == "f" else -1.0
    except ValueError:
        beta = -1.0
    if not 0 < beta < float("inf"):
        item = f"metric {metric!r}"
        raise UsageError(
            "option-invalid", "cannot measure", item=item, fix="pass 'dice', 'iou', or F-beta as 'f2', 'f0.5'"
        )
    return 1 + beta**2, beta**2, 0.0


def overlap(tp: Any, pred: Any, truth: Any, convention: Convention, metric: str = "dice") -> NDArray[np.float64]:
    """Score pairs of masks from their counts; a skipped pair is NaN.

    Dice is `(2 tp + eps) / (pred + truth + eps)`; see `coefficients` for the others. Where both masks are empty the
    convention's value takes precedence over `eps`.

    Parameters
    ----------
    tp, pred, truth : pixels in both, in the prediction, in the truth; integers of one shape.
    """
    a, b, c = coefficients(metric)
    tp, pred, truth = (np.asarray(v, np.float64) for v in (tp, pred, truth))
    nothing = truth == 0 if convention.empty == "skip-truth" else pred + truth == 0
    foot = pred + b * truth - c * tp + convention.eps
    value = (a * tp + convention.eps) / np.where(nothing, 1.0, foot)
    return np.where(nothing, np.nan if isinstance(convention.empty, str) else float(convention.empty), value)


def mean(values: NDArray[np.float64]) -> float:
    """Average what is not skipped; NaN where all is.

    Sums are exactly rounded, so the order of samples and classes makes no difference.
    """
    kept = values[~np.isnan(values)].tolist()
    return math.fsum(kept) / len(kept) if kept else math.nan


@dataclass(frozen=True)
class Measure:
    """What is maximised and reported: a metric, its convention, and how samples and classes are reduced.

    Parameters
    ----------
    objective : "mean" averages over pairs of sample and class that are not skipped; "pooled" pools a class's pixels
        over samples, and averages over classes; "per-class" averages each class over samples, then over classes;
        "per-image" averages each sample over classes, then over samples. Means leave out what is skipped.
    metric : see `coefficients`.
    convention : how empty masks count, and eps.
    background : a class that is left out; None: every class counts.

    Raises
    ------
    UsageError
        Another objective or metric.
    """

    objective: Reduction = "mean"
    metric: str = "dice"
    convention: Convention = field(default_factory=Convention)
    background: str | None = None

    def __post_init__(self) -> None:
        coefficients(self.metric)
        check_choice("objective", self.objective, get_args(Reduction), "cannot measure")

    def values(self, tp: Any, pred: Any, truth: Any) -> NDArray[np.float64]:
        """Score each pair."""
        return overlap(tp, pred, truth, self.convention, self.metric)

    def of_class(self, tp: Any, pred: Any, truth: Any) -> float:
        """Score one class from its counts per sample; NaN where every sample is skipped."""
        if self.objective == "pooled":
            return float(self.values(np.sum(tp), np.sum(pred), np.sum(truth)))
        return mean(self.values(tp, pred, truth))

    def of_all(self, tp: Any, pred: Any, truth: Any) -> float:
        """Score all classes from their counts (classes, samples), the background's not among them."""
        if self.objective == "pooled":
            return mean(self.values(np.sum(tp, axis=1), np.sum(pred, axis=1), np.sum(truth, axis=1)))
        values = self.values(tp, pred, truth)
        if self.objective == "mean":
            return mean(values)
        return mean(np.array([mean(row) for row in (values if self.objective == "per-class" else values.T)]))

    @property
    def title(self) -> str:
        """The metric's name, for tables."""
        return {"dice": "Dice", "iou": "IoU"}.get(self.metric, self.metric.upper())

    @property
    def is_miou(self) -> bool:
        """Tell whether it is what the field calls mIoU: the mean, over the classes that occur, of pooled IoU."""
        return (self.objective, self.metric, self.convention) == ("pooled", "iou", Convention(0.0, "skip"))

    @property
    def name(self) -> str:
        """What the figure is called: "mean Dice", "mIoU", "mean IoU over pairs"; that is not what mIoU means."""
        if self.is_miou:
            return "mIoU"
        return (
            f"{self.objective} {self.title}{' over pairs' if (self.objective, self.metric) == ('mean', 'iou') else ''}"
        )

    @property
    def legend(self) -> str:
        """What a table by class holds: the figure of a class, and that of its last row, "all"."""
        of_class = "over the pixels of all samples" if self.objective == "pooled" else "the mean over its samples"
        every = "the mean over classes" if self.objective == "pooled" else REDUCTIONS[self.objective]
        told = ", mIoU" if self.is_miou else ", which is not mIoU" if self.metric == "iou" else ""
        return f'{self.title} of a class {of_class}, in the row "all" {every}{told}'

    @property
    def counted(self) -> str:
        """How empty masks and the background count, as a legend says it."""
        without = "every class counts" if self.background is None else f"without {self.background!r}"
        return f"{self.convention}; {without}"

    def __str__(self) -> str:
        name = "mIoU, the mean of pooled IoU over classes" if self.is_miou else self.name
        without = "" if self.background is None else f", without {self.background!r}"
        return f"{name} ({self.convention}{without})"
