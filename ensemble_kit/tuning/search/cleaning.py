"""The search over rules of post-processing, on the components of masks at a few levels of every class.

Components do not change with a rule's numbers: they are found once for every candidate level, with holes and without,
and a trial then only adds up the areas and hits of those that stay. Within the candidates the level of each class is
the exact best under the trial's rules.

The smallest-component rule alone needs neither candidates nor trials where scores add up over samples: `sizes.py` finds
the best of all levels at each of 16 sizes, and the study's rules have to score higher than that.

Where each sample is a volume that says how large its voxels are, sizes are in mm³, and there is no gate, which counts
voxels: rules that are chosen then mean the same at another spacing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.connected import FillHoles, KeepLargest
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import Gate
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.curve import curves_of
from ensemble_kit.tuning.search import sizes, studies
from ensemble_kit.tuning.search.samplers import Dimension, Params
from ensemble_kit.tuning.search.units import Sizes
from ensemble_kit.tuning.statistics import count, source_of
from ensemble_kit.tuning.truth import items_with_truth, true_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.scoring import Measure
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

_CANDIDATES = 15  # levels of each class that trials choose from
_WORTH = 0.9  # candidates score at least this share of the best level without rules
_TOPS = (0.5, 0.6, 0.7, 0.8, 0.9)  # top thresholds of a gate
_MOST = 3  # components that keep-largest may keep


@dataclass(frozen=True)
class _Components:
    """Components of one class: group g = candidate x samples + sample has `offsets[g]:offsets[g+1]` of the others.

    Those are each component's pixels, its true pixels, and its void pixels; None where no sample has any.
    """

    offsets: NDArray[np.int64]
    areas: NDArray[np.int64]
    hits: NDArray[np.int64]
    void: NDArray[np.int64] | None

    @classmethod
    def of(cls, groups: Sequence[tuple[NDArray[np.int64], ...]]) -> _Components:
        areas, hits, void = (np.concatenate(each) for each in zip(*groups, strict=True))
        return cls(np.cumsum([0, *(g[0].size for g in groups)]), areas, hits, void if void.any() else None)

    def kept(self, least: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pixels that are not void, and hits, of each group without components below `least`, of its sample.

        Of the others the `most` largest stay; 0 keeps all.
        """
        from ensemble_kit.kernels import undecided

        pred, tp, void = np.empty((3, self.offsets.size - 1), np.int64)
        undecided.kept_components(self.offsets, self.areas, self.hits, least, most, pred, tp)
        if self.void is not None:
            undecided.kept_components(self.offsets, self.areas, self.void, least, most, pred, void)
            pred -= void
        return pred, tp


@dataclass(frozen=True)
class _Class:
    """One class: its candidates, their components with holes and filled, the truth, and pixels above each top."""

    levels: tuple[int, ...]
    plain: _Components
    filled: _Components
    truth: NDArray[np.int64]
    tops: NDArray[np.int64]
    sizes: Sizes

    def best(self, params: Params, measure: Measure) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Return the best candidate under a trial's rules, and its hits and pixels in every sample."""
        table = self.filled if params["fill-holes"] else self.plain
        least = self.sizes.least(params["drop-small"])
        pred, tp = (v.reshape(len(self.levels), -1) for v in table.kept(least, int(params["keep-largest"])))
        if params.get("gate-area", 1) > 1:
            passes = self.tops[_top(params)] >= params["gate-area"]
            pred, tp = pred * passes, tp * passes
        scores = [measure.of_class(t, p, self.truth) for t, p in zip(tp, pred, strict=True)]
        k = int(np.argmax(np.nan_to_num(scores, nan=1.0)))
        return k, tp[k], pred[k]


def _top(params: Params) -> int:
    return int(np.argmin(np.abs(np.array(_TOPS) - params["gate-top"])))


def rules_of(params: Params, of: Sizes) -> tuple[Rule, ...]:
    """Return the rules that a trial's parameters stand for, in the order in which they are applied."""
    rules: list[Rule] = []
    if params.get("gate-area", 1) > 1:
        rules.append(Gate(_TOPS[_top(params)], int(params["gate-area"])))
    if params["fill-holes"]:
        rules.append(FillHoles())
    if (of.least(params["drop-small"]) > 1).any():
        rules.append(of.rule(params["drop-small"]))
    if params["keep-largest"]:
        rules.append(KeepLargest(int(params["keep-largest"])))
    return tuple(rules)


