"""The few functions that compose the others; what the command line calls.

The road: stores → `Ensemble` (scores.py) → `MaskSet` (masks.py) → one file (formats/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit.decisions.clean import Rule, apply_rules, check_classes, refuse_gates
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import IncompleteError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.recipes.masks import Sizes, read_together
from ensemble_kit.thresholds.thresholdset import ThresholdSet, find

Threshold = ThresholdSet | float


def resolve(threshold: str) -> Threshold:
    """Read what a person typed as a threshold: a number, or the path or name of a set."""
    try:
        return float(threshold)
    except ValueError:
        return ThresholdSet.load(find(threshold))


def open_ensemble(stores: Sequence[Path], threshold: Threshold, options: Mapping[str, Any]) -> Ensemble:
    """Open stores for a vote; with a set and no options of fusing, they are fused as it was tuned."""
    given = {k: v for k, v in options.items() if v is not None}
    ensemble = Ensemble(stores, **given)
    if isinstance(threshold, ThresholdSet) and not set(given) - {"samples"}:
        return ensemble.as_tuned(threshold)
    return ensemble


@dataclass(frozen=True)
class SoftVote:
    """A soft vote that is known to be possible: nothing is fused yet.

    Parameters
    ----------
    threshold : a number for every class, or a set that fits the ensemble.
    rules : post-processing, in order; without any, those of the set.
    rank, temperature : decide by the rank rule (`ranking.py`) in place of thresholds.
    """

    ensemble: Ensemble
    threshold: Threshold
    rules: tuple[Rule, ...] = ()
    rank: bool = False
    temperature: float | None = None

    def __post_init__(self) -> None:
        from ensemble_kit.decisions.rank import probabilities

        self.ensemble.class_levels(self.threshold)
        check_classes(self.rules, self.ensemble.classes)
        if self.rank:
            probabilities("probability", self.temperature)

    def told(self) -> list[str]:
        """Say what will be done."""
        fusion, e = self.ensemble.fusion, self.ensemble
        shares = sorted(set(fusion.weights))
        weights = (
            ", ".join(f"{name} {w / 65536:.3g}" for name, w in zip(fusion.members, shares[0], strict=True))
            if len(shares) == 1
            else f"{', '.join(fusion.members)}, weighted per class"
        )
        lines = [f"soft vote: mean of {fusion.mean}, upsample {fusion.upsample}; members {weights}"]
        if any(t != 1 for t in fusion.temperatures):
            lines.append(f"temperatures: {', '.join(f'{t:g}' for t in fusion.temperatures)}")
        if self.rank:
            lines.append("each mask takes the pixels of its highest expected Dice (rank rule)")
        elif not isinstance(self.threshold, ThresholdSet):
            lines.append(f"thresholds: {self.threshold:g} for every class (pass --thresholds for a tuned set)")
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        return lines

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        e = self.ensemble
        return MaskSet({(s, c): Runs.empty(e.image_size(s)) for s in e.samples for c in e.classes})

    def run(self, jobs: int | None = None, listener: Listener = nobody) -> MaskSet:
        """Fuse, decide and clean every sample."""
        from ensemble_kit.decisions.rank import rank_vote
        from ensemble_kit.spec.scoring import Convention

        if not self.rank:
            return self.ensemble.vote(self.threshold, self.rules, jobs, listener)
        tuned = self.threshold if isinstance(self.threshold, ThresholdSet) else None
        convention = tuned.measure.convention if tuned else Convention()
        return rank_vote(self.ensemble, jobs, self.temperature, convention, self.rules, listener)


@dataclass(frozen=True)
class HardVote:
    """A hard vote over stores and mask files, in the order of its weights.

    Parameters
    ----------
    thresholds : one for all stores, or one for each in their order; a mask file has decided.
    voting : options of `hard_vote`: weights, quorum, ties, empty.
    fusing : options of each store by itself: mean, upsample.
    rules : post-processing of the voted masks.
    image_size, classes : for mask files that do not say them; where another member does, it says.
    common : vote on the samples that all members have.
    """

    members: tuple[Path, ...]
    thresholds: tuple[Threshold, ...]
    voting: Mapping[str, Any]
    fusing: Mapping[str, Any]
    rules: tuple[Rule, ...] = ()
    image_size: Sizes | None = None
    classes: Sequence[str] | None = None
    common: bool = False

    def __post_init__(self) -> None:
        refuse_gates(self.rules)
        stores = sum(is_store(m) for m in self.members)
        if len(self.thresholds) not in {1, stores}:
            raise UsageError(
                "thresholds-count",
                "cannot vote",
                item=f"{len(self.thresholds)} thresholds for {stores} stores",
                fix="pass --thresholds once for all stores, or once for each in their order",
            )

    def run(self, jobs: int | None = None, listener: Listener = nobody) -> MaskSet:
        """Bring every member to masks, vote, and clean."""
        stores = [m for m in self.members if is_store(m)]
        own = self.thresholds if len(self.thresholds) == len(stores) else self.thresholds * len(stores)
        decided: dict[Path, MaskSet] = {}
        for store, threshold in zip(stores, own, strict=True):
            ensemble = open_ensemble([store], threshold, self.fusing)
            decided[store] = ensemble.vote(threshold, jobs=jobs, listener=listener)
        files = [m for m in self.members if m not in decided]
        read = read_together(files, image_size=self.image_size, classes=self.classes, known=list(decided.values()))
        decided.update(zip(files, read, strict=True))
        masks = [decided[m] for m in self.members]
        voted = hard_vote(_common(masks) if self.common else masks, **self.voting)
        return apply_rules(voted, self.rules)


def _common(masks: Sequence[MaskSet]) -> list[MaskSet]:
    """Keep the samples that all mask sets have."""
    shared = set.intersection(*(set(m.samples) for m in masks))
    if not shared:
        raise IncompleteError(
            "samples-none",
            "cannot vote",
            item="the members have no sample in common",
            fix="vote over members of the same images",
        )
    return [MaskSet({key: runs for key, runs in m.items() if key[0] in shared}) for m in masks]
