"""What a stack is worth on samples that did not fit it, beside the soft mean of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import dice
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.crossed import Interval
from ensemble_kit.tuning.choosing import Chooser
from ensemble_kit.tuning.counting import folds_of, statistics_for
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups, group_of
from ensemble_kit.tuning.resampling import Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pair = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

_MEAN = Measure("mean", "dice", Convention(0.0, 1))
_LEGEND = (
    "Mean Dice over (sample, class) of samples that did not choose what scores them; two empty masks count 1. Gain: "
    "of the stack's better figure over the soft mean's better one, without classes that no sample has, with its 95 % "
    "bootstrap interval over groups."
)


@dataclass(frozen=True)
class StackScores:
    """Mean Dice out of fold.

    Parameters
    ----------
    mean, mean_tuned : of the members' soft mean at 0.5 (of exclusive classes by argmax), and with tuned thresholds.
    stack, stack_tuned : of the stack's out-of-fold logits likewise.
    gain : of the stack's better figure over the soft mean's better one, without classes that no sample has.
    """

    mean: float
    stack: float
    gain: Interval
    mean_tuned: float | None = None
    stack_tuned: float | None = None

    def warnings(self) -> list[Caution]:
        """Say where the stack does not beat the soft mean."""
        gain = self.gain
        if gain.value <= 0:
            doubt = f"the stack does not beat the soft mean of its members out of fold: {gain}"
            return [Caution(doubt, "vote with the members themselves, or fit on more samples")]
        if gain.low <= 0:
            doubt = f"the stack's gain over the soft mean is not above noise: {gain}"
            return [Caution(doubt, "tune and vote both, or fit on more samples")]
        return []

    def report(self) -> Report:
        """Describe them in a table."""
        rows = [["soft mean of the members", f"{self.mean:.4f}", _text(self.mean_tuned), ""]]
        rows.append(["stack", f"{self.stack:.4f}", _text(self.stack_tuned), f"{self.gain}"])
        return Report("Out of fold", ["", "untuned", "tuned", "gain"], rows, _LEGEND, [], self.warnings())

    def to_dict(self) -> dict[str, Any]:
        """Return them by name, for JSON."""
        return {**vars(self), "gain": vars(self.gain)}


def judge(
    ensemble: Ensemble,
    stacked: Ensemble,
    truth: MaskSet,
    folds: int,
    groups: Groups,
    seed: int,
    executor: Executor,
    listener: Listener,
) -> StackScores:
    """Score the members' soft mean and the stack's out-of-fold logits, untuned and, of overlapping classes, tuned.

    Parameters
    ----------
    ensemble, stacked : members, and the store of out-of-fold logits, of the same samples.
    folds, groups, seed : of the fit; thresholds are tuned on the other folds, each class by itself.
    """
    resampler = Resampler(group_of(ensemble.samples, groups), seed)
    wanted = truth.arranged(ensemble.samples, ensemble.classes)

    def untuned(e: Ensemble) -> Pair:
        found = dice(e.vote(executor=executor, listener=listener).arranged(e.samples, e.classes), wanted)
        return found.tp.T, found.pred.T, found.truth.T

    def score(counts: Pair) -> float:
        return _MEAN.of_all(*counts)

    def counted(counts: Pair) -> Pair:  # a class that no sample has says nothing: as in every gain
        some = counts[2].any(axis=1)
        tp, pred, true = (c[some] for c in counts) if some.any() else counts
        return tp, pred, true

    def gain(ours: Sequence[Pair], theirs: Sequence[Pair]) -> Interval:
        one, other = (max(map(counted, pairs), key=score) for pairs in (ours, theirs))
        return resampler.interval(_MEAN, one[:2], other[:2], other[2])

    mean, ours = untuned(ensemble), untuned(stacked)
    plain = score(mean), score(ours)
    if ensemble.activation == "softmax":
        return StackScores(*plain, gain([ours], [mean]))
    how = folds, groups, seed
    tuned_mean, tuned = (_tuned(e, truth, *how, executor, listener) for e in (ensemble, stacked))
    best = gain([ours, tuned], [mean, tuned_mean])
    return StackScores(*plain, best, score(tuned_mean), score(tuned))


def _tuned(
    ensemble: Ensemble,
    truth: MaskSet,
    folds: int,
    groups: Groups,
    seed: int,
    executor: Executor,
    listener: Listener,
) -> Pair:
    """Count what each class's own best threshold of the other folds does on every fold."""
    how = folds, groups, seed
    known = statistics_for(ensemble, truth, _MEAN, *how, executor=executor, listener=listener)
    split, names = folds_of(ensemble.samples, *how)
    curves = [Curve(table, _MEAN, split) for table in known.tables]
    chooser = Chooser(curves, names, ensemble.level_of(0.5), "own", ensemble.fusion.mean, seed)
    own = chooser.out_of_fold(chooser.every, ("own",))["own"]
    return *own.counts(), chooser.truth


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
