"""Whether scores are probabilities: reliability curves, calibration errors and Brier scores, from counts by level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import check_kind, check_number
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.reports.plots import draw_reliability
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.tuning.calibration import histograms
from ensemble_kit.tuning.statistics import Statistics, check_truth
from ensemble_kit.tuning.truth import true_areas

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, eq=False)
class Bins:
    """Pixels in bins of their score; a bin without pixels has NaN in place of a mean.

    Parameters
    ----------
    pixels : int64 (bins,), how many.
    score : float64 (bins,), their mean score, as a probability.
    true : float64 (bins,), the share of them that is of the truth.
    """

    pixels: NDArray[np.int64]
    score: NDArray[np.float64]
    true: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The mean over pixels of how far their bin's score and share are apart; NaN without pixels."""
        has = self.pixels > 0
        apart = np.abs(self.true[has] - self.score[has])
        return float((self.pixels[has] * apart).sum() / self.pixels.sum()) if has.any() else math.nan


@dataclass(frozen=True, eq=False)
class ClassReliability:
    """Whether one class's scores are probabilities, over all pixels that count, of all samples.

    Parameters
    ----------
    curve : the reliability curve: bins of equal width, `(k / bins, (k + 1) / bins]`, the first from 0.
    ece : expected calibration error of that curve (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural
        networks", 2017).
    ace : adaptive calibration error: the same in bins of equally many pixels, as far as pixels of one score allow
        (Nixon, Dusenberry, Zhang, Jerfel and Tran, "Measuring calibration in deep learning", 2019).
    brier : mean squared difference of score and truth (Brier 1950).
    score, true : the mean score, and the share of the pixels that is of the truth.
    pixels : how many.
    """

    curve: Bins
    ece: float
    ace: float
    brier: float
    score: float
    true: float
    pixels: int

    @classmethod
    def of(
        cls, hits: NDArray[np.int64], pixels: NDArray[np.int64], chances: NDArray[np.float64], bins: int
    ) -> ClassReliability:
        """Make it of the truth pixels and pixels at each level, int64 (65536,), and the levels' probabilities."""
        edges = np.arange(1, bins) / bins
        total = int(pixels.sum())
        before = np.cumsum(pixels) - pixels
        equal = np.minimum((before + pixels / 2) * bins / max(total, 1), bins - 1).astype(np.int64)
        curve = _binned(np.searchsorted(edges, chances), hits, pixels, chances, bins)
        squares = hits * (1 - chances) ** 2 + (pixels - hits) * chances**2
        return cls(
            curve,
            curve.error,
            _binned(equal, hits, pixels, chances, bins).error,
            _share(math.fsum(squares), total),
            _share(math.fsum(chances * pixels), total),
            _share(int(hits.sum()), total),
            total,
        )

    def text(self) -> str:
        """Draw the curve in a line of text: a bar for each bin, as high as the share of its pixels that is true."""
        shares = self.curve.true.tolist()
        return "".join("·" if math.isnan(v) else _BARS[min(int(v * len(_BARS)), len(_BARS) - 1)] for v in shares)

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, for JSON; None in place of NaN."""
        values = {k: v for k, v in vars(self).items() if k != "curve"}
        curve = {k: v.tolist() for k, v in vars(self.curve).items()}
        whole = {**values, "bins": curve}
        whole["bins"] = {k: [_known(v) for v in row] for k, row in curve.items()}
        return {k: _known(v) if isinstance(v, float) else v for k, v in whole.items()}


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether scores are probabilities, by class."""

    classes: Mapping[str, ClassReliability]

    def to_dict(self) -> dict[str, Any]:
        """Return the values by class, for JSON."""
        return {name: own.to_dict() for name, own in self.classes.items()}

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> Report:
        """Describe it: per class its curve in a line, its errors, its mean score and the share that is true."""
        bins = len(next(iter(self.classes.values())).curve.pixels)
        rows = [
            [name, c.text(), *(_told(v) for v in (c.ece, c.ace, c.brier, c.score, c.true))]
            for name, c in self.classes.items()
        ]
        legend = (
            f"Curve: share of the pixels that is true, in {bins} bins of the score, equally wide, from 0 to 1 (low "
            "bar: none, high: all, point: no pixel); it rises evenly where scores are probabilities. ECE: mean over "
            "pixels of how far a bin's mean score and its true share are apart; ACE: the same in bins of equally many "
            "pixels. Brier: mean squared difference of score and truth. Score, true: their means. All pixels of all "
            "samples count, so background, which is most of them, weighs most."
        )
        return Report(
            "Whether scores are probabilities", ["class", "curve", "ECE", "ACE", "Brier", "score", "true"], rows, legend
        )

    def plot(self) -> Figure:
        """Draw a panel for each class: the share of pixels that is true over their score, beside the diagonal.

        Raises
        ------
        UsageError
            matplotlib is not installed.
        """
        return draw_reliability([(name, c.curve.score, c.curve.true) for name, c in self.classes.items()])

    def _repr_html_(self) -> str:
        from ensemble_kit.reports.html import report_html

        return report_html(self.report())


