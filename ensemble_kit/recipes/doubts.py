"""What is doubtful about an ensemble or its truth, though nothing refuses it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import vote
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.executor import Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.confusion import confusion
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning.folds import Groups, group_of

_LOOKED_AT = 8  # samples that tell whether a member is right anywhere


def twins_apart(ensemble: Ensemble, groups: Groups) -> list[str]:
    """Name samples whose logits are identical in every member, and that a split may put on two sides."""
    same = set.intersection(*({pair for group in m.twins for pair in pairwise(group)} for m in ensemble.members))
    pairs = sorted(pair for pair in same if set(pair) <= set(ensemble.samples))
    return [f"{a} = {b}" for a, b in pairs if len(set(group_of([a, b], groups))) > 1]


def members_without_hits(ensemble: Ensemble, truth: MaskSet, executor: Executor) -> list[str]:
    """Say which members, each alone, are wrong at every pixel of a few samples, and whether a shift would mend it."""
    every, names = ensemble.samples, [c for c in ensemble.classes if c in truth.classes]
    samples = every[:: -(-len(every) // _LOOKED_AT)]
    wanted = truth.arranged(samples, names)
    out = []
    for m, member in enumerate(ensemble.members):
        f = ensemble.fusion
        weights, heat = ((LEVELS,),) * len(ensemble.classes), f.temperatures[m : m + 1]
        fusion = replace(f, members=(member.member,), weights=weights, temperatures=heat)
        masks = vote(Inputs((member,), ensemble.classes, fusion), samples, Argmax(), (), executor)
        counts = confusion(masks.arranged(samples, names), wanted).counts[:-1, :-1]
        if counts.any() and not counts.trace():
            text = f"member {member.member!r} is wrong at every pixel of {len(samples)} samples"
            by_one = max(int(np.trace(counts, k)) for k in (-1, 1))
            out.append(text + (": labels shifted by one?" if 2 * by_one > counts.sum() else ""))
    return out
