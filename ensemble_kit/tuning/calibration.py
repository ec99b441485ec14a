"""What the rank rule scores on samples with truth, and the temperature that calibrates its probabilities.

The rule (`ensemble_kit.decisions.rank`) reads a cut of its own off each mask's histogram of levels and takes levels for
probabilities; a temperature, fitted here, makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.rank import BAND, at_each_level, probabilities, rank_level
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.mean import LEVELS, PROBABILITY, Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.statistics import CountLevels, Statistics, check_source, check_truth, count, source_of
from ensemble_kit.tuning.truth import Truth, items_with_truth, true_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 15
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class RankScores:
    """What the rank rule does on samples with truth. It trains nothing, so every score of it is out of fold.

    Parameters
    ----------
    samples, classes : the columns and rows of the counts.
    levels : int64 (classes, samples), each mask's cut; `NOTHING` where it is empty.
    tp, pred, truth : int64 (classes, samples), pixels in both, in the mask, in the truth.
    measure : how they are scored.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    levels: NDArray[np.int64]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    truth: NDArray[np.int64]
    measure: Measure

    @property
    def values(self) -> NDArray[np.float64]:
        """Score of every mask, float64 (classes, samples); NaN where it is skipped."""
        return self.measure.values(self.tp, self.pred, self.truth)

    @property
    def score(self) -> float:
        """The objective over all classes."""
        return self.measure.of_all(self.tp, self.pred, self.truth)

    @property
    def per_class(self) -> dict[str, float]:
        """The objective of each class."""
        rows = zip(self.tp, self.pred, self.truth, strict=True)
        return {name: self.measure.of_class(*row) for name, row in zip(self.classes, rows, strict=True)}


