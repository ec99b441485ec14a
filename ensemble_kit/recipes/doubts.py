"""What is doubtful about an ensemble or its truth, though nothing refuses it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ensemble_kit.decisions.areas import AreaRule
from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import vote
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution
from ensemble_kit.execution.executor import Executor
from ensemble_kit.logits.folds import apart
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.shifted import doubted
from ensemble_kit.scores.class_sets import view
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning.folds import Groups, group_of

_LOOKED_AT = 8  # samples that tell whether a member is right anywhere


def alike(members: Sequence[tuple[str, LogitStore | MaskSet]]) -> list[Caution]:
    """Say which members hold the same logits or masks, so that one model counts twice; names and members are given."""
    out = []
    for k, (name, one) in enumerate(members):
        for other, before in members[:k]:
            if isinstance(one, MaskSet) and isinstance(before, MaskSet):
                same = one.extent == before.extent and all(before[key] == runs for key, runs in one.items())
                what = "masks"
            else:
                stores = isinstance(one, LogitStore) and isinstance(before, LogitStore)
                same, what = stores and one.same_logits(before), "logits"  # type: ignore[arg-type,union-attr]
            if same:
                doubt = f"{other!r} and {name!r} hold the same {what} in every sample; one model would count twice"
                out.append(Caution(doubt, "leave one out, or dump the one that was meant"))
            elif isinstance(one, LogitStore) and isinstance(before, LogitStore) and _share_a_source(one, before):
                doubt = f"{other!r} and {name!r} have a network in common, since one was fused of it; it counts in both"
                out.append(Caution(doubt, "leave one out, or give the network its weight when it is fused"))
    return out


def _share_a_source(one: LogitStore, other: LogitStore) -> bool:
    """Tell whether a store was fused of the other, or both of a third."""
    of_one, of_other = _sources(one), _sources(other)
    return bool(of_one or of_other) and not (of_one | {one.fingerprint}).isdisjoint(of_other | {other.fingerprint})


def _sources(store: LogitStore) -> set[str]:
    """Collect the fingerprints of the stores that a store was fused of, as `recipes/fusing.py` records them."""
    fused = store.provenance.get("fused")
    members = fused.get("members") if isinstance(fused, Mapping) else None
    listed = members if isinstance(members, list) else []
    return {str(m["fingerprint"]) for m in listed if isinstance(m, Mapping) and "fingerprint" in m}


def twins_apart(ensemble: Ensemble, groups: Groups) -> list[str]:
    """Name samples whose logits are identical in every member, and that a split may put on two sides."""
    same = set.intersection(*({pair for group in m.twins for pair in pairwise(group)} for m in ensemble.members))
    known = set(ensemble.samples)
    pairs = sorted(pair for pair in same if known.issuperset(pair))
    return [f"{a} = {b}" for a, b in pairs if len(set(group_of([a, b], groups))) > 1]


def doubted_members(ensemble: Ensemble, truth: MaskSet, executor: Executor, by_argmax: bool) -> list[Caution]:
    """Say which members, each alone and on a few samples, do not seem to mean the same by the classes as the truth.

    Parameters
    ----------
    by_argmax : whether members decide by argmax, else by 0.5 for every class.
    """
    every, names = ensemble.samples, [c for c in ensemble.classes if c in truth.classes]
    samples = every[:: -(-len(every) // _LOOKED_AT)]
    wanted = truth.arranged(samples, names)
    decision = Argmax() if by_argmax else Thresholds(ensemble.level_of(0.5))
    out = []
    for m, member in enumerate(ensemble.members):
        alone = _alone(ensemble, m)
        own = [name for name in names if name in alone.classes]
        masks = vote(alone, samples, decision, (), executor)
        told = doubted(masks.arranged(samples, own), wanted.arranged(samples, own)) if own else None
        if told is not None:
            doubt = f"member {member.member!r}, looked at in {len(samples)} samples: {told}"
            out.append(Caution(doubt, "compare the order of its classes with that of its network's outputs, and --val"))
    return out


def _alone(ensemble: Ensemble, m: int) -> Inputs:
    """Return what a fused sample takes of member number `m` alone: its folds, and the classes that it has."""
    member, f = ensemble.members[m], ensemble.fusion
    classes, folds = tuple(c for c in ensemble.classes if c in member.classes), apart(member)
    one = Fusion(f.mean, f.upsample, f.members[m : m + 1], ((LEVELS,),) * len(classes), f.temperatures[m : m + 1])
    return Inputs(tuple(view(fold, classes) for fold in folds), classes, one.spread([len(folds)]))


def emptying(rules: Iterable[Rule], images: Iterable[Shape]) -> list[Caution]:
    """Warn of rules that no mask can pass, since they ask for more pixels than the largest image has."""
    largest = max((math.prod(image) for image in images), default=0)
    areas = [rule for rule in rules if isinstance(rule, AreaRule) and rule.min_area is not None]
    fix = "pass a smaller area; least-area:0.05% is a share of the image"
    return [
        Caution(f"rule {str(rule)!r} empties every mask: the largest image has {largest} pixels", fix)
        for rule in areas
        if (rule.min_area or 0) > largest > 0
    ]
