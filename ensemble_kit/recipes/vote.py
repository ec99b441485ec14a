"""From stores or mask files to voted masks, for `ensk vote`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from ensemble_kit.decisions.clean import apply_rules, check_classes, refuse_across, refuse_score_rules
from ensemble_kit.decisions.decision import Decision, stream_vote
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.decisions.recorded import recorded, recorded_rules
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, IncompleteError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.formats.registry import Format
from ensemble_kit.formats.sizes import ImageSize
from ensemble_kit.joining import check_distinct, twice
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import MaskStream
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.deciding import Deciding, Threshold
from ensemble_kit.recipes.doubts import alike, emptying
from ensemble_kit.recipes.masks import read_together
from ensemble_kit.thresholds.guarantee import LIMITS
from ensemble_kit.thresholds.thresholdset import ThresholdSet


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
    decision : one that fits the ensemble, as `Ensemble.decision` and `Deciding.of` make it.
    rules : post-processing, in order.
    tuned : the set that the decision is of, if any.

    Raises
    ------
    MismatchError
        Rules for other classes.
    UsageError
        A rule across classes that exclude each other.
    """

    ensemble: Ensemble
    decision: Decision
    rules: tuple[Rule, ...] = ()
    tuned: ThresholdSet | None = None

    def __post_init__(self) -> None:
        check_classes(self.rules, self.decision.written(self.ensemble.classes))
        if self.decision.excludes(self.ensemble.inputs):
            refuse_across(self.rules)

    @classmethod
    def of(cls, ensemble: Ensemble, deciding: Deciding, rules: tuple[Rule, ...] = ()) -> SoftVote:
        """Make it of what the user says; without rules, those of a set hold that decides as it was tuned."""
        tuned = deciding.threshold if isinstance(deciding.threshold, ThresholdSet) else None
        if not rules and tuned is not None and deciding.kind in {None, tuned.decision.kind}:
            rules = recorded_rules(tuned)
        return cls(ensemble, deciding.of(ensemble), rules, tuned)

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
        if silent := [m for k, m in enumerate(fusion.members) if k not in fusion.heard]:
            lines.append(f"not read, since it weighs nothing: {', '.join(silent)}")
        if any(t != 1 for t in fusion.temperatures):
            lines.append(f"temperatures: {', '.join(f'{t:g}' for t in fusion.temperatures)}")
        lines.append(f"decision: {self.decision.told()}")
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        if self.tuned is not None and self.tuned.guarantee is not None and self.keeps_guarantee:
            lines += [f"guaranteed: {self.tuned.guarantee}", LIMITS]
        return lines + self.seen_told()

    def seen_told(self) -> list[str]:
        """Say where the samples are those of the tuning."""
        e = self.ensemble
        told = self.tuned.overlap_told(e.samples, e.records) if self.tuned is not None else None
        return [] if told is None else [told]

    @property
    def keeps_guarantee(self) -> bool:
        """Whether masks are decided and cleaned as the set says that guarantees a risk."""
        tuned = self.tuned
        return tuned is not None and (self.decision, self.rules) == (recorded(tuned), recorded_rules(tuned))

    def doubts(self) -> list[Caution]:
        """Say what the user may not have meant."""
        e = self.ensemble
        out = alike([(m.member, m) for m in e.members])
        out += emptying(self.rules, map(e.image_size, e.samples))
        if self.tuned is not None and self.tuned.guarantee is not None and not self.keeps_guarantee:
            told = self.tuned.guarantee
            doubt = f"the set's guarantee does not hold, since masks are decided or cleaned otherwise: {told}"
            out.append(Caution(doubt, "leave --decide and --rule out, or control the risk of what is meant"))
        elif self.tuned is not None and (unused := self._unused(self.tuned)) is not None:
            out.append(unused)
        return out

    @staticmethod
    def _options(rules: Iterable[Rule]) -> str:
        return " ".join(f"--rule {quote(str(rule))}" for rule in rules)

    def _unused(self, tuned: ThresholdSet) -> Caution | None:
        """Say which rules of the set are not applied, and what applies them."""
        own = recorded_rules(tuned)
        if not [rule for rule in own if rule not in self.rules]:
            return None
        told = " and ".join(map(str, own))
        if self.rules:
            doubt = f"--rule is applied in place of the rules that the set was tuned with, {told}"
            return Caution(doubt, f"to apply both, pass {self._options([*own, *self.rules])}; or leave --rule out")
        doubt = f"the set was tuned with the rules {told}, for another decision: they are not applied"
        return Caution(doubt, f"leave --decide out, or pass {self._options(own)}")

    def on(self, samples: Sequence[str]) -> SoftVote:
        """Return the same vote on some of the samples."""
        return replace(self, ensemble=self.ensemble.on(samples))

    @property
    def may_overlap(self) -> bool:
        """Whether exclusive classes are decided each by itself, so that pixels may have several, or none."""
        return self.ensemble.activation == "softmax" and not self.decision.excludes(self.ensemble.inputs)

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        e = self.ensemble
        return MaskSet.empty(Extent(self.decision.written(e.classes), {s: e.image_size(s) for s in e.samples}))

    def check_memory(
        self, budget: int | None, jobs: int | None, in_pieces: bool = False, like: Path | None = None
    ) -> None:
        """Refuse what a memory budget does not hold; a few samples are tried for that.

        Parameters
        ----------
        in_pieces : whether masks are written as they come; otherwise those of all samples are held.
        like : the sample submission in whose order they are written.
        """
        if budget is not None:
            needed = memory.of_vote(self.ensemble, self.decision, self.rules, jobs, in_pieces)
            memory.check(budget, needed + memory.of_order(like, len(self.names())), "vote")

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> MaskStream:
        """Fuse, decide and clean every sample at the time its masks are taken."""
        e = self.ensemble
        return stream_vote(e.inputs, e.samples, self.decision, self.rules, executor, listener)