def rank_scores(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure = Measure(),  # noqa: B008 - a frozen value
    temperature: float | Sequence[float] | None = None,
    statistics: Statistics | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> RankScores:
    """Score the rank rule: exactly what its vote gets on the same samples.

    Parameters
    ----------
    truth : masks of exactly the ensemble's samples and classes.
    measure : its convention is also what the rule maximises, by Dice whatever the metric is.
    temperature : one, or one for each sample (see `fold_temperatures`).
    statistics : full ones of this ensemble and truth (`full_statistics`); without them the stores are counted sample
        by sample and nothing is kept.

    Raises
    ------
    IncompleteError, MismatchError
        Truth or statistics that do not fit.
    UsageError
        Statistics of a band, which do not tell how much probability lies below it.
    """
    check_truth(ensemble, truth)
    each = _for_each_sample(temperature, len(ensemble.samples))
    shape = len(ensemble.classes), len(ensemble.samples)
    levels, tp, pred = (np.zeros(shape, np.int64) for _ in range(3))
    for c, s, found, every, pixels, hits in histograms(ensemble, truth, statistics, executor, listener):
        cut = rank_level(found, every, probabilities(ensemble.fusion.mean, each[s]), measure.convention)
        on = np.searchsorted(found, cut)
        levels[c, s], tp[c, s], pred[c, s] = cut, hits[on:].sum(), pixels[on:].sum()
    if ensemble.activation == "softmax":  # a pixel that several masks claim goes to one of them
        numbers = {sample: s for s, sample in enumerate(ensemble.samples)}

        def cuts_and_truth(sample: str) -> tuple[list[int], Truth]:
            return levels[:, numbers[sample]].tolist(), Truth.of(truth, sample, ensemble.classes)

        items = Items(ensemble.samples, cuts_and_truth)
        for s, counts in enumerate(executor.map(CountClaims(ensemble.inputs), items, "ranking", listener)):
            tp[:, s], pred[:, s] = counts
    areas = true_areas(ensemble.samples, truth, ensemble.classes)
    return RankScores(ensemble.samples, ensemble.classes, levels, tp, pred, areas, measure)


@dataclass(frozen=True)
class CountClaims:
    """The work of giving a sample's pixels to classes; an item's truth is the cuts, and the true masks."""

    inputs: Inputs

    def __call__(self, item: Item) -> tuple[list[int], list[int]]:
        """Return the truth pixels, and the pixels, of each class."""
        cuts, truth = item.truth
        scores = open_sample(self.inputs, item.sample)
        masks = scores.claims(cuts).masks(scores.image)
        if truth.void is not None:
            masks = [mask - truth.void for mask in masks]
        return overlaps(masks, truth.masks).tolist(), [m.area for m in masks]


def full_statistics(
    ensemble: Ensemble,
    truth: MaskSet,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> Statistics:
    """Count every level, for `rank_scores` and `level_histogram` to ask more than once.

    Memory is 18 bytes for each level that occurs in a (sample, class): 0.25 MB on the demo's networks, at most
    1.2 MB; so 1.2 GB for 160 samples of 29 classes. Without statistics those two functions count anew, sample by
    sample, and keep nothing. `tune_thresholds` takes the statistics too.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    check_truth(ensemble, truth)
    found = count(ensemble, truth, dict.fromkeys(range(len(ensemble.classes)), BAND), executor, listener)
    tables = tuple(found[c] for c in range(len(ensemble.classes)))
    return Statistics(ensemble.samples, ensemble.classes, tables, source_of(ensemble, truth))


def level_histogram(
    ensemble: Ensemble,
    truth: MaskSet,
    folds: Sequence[NDArray[np.int64]] | None = None,
    statistics: Statistics | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> NDArray[np.int64]:
    """Count hits and pixels by level over all classes: int64 (folds, 2, 65536); level 0 is not counted.

    Parameters
    ----------
    folds : sample numbers of each fold, such as the folds of a cross-validation; default: one fold of all.
    truth, statistics, executor : as for `rank_scores`.

    Raises
    ------
    IncompleteError, MismatchError, UsageError
        As for `rank_scores`.
    """
    check_truth(ensemble, truth)
    folds = [np.arange(len(ensemble.samples))] if folds is None else folds
    fold_of = {s: k for k, fold in enumerate(folds) for s in fold.tolist()}
    out = np.zeros((len(folds), 2, LEVELS), np.int64)
    for _, s, levels, _, pixels, hits in histograms(ensemble, truth, statistics, executor, listener):
        if s in fold_of:
            out[fold_of[s], 0, levels] += hits
            out[fold_of[s], 1, levels] += pixels
    return out


@dataclass(frozen=True)
class Scaling:
    """One temperature for the fused score, and what it does to its calibration.

    A temperature is monotone: no threshold's decision changes, only what the number means. Figures are of the pixels
    at levels 1 … 65534; saturated ones say nothing about a temperature.

    Parameters
    ----------
    temperature : above 1 the scores were overconfident, below 1 underconfident.
    nll, nll_before : negative log likelihood in nats per pixel, with it and without.
    ece, ece_before : expected calibration error, in 15 bins of equal width.
    pixels : how many were counted, over all classes.
    at_edge : whether the likelihood rises up to the end of the search, 0.05 … 20.
    """

    temperature: float
    nll: float
    nll_before: float
    ece: float
    ece_before: float
    pixels: int
    at_edge: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, for JSON."""
        return {k: round(v, 9) if isinstance(v, float) else v for k, v in vars(self).items()}

    def __str__(self) -> str:
        edge = ", at the end of the search" if self.at_edge else ""
        return (
            f"temperature {self.temperature:.3f}{edge}: NLL {self.nll_before:.5f} → {self.nll:.5f}, "
            f"ECE {self.ece_before:.5f} → {self.ece:.5f} over {self.pixels:,} pixels"
        )


def fit_temperature(histogram: NDArray[np.int64], mean: Mean = PROBABILITY) -> Scaling:
    """Fit the temperature of the highest likelihood to a histogram of levels.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017. The counts are exact, so it is
    the fit over all pixels.

    Parameters
    ----------
    histogram : int64 (2, 65536) or (folds, 2, 65536), hits and pixels by level (`level_histogram`).
    mean : the ensemble's, which says what a level means.

    Raises
    ------
    UsageError
        No pixel lies at a level from 1 to 65534.
    """
    from scipy.optimize import minimize_scalar

    hits, pixels = histogram.reshape(-1, 2, LEVELS).sum(0)[:, 1:-1]
    if not pixels.any():
        item = "every pixel is saturated: its level is 0 or 65535"
        raise UsageError("temperature-unfit", "cannot fit a temperature", item=item, fix="leave the temperature out")
    logits = mean.logits()[1:-1]

    def loss(temperature: float) -> float:
        z = logits / temperature
        lost = hits * np.logaddexp(0, -z) + (pixels - hits) * np.logaddexp(0, z)
        return float(lost.sum() / pixels.sum())

    low, high = (math.log(t) for t in _TEMPERATURES)
    found = float(minimize_scalar(lambda x: loss(math.exp(x)), bounds=(low, high), method="bounded").x)
    best = math.exp(found)
    nll, before = loss(best), loss(1.0)
    if before < nll:  # the search stops within its tolerance of the minimum, which may be 1 itself
        best, nll = 1.0, before
    errors = [_calibration_error(hits, pixels, logits / t) for t in (best, 1.0)]
    edge = min(found - low, high - found) < 1e-3
    return Scaling(best, nll, before, errors[0], errors[1], int(pixels.sum()), edge)


def fold_temperatures(
    histogram: NDArray[np.int64], folds: Sequence[NDArray[np.int64]], mean: Mean = PROBABILITY
) -> list[float]:
    """Fit a temperature for each sample on the folds that it is not in, so that scores with it are out of fold.

    Parameters
    ----------
    histogram : int64 (folds, 2, 65536), as `level_histogram` counts it for these folds.
    """
    out = [1.0] * sum(fold.size for fold in folds)
    for k, fold in enumerate(folds):
        fitted = fit_temperature(np.delete(histogram, k, axis=0), mean).temperature
        for s in fold.tolist():
            out[s] = fitted
    return out


def _calibration_error(hits: NDArray[np.int64], pixels: NDArray[np.int64], z: NDArray[np.float64]) -> float:
    from ensemble_kit.kernels import tables

    p = tables.sigmoid(z)
    bins = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    return float(np.abs(np.bincount(bins, hits - p * pixels)).sum() / pixels.sum())


def histograms(
    ensemble: Ensemble, truth: MaskSet, statistics: Statistics | None, executor: Executor, listener: Listener
) -> Iterator[tuple[int, int, NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield class number, sample number, levels that occur, and their pixels, those that are not void, and hits.

    They are of the statistics, or of the stores: where the truth has void, since statistics do not tell all pixels.
    """
    if statistics is not None:
        _check_full(ensemble, truth, statistics)
    if statistics is None or truth.has_void:
        work = CountLevels(ensemble.inputs, tuple((c, BAND) for c in range(len(ensemble.classes))))
        items = items_with_truth(ensemble.samples, truth, ensemble.classes)
        for s, counted in enumerate(executor.map(work, items, "counting", listener)):
            for c in range(len(ensemble.classes)):
                levels, every, hits = at_each_level(*counted.every.of(c))
                yield c, s, levels, every, at_each_level(*counted.kept.of(c))[1], hits
        return
    for c, table in enumerate(statistics.tables):
        for s in range(len(ensemble.samples)):
            levels, pred, tp = table.of_sample(s)
            on = int(levels.size > 0 and levels[0] == 0)
            above = int(table.above[s]), int(table.above_tp[s])
            levels, pixels, hits = at_each_level(levels[on:], pred[on:], tp[on:], *above)
            yield c, s, levels, pixels, pixels, hits


def _check_full(ensemble: Ensemble, truth: MaskSet, statistics: Statistics) -> None:
    what = "cannot use these statistics"
    check_source(statistics, ensemble, truth, what, "pass those of this ensemble, or none to count anew")
    narrow = [(t.low, t.high) for t in statistics.tables if t.low > 1 or t.high < LEVELS - 1]
    if narrow:
        item = f"they tell levels {narrow[0][0]} … {narrow[0][1] - 1} apart, not all of 1 … {LEVELS - 2}"
        raise UsageError(
            "statistics-narrow", what, item=item, fix="pass those of full_statistics, or none to count anew"
        )


def _for_each_sample(temperature: float | Sequence[float] | None, samples: int) -> Sequence[float | None]:
    if temperature is None or isinstance(temperature, (int, float)):
        return [temperature] * samples
    if len(temperature) != samples:
        item = f"{len(temperature)} temperatures for {samples} samples"
        raise UsageError(
            "temperature-invalid", "cannot scale scores", item=item, fix="pass one temperature, or one for each sample"
        )
    return temperature
