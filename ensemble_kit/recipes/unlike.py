"""Members whose classes do not mean what the truth's mean, told from a few samples."""

from __future__ import annotations

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.shifted import unlike

_FEW = 8
"""Samples that are voted for each member."""


def members_unlike(ensemble: Ensemble, truth: MaskSet, executor: Executor = THREADS) -> list[str]:
    """Warn of each member none of whose classes has a right pixel in the first samples, voted alone.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes.
    """
    samples = ensemble.samples[:_FEW]
    wanted, out = truth.arranged(samples, ensemble.classes), []
    for member in ensemble.members:
        alone = Ensemble([member]).on(samples)
        told = unlike(alone.vote(executor=executor).arranged(samples, ensemble.classes), wanted)
        if told is not None:
            out.append(f"{member.member}: {told} (voted alone on {len(samples)} samples)")
    return out
