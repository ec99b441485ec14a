"""A hard vote over stores and mask files, for `ensk vote --hard`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ensemble_kit.decisions.clean import apply_rules, refuse_across, refuse_score_rules
from ensemble_kit.decisions.hard import hard_vote
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.errors import Caution, IncompleteError, UsageError
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.formats.registry import Format
from ensemble_kit.formats.sizes import ImageSize
from ensemble_kit.joining.members import check_distinct, twice
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, MaskStream
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.deciding import Deciding, Threshold
from ensemble_kit.recipes.doubts import alike, emptying
from ensemble_kit.recipes.masks import read_together
from ensemble_kit.recipes.members import MemberPaths, open_ensemble, told_members
from ensemble_kit.recipes.vote import SoftVote

_AT_ONCE = 256
"""Samples that all members vote on before their masks are counted."""


@dataclass(frozen=True)
class HardVote:
    """A hard vote over stores and mask files, in the order of its weights; files are read, nothing is fused yet.

    Parameters
    ----------
    members : stores or mask files; the folds of one decide by their joined or averaged scores, as one.
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

    members: tuple[MemberPaths, ...]
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
    heard: tuple[MemberPaths, ...] = field(init=False, repr=False)
    """The members that weigh something; the others are not read."""

    def __post_init__(self) -> None:
        refuse_score_rules(self.rules)
        if self.voting.get("by") == "label":
            refuse_across(self.rules, otherwise="vote on each class by itself (--by class)")
        weights = self.voting.get("weights") or [1.0] * len(self.members)
        heard = [k for k, weight in enumerate(weights) if weight]
        check_files([self.members[k] for k in heard])
        stores = [k for k, m in enumerate(self.members) if m.is_store]
        if len(self.thresholds) not in {1, len(stores)}:
            raise UsageError(
                "thresholds-count",
                "cannot vote",
                item=f"{len(self.thresholds)} thresholds for {len(stores)} stores",
                fix="pass --thresholds once for all stores, or once for each in their order",
            )
        own = self.thresholds if len(self.thresholds) == len(stores) else self.thresholds * len(stores)
        fusing = {**self.fusing, "samples": "common"} if self.common else self.fusing
        parts: dict[int, SoftVote | MaskSet] = {  # by the member's number: a store may be named twice
            k: SoftVote.of(
                open_ensemble([self.members[k]], threshold, fusing), replace(self.deciding, threshold=threshold)
            )
            for k, threshold in zip(stores, own, strict=True)
            if k in heard
        }
        votes = [(vote, t) for k, t in zip(stores, own, strict=True) if isinstance(vote := parts.get(k), SoftVote)]
        opened = [(store, threshold) for vote, threshold in votes for _, store in vote.ensemble.stores]
        check_distinct([store for store, _ in opened], [threshold for _, threshold in opened])
        known = [_names(vote) for vote in parts.values()]
        files = [k for k in heard if k not in parts]
        paths = [self.members[k].paths[0] for k in files]
        formats = None if self.formats is None else [self.formats[k] for k in files]
        read = read_together(paths, formats, self.image_size, self.classes, known, id=self.id)
        parts.update(zip(files, read, strict=True))
        object.__setattr__(self, "votes", tuple(parts[k] for k in heard))
        if self.voting.get("weights"):
            object.__setattr__(self, "voting", {**self.voting, "weights": [weights[k] for k in heard]})
        object.__setattr__(self, "heard", tuple(self.members[k] for k in heard))
        self.names()

    def told(self) -> list[str]:
        """Say how label maps among the members were read, and which members have folds."""
        read = zip(self.heard, self.votes, strict=True)
        silent = [f"not read, since it weighs nothing: {m}" for m in self.members if m not in self.heard]
        seen = dict.fromkeys(line for p in self.votes if isinstance(p, SoftVote) for line in p.seen_told())
        rules = [f"{path}: {m.rule}" for path, m in read if isinstance(m, MaskSet) and m.rule is not None]
        stores = [p.ensemble for p in self.votes if isinstance(p, SoftVote)]
        folds, told = [line for e in stores for line in told_members(e)], []
        if any(e.inputs.extent(e.samples, ()).windows for e in stores):
            told.append("where a store saw only a window of the image, it does not vote outside of it")
            if len(stores) < len(self.votes):
                told.append("masks of files do not say what was seen: they count all over the image")
        return [*silent, *rules, *folds, *seen, *told]

    def doubts(self) -> list[Caution]:
        """Say what the user may not have meant."""
        read = list(zip(self.heard, self.votes, strict=True))
        held: list[tuple[str, LogitStore | MaskSet]] = []
        for member, own in read:
            stores = [("", own)] if isinstance(own, MaskSet) else own.ensemble.stores
            held += [(name if len(stores) > 1 else str(member), one) for name, one in stores]
        out = alike(held)
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
        own = [v.on(samples) if isinstance(v, SoftVote) else v.arranged(samples, v.classes) for v in self.votes]
        return self._with("votes", tuple(own))

    def without_rules(self) -> HardVote:
        """Return the same vote, whose masks are not cleaned."""
        return self._with("rules", ())

    def _with(self, name: str, value: object) -> HardVote:
        """Replace one value; nothing is read again."""
        other = copy(self)
        object.__setattr__(other, name, value)
        return other

    def check_memory(
        self, budget: int | None, jobs: int | None, in_pieces: bool = False, like: Path | None = None
    ) -> None:
        """Refuse what a memory budget does not hold; a few samples of each store are tried for that.

        Parameters
        ----------
        in_pieces, like : as for `SoftVote.check_memory`.
        """
        if budget is None:
            return
        names, votes = self.names(), [p for p in self.votes if isinstance(p, SoftVote)]
        together = min(_AT_ONCE, len(names.samples)) if self.in_pieces and in_pieces else len(names.samples)
        needed = memory.of_hard_vote([memory.tried(p.ensemble, p.decision, p.rules, jobs) for p in votes], together)
        memory.check(budget, needed + memory.of_order(like, len(names)), "vote")

    @property
    def in_pieces(self) -> bool:
        """Whether samples are voted on some at a time.

        Otherwise all masks are looked at together: a fusion estimates how well members vote on all of them, and rules
        keep classes apart where those of no sample overlap.
        """
        return not self.rules and self.voting.get("fusion") is None

    def run(self, executor: Executor = THREADS, listener: Listener = nobody) -> Masks:
        """Bring every member to masks, vote, and clean: at the time the masks are taken, where that can be."""
        if not self.in_pieces:
            return self._voted(self._of_members(executor, listener), self.voting)
        names = self.names()

        def make(samples: Sequence[str]) -> Iterator[MaskSet]:
            told = _Together(listener, len(samples) * sum(isinstance(v, SoftVote) for v in self.votes))
            for first in range(0, len(samples), _AT_ONCE):
                some = self.on(samples[first : first + _AT_ONCE])
                yield some._voted(some._of_members(executor, told), self.voting)

        return MaskStream(names.extent, make, names.rule)

    def _of_members(self, executor: Executor, listener: Listener) -> list[MaskSet]:
        return [v.run(executor, listener).whole() if isinstance(v, SoftVote) else v for v in self.votes]

    def _voted(self, masks: Sequence[MaskSet], voting: Mapping[str, Any]) -> MaskSet:
        names = [m.label for m in self.heard]
        if len(set(names)) < len(names):
            names = _numbered(list(map(str, self.heard)))
        voted = hard_vote(_common(masks) if self.common else masks, **voting, names=names)
        cleaned = apply_rules(voted, self.rules)
        cleaned.quality = voted.quality
        return cleaned


@dataclass
class _Together:
    """Tells the progress of several passes, one after the other, as that of one."""

    listener: Listener
    total: int
    before: int = 0

    def __call__(self, event: Progress) -> None:
        done = self.before + event.done
        if event.done or not self.before:
            self.listener(replace(event, done=done, new=done, total=self.total))
        if event.done == event.total:
            self.before = done


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell members of one name apart, such as a store that votes by two thresholds, by their number."""
    return [f"{n} ({names[: k + 1].count(n)})" if names.count(n) > 1 else n for k, n in enumerate(names)]


def check_files(members: Sequence[MemberPaths]) -> None:
    """Refuse one file or folder of masks twice, through a link too; stores are known when they are open."""
    known: dict[tuple[int, int], Path] = {}
    for member in members:
        path = member.paths[0]
        if member.is_store or not path.exists():
            continue
        state = path.stat()
        first = known.setdefault((state.st_dev, state.st_ino), path)
        if first is not path:
            raise twice(list(dict.fromkeys(map(str, (first, path)))), "one file or folder")


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