def measure_calibration(
    ensemble: Ensemble,
    truth: MaskSet,
    bins: int = 15,
    statistics: Statistics | None = None,
    jobs: int | None = None,
    executor: Given = None,
    listener: Listener = nobody,
) -> Reliability:
    """Measure whether fused scores are probabilities: over every pixel, at full image resolution.

    A tuning's counts leave out levels far from its thresholds, so this is a pass of its own over the stores, which
    tells all levels apart; it keeps 1 MB for each class.

    Parameters
    ----------
    truth : masks of exactly the ensemble's samples and classes; void pixels do not count.
    bins : of the curve, equally wide.
    statistics : full ones of this ensemble and truth (`tuning.calibration.full_statistics`), instead of the pass.
    jobs, executor, listener : as for `tune_thresholds`.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    UsageError
        Statistics of a band; a number of bins below 1; exclusive classes with mean="logit".
    """
    check_kind("the ensemble", ensemble, Ensemble)
    check_kind("the truth", truth, MaskSet)
    check_number("bins", bins, "pass a number of bins, such as 15", least=1, whole=True)
    check_measurable(ensemble)
    check_truth(ensemble, truth)
    found = np.zeros((len(ensemble.classes), 2, LEVELS), np.int64)
    for c, _, levels, _, pixels, hits in histograms(
        ensemble, truth, statistics, chosen(executor, jobs, listener), listener
    ):
        found[c, 0, levels] += hits
        found[c, 1, levels] += pixels
    sizes = [math.prod(ensemble.image_size(s)) - truth.void(s).area for s in ensemble.samples]
    found[:, :, 0] = 0  # levels above 0 were counted, so what is left lies there
    found[:, 0, 0] = true_areas(ensemble.samples, truth, ensemble.classes).sum(1) - found[:, 0].sum(1)
    found[:, 1, 0] = sum(sizes) - found[:, 1].sum(1)
    chances = _chances(ensemble.fusion.mean)
    rows = zip(ensemble.classes, found, strict=True)
    return Reliability({name: ClassReliability.of(hits, pixels, chances, bins) for name, (hits, pixels) in rows})


def check_measurable(ensemble: Ensemble) -> None:
    """Refuse members whose fused scores are comparable, but not probabilities, before any work.

    Raises
    ------
    UsageError
        Exclusive classes with mean="logit".
    """
    ensemble.inputs.check_each_class("cannot measure whether scores are probabilities", "leave --calibration out")


def _chances(mean: Mean) -> NDArray[np.float64]:
    return mean.probabilities(np.arange(LEVELS))


def _binned(
    numbers: NDArray[np.int64],
    hits: NDArray[np.int64],
    pixels: NDArray[np.int64],
    chances: NDArray[np.float64],
    bins: int,
) -> Bins:
    """Put levels into bins by their numbers; sums of integers below 2^53 are exact."""
    counted = np.bincount(numbers, pixels, bins)
    with np.errstate(invalid="ignore"):
        score, true = (np.bincount(numbers, v, bins) / counted for v in (chances * pixels, hits))
    return Bins(counted.astype(np.int64), score, true)


def _share(value: float, total: int) -> float:
    return value / total if total else math.nan


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _told(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
