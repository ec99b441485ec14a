"""What each class can choose at a ratio of competition: its best level, with and without a least area.

The tables that tell are gone as soon as it is known, so several ratios take the memory of a few classes at one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.records import Best
from ensemble_kit.tuning.areas import AreaCurve, Setting
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.competing import Ratio, count_competing
from ensemble_kit.tuning.counting import HIGHS, LOWS
from ensemble_kit.tuning.inside import CountInside, count_inside
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.statistics import Statistics, check_truth, count

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassOptions:
    """What one class can choose at one ratio.

    Parameters
    ----------
    band : levels that were counted; no other is better.
    own, gated : by union of folds, the best level of the samples there, without and with a least area.
    counts : of every setting that can be chosen, and of the level of 0.5: hits and pixels of every sample.
    described : of those that all samples choose: the score, and the levels around with the same score.
    truth : int64 (samples,).
    """

    band: Band
    own: Mapping[tuple[int, ...], Setting]
    gated: Mapping[tuple[int, ...], Setting]
    counts: Mapping[Setting, Counts]
    described: Mapping[Setting, Best]
    truth: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        curve: AreaCurve,
        unions: Sequence[tuple[int, ...]],
        half: int,
        areas: bool,
        enclosing: tuple[int, ...] = (),
    ) -> ClassOptions:
        """Read them off a curve; the first union is that of all folds, or of some under `nested`.

        With folds a class that no sample has takes the level of 0.5: only its false pixels would speak.
        """
        table, plain = curve.plain.table, Setting(half, None, enclosing)

        def chosen(find: Callable[[Sequence[int]], Setting], which: tuple[int, ...]) -> Setting:
            informed = len(curve.plain.folds) == 1 or curve.plain.has_positives(which)
            return find(which)._replace(enclosing=enclosing) if informed else plain

        own = {which: chosen(curve.own, which) for which in unions}
        gated = {which: chosen(curve.gated, which) for which in unions} if areas else own
        first = {plain, own[unions[0]], gated[unions[0]]}
        counts = {setting: curve.counts(setting) for setting in {*own.values(), *gated.values(), *first}}
        described = {setting: curve.described(setting) for setting in first}
        return cls((table.low, table.high), own, gated, counts, described, table.truth)

    def joined(self, other: ClassOptions) -> ClassOptions:
        """Add what can be chosen on other unions, inside other masks."""
        band = min(self.band[0], other.band[0]), max(self.band[1], other.band[1])
        own, gated = {**self.own, **other.own}, {**self.gated, **other.gated}
        counts, described = {**self.counts, **other.counts}, {**self.described, **other.described}
        return ClassOptions(band, own, gated, counts, described, self.truth)


def unions_of(folds: int) -> list[tuple[int, ...]]:
    """Return the unions of folds that choices are made on: all, all but one, all but two."""
    every = tuple(range(folds))
    if folds == 1:
        return [every]
    pairs = [(i, k) for i in every for k in every if i <= k]
    return [every, *(tuple(j for j in every if j not in pair) for pair in pairs)]


def images_of(ensemble: Ensemble) -> NDArray[np.int64]:
    """Return the pixels of each sample's image, int64 (samples,)."""
    return np.array([np.prod(ensemble.image_size(s)) for s in ensemble.samples], np.int64)


