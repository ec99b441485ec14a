"""The members' scores at pixels whose winner weights or factors can change: all that a trial of weights looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.scores import space
from ensemble_kit.scores.fusing import is_whole_image, open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.open_pixels import VOID, truth_of
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import LEVELS, LOGIT, PROBABILITY
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable, room_of
from ensemble_kit.tuning.gathering import ExclusiveTruth, items_with_exclusive_truth
from ensemble_kit.tuning.search.undecided import Setting, Trial, Which, among
from ensemble_kit.tuning.sweeps import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 6
"""Logarithm to base 2 of the ratio of factors that a trial is exact for: 64."""
MEMORY = 100 * 10**6
"""Bytes that members' scores may take unless the user says otherwise: one or two seconds a trial."""
_ROWS = 32  # evaluated at a time
_PROBES = 4  # samples that tell how many pixels there will be


class MemberPixels(NamedTuple):
    """Undecided pixels of one sample.

    Parameters
    ----------
    truth, counts : uint16 and int64 (n,), class of the truth, and how many classes can win the pixel.
    classes : uint16 (entries,), ascending within a pixel.
    scores : uint16 (entries, M), the members' own; 0 of members that have no say there.
    sets : uint16 (entries,), which of `members` have a say.
    decided : int64 (C + 1, C), the other pixels by class of the truth and winner.
    members : the sets of members that have a say somewhere.
    """

    truth: NDArray[np.uint16]
    counts: NDArray[np.int64]
    classes: NDArray[np.uint16]
    scores: NDArray[np.uint16]
    sets: NDArray[np.uint16]
    decided: NDArray[np.int64]
    members: tuple[Which, ...] = ()

    @property
    def bytes(self) -> int:
        """Memory that the scores take."""
        return self.scores.nbytes


