"""Thresholds, least areas and the ratio of competition, chosen together from counted tables, and judged out of fold.

No pixel is looked at: each ratio has tables of its own, and a least area only gates the samples of a table. So what was
chosen on some folds is judged on another at once, and every choice is made again without the fold that judges it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.areas import Setting
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.curve import or_perfect
from ensemble_kit.tuning.options import ClassOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Chosen:
    """What was chosen on some samples.

    Parameters
    ----------
    ratio : of `compete`; None without.
    settings : of each class.
    keeps : for each class, whether it has its own level, and not that of 0.5.
    """

    ratio: Ratio
    settings: tuple[Setting, ...]
    keeps: tuple[bool, ...]


@dataclass(frozen=True)
class Ruled:
    """What all samples choose, what those outside each fold choose, and how that does on the fold.

    Parameters
    ----------
    chosen, by_fold : the choices; none by fold without folds.
    tp, pred : out of fold, int64 (classes, samples): hits and pixels.
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
    half : the level of 0.5.
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

    def ruled(self, ratios: Sequence[Ratio], areas: bool, shrink: bool = True) -> Ruled:
        """Choose on all samples and on those outside each fold, and judge the latter on the fold.

        Parameters
        ----------
        ratios : those to choose from, the simplest first; None is no competition.
        areas : whether classes may have a least area.
        shrink : with folds, whether a class that its own level does not help out of fold takes that of 0.5, and one
            that its least area does not help has none; without, each class is at its optimum.
        """
        every = tuple(range(len(self.folds)))
        out = np.zeros((2, *self.truth.shape), np.int64)
        by_fold = []
        for k, fold in enumerate(self.folds if len(every) > 1 else ()):
            by_fold.append(self.choose(ratios, areas, tuple(j for j in every if j != k), shrink))
            self._put(by_fold[-1].ratio, by_fold[-1].settings, fold, out)
        return Ruled(self.choose(ratios, areas, every, shrink), tuple(by_fold), out[0], out[1])

    def choose(self, ratios: Sequence[Ratio], areas: bool, which: tuple[int, ...], shrink: bool = True) -> Chosen:
        """Choose on the samples of some folds: the ratio that scores best, and each class's setting at it.

        Of several folds the ratio, and whether a class has a level and a least area of its own, go by scores on folds
        that did not choose them. Among equals the simpler is taken.
        """
        seen = np.concatenate([self.folds[j] for j in which])
        best, best_score = None, -1.0
        for ratio in ratios:
            kinds = self._kinds(ratio, areas, which)
            inner = self._out_of_fold(ratio, areas, which) if len(which) > 1 else None
            names, out = [], np.zeros((2, *self.truth.shape), np.int64)
            for c in range(len(self.truth)):
                name = next(reversed(kinds))
                if shrink and inner is not None:
                    name = max(kinds, key=lambda n: self._score(inner[n], c, seen))
                names.append(name)
                out[:, c] = self.options[ratio][c].counts[kinds[name][c]] if inner is None else inner[name][:, c]
            score = or_perfect(self.measure.of_all(*(v[:, seen] for v in (*out, self.truth))))
            if score > best_score:
                settings = tuple(kinds[name][c] for c, name in enumerate(names))
                best, best_score = Chosen(ratio, settings, tuple(name != "half" for name in names)), score
        assert best is not None
        return best

    def _kinds(self, ratio: Ratio, areas: bool, which: tuple[int, ...]) -> dict[str, list[Setting]]:
        """Return the settings that each class may choose from, as some folds have them, the simplest first."""
        seen, of_ratio = np.concatenate([self.folds[j] for j in which]), self.options[ratio]
        half = Setting(self.half)
        # of a class that no sample has only false pixels would speak; without folds that is what is asked for
        has = (self.truth[:, seen].sum(axis=1) > 0) | (len(self.folds) == 1)
        kinds = {"half": [half] * len(of_ratio)}
        for name in ("own", "area") if areas else ("own",):
            best = [(of_class.gated if name == "area" else of_class.own)[which] for of_class in of_ratio]
            kinds[name] = [setting if own else half for setting, own in zip(best, has, strict=True)]
        return kinds

    def _out_of_fold(self, ratio: Ratio, areas: bool, which: tuple[int, ...]) -> dict[str, NDArray[np.int64]]:
        """Count, on each of some folds, what the others of them choose: by kind of setting, (2, classes, samples)."""
        out: dict[str, NDArray[np.int64]] = {}
        for k in which:
            for name, settings in self._kinds(ratio, areas, tuple(j for j in which if j != k)).items():
                counts = out.setdefault(name, np.zeros((2, *self.truth.shape), np.int64))
                self._put(ratio, settings, self.folds[k], counts)
        return out

    def _put(self, ratio: Ratio, settings: Sequence[Setting], fold: NDArray[np.int64], out: NDArray[np.int64]) -> None:
        for c, setting in enumerate(settings):
            tp, pred = self.options[ratio][c].counts[setting]
            out[0, c, fold], out[1, c, fold] = tp[fold], pred[fold]

    def _score(self, counts: NDArray[np.int64], c: int, seen: NDArray[np.int64]) -> float:
        return or_perfect(self.measure.of_class(*(v[c, seen] for v in (*counts, self.truth))))
