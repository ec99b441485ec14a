"""Tuning with rules: `compete`, `least-area` of each class, and thresholds at their optimum under both.

The rules are part of what is judged: out of fold, the ratio, the areas and the thresholds are all chosen without the
fold (`rule_choice.Rules`), from tables that were counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit.decisions.across import Compete, Nested
from ensemble_kit.decisions.areas import LeastArea
from ensemble_kit.decisions.clean import check_classes
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.strict_json import plain_number
from ensemble_kit.thresholds.crossed import ClassFolds, CrossValidation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_options import gather_options, images_of
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.curve import curves_of
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.resampling import Resampler
from ensemble_kit.tuning.rule_choice import Ruled, Rules
from ensemble_kit.tuning.statistics import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = (Compete, Nested, LeastArea)
RATIOS: tuple[Ratio, ...] = (None, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Ratios of competition that a search compares, the weakest first."""


@dataclass(frozen=True)
class Ruling:
    """Which rules a tuning looks for, and which are given.

    Parameters
    ----------
    compete : whether to choose the ratio of competition between all classes.
    areas : whether to choose a least area for each class.
    given : rules that hold anyway, in this order: `compete` and `nested`, each once, and `least-area`.

    Raises
    ------
    UsageError
        Rules of another kind or in another order, one twice, or one that is searched and given.
    """

    compete: bool = False
    areas: bool = False
    given: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        others = [r for r in self.given if not isinstance(r, _KINDS) or (isinstance(r, Nested) and r.grow)]
        if others:
            fix = "leave it out, search rules (--search post), or pass it to the vote (ensk vote --rule)"
            item = f"rule {str(others[0])!r}: thresholds are known for compete, nested without grow, and least-area"
            raise _refused(item, fix)
        kinds = [next(k for k, kind in enumerate(_KINDS) if isinstance(rule, kind)) for rule in self.given]
        if kinds != sorted(kinds):
            told = ", ".join(repr(str(rule)) for rule in self.given)
            raise _refused(f"rules in this order: {told}", "pass compete first, then nested, then least-area")
        for kind in {k for k in kinds if k < 2 and (kinds.count(k) > 1 or (k == 0 and self.compete))}:
            told = " and ".join(repr(str(r)) for r in self.given if isinstance(r, _KINDS[kind]))
            raise _refused(
                told + (" with a search of compete" if kind == 0 and self.compete else ""), "keep one of them"
            )

    def __bool__(self) -> bool:
        return self.compete or self.areas or bool(self.given)

    @property
    def ratios(self) -> tuple[Ratio, ...]:
        """The ratios to compare, or the one that is given."""
        if self.compete:
            return RATIOS
        return (next((rule.ratio for rule in self.given if isinstance(rule, Compete)), None),)

    def rivals(self, classes: Sequence[str]) -> list[int]:
        """Return the numbers of the classes that compete."""
        given = next((rule for rule in self.given if isinstance(rule, Compete)), None)
        return [c for c, name in enumerate(classes) if given is None or given.covers(name)]

    def nested(self, classes: Sequence[str]) -> list[int]:
        """Return the numbers of the classes of which each lies inside the one before."""
        given = next((rule for rule in self.given if isinstance(rule, Nested)), None)
        return [] if given is None else [classes.index(name) for name in given.classes or ()]

    def fixed(self, classes: Sequence[str], images: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        """Return the pixels that given least areas ask for in each image, by class number."""
        out: dict[int, NDArray[np.int64]] = {}
        for rule in (r for r in self.given if isinstance(r, LeastArea)):
            least = np.array([rule.least((size,)) for size in images.tolist()], np.int64)
            for c in (c for c, name in enumerate(classes) if rule.covers(name)):
                out[c] = np.maximum(out.get(c, 0), least)
        return out


def check_ruling(ruling: Ruling, ensemble: Ensemble) -> None:
    """Refuse rules that thresholds of these members cannot be tuned for.

    Raises
    ------
    MismatchError
        A rule for a class that the ensemble does not have.
    UsageError
        Competition of classes that exclude each other; a search for least areas of which none is left to choose.
    """
    check_classes(ruling.given, ensemble.classes)
    if ensemble.activation == "softmax" and any(ratio is not None for ratio in ruling.ratios):
        item = "compete: classes of softmax members exclude each other, so they compete at every pixel already"
        raise _refused(item, "leave compete out")
    fixed = [rule for rule in ruling.given if isinstance(rule, LeastArea)]
    if (cubic := next((rule for rule in fixed if rule.mm3 is not None), None)) is not None:
        raise _refused(f"rule {str(cubic)!r} counts mm³, and rules are tuned by voxels", "pass its size in voxels")
    if ruling.areas and all(any(rule.covers(name) for rule in fixed) for name in ensemble.classes):
        told = " and ".join(repr(str(rule)) for rule in fixed)
        fix = "leave one of the two out, or name the classes of which the area is known (least-area:120@CLASS)"
        raise _refused(f"{told} for every class with a search of least-area", fix)


def tune_ruled(
    found: ThresholdSet,
    ensemble: Ensemble,
    truth: MaskSet,
    ruling: Ruling,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    at_once: int | None = None,
) -> ThresholdSet:
    """Choose rules and thresholds together; return the set with both, its scores in-sample and out of fold.

    Parameters
    ----------
    found : the set of this ensemble and these folds that `tune_from` made, with its curves.
    folds, groups, seed : of the tuning.
    at_once : classes at a time whose tables are held.
    """
    check_ruling(ruling, ensemble)
    split, names = folds_of(ensemble.samples, folds, groups, seed)
    curves = curves_of(found)
    known = Statistics(ensemble.samples, ensemble.classes, tuple(curves[c].table for c in ensemble.classes), "")
    options = gather_options(
        ensemble,
        truth,
        found.measure,
        split,
        ruling.ratios,
        ruling.rivals(ensemble.classes),
        ruling.areas,
        ruling.fixed(ensemble.classes, images_of(ensemble)),
        known,
        executor,
        listener,
        at_once,
        ruling.nested(ensemble.classes),
    )
    rules = Rules(options, found.measure, split, ensemble.level_of(0.5))
    ruled = rules.ruled(ruling.ratios, ruling.areas)
    crossed = found.validation.crossed and _crossed(found, ruled, rules, known, names, seed)
    return _with_rules(found, ruling, ruled, rules, crossed)


def _with_rules(
    found: ThresholdSet,
    ruling: Ruling,
    ruled: Ruled,
    rules: Rules,
    crossed: CrossValidation | None,
) -> ThresholdSet:
    """Make the set of what was chosen on all samples."""
    chosen, measure = ruled.chosen, found.measure
    of_ratio = rules.options[chosen.ratio]
    competes = [str(Compete(chosen.ratio))] if ruling.compete and chosen.ratio is not None else []
    classes, texts = [], [*competes, *(str(rule) for rule in ruling.given)]
    for old, setting, own in zip(found.classes, chosen.settings, of_ratio, strict=True):
        best = own.described[setting]
        classes.append(replace(old, level=best.level, score=best.score, plateau=best.plateau, band=own.band))
        if setting.least is not None:
            texts.append(str(replace(setting.least, classes=(old.name,))))
    score = measure.of_all(*rules.counts(chosen.ratio, chosen.settings), rules.truth)
    told: dict[str, Any] = {
        "searched": [name for name, on in (("compete", ruling.compete), ("least-area", ruling.areas)) if on],
        "ratio": chosen.ratio,
        "ratios_of_folds": [fold.ratio for fold in ruled.by_fold],
        "without": {
            "choose": found.choose,
            "in_sample": plain_number(found.score),
            "out_of_fold": plain_number(found.validation.crossed.scores["tuned"]) if found.validation.crossed else None,
        },
    }
    validation = replace(found.validation, in_sample=score, crossed=crossed)
    what = {"what": told["searched"]} if told["searched"] and "what" not in found.search else {}
    choose = {"choose": "own"} if "choose" in found.search else {}
    search = {**found.search, **what, **choose, "ruled": told}
    return replace(found, classes=tuple(classes), validation=validation, rules=tuple(texts), search=search)


def _crossed(
    found: ThresholdSet, ruled: Ruled, rules: Rules, known: Statistics, names: Sequence[str], seed: int
) -> CrossValidation:
    """Judge what each fold chose: the whole against 0.5 without rules, and each class."""
    measure, before, truth = found.measure, cast("CrossValidation", found.validation.crossed), rules.truth
    at_half = [table.at(min(max(rules.half, table.low), table.high)) for table in known.tables]
    half = np.stack([tp for tp, _ in at_half]), np.stack([pred for _, pred in at_half])
    seen = truth.sum(axis=1) > 0
    picks: list[Any] = [*(slice(c, c + 1) for c in range(len(truth))), seen]
    pairs = [((ruled.tp[p], ruled.pred[p]), (half[0][p], half[1][p]), truth[p]) for p in picks]
    *gains, gain, score = Resampler(names, seed).intervals(measure, [*pairs, ((ruled.tp, ruled.pred), None, truth)])
    classes = {
        name: ClassFolds(
            tuple(fold.settings[c].level for fold in ruled.by_fold),
            gains[c],
            bool(seen[c]),
            measure.of_class(ruled.tp[c], ruled.pred[c], truth[c]),
        )
        for c, name in enumerate(known.classes)
    }
    scores = {**before.scores, "tuned": measure.of_all(ruled.tp, ruled.pred, truth)}
    honest = replace(before, scores=scores, gain=gain, classes=classes, as_decided=None, score=score)
    return replace(honest, shrink=False, common_level=rules.half)


def _refused(item: str, fix: str) -> UsageError:
    return UsageError("option-invalid", "cannot tune with these rules", item=item, fix=fix)
