"""Which samples are pictured: the worst, those around the median, and the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.scores import sample_scores


@dataclass(frozen=True)
class Pictured:
    """Samples under a heading."""

    heading: str
    samples: tuple[str, ...]


def pictured(m: Material, count: int) -> list[Pictured]:
    """Choose samples: half of them the worst, a quarter around the median, a quarter the best.

    Without truth the worst are those of the lowest expected Dice, or those on which members disagree most; where
    nothing ranks samples, they are taken evenly.
    """
    assert m.masks is not None
    samples, count = m.masks.samples, min(count, len(m.masks.samples))
    if not count:
        return []
    scores = sample_scores(m)
    if not scores.size and len(m.members) > 1:
        scores = _agreement(m)
    if not scores.size:
        even = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int)).tolist()
        return [Pictured("Samples", tuple(samples[k] for k in even))]
    order = np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable").tolist()
    worst = (count + 1) // 2
    best = (count - worst) // 2
    middle = count - worst - best
    rest = order[worst : len(order) - best]
    start = max(0, (len(rest) - middle) // 2)
    parts = [
        (_words(m, "worst"), order[:worst]), (_words(m, "median"), rest[start : start + middle]),
        (_words(m, "best"), order[len(order) - best :][::-1] if best else []),
    ]  # fmt: skip
    return [Pictured(name, tuple(samples[k] for k in own)) for name, own in parts if own]


def _words(m: Material, which: str) -> str:
    if m.truth is not None:
        return {"worst": "The worst", "median": "Around the median", "best": "The best"}[which]
    if m.expected is not None:
        return {"worst": "Lowest expected Dice", "median": "Around the median", "best": "Highest expected Dice"}[which]
    return {"worst": "Most disagreement", "median": "Around the median", "best": "Least disagreement"}[which]


def _agreement(m: Material) -> np.ndarray:
    """Return the mean Dice between members in each sample."""
    from ensemble_kit.metrics.overlap import dice

    sets = list(m.members.values())
    return np.mean([dice(a, b).values.mean(1) for k, a in enumerate(sets) for b in sets[:k]], axis=0)
