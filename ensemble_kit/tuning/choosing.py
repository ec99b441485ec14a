"""How levels are chosen on some folds (docs/concepts.md#how-thresholds-are-chosen)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.tuning.bagging import DRAWS, FEW, Bag, best_levels, mean_level
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.resampling import Counts, Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


Which = tuple[int, ...]
"""Numbers of some folds."""


def usual(choose: Choice | None, folds: int | None, by_argmax: bool = False) -> Choice:
    """Return a way of choosing, by default the one that transfers best; without folds each class's best level."""
    return choose or ("own" if not folds else "shrunk" if by_argmax else "bagged")


class Outcome:
    """Counts of every class and sample under one way of choosing levels: int64 (classes, samples)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.tp, self.pred = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def counts(self, pick: slice | NDArray[np.bool_] = slice(None)) -> Counts:
        """Return truth pixels and pixels of some classes."""
        return self.tp[pick], self.pred[pick]

    def put(self, c: int, fold: int, curve: Curve, level: int) -> None:
        """Fill in what class `c` does on a fold's samples at `level`."""
        tp, pred = curve.table.at(min(level, curve.table.high))
        samples = curve.folds[fold]
        self.tp[c, samples], self.pred[c, samples] = tp[samples], pred[samples]


@dataclass(frozen=True)
class Chosen:
    """The level of each class.

    Parameters
    ----------
    levels : what decides.
    own : what each class would take for itself, bagged where that is the choice.
    keeps : whether it does; the others have the common level.
    common : the best shared level, or that of 0.5.
    shares : which of the two.
    """

    levels: list[int]
    own: list[int]
    keeps: list[bool]
    common: int
    shares: bool