def search(
    ensemble: Ensemble,
    truth: MaskSet,
    tuned: ThresholdSet,
    plan: studies.Plan,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> tuple[ThresholdSet, dict[str, Any]]:
    """Find rules for all classes, and the level of each class under them; return the set with both, and the record.

    Classes that take the common threshold keep it. The first trial has no rules. The best trial is taken where it
    scores higher than the smallest-component rule alone at its exact best.

    Parameters
    ----------
    tuned : the set of this ensemble that `tune_from` made.
    plan : of the study.
    """
    measure = tuned.measure
    classes = _collect(ensemble, truth, tuned, executor, listener)
    dimensions, first = _space(classes)
    of = classes[0].sizes
    about = {
        "source": source_of(ensemble, truth),
        "objective": str(measure),
        "what": ["post"],
        "levels": [list(c.levels) for c in classes],
        **({"unit": "mm3"} if of.in_mm3 else {}),
    }
    done = studies.run(plan, dimensions, [first], lambda p: _score(classes, p, measure), about, listener, "cleaning")
    rules, value = rules_of(done.best, of), done.value
    found = [c.best(done.best, measure) for c in classes]
    levels: Sequence[int] = [c.levels[k] for c, (k, _, _) in zip(classes, found, strict=True)]
    tp, pred = (np.stack([f[k] for f in found]) for k in (1, 2))
    record: dict[str, Any] = {
        **done.to_dict(),
        "first": round(done.trials[0], 9),
        "candidates": _CANDIDATES,
        "params": {name: round(value, 6) for name, value in done.best.items()},
    }
    if sizes.applies(measure):
        tried = of.spread(_areas(classes), sizes.SIZES)
        exact = sizes.search(ensemble, truth, tuned, tried, executor, listener, in_mm3=of.in_mm3)
        record["exact"] = exact.to_dict()
        if exact.score >= value:
            rules, value = (exact.rule,) if exact.rule else (), exact.score
            levels, tp, pred = exact.levels, exact.tp, exact.pred
    if not rules:
        return tuned, record
    scores = [measure.of_class(t, p, c.truth) for t, p, c in zip(tp, pred, classes, strict=True)]
    chosen = tuple(
        replace(old, level=level, score=score, plateau=(level, level))
        for old, level, score in zip(tuned.classes, levels, scores, strict=True)
    )
    validation = replace(tuned.validation, in_sample=value)
    return replace(tuned, classes=chosen, validation=validation, rules=tuple(str(r) for r in rules)), record


def describe(exact: Mapping[str, Any]) -> str:
    """Say what the smallest-component rule alone reaches."""
    sure = "certain for all 65,536" if exact["certain"] else "not certain beyond the band that was looked at"
    return (
        f"Smallest component alone, the best of all levels at each of {len(exact['sizes'])} sizes: "
        f"{exact['rule'] or 'none goes'}, {exact['score']:.4f}; {sure}."
    )


def _score(classes: Sequence[_Class], params: Params, measure: Measure) -> float:
    found = [c.best(params, measure) for c in classes]
    tp, pred = (np.stack([f[k] for f in found]) for k in (1, 2))
    return measure.of_all(tp, pred, _areas(classes))


def _space(classes: Sequence[_Class]) -> tuple[list[Dimension], Params]:
    of = classes[0].sizes
    few = tuple(map(float, of.spread(_areas(classes), 5)))
    least, most, step = few[0], few[-1], None if of.in_mm3 else 1
    dimensions = [
        Dimension("drop-small", least, most, log=True, step=step, grid=few),  # 1 pixel: nothing is dropped
        Dimension("keep-largest", 0, _MOST, step=1, grid=(0, 1, 2)),  # 0: all are kept
        Dimension("fill-holes", 0, 1, step=1, grid=(0, 1)),
    ]
    first: Params = {"drop-small": least, "keep-largest": 0, "fill-holes": 0}
    if all(c.tops.size for c in classes) and not of.in_mm3:
        dimensions += [
            Dimension("gate-area", 1, most, log=True, step=1, grid=few),  # 1 pixel: no gate
            Dimension("gate-top", _TOPS[0], _TOPS[-1], step=0.1, grid=_TOPS),
        ]
        first |= {"gate-area": 1, "gate-top": _TOPS[0]}
    return dimensions, first


def _areas(classes: Sequence[_Class]) -> NDArray[np.int64]:
    """Pixels of the truth, int64 (classes, samples)."""
    return np.stack([c.truth for c in classes])


@dataclass(frozen=True)
class LabelCandidates:
    """The work of finding one sample's components: of every class, at every candidate level, with holes and filled.

    An item has the `Truth` of these classes.
    """

    inputs: Inputs
    levels: tuple[tuple[int, tuple[int, ...]], ...]

    def __call__(self, item: Item) -> list[list[tuple[Any, Any]]]:
        """Return areas, hits and void pixels of the components, by class and candidate."""
        scores = open_sample(self.inputs, item.sample)
        true, void = item.truth
        out = []
        for (c, levels), wanted in zip(self.levels, true, strict=True):
            masks = [scores.runs(c, level) for level in levels]
            out.append([(_pieces(m, wanted, void), _pieces(FillHoles().apply(m), wanted, void)) for m in masks])
        return out


def _collect(
    ensemble: Ensemble, truth: MaskSet, tuned: ThresholdSet, executor: Executor, listener: Listener
) -> list[_Class]:
    """Find the components of every sample and class at the candidate levels, in one pass over the stores."""
    levels = [_candidates(tuned, c.name, c.level) for c in tuned.classes]
    names = [c.name for c in tuned.classes]
    numbers = [ensemble.classes.index(name) for name in names]
    work = LabelCandidates(ensemble.inputs, tuple(zip(numbers, levels, strict=True)))
    items = items_with_truth(ensemble.samples, truth, names)
    rows = list(executor.map(work, items, "labelling", listener))
    curves = curves_of(tuned)
    tables = [curves[name].table for name in names]
    if truth.has_void:  # a gate looks at all pixels, and the curves leave out void ones
        band = ensemble.level_of(_TOPS[0]), ensemble.level_of(_TOPS[-1]) + 1
        counted = count(ensemble, truth.without_void(), dict.fromkeys(numbers, band), executor, listener)
        tables = [counted[c] for c in numbers]
    tops = [_above_tops(ensemble, table) for table in tables]
    usable = all(t is not None for t in tops)
    true, classes, of = true_areas(ensemble.samples, truth, names), [], Sizes.of(ensemble)
    for c in range(len(names)):
        plain, filled = (
            _Components.of([row[c][k][side] for k in range(len(levels[c])) for row in rows]) for side in (0, 1)
        )
        above = tops[c] if usable else None
        tops_of = np.zeros(0, np.int64) if above is None else above
        classes.append(_Class(levels[c], plain, filled, true[c], tops_of, of))
    return classes


def _candidates(tuned: ThresholdSet, name: str, level: int) -> tuple[int, ...]:
    """Choose levels around the best one where the class scores nearly as well, evenly spread over those that occur."""
    crossed = tuned.validation.crossed
    if crossed is not None and not crossed.classes[name].keeps:
        return (level,)
    curve = curves_of(tuned)[name]
    scores, breaks = curve.scores(range(len(curve.folds))), curve.table.breaks
    good = breaks[scores[np.minimum(breaks, curve.table.high) - curve.table.low] >= _WORTH * scores.max()]
    good = good[good > 0]
    if not good.size:
        return (level,)
    spread = good[np.linspace(0, good.size - 1, min(_CANDIDATES - 1, good.size)).astype(int)]
    return tuple(dict.fromkeys([level, *spread.tolist()]))


def _above_tops(ensemble: Ensemble, table: ClassStatistics) -> NDArray[np.int64] | None:
    """Count each sample's pixels at or above every top threshold (tops, samples); None where the band does not tell."""
    levels = [ensemble.level_of(top) for top in _TOPS]
    if levels[0] < table.low or levels[-1] > table.high:
        return None
    return np.stack([table.at(level)[1] for level in levels])


def _pieces(mask: Runs, truth: Runs, void: Runs | None) -> tuple[NDArray[np.int64], ...]:
    """Return area, hits and void pixels of every component, in the order of their first pixels."""
    from ensemble_kit.kernels import components

    neighbours = 8 if len(mask.shape) == 2 else 26
    starts, ends, labels, areas = components.components(mask.starts, mask.ends, *mask.shape[-2:], neighbours)
    inside = (_hits_before(m, ends) - _hits_before(m, starts) for m in (truth, void or Runs.empty(mask.shape)))
    return areas, *(np.bincount(labels, hits, areas.size).astype(np.int64) for hits in inside)


def _hits_before(truth: Runs, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count truth pixels that stand before each position."""
    lengths = np.concatenate([[0], np.cumsum(truth.ends - truth.starts)])
    k = np.searchsorted(truth.starts, positions, side="right")
    beyond = np.where(k > 0, np.maximum(truth.ends[np.maximum(k - 1, 0)] - positions, 0), 0) if len(truth) else 0
    return np.asarray(lengths[k] - beyond)
