"""The highest level of every class whose risk is known to be low enough, exact over all 65,536 levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.decisions.decision import Vote
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.risk import Risk
from ensemble_kit.thresholds.guarantee import ClassRisk, Guarantee
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.counting import count_until
from ensemble_kit.tuning.statistics import Statistics
from ensemble_kit.tuning.truth import items_with_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Levels = NDArray[np.int64]


class Counts(NamedTuple):
    """Pixels of every class and sample at some levels, int64 (classes, samples) each."""

    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def losses(self) -> NDArray[np.float64]:
        """The share of the truth that is missed, float64 (classes, samples); 0 where the truth is empty."""
        return (self.truth - self.tp) / np.maximum(self.truth, 1)


def counts_at(tables: Sequence[ClassStatistics], levels: Sequence[int]) -> Counts:
    """Read the counts at a level of each class off its table."""
    pairs = [table.at(int(level)) for table, level in zip(tables, levels, strict=True)]
    tp, pred = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    return Counts(tp, pred, np.stack([table.truth for table in tables]))


@dataclass(frozen=True)
class Control:
    """A risk to control, over groups of samples.

    Parameters
    ----------
    groups : int64 (samples,), the group of each sample, 0 … G - 1.
    """

    risk: Risk
    groups: NDArray[np.int64]

    def accepts(self, counts: Counts) -> NDArray[np.bool_]:
        """Tell of each class whether its risk is low enough; over "all" the same of every class."""
        told = self.risk.accepts(self.risk.of_groups(counts.losses, self.groups))
        return np.broadcast_to(told, counts.tp.shape[:1])

    def edges(self, tables: Sequence[ClassStatistics]) -> tuple[Levels, Levels]:
        """Return the lowest and the highest level to choose from, of each class; over "all" of all classes."""
        lows, highs = np.array([t.low for t in tables]), np.array([t.high for t in tables])
        if self.risk.over == "all":
            lows, highs = np.full_like(lows, lows.max()), np.full_like(highs, highs.min())
        return lows, highs

    def certain(self, tables: Mapping[int, ClassStatistics], counted: Iterable[int]) -> Mapping[int, tuple[bool, bool]]:
        """Tell whether the highest accepted level lies in each class's band: it can be no lower and no higher."""
        own = [tables[c] for c in range(len(tables))]
        lows, highs = self.edges(own)
        below = (lows == 0) | self.accepts(counts_at(own, lows.tolist()))
        above = (highs == LEVELS) | ~self.accepts(counts_at(own, highs.tolist()))
        return {c: (bool(below[c]), bool(above[c])) for c in counted}

    def levels(self, tables: Sequence[ClassStatistics]) -> Levels:
        """Find the highest accepted level of each class, int64 (classes,), in bands that are certain to hold it."""
        lows, highs = self.edges(tables)
        return highest(lambda levels: self.accepts(counts_at(tables, levels.tolist())), lows, highs - 1)

    def guarantee(self, counts: Counts, classes: Sequence[str], levels: Sequence[int]) -> Guarantee:
        """Say what is controlled at the chosen levels, from the counts there."""
        losses = self.risk.of_groups(counts.losses, self.groups)
        bounds, means = self.risk.bound(losses), losses.mean(1)
        of_class = replace(self.risk, over="class").of_groups(counts.losses, self.groups)
        has = np.stack([np.bincount(self.groups, row) > 0 for row in counts.truth > 0])
        found = {}
        for c, name in enumerate(classes):
            bound = float(bounds[c]) if self.risk.over == "class" else None
            there = float(of_class[c, has[c]].mean()) if has[c].any() else math.nan
            found[name] = ClassRisk(levels[c], float(of_class[c].mean()), bound, int(has[c].sum()), there)
        worst = int(bounds.argmax())
        return Guarantee(self.risk, losses.shape[1], float(means[worst]), float(bounds[worst]), found)


def highest(accepts: Callable[[Levels], NDArray[np.bool_]], low: Levels, high: Levels) -> Levels:
    """Find the highest level of each class that is accepted, by halving `low … high`.

    Parameters
    ----------
    accepts : tells it for a level of each class; what it accepts, it accepts at every lower level.
    low : is accepted.
    """
    good, bad = low.copy(), high + 1
    while (bad - good > 1).any():
        middle = (good + bad) // 2
        yes = accepts(middle) | (middle == good)
        good, bad = np.where(yes, middle, good), np.where(yes, bad, middle)
    return good


def statistics_for_risk(
    control: Control,
    ensemble: Ensemble,
    truth: MaskSet,
    executor: Executor,
    listener: Listener = nobody,
) -> Statistics:
    """Count in a band of levels, and widen it until the highest accepted level of every class lies in it."""
    return count_until(control.certain, ensemble, truth, executor, listener)


@dataclass(frozen=True)
class CountCleaned:
    """The work of voting one sample and counting its masks; an item's truth is its `Truth`."""

    vote: Vote

    def __call__(self, item: Item) -> tuple[list[int], list[int]]:
        """Return the truth pixels, and the pixels, of each class."""
        image, runs = self.vote(item)
        truth, masks = item.truth, runs.masks(image)
        if truth.void is not None:
            masks = [mask - truth.void for mask in masks]
        return overlaps(masks, truth.masks).tolist(), [mask.area for mask in masks]


def counts_after(
    rules: tuple[Rule, ...],
    ensemble: Ensemble,
    truth: MaskSet,
    areas: NDArray[np.int64],
    levels: Sequence[int],
    executor: Executor,
    listener: Listener = nobody,
) -> Counts:
    """Count the masks that a vote with rules gives at a level of each class: one pass over the stores."""
    decision = Thresholds(dict(zip(ensemble.classes, map(int, levels), strict=True)))
    items = items_with_truth(ensemble.samples, truth, ensemble.classes)
    work = CountCleaned(Vote(ensemble.inputs, decision, rules))
    found = np.array(list(executor.map(work, items, "voting", listener)), np.int64)  # (samples, 2, classes)
    return Counts(found[:, 0].T, found[:, 1].T, areas)


def check_monotone(rules: Iterable[Rule]) -> None:
    """Refuse rules after which a lower threshold may miss more.

    Raises
    ------
    UsageError
        It names the rule.
    """
    for rule in rules:
        if not rule.monotone:
            raise UsageError(
                "risk-rule",
                "cannot control a risk after this rule",
                item=f"with {str(rule)!r} a lower threshold can miss more of the truth, so none bounds the risk",
                fix="use a set without it, or leave --thresholds out",
            )
