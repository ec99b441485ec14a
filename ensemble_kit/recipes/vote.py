"""From stores or mask files to voted masks, for `ensk vote`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble_kit.decisions.clean import apply_rules, check_classes, refuse_gates
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import IncompleteError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.formats.sizes import ImageSize
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.masks import read_together
from ensemble_kit.thresholds.thresholdset import ThresholdSet, find

Threshold = ThresholdSet | float


def resolve(threshold: str) -> Threshold:
    """Read a threshold as the user typed it: a number, or the path or name of a set.

    Raises
    ------
    IncompleteError
        There is no such set.
    DamagedError
        It is not a threshold set.
    """
    try:
        return float(threshold)
    except ValueError:
        return ThresholdSet.load(find(threshold))


def open_ensemble(stores: Sequence[Path], threshold: Threshold, options: Mapping[str, Any]) -> Ensemble:
    """Open stores for a vote; with a set and without options of fusing, they are fused as it was tuned."""
    given = {k: v for k, v in options.items() if v is not None}
    ensemble = Ensemble(stores, **given)
    if isinstance(threshold, ThresholdSet) and not set(given) - {"samples"}:
        return ensemble.as_tuned(threshold)
    return ensemble


@dataclass(frozen=True)
class SoftVote:
    """A soft vote whose options fit each other; nothing is fused yet.

    Parameters
    ----------
    threshold : a number for every class, or a set that fits the ensemble.
    rules : post-processing, in order; without any, those of the set hold.
    rank : the rule that decides instead of thresholds.

    Raises
    ------
    MismatchError
        Thresholds or rules for other classes, a set that was tuned for another ensemble.
    """

    ensemble: Ensemble
    threshold: Threshold
    rules: tuple[Rule, ...] = ()
    rank: RankRule | None = None

    def __post_init__(self) -> None:
        self.ensemble.decision(self.threshold)
        if not self.rules and self.rank is None and isinstance(self.threshold, ThresholdSet):
            object.__setattr__(self, "rules", parse_rules(self.threshold.rules))
        check_classes(self.rules, self.ensemble.classes)

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
        if self.rank is not None:
            lines.append("each mask takes the pixels of its highest expected Dice (rank rule)")
        elif not isinstance(self.threshold, ThresholdSet):
            lines.append(f"thresholds: {self.threshold:g} for every class (pass --thresholds for a tuned set)")
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        return lines

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        e = self.ensemble
        return MaskSet.empty(Extent(e.classes, {s: e.image_size(s) for s in e.samples}))

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> MaskSet:
        """Fuse, decide and clean every sample."""
        decision = self.threshold if self.rank is None else self.rank
        return self.ensemble.vote(decision, self.rules, executor=executor, listener=listener)


@dataclass(frozen=True)
class HardVote:
    """A hard vote over stores and mask files, in the order of its weights; files are read, nothing is fused yet.

    Parameters
    ----------
    thresholds : one for all stores, or one for each in their order; mask files need none.
    voting : options of `hard_vote`: weights, quorum, ties, empty.
    fusing : options of each store: mean, upsample.
    rules : post-processing of the voted masks.
    image_size, classes : for mask files without them; by default they come from another member.
    common : whether to vote on the samples that all members have.

    Raises
    ------
    UsageError
        A gate, which needs scores; another number of thresholds than stores; weights or a quorum that cannot be used.
    MismatchError, IncompleteError
        Members of different samples, classes or sizes, a set that was tuned for another store, rules for other classes.
    """

    members: tuple[Path, ...]
    thresholds: tuple[Threshold, ...]
    voting: Mapping[str, Any]
    fusing: Mapping[str, Any]
    rules: tuple[Rule, ...] = ()
    image_size: ImageSize | None = None
    classes: Sequence[str] | None = None
    common: bool = False

    parts: tuple[SoftVote | MaskSet, ...] = field(init=False, repr=False)
    """Each member's own vote, or its masks."""

    def __post_init__(self) -> None:
        refuse_gates(self.rules)
        stores = [k for k, m in enumerate(self.members) if is_store(m)]
        if len(self.thresholds) not in {1, len(stores)}:
            raise UsageError(
                "thresholds-count",
                "cannot vote",
                item=f"{len(self.thresholds)} thresholds for {len(stores)} stores",
                fix="pass --thresholds once for all stores, or once for each in their order",
            )
        own = self.thresholds if len(self.thresholds) == len(stores) else self.thresholds * len(stores)
        parts: dict[int, SoftVote | MaskSet] = {  # by the member's number: a store may be named twice
            k: SoftVote(open_ensemble([self.members[k]], threshold, self.fusing), threshold)
            for k, threshold in zip(stores, own, strict=True)
        }
        known = [_names(vote) for vote in parts.values()]
        files = [k for k in range(len(self.members)) if k not in parts]
        paths = [self.members[k] for k in files]
        read = read_together(paths, image_size=self.image_size, classes=self.classes, known=known)
        parts.update(zip(files, read, strict=True))
        object.__setattr__(self, "parts", tuple(parts[k] for k in range(len(self.members))))
        self.names()

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        return self._voted([_names(part) for part in self.parts])

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> MaskSet:
        """Bring every member to masks, vote, and clean."""
        return self._voted([p.run(executor, listener) if isinstance(p, SoftVote) else p for p in self.parts])

    def _voted(self, masks: Sequence[MaskSet]) -> MaskSet:
        return apply_rules(hard_vote(_common(masks) if self.common else masks, **self.voting), self.rules)


def _names(part: SoftVote | MaskSet) -> MaskSet:
    """Return a member's masks without a pixel."""
    return part.names() if isinstance(part, SoftVote) else MaskSet.empty(part.extent)


def _common(masks: Sequence[MaskSet]) -> list[MaskSet]:
    """Keep the samples that all mask sets have."""
    shared = set.intersection(*(set(m.samples) for m in masks))
    if not shared:
        item = "the members have no sample in common"
        raise IncompleteError("samples-none", "cannot vote", item=item, fix="vote over members of the same images")
    return [m.arranged([s for s in m.samples if s in shared], m.classes) for m in masks]
