"""Gather the contenders of an ensemble's pixels, and check the truth that they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.masks.labelmaps import overlap_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.tuning.contenders import ContenderTable, concatenated, room_of
from ensemble_kit.tuning.statistics import check_truth, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ExclusiveTruth(NamedTuple):
    """The truth of one sample: the masks of all classes, none over another, and the pixels that do not count."""

    masks: ManyRuns
    void: Runs


class Gathered(NamedTuple):
    """One sample's contenders, and its counts as `ContenderTable` has them."""

    contenders: Contenders
    decided: NDArray[np.int64]
    far: NDArray[np.int32]
    doubt: NDArray[np.int32]


@dataclass(frozen=True)
class GatherContenders:
    """The work of gathering one sample; an item has its `ExclusiveTruth`."""

    inputs: Inputs
    ratio: int

    def __call__(self, item: Item) -> Gathered:
        """Evaluate the image some rows at a time, and keep what is undecided."""
        from ensemble_kit.kernels import factors as kernels

        scores, C, (masks, void) = open_sample(self.inputs, item.sample), len(self.inputs.classes), item.truth
        room, parts = room_of(self.ratio, self.inputs.fusion.mean.of_logits), []
        decided, doubt = np.zeros((C + 1, C), np.int64), np.zeros((room.shifts.size - 1, C, C), np.int32)
        far = np.zeros((*doubt.shape, 2), np.int32)
        for values, labels in scores.open_values(masks, void, self.ratio, decided):
            parts.append(kernels.gather(values, labels, room, decided, far, doubt))
        return Gathered(concatenated(parts), decided, far, doubt)


def gather(
    ensemble: Ensemble,
    truth: MaskSet,
    ratio: int,
    background: str | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> ContenderTable:
    """Gather contenders for factors that are at most 2^`ratio` apart, in one pass over the stores.

    Parameters
    ----------
    truth : as `exclusive_truth` returns it.
    background : a class whose mask is not written.
    """
    work = GatherContenders(ensemble.inputs, ratio)
    rows = list(executor.map(work, items_with_exclusive_truth(ensemble, truth), "counting", listener))
    return ContenderTable(
        ensemble.samples,
        ensemble.classes,
        background,
        source_of(ensemble, truth),
        ensemble.fusion.mean.of_logits,
        ratio,
        concatenated([row.contenders for row in rows]),
        np.cumsum([0, *(row.contenders.truth.size for row in rows)]),
        np.stack([row.decided for row in rows]),
        np.stack([row.far for row in rows]),
        np.stack([row.doubt for row in rows]),
    )


def items_with_exclusive_truth(ensemble: Ensemble, truth: MaskSet) -> Items:
    """Make the items of a pass, each with its sample's `ExclusiveTruth`."""

    def of(sample: str) -> ExclusiveTruth:
        return ExclusiveTruth(ManyRuns.of([truth[sample, name] for name in ensemble.classes]), truth.void(sample))

    return Items(ensemble.samples, of)


def exclusive_truth(ensemble: Ensemble, truth: MaskSet, background: str | None = None) -> MaskSet:
    """Return the truth of all of an ensemble's classes, one class a pixel; a background that it lacks is empty.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, samples or image sizes, or a pixel of it in two classes.
    UsageError
        A background that is not among the ensemble's classes.
    """
    what = "cannot tune factors"
    if background is not None and background not in ensemble.classes:
        item = f"the background {background!r} is not among the classes: {', '.join(ensemble.classes)}"
        raise UsageError("option-invalid", what, item=item, fix="pass one of them, or none")
    extra = [name for name in truth.classes if name not in ensemble.classes]
    if len(extra) == 1 and set(truth.classes) == {*ensemble.classes, *extra}:
        raise MismatchError(
            "classes-differ",
            what,
            item=f"the truth has the class {extra[0]!r}, for which the stores have no logits, so no pixel can win it",
            fix=f"dump the network's output of {extra[0]!r} too, or leave it out of the truth (--except {extra[0]})",
        )
    if background is not None and background not in truth.classes:
        truth = _with_empty(truth, background)
    check_truth(ensemble, truth)
    if clash := overlap_of(truth.packed, truth.indices(truth.samples, truth.classes)):
        row, *pair = clash
        one, other = (truth.classes[c] for c in pair)
        raise MismatchError(
            "truth-overlaps",
            what,
            item=f"sample {truth.samples[row]!r}: a pixel of the truth lies in {one!r} and in {other!r}, "
            "and argmax gives a pixel one class",
            fix="pass truth with one class a pixel, or tune thresholds (--decide threshold)",
        )
    return truth


def _with_empty(truth: MaskSet, name: str) -> MaskSet:
    """Add a class whose masks are empty."""
    sizes = {sample: truth.image_size(sample) for sample in truth.samples}
    runs = ManyRuns.joined([truth.packed, ManyRuns.of([Runs.empty((1, 1))])])
    added = np.full((len(sizes), 1), runs.offsets.size - 2)
    indices = np.concatenate([truth.indices(truth.samples, truth.classes), added], axis=1)
    void = {sample: truth.void(sample) for sample in truth.samples}
    return MaskSet.trusted(sizes, (*truth.classes, name), runs, indices, truth.rule, void)