def gather_options(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    split: Sequence[NDArray[np.int64]],
    ratios: Sequence[Ratio],
    rivals: Sequence[int],
    areas: bool,
    fixed: Mapping[int, NDArray[np.int64]] | None = None,
    known: Statistics | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    at_once: int | None = None,
    nested: Sequence[int] = (),
) -> dict[Ratio, list[ClassOptions]]:
    """Count at several ratios in a band of levels, and widen it for the classes that need it until all is certain.

    Parameters
    ----------
    split : sample numbers of each fold; one fold of all without a cross-validation.
    ratios : None is no competition.
    rivals : numbers of the classes that compete.
    areas : whether to look for least areas.
    fixed : by class number, the least area in pixels of each sample that is given and not looked for.
    known : statistics without competition; a class that they suffice for is not counted without it.
    at_once : classes that a pass counts; default: all.
    nested : numbers of classes of which each lies inside the one before.
    """
    check_truth(ensemble, truth)
    half, unions = ensemble.level_of(0.5), unions_of(len(split))
    images = images_of(ensemble)
    given = fixed or {}
    found: dict[Ratio, dict[int, ClassOptions]] = {ratio: {} for ratio in ratios}

    def look(ratio: Ratio, c: int, table: ClassStatistics) -> tuple[bool, bool]:
        """Keep what a table tells, and tell whether it is certain below its band, and above it."""
        free = areas and c not in given
        curve = AreaCurve(table.emptied(given[c]) if c in given else table, measure, split, unions, images)
        sides = [curve.certain(which, free) for which in unions[:1]]
        if sides == [(True, True)]:  # else it is counted again, in a wider band
            sides += [curve.certain(which, free) for which in unions[1:]]
            found[ratio][c] = ClassOptions.of(curve, unions, half, free)
        return all(below for below, _ in sides), all(above for _, above in sides)

    missing, gates = list(ratios), areas or bool(given)
    if known is not None and None in ratios and not (gates and truth.has_void and not known.tells_areas):
        certain = [look(None, c, table) for c, table in enumerate(known.tables)]
        if all(below and above for below, above in certain):
            missing.remove(None)
    todo = dict.fromkeys(range(len(ensemble.classes)) if missing else (), (0, 0))
    how = executor, listener, gates
    at_once = at_once and max(1, at_once // len(ratios))
    while todo:
        bands = {c: (LOWS[low], HIGHS[high]) for c, (low, high) in todo.items()}
        wider, step = dict[int, tuple[int, int]](), at_once or len(bands)
        for first in range(0, len(bands), step):
            some = dict(list(bands.items())[first : first + step])
            tables: dict[Ratio, dict[int, ClassStatistics]]
            if missing == [None]:
                tables = {None: count(ensemble, truth, some, *how)}
            else:
                tables = count_competing(ensemble, truth, some, missing, rivals, *how)
            for c in some:
                sides = [look(ratio, c, tables[ratio].pop(c)) for ratio in missing]
                low, high = (not all(side[k] for side in sides) for k in (0, 1))
                if low or high:
                    wider[c] = todo[c][0] + low, todo[c][1] + high
        todo = wider

    def look_inside(ratio: Ratio, depth: int) -> ClassOptions:
        """Find what a class can choose inside those that enclose it, at the levels that each union chose for them."""
        c, around = nested[depth], tuple(nested[:depth])
        free = areas and c not in given
        by_levels: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for which in unions:
            levels = tuple((found[ratio][a].gated if areas else found[ratio][a].own)[which].level for a in around)
            by_levels.setdefault(levels, []).append(which)
        parts, wide = dict[tuple[int, ...], ClassOptions](), (0, 0)
        while len(parts) < len(by_levels):
            missing = tuple(levels for levels in by_levels if levels not in parts)
            band = LOWS[wide[0]], HIGHS[wide[1]]
            work = CountInside(ensemble.inputs, c, band, around, missing, ratio, tuple(rivals))
            low = high = False
            for levels, table in count_inside(ensemble, truth, work, executor, listener).items():
                counted = table.emptied(given[c]) if c in given else table
                curve = AreaCurve(counted, measure, split, by_levels[levels], images)
                sides = [curve.certain(which, free) for which in by_levels[levels]]
                low |= not all(below for below, _ in sides)
                high |= not all(above for _, above in sides)
                if all(below and above for below, above in sides):
                    parts[levels] = ClassOptions.of(curve, by_levels[levels], half, free, levels)
            wide = wide[0] + low, wide[1] + high
        return reduce(ClassOptions.joined, parts.values())

    for depth in range(1, len(nested)):
        for ratio in ratios:
            found[ratio][nested[depth]] = look_inside(ratio, depth)
    return {ratio: [of_ratio[c] for c in range(len(ensemble.classes))] for ratio, of_ratio in found.items()}
