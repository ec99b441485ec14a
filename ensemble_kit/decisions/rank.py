"""The rank rule: for each mask the number of top-ranked pixels that maximises its expected Dice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import check_number
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS, PROBABILITY, Mean
from ensemble_kit.spec.scoring import Convention
from ensemble_kit.thresholds.records import SetFields

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOTHING = LEVELS
"""The level of a cut that turns no pixel on."""

BAND = (1, LEVELS - 1)
"""Levels that a rank rule counts: at 0 the probability is 0, and at the last it is 1, so those need no counts."""


@lru_cache(maxsize=32)
def probabilities(mean: Mean = PROBABILITY, temperature: float | None = None) -> NDArray[np.float64]:
    """Turn every level into a probability: float64 (65536,), ascending, read only.

    The two end levels hold whatever saturated and stay 0 and 1 at any temperature; the others are
    `σ(logit / temperature)` of what the level means (level / 65535, or with mean="logit" the logit it stands for).

    Raises
    ------
    UsageError
        A temperature that is not a finite number above 0.
    """
    if temperature is None and mean == PROBABILITY:
        out = np.arange(LEVELS) / (LEVELS - 1)
    else:
        from ensemble_kit.kernels import tables

        out = tables.sigmoid(mean.logits() / _checked(1.0 if temperature is None else temperature))
    out[0], out[-1] = 0.0, 1.0
    out.setflags(write=False)
    return out


def rank_level(
    levels: NDArray[np.uint16],
    counts: NDArray[np.int64],
    chances: NDArray[np.float64] | None = None,
    convention: Convention = Convention(),  # noqa: B008 - a frozen value
) -> int:
    """Choose the level whose mask has the highest expected Dice.

    With pixels ranked by probability, τ of them on, S their sum of probabilities and μ that of all, the expected Dice
    is approximated by `2 S / (μ + τ + 1 + eps) + eps / (μ + τ + eps)` (RMA: Wang and Dai, "RankSEG-RMA", NeurIPS 2025;
    the ranking: Dai and Li, "RankSEG", JMLR 2023). Among equal values the fewest pixels win. Pixels of one level are
    exchangeable, and a cut between them is never better than the better one of the level's two ends: inside a level
    the value is `const + c / (D + 1) + eps / D` in D = μ + τ + eps, which has no maximum but at an end. So the cut is
    a level, without loss.

    An empty mask is worth `eps / (μ + eps)`, and where two empty masks count 1 at least the chance that the truth is
    empty, Π (1 - p).

    Parameters
    ----------
    levels : uint16 (n,), those that occur, ascending; level 0 may be left out.
    counts : int64 (n,), pixels of each, at least 1.
    chances : probability of every level, as `probabilities` gives; default: level / 65535.

    Returns
    -------
    int
        A pixel is on iff its level is at least this; `NOTHING` (65536) leaves the mask empty.

    Examples
    --------
    >>> rank_level(np.array([655, 26214, 58981], np.uint16), np.array([900, 40, 60]))
    26214
    """
    p, n = (probabilities() if chances is None else chances)[levels[::-1]], counts[::-1]
    size, mass = n.cumsum(), (p * n).cumsum()
    total, eps = (float(mass[-1]) if mass.size else 0.0), convention.eps
    worth = eps / (total + eps) if eps else 0.0
    if convention.empty == 1:
        with np.errstate(divide="ignore"):
            worth = max(worth, math.exp(float((n * np.log1p(-p)).sum())))
    if not size.size:
        return NOTHING
    value = 2 * mass / (total + size + 1 + eps) + (eps / (total + size + eps) if eps else 0.0)
    best = int(value.argmax())
    return int(levels[levels.size - 1 - best]) if value[best] > worth else NOTHING


@dataclass(frozen=True)
class RankRule:
    """Decide each mask by its own cut, the one of the highest expected Dice (see `rank_level`).

    The rule needs the level of every pixel that is not saturated (blocks wholly at level 0 or 65535 are skipped), a
    threshold only of those near it: 17 ns for each such pixel, class and thread with three members, so at most 2 s for
    an image of 29 classes at 2048².

    Exclusive classes are ranked alike; a pixel that several masks then claim goes to the class of the larger score,
    ties to the first, and a pixel that none claims has no class.

    The rule takes pixels for independent, so where an object may be absent it hardly ever leaves a mask empty; the
    rule `gate:0.5,1` does (RankSEG's `pruning_prob=0.5`).

    Parameters
    ----------
    temperature : of the fused score, as `fit_temperature` finds it; default: a level is what its mean says.
    convention : eps, and what two empty masks are worth.

    Raises
    ------
    UsageError
        A temperature that is not a finite number above 0.
    """

    temperature: float | None = None
    convention: Convention = field(default_factory=Convention)

    def __post_init__(self) -> None:
        if self.temperature is not None:
            _checked(self.temperature)

    @classmethod
    def of(cls, tuned: SetFields) -> RankRule:
        """Make the rule as a threshold set has it: with the temperature that was fitted, if any, and its convention."""
        return cls(tuned.rank_temperature, tuned.measure.convention)

    def check(self, inputs: Inputs) -> None:
        """Refuse members whose scores are not probabilities: exclusive classes with mean="logit"."""
        inputs.check_each_class()

    def written(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return all classes."""
        return classes

    def excludes(self, inputs: Inputs) -> bool:
        """Tell whether each pixel gets one class at most: of exclusive classes."""
        return inputs.activation == "softmax"

    def told(self) -> str:
        """Return the rule in words."""
        told = "" if self.temperature is None else f", temperature {self.temperature:g}"
        return f"the pixels of highest expected Dice in each mask (rank rule{told}; {self.convention})"

    def __call__(self, scores: FusedSample) -> ManyRuns:
        """Count every class by level, then decide it at its cut."""
        inputs = scores.inputs
        chances = probabilities(inputs.fusion.mean, self.temperature)
        counted = scores.counts(dict.fromkeys(range(len(inputs.classes)), BAND))
        cuts = [at_each_level(*counted.of(c))[:2] for c in range(len(inputs.classes))]
        levels = [rank_level(*cut, chances, self.convention) for cut in cuts]
        return scores.claims(levels) if inputs.activation == "softmax" else scores.decide(dict(enumerate(levels)))


def at_each_level(
    levels: NDArray[np.uint16], pred: NDArray[Any], tp: NDArray[Any], above: int, above_tp: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """Turn counts at and above each level into counts at each; what lies above the band counts at the last level."""
    if above:
        levels, pred, tp = np.append(levels, np.uint16(LEVELS - 1)), np.append(pred, above), np.append(tp, above_tp)
    pixels, hits = (np.append(at[:-1].astype(np.int64) - at[1:], at[-1:]) for at in (pred, tp))
    return levels, pixels, hits


def _checked(temperature: float) -> float:
    fix = "pass a finite number above 0"
    check_number("temperature", temperature, fix, above=0, what="cannot scale scores", code="temperature-invalid")
    return float(temperature)
