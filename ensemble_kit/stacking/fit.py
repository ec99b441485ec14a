"""Logistic regression of one class, pulled to the mean of members' logits, by Newton's method in float64.

Minimised is Σ weight · log loss / Σ weight + strength / 2 · Σ (spread_f · (coefficient_f − prior_f))², `spread` the
standard deviation of a feature, so a strong penalty leaves the members' mean. Newton's steps are halved while they
gain nothing (iteratively reweighted least squares; McCullagh and Nelder, "Generalized Linear Models", 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.execution.executor import Item
from ensemble_kit.stacking.rows import Rows, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties that are tried, the strongest first, so that each fit begins at the answer of a stronger one."""
_THIN = 4  # of this many rows one takes part in the choice of a penalty
_STEPS, _HALVINGS = 50, 20
_ENOUGH = 1e-10  # of the loss: what a last step still gains


class ClassFit(NamedTuple):
    """Coefficients of one class.

    Parameters
    ----------
    strengths : penalties that were chosen, of each fold and of all samples.
    by_fold : float64 (folds, features), each fitted without the samples of its fold.
    of_all : float64 (features,).
    """

    strengths: tuple[float, ...]
    by_fold: NDArray[np.float64]
    of_all: NDArray[np.float64]


@dataclass(frozen=True)
class FitClass:
    """The work of fitting one class; its item names the class and carries its rows.

    The penalty of each fold is chosen inside the other folds, by the log loss of those that are held out of these.

    Parameters
    ----------
    fold_of : int64 (samples,), the fold of each sample.
    prior : as for `fit`.
    """

    fold_of: NDArray[np.int64]
    prior: NDArray[np.float64]

    def __call__(self, item: Item) -> ClassFit:
        """Fit the rows of every fold but one, for each, and those of all."""
        rows = joined(item.truth)
        fold = np.repeat(self.fold_of, [part.truth.size for part in item.truth])
        folds = int(self.fold_of.max()) + 1
        chosen = _strengths(_where(rows, np.arange(fold.size) % _THIN == 0), fold[::_THIN], folds, self.prior)
        of_all = fit(rows, self.prior, chosen[-1])
        by_fold = [fit(_where(rows, fold != k), self.prior, chosen[k], of_all) for k in range(folds)]
        return ClassFit(chosen, np.array(by_fold), of_all)


def _strengths(rows: Rows, fold: NDArray[np.int64], folds: int, prior: NDArray[np.float64]) -> tuple[float, ...]:
    """Choose the penalty of every fold, and that of all samples: the least loss on samples that were not fitted."""
    losses = np.zeros((folds + 1, len(STRENGTHS)))
    parts = [_where(rows, fold == k) for k in range(folds)]
    for j, k in combinations(range(folds + 1), 2):  # the last stands for no fold: then one alone is left out
        rest, at = _where(rows, (fold != j) & (fold != k)), None
        for s, strength in enumerate(STRENGTHS):
            at = fit(rest, prior, strength, at)
            losses[k, s] += loss(parts[j], at)
            losses[j, s] += loss(parts[k], at) if k < folds else 0
    return tuple(STRENGTHS[s] for s in losses.argmin(axis=1))


def fit(
    rows: Rows, prior: NDArray[np.float64], strength: float, start: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the coefficients that minimise the penalised loss, float64 (features,).

    Parameters
    ----------
    prior : coefficients of the answer that a strong penalty gives.
    start : where the steps begin; default: the prior.

    Where there are no rows, all pixels being void, nothing moves it: it is the prior.
    """
    from ensemble_kit.kernels import logistic

    if not rows.truth.size:
        return prior.copy()
    share = rows.weight / rows.weight.sum()
    pull = strength * _spread(rows) ** 2
    truth = rows.truth.astype(np.float64)
    at = prior.copy() if start is None else start.copy()
    scores = logistic.linear(rows.features, at)
    now = _loss(scores, truth, share) + 0.5 * float(pull @ (at - prior) ** 2)
    for _ in range(_STEPS):
        p = sigmoid(scores)
        matrix, slope = logistic.gram(rows.features, share * p * (1 - p), share * (p - truth))
        slope = slope + pull * (at - prior)
        matrix[np.diag_indices_from(matrix)] += pull + 1e-12
        step, before = np.linalg.solve(matrix, slope), now
        for _ in range(_HALVINGS):
            tried = at - step
            found = logistic.linear(rows.features, tried)
            now = _loss(found, truth, share) + 0.5 * float(pull @ (tried - prior) ** 2)
            if now <= before:
                at, scores = tried, found
                break
            step = step / 2
        if before - now <= _ENOUGH * max(before, 1e-9) or now > before:
            break
    return at


def loss(rows: Rows, coefficients: NDArray[np.float64]) -> float:
    """Return the log loss of weighted rows, added up."""
    from ensemble_kit.kernels import logistic

    return _loss(logistic.linear(rows.features, coefficients), rows.truth.astype(np.float64), rows.weight)


def _where(rows: Rows, which: NDArray[np.bool_]) -> Rows:
    return Rows(rows.features[which], rows.truth[which], rows.weight[which])


def sigmoid(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(−score)), without overflow."""
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1 + small)


def _loss(scores: NDArray[np.float64], truth: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    """Return Σ share · (log(1 + exp(score)) − truth · score), added up in the order of the rows."""
    each = np.maximum(scores, 0) + np.log1p(np.exp(-np.abs(scores))) - truth * scores
    return float(np.sum(share * each))


def _spread(rows: Rows) -> NDArray[np.float64]:
    """Return each feature's standard deviation over rows, 0 for one that is constant."""
    return rows.features.std(axis=0, dtype=np.float64)
