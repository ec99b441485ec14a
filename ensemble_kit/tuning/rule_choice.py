"""Thresholds, least areas and the ratio of competition, chosen together from counted tables, and judged out of fold.

No pixel is looked at: each ratio has tables of its own, and a least area only gates the samples of a table. So what was
chosen on some folds is judged on another at once, and every choice is made again without the fold that judges it.

Each class takes its own optimum, whatever that gains. To leave out a least area, or a threshold, that loses out of fold
was tried: it costs more by its own noise than it saves (DESIGN 53).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.areas import Setting
from ensemble_kit.tuning.choosing import without
from ensemble_kit.tuning.class_options import ClassOptions
from ensemble_kit.tuning.common_level import Which
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.curve import or_perfect
from ensemble_kit.tuning.resampling import Counts

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Chosen:
    """What was chosen on some samples.

    Parameters
    ----------
    ratio : of `compete`; None without.
    settings : of each class.
    """

    ratio: Ratio
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Ruled:
    """What all samples choose, what those outside each fold choose, and how that does on the fold.

    Parameters
    ----------
    chosen, by_fold : the choices; none by fold without folds.
    tp, pred : out of fold, int64 (classes, samples): hits and pixels; zeros without folds.
    """

    chosen: Chosen
    by_fold: tuple[Chosen, ...]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]


class Rules:
    """What classes can choose at some ratios of competition, and what is best of it, out of fold.

    Parameters
    ----------
    options : of each class, by ratio (`gather_options`).
    measure : what is maximised.
    folds : sample numbers of each; one fold of all without a cross-validation.
    half : the level of 0.5, which a class takes that no sample has, where there are folds.
    """

    def __init__(
        self,
        options: Mapping[Ratio, Sequence[ClassOptions]],
        measure: Measure,
        folds: Sequence[NDArray[np.int64]],
        half: int,
    ) -> None:
        self.options, self.measure, self.folds, self.half = options, measure, folds, half
        self.truth = np.stack([of_class.truth for of_class in next(iter(options.values()))])

    def ruled(self, ratios: Sequence[Ratio], areas: bool) -> Ruled:
        """Choose on all samples and on those outside each fold, and judge the latter on the fold.

        Parameters
        ----------
        ratios : those to choose from, the simplest first; None is no competition.
        areas : whether classes may have a least area.
        """
        every, by_fold = tuple(range(len(self.folds))), list[Chosen]()
        for k in every if len(every) > 1 else ():
            by_fold.append(self.choose(ratios, areas, without(k, every)))
        settings = {k: (chosen.ratio, chosen.settings) for k, chosen in enumerate(by_fold)}
        tp, pred = self._judged(settings)
        return Ruled(self.choose(ratios, areas, every), tuple(by_fold), tp, pred)

    def choose(self, ratios: Sequence[Ratio], areas: bool, which: Which) -> Chosen:
        """Choose on the samples of some folds: the ratio that scores best, and each class's setting at it.

        Of several folds a ratio is scored on each by the settings that the others choose. Among equals the first is
        taken.
        """
        seen = np.concatenate([self.folds[j] for j in which])
        scores = []
        for ratio in ratios if len(ratios) > 1 else ():
            if len(which) > 1:
                tp, pred = self._judged({k: (ratio, self.settings(ratio, areas, without(k, which))) for k in which})
            else:
                tp, pred = self.counts(ratio, self.settings(ratio, areas, which))
            scores.append(or_perfect(self.measure.of_all(tp[:, seen], pred[:, seen], self.truth[:, seen])))
        ratio = ratios[int(np.argmax(scores))] if scores else ratios[0]
        return Chosen(ratio, self.settings(ratio, areas, which))

    def settings(self, ratio: Ratio, areas: bool, which: Which) -> tuple[Setting, ...]:
        """Return each class's best setting at a ratio, on the samples of some folds."""
        return tuple((of_class.gated if areas else of_class.own)[which] for of_class in self.options[ratio])

    def counts(self, ratio: Ratio, settings: Sequence[Setting]) -> Counts:
        """Return hits and pixels of every class and sample under some settings, int64 (classes, samples) each."""
        found = [own.counts[setting] for own, setting in zip(self.options[ratio], settings, strict=True)]
        return np.stack([tp for tp, _ in found]), np.stack([pred for _, pred in found])

    def _judged(self, settings: Mapping[int, tuple[Ratio, Sequence[Setting]]]) -> Counts:
        """Count, on the samples of each fold, what its ratio and settings do there; zeros on all other samples."""
        tp, pred = np.zeros_like(self.truth), np.zeros_like(self.truth)
        for k, (ratio, of_fold) in settings.items():
            fold, counts = self.folds[k], self.counts(ratio, of_fold)
            tp[:, fold], pred[:, fold] = (v[:, fold] for v in counts)
        return tp, pred
