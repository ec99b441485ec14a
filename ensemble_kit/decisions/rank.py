"""The rank rule: for each mask the number of top-ranked pixels that maximises its expected Dice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.clean import Rule, check_classes, clean, parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import over_samples
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.mean import LEVELS, PROBABILITY, Mean
from ensemble_kit.spec.scoring import Convention

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOTHING = LEVELS
"""The level of a cut that turns no pixel on."""


_BAND = (1, LEVELS - 1)  # level 0 is worth no probability and the last is certain: neither needs telling apart


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

        out = tables.sigmoid(mean.logits() / _positive(1.0 if temperature is None else temperature))
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
    levels : uint16 (n,), ascending, those that occur; level 0 may be left out.
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


def rank_vote(
    ensemble: Ensemble,
    jobs: int | None = None,
    temperature: float | None = None,
    convention: Convention = Convention(),  # noqa: B008 - a frozen value
    rules: Iterable[Rule | str] | Rule | str = (),
    listener: Listener = nobody,
) -> MaskSet:
    """Soft vote that decides each mask by the rank rule (see `rank_level`) instead of by a threshold.

    It needs the level of every pixel that is not saturated (blocks wholly at level 0 or 65535 are skipped), a
    threshold only those near it: 17 ns for each such pixel, class and thread with three members, so at most 2 s for
    an image of 29 classes at 2048². Memory does not depend on the number of samples.

    The rule takes pixels for independent, so where an object may be absent it hardly ever leaves a mask empty by
    itself; `rules=["gate:0.5,1"]` does (RankSEG's `pruning_prob=0.5`).

    Parameters
    ----------
    temperature : of the fused score, as `fit_temperature` finds it; default: levels are taken as probabilities.
    convention : eps, and what two empty masks are worth.
    rules : post-processing, as for `Ensemble.vote`.
    jobs : threads over samples; default: every core. The result never depends on it.
    """
    chances, known = probabilities(ensemble.fusion.mean, temperature), parse_rules(rules)
    check_classes(known, ensemble.classes)

    def decide(sample: str) -> list[Runs]:
        fused = ensemble.fused(sample)
        counted = fused.counts(dict.fromkeys(range(len(ensemble.classes)), _BAND))

        def decide_class(c: int, name: str) -> Runs:
            levels, pixels, _ = _histogram(*counted.of(c))
            runs = fused.runs(c, rank_level(levels, pixels, chances, convention))
            return clean(runs, name, known, lambda top: fused.runs(c, ensemble.level_of(top)).area)

        return [decide_class(c, name) for c, name in enumerate(ensemble.classes)]

    masks: dict[tuple[str, str], Runs] = {}
    for sample, row in over_samples(decide, ensemble.samples, jobs, "voting", listener):
        masks.update({(sample, name): runs for name, runs in zip(ensemble.classes, row, strict=True)})
    told = "" if temperature is None else f", temperature {temperature:g}"
    return MaskSet(masks, f"the pixels of highest expected Dice in each mask (rank rule{told}; {convention})")


def _histogram(
    levels: NDArray[np.uint16], pred: NDArray[Any], tp: NDArray[Any], above: int, above_tp: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """Turn counts at and above each level into counts at each; what lies above the band counts at the last level."""
    if above:
        levels, pred, tp = np.append(levels, np.uint16(LEVELS - 1)), np.append(pred, above), np.append(tp, above_tp)
    pixels, hits = (np.append(at[:-1].astype(np.int64) - at[1:], at[-1:]) for at in (pred, tp))
    return levels, pixels, hits


def _positive(temperature: float) -> float:
    value = float(temperature)
    if not 0 < value < math.inf:
        raise UsageError(
            "temperature-invalid",
            "cannot scale scores",
            item=f"temperature {temperature!r}",
            fix="pass a finite number above 0",
        )
    return value