@dataclass(frozen=True)
class HardVote:
    """A hard vote over stores and mask files, in the order of its weights; files are read, nothing is fused yet.

    Parameters
    ----------
    thresholds : one for all stores, or one for each in their order, None for what is usual; mask files need none.
    voting : options of `hard_vote`: weights, quorum, ties, empty, by, fusion.
    fusing : options of each store: mean, upsample.
    rules : post-processing of the voted masks.
    image_size, classes : for mask files without them; by default they come from another member.
    common : whether to vote on the samples that all members have.
    formats : of each member that is a file; None is recognised.
    deciding : what is said of how stores decide, but for their thresholds.
    id : the form in which ids of files are compared with those of other members.

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
    formats: tuple[Format | None, ...] | None = None
    deciding: Deciding = field(default_factory=Deciding)
    id: IdForm | None = None

    votes: tuple[SoftVote | MaskSet, ...] = field(init=False, repr=False)
    """Each heard member's own vote, or its masks."""
    heard: tuple[Path, ...] = field(init=False, repr=False)
    """The members that weigh something; the others are not read."""

    def __post_init__(self) -> None:
        refuse_score_rules(self.rules)
        if self.voting.get("by") == "label":
            refuse_across(self.rules, otherwise="vote on each class by itself (--by class)")
        weights = self.voting.get("weights") or [1.0] * len(self.members)
        heard = [k for k, weight in enumerate(weights) if weight]
        _check_distinct([self.members[k] for k in heard])
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
            k: SoftVote.of(
                open_ensemble([self.members[k]], threshold, self.fusing), replace(self.deciding, threshold=threshold)
            )
            for k, threshold in zip(stores, own, strict=True)
            if k in heard
        }
        votes = [(vote, t) for k, t in zip(stores, own, strict=True) if isinstance(vote := parts.get(k), SoftVote)]
        check_distinct([vote.ensemble.members[0] for vote, _ in votes], [threshold for _, threshold in votes])
        known = [_names(vote) for vote in parts.values()]
        files = [k for k in heard if k not in parts]
        paths = [self.members[k] for k in files]
        formats = None if self.formats is None else [self.formats[k] for k in files]
        read = read_together(paths, formats, self.image_size, self.classes, known, id=self.id)
        parts.update(zip(files, read, strict=True))
        object.__setattr__(self, "votes", tuple(parts[k] for k in heard))
        if self.voting.get("weights"):
            object.__setattr__(self, "voting", {**self.voting, "weights": [weights[k] for k in heard]})
        object.__setattr__(self, "heard", tuple(self.members[k] for k in heard))
        self.names()

    def told(self) -> list[str]:
        """Say how label maps among the members were read."""
        read = zip(self.heard, self.votes, strict=True)
        silent = [f"not read, since it weighs nothing: {m}" for m in self.members if m not in self.heard]
        seen = dict.fromkeys(line for p in self.votes if isinstance(p, SoftVote) for line in p.seen_told())
        rules = [f"{path}: {m.rule}" for path, m in read if isinstance(m, MaskSet) and m.rule is not None]
        return [*silent, *rules, *seen]

    def doubts(self) -> list[Caution]:
        """Say what the user may not have meant."""
        read = list(zip(self.heard, self.votes, strict=True))
        out = alike([(str(path), p if isinstance(p, MaskSet) else p.ensemble.members[0]) for path, p in read])
        empty = self.names()
        out += emptying(self.rules, map(empty.image_size, empty.samples))
        if any(isinstance(p, SoftVote) and p.tuned is not None and p.tuned.guarantee is not None for p in self.votes):
            doubt = "a set guarantees a risk of its own masks, not of those that a hard vote makes of several"
            out.append(Caution(doubt, "vote softly, with a set that controls the risk of the fused scores"))
        return out

    def names(self) -> MaskSet:
        """Return the masks to come, empty: their samples, classes and sizes."""
        majority = {**self.voting, "fusion": None}  # of empty masks every fusion is empty
        return self._voted([_names(part) for part in self.votes], majority).without_void()

    def on(self, samples: Sequence[str]) -> HardVote:
        """Return the same vote on some of the samples."""
        some = copy(self)
        own = [v.on(samples) if isinstance(v, SoftVote) else v.arranged(samples, v.classes) for v in self.votes]
        object.__setattr__(some, "votes", tuple(own))
        return some

    def check_memory(
        self, budget: int | None, jobs: int | None, in_pieces: bool = False, like: Path | None = None
    ) -> None:
        """Refuse what a memory budget does not hold; a few samples of each store are tried for that.

        Parameters
        ----------
        in_pieces, like : as for `SoftVote.check_memory`; masks are held all the same, since members vote one by one.
        """
        del in_pieces
        if budget is None:
            return
        votes = [p for p in self.votes if isinstance(p, SoftVote)]
        needed = [memory.of_vote(p.ensemble, p.decision, p.rules, jobs) for p in votes]
        now = memory.used()
        own = max((n - now for n in needed), default=0.0)  # the voted masks are about as large as the largest member's
        listed = memory.of_order(like, len(self.names()))
        memory.check(budget, max(now, memory.KERNELS) + sum(n - now for n in needed) + own + listed, "vote")

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> MaskSet:
        """Bring every member to masks, vote, and clean."""
        masks = [p.run(executor, listener).whole() if isinstance(p, SoftVote) else p for p in self.votes]
        return self._voted(masks, self.voting)

    def _voted(self, masks: Sequence[MaskSet], voting: Mapping[str, Any]) -> MaskSet:
        names = [m.name for m in self.heard]
        if len(set(names)) < len(names):
            names = _numbered(list(map(str, self.heard)))
        voted = hard_vote(_common(masks) if self.common else masks, **voting, names=names)
        cleaned = apply_rules(voted, self.rules)
        cleaned.quality = voted.quality
        return cleaned


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell members of one name apart, such as a store that votes by two thresholds, by their number."""
    return [f"{n} ({names[: k + 1].count(n)})" if names.count(n) > 1 else n for k, n in enumerate(names)]


def _check_distinct(members: Sequence[Path]) -> None:
    """Refuse one file or folder of masks twice, through a link too; stores are known when they are open."""
    known: dict[tuple[int, int], Path] = {}
    for member in members:
        if is_store(member) or not member.exists():
            continue
        state = member.stat()
        first = known.setdefault((state.st_dev, state.st_ino), member)
        if first is not member:
            raise twice(list(dict.fromkeys(map(str, (first, member)))), "one file or folder")


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
