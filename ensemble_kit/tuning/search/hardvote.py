"""The search over quorum and weights of a hard vote, each member deciding by its own best thresholds.

A pixel's vote depends only on which members are on. So the pixels of a (sample, class) are counted once by that
pattern, hits among them, exactly and at full resolution; a trial adds up the patterns that reach the quorum.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.search import studies
from ensemble_kit.tuning.search.studies import Dimension, Params

_WEIGHTS = 4  # weights of members are 0 … 4
_MEMBERS = 12  # patterns of more take more memory than they are worth


def search(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    plan: studies.Plan,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> dict[str, Any]:
    """Find the weights and the quorum of the best hard vote; what there is to say of it, for a set's search record.

    The first trial is the plain majority. Returns the score, weights and quorum, and every member's levels.
    """
    from ensemble_kit.tuning.statistics import source_of

    names = ensemble.fusion.members
    if len(names) > _MEMBERS:
        raise UsageError(
            "option-invalid",
            "cannot search a quorum",
            item=f"{len(names)} members",
            fix=f"pass at most {_MEMBERS}, or leave quorum out of the search",
        )
    pixels, hits, levels = _patterns(ensemble, truth, measure, jobs, listener)
    areas = np.array([[truth[s, c].area for s in ensemble.samples] for c in ensemble.classes], np.int64)
    bits = np.array([[p >> m & 1 for m in range(len(names))] for p in range(1 << len(names))])

    def objective(params: Params) -> float:
        weights, need = _rule(params, names)
        on = bits @ np.array(weights) >= need
        return measure.of_all(hits[:, :, on].sum(2), pixels[:, :, on].sum(2), areas)

    whole = tuple(float(w) for w in range(_WEIGHTS + 1))
    dimensions = [Dimension(f"vote:{n}", 0, _WEIGHTS, step=1, grid=whole) for n in names]
    dimensions.append(Dimension("quorum", 0.05, 1, step=0.05, grid=(0.25, 0.5, 0.75, 1.0)))
    first: list[Params] = [{**{f"vote:{n}": 1 for n in names}, "quorum": share} for share in _shares(len(names))]
    about = {"source": source_of(ensemble, truth), "objective": str(measure), "what": ["quorum"], "levels": levels}
    done = studies.run(plan, dimensions, first[: plan.trials], objective, about, listener, "voting")
    weights, need = _rule(done.best, names)
    return {
        "trials": len(done.trials),
        "best_trial": done.number,
        "majority": round(done.trials[0], 9),
        "best": round(done.value, 9),
        "weights": dict(zip(names, weights, strict=True)),
        "quorum": need,
        "levels": levels,
        "stopped": done.stopped,
    }


def _shares(members: int) -> list[float]:
    """Quorums of equal members as shares of their number, the majority first."""
    order = sorted(range(1, members + 1), key=lambda q: q != members // 2 + 1)
    return list(dict.fromkeys(min(1.0, round(round(q / members / 0.05 - 0.5) * 0.05, 2)) for q in order))


def _rule(params: Params, names: Sequence[str]) -> tuple[list[int], int]:
    """Weights, and what they must add up to: the share of their sum, rounded up."""
    weights = [int(params[f"vote:{n}"]) for n in names]
    if not any(weights):
        weights = [1] * len(names)
    return weights, max(1, int(np.ceil(params["quorum"] * sum(weights) - 1e-9)))


def _patterns(
    ensemble: Ensemble, truth: MaskSet, measure: Measure, jobs: int | None, listener: Listener
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, list[int]]]:
    """Pixels, and hits, of each class and sample by which members are on: (C, samples, 2^M); and members' levels."""
    from ensemble_kit.tuning.counting import statistics_for
    from ensemble_kit.tuning.exact import tune_from

    voted, levels = [], {}
    for k, name in enumerate(ensemble.fusion.members):
        alone = copy.copy(ensemble)
        row = tuple(LEVELS if j == k else 0 for j in range(len(ensemble.members)))
        alone.fusion = replace(ensemble.fusion, weights=(row,) * len(ensemble.classes))
        counted = statistics_for(alone, truth, measure, jobs=jobs, listener=listener)
        own = tune_from(counted, alone, measure)
        levels[name] = [own.levels[c] for c in ensemble.classes]
        voted.append(alone.vote(own, jobs=jobs, listener=listener))
    shape = (len(ensemble.classes), len(ensemble.samples), 1 << len(voted))
    pixels, hits = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for c, name in enumerate(ensemble.classes):
        for s, sample in enumerate(ensemble.samples):
            both = by_pattern([*(m[sample, name] for m in voted), truth[sample, name]])
            hits[c, s] = both[1 << len(voted) :]
            pixels[c, s] = both[: 1 << len(voted)] + hits[c, s]
    return pixels, hits, levels


def by_pattern(masks: Sequence[Runs]) -> NDArray[np.int64]:
    """Count pixels by which masks are on, mask k as bit k; those in none are left out: int64 (2^masks,)."""
    edges = np.concatenate([v for m in masks for v in (m.starts, m.ends)])
    bits = np.concatenate([np.full(2 * len(m), 1 << k) for k, m in enumerate(masks)])
    if not edges.size:
        return np.zeros(1 << len(masks), np.int64)
    order = np.argsort(edges, kind="stable")
    pattern = np.bitwise_xor.accumulate(bits[order])
    lengths = np.diff(edges[order], append=edges[order[-1]])
    counts = np.bincount(pattern, lengths, 1 << len(masks)).astype(np.int64)
    counts[0] = 0
    return np.asarray(counts)


def describe(found: dict[str, Any]) -> list[str]:
    """Say what a hard vote reaches, and how to vote it."""
    weights, quorum = ",".join(str(w) for w in found["weights"].values()), found["quorum"]
    reached = f"majority {found['majority']:.4f}, best of {found['trials']} trials {found['best']:.4f}"
    how = f"tune each member alone (--folds 0), then ensk vote --hard --weights {weights} --quorum {quorum}"
    return [f"Hard vote of members at their own best thresholds, in-sample: {reached}. To vote it: {how}."]