@dataclass(frozen=True)
class CollectContenders:
    """The work of collecting one sample, of every `stride`-th pixel of every `stride`-th row."""

    inputs: Inputs
    stride: int

    def __call__(self, item: Item) -> MemberPixels:
        """Evaluate each member alone, and keep the pixels where members, weights or factors can change the winner."""
        inputs, f = self.inputs, self.inputs.fusion
        C, names, alone = len(inputs.classes), f.members, []
        mean = LOGIT if f.mean.of_logits else PROBABILITY
        for m, member in enumerate(inputs.members):
            fusion = replace(f, mean=mean, members=names[m : m + 1], weights=((LEVELS,),) * C,
                             temperatures=f.temperatures[m : m + 1])  # fmt: skip
            alone.append(open_sample(Inputs((member,), inputs.classes, fusion), item.sample))
        regions = _Regions([m.placement(item.sample) for m in inputs.members], space.outside(inputs))
        if not regions.all_decided:
            raise space.undecided_outside(item.sample, "cannot tune factors")
        rows, step = alone[0].rows, _ROWS if self.stride == 1 else self.stride
        first = min(self.stride // 2, rows - 1)
        parts = [
            self._rows(alone, y, min(y + step, rows) if self.stride == 1 else y + 1, item.truth, regions)
            for y in range(first, rows, step)
        ]
        decided = sum((part.decided for part in parts), np.zeros((C + 1, C), np.int64))
        truth, counts, classes, scores, sets = (np.concatenate([part[k] for part in parts]) for k in range(5))
        return MemberPixels(truth, counts, classes, scores, sets, decided, regions.members)

    def _rows(
        self, alone: list[FusedSample], first: int, stop: int, given: ExclusiveTruth, regions: _Regions
    ) -> MemberPixels:
        C, adds = len(self.inputs.classes), self.inputs.fusion.mean.of_logits
        width, cut = alone[0].image[-1], slice(self.stride // 2, None, self.stride)

        def thinned(rows: NDArray[Any]) -> NDArray[Any]:
            return rows.reshape(*rows.shape[:-1], -1, width)[..., cut].reshape(*rows.shape[:-1], -1)

        labels, counted = truth_of(*given, first, stop, width)
        labels[~counted] = VOID
        truth, sets = thinned(labels), thinned(regions.of_rows(first, stop))
        own_say = regions.says[:, sets]
        scores = np.stack([thinned(s.values(first, stop).reshape(C, -1)) >> 16 for s in alone])
        scores = np.where(own_say[:, None], scores, 0)
        top = scores.max(1, keepdims=True)
        gap = int(room_of(REACH, True).gaps[0]) >> 16
        # a share that is so small in every member is too small in any mean of them, or nearly so of other means
        reach = scores + gap >= top if adds else scores * (len(alone) << REACH) >= top
        kept = (reach & own_say[:, None]).any(0)
        if regions.background is not None:  # which has the pixels of members that weigh nothing
            kept[regions.background] |= ~own_say.all(0)
        kept &= truth != VOID
        several = kept.sum(0) > 1
        one = (truth != VOID) & ~several
        decided = np.bincount(truth[one] * np.int64(C) + kept[:, one].argmax(0), minlength=(C + 1) * C)
        pixels, classes = np.nonzero(kept[:, several].T)
        at = np.flatnonzero(several)[pixels]
        own, counts = scores[:, classes, at].T, kept[:, several].sum(0)
        found = truth[several], counts, classes.astype(np.uint16), own.astype(np.uint16), sets[at]
        return MemberPixels(*found, decided.reshape(C + 1, C))


class _Regions:
    """Which members have a say at each pixel of a sample.

    Parameters
    ----------
    outside : int64 (C,), values where none has one.
    """

    def __init__(self, placements: Sequence[Placement], outside: NDArray[np.int64]) -> None:
        cut = space.boxes([p.solid for p in placements])
        self.members: tuple[Which, ...] = (*cut.members, ())
        """The sets of members; the last is nobody."""
        self.says = np.array([[m in which for which in self.members] for m in range(len(placements))])
        self.background = int(outside.argmax()) if outside.max() > 0 else None
        self.all_decided = cut.cover or self.background is not None
        self._slices, self._rows, self._cols = (np.repeat(np.arange(e.size - 1), np.diff(e)) for e in cut.at)
        self._sets = np.where(cut.sets < 0, len(cut.members), cut.sets).astype(np.uint16)

    def of_rows(self, first: int, stop: int) -> NDArray[np.uint16]:
        """Number the set of each pixel of some rows, uint16 (n,)."""
        z, y = np.divmod(np.arange(first, stop), self._rows.size)
        return np.asarray(self._sets[self._slices[z], self._rows[y]][:, self._cols].reshape(-1))


@dataclass(frozen=True)
class MemberTable:
    """The members' scores at the undecided pixels of all samples.

    A trial is exact on the pixels that it looks at for factors at most 64 apart, with mean="probability" or "logit"
    and upsample="logits"; what is found is tuned anew from the stores.

    Parameters
    ----------
    names : of the members; a member of several folds is there once for each.
    table : contenders, whose values are still to be fused.
    scores : uint16 (entries, M).
    sets, members : of each entry which of the sets of members have a say, uint16 (entries,).
    background : number of the class that has the pixels where no member weighs anything; -1 is none.
    stride : every stride-th pixel of every stride-th row stands for the rest.
    """

    names: tuple[str, ...]
    table: ContenderTable
    scores: NDArray[np.uint16]
    sets: NDArray[np.uint16]
    members: tuple[Which, ...]
    background: int
    stride: int

    @property
    def pixels(self) -> int:
        """Number of pixels that a trial looks at."""
        return self.table.contenders.truth.size

    def try_setting(
        self,
        setting: Setting,
        measure: Measure,
        samples: NDArray[np.int64] | None = None,
        jobs: int | None = None,  # noqa: ARG002 - line searches follow each other
    ) -> Trial:
        """Find the best factors under a setting, and the objective there; `levels` are the factors."""
        weights = np.array([among(setting.weights, self.names, which) for which in self.members], np.uint32)
        scale, values = setting.mean.scale, np.zeros(self.scores.shape[0], np.uint32)
        for m, by_set in enumerate(weights.T):
            own = self.scores[:, m] if setting.mean.of_logits else scale[self.scores[:, m]]
            values += own * by_set[self.sets]
        silent = np.all(weights == 0, axis=1)[self.sets] & (self.table.contenders.classes == self.background)
        values[silent] = (LEVELS - 1) << 16
        table = replace(self.table, contenders=self.table.contenders._replace(values=values))
        found = fit(table, measure, lambda narrow: narrow, samples)  # its ratio is the largest: no search asks for more
        return Trial(round(found.score, 12), found.factors)


def _bytes_of(inputs: Inputs, item: Item) -> int:
    """Tell how many bytes a sample takes; of a volume as its sixteenth part says it."""
    stride = 1 if is_whole_image(inputs, item.sample) else 4
    return CollectContenders(inputs, stride)(item).bytes * stride**2


def collect(
    ensemble: Ensemble,
    truth: MaskSet,
    background: str | None = None,
    memory: int | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> MemberTable:
    """Collect the members' scores in one pass over the stores; beyond `memory` bytes by a stride.

    Parameters
    ----------
    truth : as `exclusive_truth` returns it.
    """
    items, every, budget = items_with_exclusive_truth(ensemble, truth), ensemble.samples, memory or MEMORY
    probes = Items(every[:: max(1, len(every) // _PROBES)][:_PROBES], items.truth)
    sizes = [_bytes_of(ensemble.inputs, item) for item in probes]
    stride = 1
    while sum(sizes) / len(sizes) * len(every) > budget * stride**2:
        stride += 1
    rows = list(executor.map(CollectContenders(ensemble.inputs, stride), items, "collecting", listener))
    counts = np.concatenate([row.counts for row in rows])
    scores = np.concatenate([row.scores for row in rows])
    contenders = Contenders(
        np.concatenate([row.truth for row in rows]),
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([row.classes for row in rows]),
        np.zeros(0, np.uint32),
    )
    C, outside = ensemble.classes, space.outside(ensemble.inputs)
    members = tuple(dict.fromkeys(which for row in rows for which in row.members))
    sets = np.concatenate([np.array([members.index(w) for w in row.members], np.uint16)[row.sets] for row in rows])
    background_of_all = int(outside.argmax()) if outside.max() > 0 else -1
    far = np.zeros((len(rows), 0, len(C), len(C), 2), np.int32)
    begins = np.cumsum([0, *(row.truth.size for row in rows)])
    decided, adds = np.stack([row.decided for row in rows]), ensemble.fusion.mean.of_logits
    # all ratios are searched, though contenders beyond 64 are missing: what is found is tuned anew
    table = ContenderTable(every, C, background, "", adds, RATIOS[-1], contenders, begins, decided, far, far[..., 0])
    return MemberTable(ensemble.inputs.fusion.members, table, scores, sets, members, background_of_all, stride)
