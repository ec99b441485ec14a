"""A fitted stack applied to a sample: the linear form of its features, as logits on the finest member's grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.kernels.tables import LOGIT_RANGE
from ensemble_kit.stacking.features import SampleFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.execution.executor import Item
    from ensemble_kit.scores.inputs import Inputs


@dataclass(frozen=True)
class ApplyStack:
    """The work of applying a stack to one sample.

    Parameters
    ----------
    inputs : members whose classes stand in the order of the coefficients.
    tables : float64 (models, classes, features).
    model_of : which of the tables a sample takes; the first for a sample that it does not name.
    """

    inputs: Inputs
    tables: NDArray[np.float64]
    model_of: Mapping[str, int]

    def __call__(self, item: Item) -> NDArray[np.float16]:
        """Return a sample's logits, float16 (C, *grid) within ±16, −16 outside the box; of exclusive classes log p."""
        seen = SampleFeatures(self.inputs, item.sample)
        table = self.tables[self.model_of.get(item.sample, 0)]
        scores = np.empty((len(table), *seen.shape))
        for c, row in enumerate(table):
            scores[c] = _linear(seen, c, row)
        out = np.full((len(table), *seen.placement.grid), -LOGIT_RANGE, np.float16)
        if self.inputs.activation == "softmax":
            out[:] = np.log(1 / len(table))
            scores = _log_shares(scores)
        out[:, *seen.placement.box.slices] = np.clip(scores, -LOGIT_RANGE, LOGIT_RANGE)
        return out


def _linear(seen: SampleFeatures, c: int, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.zeros(seen.shape)
    for coefficient, feature in zip(coefficients, seen.of(c), strict=True):
        out += coefficient * feature
    return out


def _log_shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithms of the classes' probabilities, scaled to add up to 1: each class was fitted by itself."""
    log_p = -np.logaddexp(0, -scores)
    return log_p - np.logaddexp.reduce(log_p, axis=0)