@dataclass
class Chooser:
    """Chooses levels from the samples of some folds alone.

    Parameters
    ----------
    curves : one a class; they hold the folds.
    names : the group of each sample.
    half : the level of 0.5.
    mean : the scale of levels.
    seed : of the draws.
    """

    curves: Sequence[Curve]
    names: Sequence[str]
    half: int
    choose: Choice
    mean: Mean
    seed: int
    _own: dict[tuple[int, Which], int] = field(default_factory=dict, repr=False)
    _shared: dict[Which, int] = field(default_factory=dict, repr=False)
    _bagged: dict[Which, list[int | None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.measure = self.curves[0].measure
        self.truth = np.stack([curve.table.truth for curve in self.curves])
        self.judge = Resampler(self.names, self.seed)
        self.every: Which = tuple(range(len(self.curves[0].folds)))

    def on(self, which: Which) -> Chosen:
        """Choose the levels of all classes."""
        has = [curve.has_positives(which) for curve in self.curves]
        asked = which == self.every or not all(has)  # inside folds, absent classes alone ask for the common level
        if self.choose == "shared":
            shares, keeps = True, [False] * len(has)
        elif self.choose == "shrunk":
            shares, keeps = self._above_noise(which)
            keeps = [kept and seen for kept, seen in zip(keeps, has, strict=True)]
        elif self.choose == "bagged" and not self._gains(which, "bagged"):
            shares, keeps = False, [False] * len(has)
        else:
            shares, keeps = asked and self._gains(which, "shared"), has
        common = self.shared(which) if shares else self.half
        own = [self.best(c, which, common, self.choose) for c in range(len(has))]
        levels = [level if kept else common for level, kept in zip(own, keeps, strict=True)]
        return Chosen(levels, own, keeps, common, shares)

    def best(self, c: int, which: Which, common: int, way: str = "own") -> int:
        """Return what a class takes for itself, bagged where that is the way; `common` where no sample has it."""
        bagged = self.bagged(which)[c] if way == "bagged" else None
        return self.own(c, which, common) if bagged is None else bagged

    def own(self, c: int, which: Which, common: int) -> int:
        """Return the best level of a class; `common` where no sample has the class."""
        if not self.curves[c].has_positives(which):
            return common
        if (c, which) not in self._own:
            self._own[c, which] = self.curves[c].best(which).level
        return self._own[c, which]

    def shared(self, which: Which) -> int:
        """Return the best level for all classes."""
        if which not in self._shared:
            self._shared[which] = shared_level(self.curves, which, self.half)
        return self._shared[which]

    def bagged(self, which: Which) -> list[int | None]:
        """Return each class's mean best level over draws of groups; None where no draw has the class."""
        if which not in self._bagged:
            # all that will be asked for at once: a class's counts by level are large, and made once
            outer = [self.every, *(without(k, self.every) for k in self.every if len(self.every) > 1)]
            inner = dict.fromkeys(without(k, rest) for rest in outer[1:] for k in rest)
            wanted = [*outer, *inner]
            bags = [
                Bag.of(self.names, self.curves[0].samples(w), self.seed, DRAWS if w in outer else FEW) for w in wanted
            ]
            found = [best_levels(curve, bags, self.mean) for curve in self.curves]
            for k, folds in enumerate(wanted):
                self._bagged[folds] = [mean_level(drawn[k]) if drawn[k].size else None for drawn in found]
        return self._bagged[which]

    def out_of_fold(self, which: Which, ways: Sequence[str]) -> dict[str, Outcome]:
        """Fill in, for each fold of `which`, what levels chosen on the others of `which` do there.

        Parameters
        ----------
        ways : of "bagged", "own", "shared" and "half".
        """
        outcomes = {name: Outcome(self.truth.shape) for name in ways}
        for j in which:
            inner = without(j, which)
            shared = self.half if set(ways) <= {"bagged", "half"} else self.shared(inner)
            for c, curve in enumerate(self.curves):
                for name, outcome in outcomes.items():
                    common = self.half if name == "half" else shared
                    level = self.best(c, inner, common, name) if name in {"bagged", "own"} else common
                    outcome.put(c, j, curve, level)
        return outcomes

    def _gains(self, which: Which, way: str) -> bool:
        """Tell whether a way gains above noise over 0.5, out of fold; without folds it is taken."""
        if len(which) < 2:
            return True
        outcomes = self.out_of_fold(which, (way, "half"))
        seen = self.curves[0].samples(which)
        has = self.truth[:, seen].sum(axis=1) > 0
        ours, half = (outcomes[name].counts(has) for name in (way, "half"))
        return self.judge.above_noise(self.measure, ours, half, self.truth[has], seen)

    def _above_noise(self, which: Which) -> tuple[bool, list[bool]]:
        """Tell whether the shared level gains above noise over 0.5, and each class's own over the better of the two."""
        outcomes = self.out_of_fold(which, ("own", "shared", "half"))
        own, shared, half = (outcomes[name] for name in ("own", "shared", "half"))
        seen = self.curves[0].samples(which)
        has = self.truth[:, seen].sum(axis=1) > 0
        picks = [slice(c, c + 1) for c in range(len(self.truth))]
        over_shared, over_half = ([(own.counts(p), o.counts(p), self.truth[p]) for p in picks] for o in (shared, half))
        # the resamples are drawn once for both answers to the first question
        pairs = [(shared.counts(has), half.counts(has), self.truth[has]), *over_shared, *over_half]
        shares, *keeps = self.judge.are_above_noise(self.measure, pairs, seen)
        return shares, keeps[: len(picks)] if shares else keeps[len(picks) :]


def without(k: int, which: Which) -> Which:
    """Return some folds but fold `k`."""
    return tuple(j for j in which if j != k)


def shared_level(curves: Sequence[Curve], which: Sequence[int], half: int = (LEVELS - 1) // 2) -> int:
    """Find the one level for all classes that maximises the objective over all; the nearest to 0.5 among equals.

    Only the band that all classes were counted in is searched. A class without positives has no say; where no class
    has any, it is `half`, the level of 0.5.
    """
    low, high = max(c.table.low for c in curves), min(c.table.high for c in curves)
    curves = [c for c in curves if c.has_positives(which)]
    if not curves:
        return half
    cut = [slice(low - c.table.low, high - c.table.low) for c in curves]
    if curves[0].measure.objective == "pooled":
        score = sum(c.scores(which)[own] for c, own in zip(curves, cut, strict=True))
    else:
        sums = [c.sums(which) for c in curves]
        top, foot = (sum(s[k][own] for s, own in zip(sums, cut, strict=True)) for k in (0, 1))
        score = np.where(np.asarray(foot) == 0, 1.0, np.asarray(top) / np.maximum(foot, 1))
    best = np.flatnonzero(np.asarray(score) >= np.max(score) - 1e-12) + low
    return int(min(best.tolist(), key=lambda level: (abs(2 * level - (LEVELS - 1)), level)))
