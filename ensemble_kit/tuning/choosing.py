"""How levels are chosen on some folds (docs/concepts.md#how-thresholds-are-chosen)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.execution.executor import in_threads
from ensemble_kit.spec.mean import Mean
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.tuning.bagging import DRAWS, FEW, Bag, best_levels, mean_level
from ensemble_kit.tuning.common_level import CommonLevels, Which
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.resampling import Counts, Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


def usual(choose: Choice | None, folds: int | None, by_argmax: bool = False) -> Choice:
    """Return a way of choosing, by default the one that transfers best; without folds each class's best level."""
    return choose or ("own" if not folds else "shrunk" if by_argmax else "bagged")


@dataclass(frozen=True)
class Outcome:
    """Counts of every class and sample under one way of choosing levels: int64 (classes, samples)."""

    tp: NDArray[np.int64]
    pred: NDArray[np.int64]

    def counts(self, pick: slice | NDArray[np.bool_] = slice(None)) -> Counts:
        """Return truth pixels and pixels of some classes."""
        return self.tp[pick], self.pred[pick]


class Outcomes:
    """Outcomes of several ways of choosing levels, each fold at levels of its own.

    Parameters
    ----------
    ways : their names.
    shape : how many classes, and how many samples.
    folds : sample numbers of each; the others have no counts.
    """

    def __init__(self, ways: Sequence[str], shape: tuple[int, ...], folds: Sequence[NDArray[np.int64]]) -> None:
        self._ways = list(ways)
        self._tp, self._pred = (np.zeros((len(self._ways), *shape), np.int64) for _ in range(2))
        self._samples = np.concatenate(folds)
        self._fold = np.repeat(np.arange(len(folds)), [fold.size for fold in folds])

    def put(self, c: int, curve: Curve, levels: Sequence[Sequence[int]]) -> None:
        """Fill in what class `c` does at the level of each way and fold; the class is released."""
        at = np.minimum(np.array(levels), curve.table.high).take(self._fold, axis=1)
        self._tp[:, c, self._samples], self._pred[:, c, self._samples] = curve.table.at_each(self._samples, at)
        curve.release()

    def by_way(self) -> dict[str, Outcome]:
        """Return them by the names of the ways."""
        return {name: Outcome(*own) for name, *own in zip(self._ways, self._tp, self._pred, strict=True)}


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
    threads : that work on classes.
    """

    curves: Sequence[Curve]
    names: Sequence[str]
    half: int
    choose: Choice
    mean: Mean
    seed: int
    threads: int = 1
    _seen: dict[Which, list[bool]] = field(default_factory=dict, repr=False)
    _shared: dict[Which, int] = field(default_factory=dict, repr=False)
    _bagged: dict[Which, list[int | None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.measure = self.curves[0].measure
        self.truth = np.stack([curve.table.truth for curve in self.curves])
        self.judge = Resampler(self.names, self.seed)
        self.every: Which = tuple(range(len(self.curves[0].folds)))

    def on(self, which: Which) -> Chosen:
        """Choose the levels of all classes."""
        has = self.has_positives(which)
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

    def has_positives(self, which: Which) -> list[bool]:
        """Tell of each class whether a sample of some folds has it."""
        if which not in self._seen:
            pixels = self.truth[:, self.curves[0].samples(which)].sum(axis=1)
            self._seen[which] = [count > 0 for count in pixels.tolist()]
        return self._seen[which]

    def best(self, c: int, which: Which, common: int, way: str = "own") -> int:
        """Return what a class takes for itself, bagged where that is the way; `common` where no sample has it."""
        bagged = self.bagged(which)[c] if way == "bagged" else None
        return self.own(c, which, common) if bagged is None else bagged

    def own(self, c: int, which: Which, common: int) -> int:
        """Return the best level of a class; `common` where no sample has the class."""
        if not self.has_positives(which)[c]:
            return common
        return self.curves[c].best(which).level

    def shared(self, which: Which) -> int:
        """Return the best level for all classes."""
        if which not in self._shared:
            self._solve(which)
        return self._shared[which]

    def bagged(self, which: Which) -> list[int | None]:
        """Return each class's mean best level over draws of groups; None where no draw has the class."""
        if which not in self._bagged:
            self._solve(which)
        return self._bagged[which]

    def _solve(self, which: Which) -> None:
        """Find the levels over some folds, and at once those over all unions that will be asked for.

        Classes are worked on in threads, and the sums of a class at every level are held only while it is.
        """
        outer = [self.every, *(without(k, self.every) for k in self.every if len(self.every) > 1)]
        inner = list(dict.fromkeys(without(k, rest) for rest in outer[1:] for k in rest))
        bagged = self.choose == "bagged"
        # inside folds a level for all classes is asked for by a class that they lack, or to judge each class's own
        lacking = any((self.truth[:, self.curves[0].samples(rest)] == 0).all(axis=1).any() for rest in outer)
        asked = [*outer, *(inner if lacking or self.choose == "shrunk" else [])]
        asked += [] if which in asked else [which]
        drawn = [*outer, *inner] if bagged else []
        drawn += [which] if bagged and which not in drawn else []
        bags = [Bag.of(self.names, self.curves[0].samples(w), self.seed, DRAWS if w in outer else FEW) for w in drawn]
        common = CommonLevels(self.curves, asked, self.half)

        def solved(curve: Curve) -> tuple[Curve, list[NDArray[np.int64]]]:
            for union in asked:
                if curve.has_positives(union):
                    curve.best(union)
            curve.load()
            return curve, best_levels(curve, bags, self.mean)

        found = []
        for curve, levels in in_threads(solved, self.curves, self.threads):
            common.add(curve)
            curve.release()
            found.append([mean_level(own) if own.size else None for own in levels])
        self._shared |= {union: common.level(union) for union in asked}
        self._bagged |= {union: [own[k] for own in found] for k, union in enumerate(drawn)}

    def out_of_fold(self, which: Which, ways: Sequence[str]) -> dict[str, Outcome]:
        """Fill in, for each fold of `which`, what levels chosen on the others of `which` do there.

        Parameters
        ----------
        ways : of "bagged", "own", "shared" and "half".
        """
        outcomes = Outcomes(ways, self.truth.shape, [self.curves[0].folds[j] for j in which])
        alone, rests = set(ways) <= {"bagged", "half"}, [without(j, which) for j in which]
        shared = [self.half if alone else self.shared(rest) for rest in rests]

        def levels(c: int, name: str) -> list[int]:
            if name in {"bagged", "own"}:
                return [self.best(c, rest, common, name) for rest, common in zip(rests, shared, strict=True)]
            return [self.half] * len(rests) if name == "half" else shared

        for c, curve in enumerate(self.curves):
            outcomes.put(c, curve, [levels(c, name) for name in ways])
        return outcomes.by_way()

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
