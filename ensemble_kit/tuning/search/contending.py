"""The members' scores at pixels whose winner weights or factors can change: all that a trial of weights looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import integer_weights
from ensemble_kit.spec.mean import LEVELS, LOGIT, PROBABILITY
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable, room_of
from ensemble_kit.tuning.gathering import VOID, items_with_exclusive_truth, label_map
from ensemble_kit.tuning.search.undecided import Setting, Trial
from ensemble_kit.tuning.sweeps import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 6
"""Logarithm to base 2 of the ratio of factors that a trial is exact for: 64."""
MEMORY = 100 * 10**6
"""Bytes that members' scores may take unless the user says otherwise: one or two seconds a trial."""
_PROBES = 4  # samples that tell how many pixels there will be


class MemberPixels(NamedTuple):
    """Undecided pixels of one sample.

    Parameters
    ----------
    truth, counts : uint16 and int64 (n,), class of the truth, and how many classes can win the pixel.
    classes : uint16 (entries,), ascending within a pixel.
    scores : uint16 (entries, M), the members' own.
    decided : int64 (C + 1, C), the other pixels by class of the truth and winner.
    """

    truth: NDArray[np.uint16]
    counts: NDArray[np.int64]
    classes: NDArray[np.uint16]
    scores: NDArray[np.uint16]
    decided: NDArray[np.int64]

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
            alone.append(FusedSample(Inputs((member,), inputs.classes, fusion), item.sample))
        labels = label_map(item.truth)
        first = min(self.stride // 2, len(labels) - 1)
        rows = [self._row(alone, y, labels[y]) for y in range(first, len(labels), self.stride)]
        decided = sum((row.decided for row in rows), np.zeros((C + 1, C), np.int64))
        truth, counts, classes, scores = (np.concatenate([row[k] for row in rows]) for k in range(4))
        return MemberPixels(truth, counts, classes, scores, decided)

    def _row(self, alone: list[FusedSample], y: int, truth: NDArray[np.uint16]) -> MemberPixels:
        C, adds = len(self.inputs.classes), self.inputs.fusion.mean.of_logits
        cut = slice(self.stride // 2, None, self.stride)
        truth = truth[cut]
        scores = np.stack([sample.values(y, y + 1)[:, 0, cut] >> 16 for sample in alone])
        top = scores.max(1, keepdims=True)
        gap = int(room_of(REACH, True).gaps[0]) >> 16
        # a share that is so small in every member is too small in any mean of them, or nearly so of other means
        reach = scores + gap >= top if adds else scores * (len(alone) << REACH) >= top
        kept = reach.any(0) & (truth != VOID)
        several = kept.sum(0) > 1
        one = (truth != VOID) & ~several
        decided = np.bincount(truth[one] * np.int64(C) + kept[:, one].argmax(0), minlength=(C + 1) * C)
        pixels, classes = np.nonzero(kept[:, several].T)
        own = scores[:, classes, np.flatnonzero(several)[pixels]].T
        counts = kept[:, several].sum(0)
        return MemberPixels(
            truth[several], counts, classes.astype(np.uint16), own.astype(np.uint16), decided.reshape(C + 1, C)
        )


@dataclass(frozen=True)
class MemberTable:
    """The members' scores at the undecided pixels of all samples.

    A trial is exact on the pixels that it looks at for factors at most 64 apart, with mean="probability" or "logit"
    and upsample="logits"; what is found is tuned anew from the stores.

    Parameters
    ----------
    names : of the members.
    table : contenders, whose values are still to be fused.
    scores : uint16 (entries, M).
    stride : every stride-th pixel of every stride-th row stands for the rest.
    """

    names: tuple[str, ...]
    table: ContenderTable
    scores: NDArray[np.uint16]
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
        weights = integer_weights(setting.weights, self.names)
        scale, values = setting.mean.scale, np.zeros(self.scores.shape[0], np.uint32)
        for m, weight in enumerate(weights):
            own = self.scores[:, m] if setting.mean.of_logits else scale[self.scores[:, m]]
            values += own * np.uint32(weight)
        table = replace(self.table, contenders=self.table.contenders._replace(values=values))
        found = fit(table, measure, lambda narrow: narrow, samples)  # its ratio is the largest: no search asks for more
        return Trial(round(found.score, 12), found.factors)


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
    sizes = [CollectContenders(ensemble.inputs, 1)(item).bytes for item in probes]
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
    C = ensemble.classes
    far = np.zeros((len(rows), 0, len(C), len(C), 2), np.int32)
    begins = np.cumsum([0, *(row.truth.size for row in rows)])
    decided, adds = np.stack([row.decided for row in rows]), ensemble.fusion.mean.of_logits
    # all ratios are searched, though contenders beyond 64 are missing: what is found is tuned anew
    table = ContenderTable(every, C, background, "", adds, RATIOS[-1], contenders, begins, decided, far, far[..., 0])
    return MemberTable(ensemble.fusion.members, table, scores, stride)
