"""`FactorBench`: settings that give each pixel to the class of the largest score, times a factor or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.spec.factors import ONE
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_options import unions_of
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.factorfolds import FoldedFits
from ensemble_kit.tuning.factors import recorded
from ensemble_kit.tuning.gathering import gather
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.search.bench import Bench, Ruling
from ensemble_kit.tuning.search.ladder import Candidate
from ensemble_kit.tuning.sweeps import Fitted, Widening


@dataclass
class FactorBench(Bench):
    """Counts of settings by argmax: of each fusion the pixels that factors can change.

    Parameters
    ----------
    background : a class that takes its pixels, and is not scored.
    jobs : threads of the fits.
    """

    background: str | None = None
    jobs: int = 1
    _fits: dict[tuple[tuple[int, ...], str], FoldedFits] = field(default_factory=dict)

    @property
    def scored(self) -> list[int]:
        """Numbers of the classes that count: all but the background."""
        return [c for c, name in enumerate(self.ensemble.classes) if name != self.background]

    def _is_counted(self, candidate: Candidate) -> bool:
        return candidate.fusion in self._fits

    def _count(self, candidates: Sequence[Candidate]) -> None:
        fused = self.fused(candidates[0])

        def gathered(ratio: int) -> ContenderTable:
            self.passes += 1
            return gather(fused, self.truth_masks, ratio, self.background, self.executor, self.listener)

        wider = Widening(gathered, [gathered(RATIOS[0])])
        fits = FoldedFits(wider, self.measure, self.folds, self.jobs, self.listener)
        fits.prepare([(frozenset(which), None) for which in unions_of(len(self.folds))])
        self._fits[candidates[0].fusion] = fits

    def _of(self, candidate: Candidate, which: tuple[int, ...]) -> Fitted:
        fits, C = self._fits[candidate.fusion], len(self.ensemble.classes)
        return fits.of(which) if candidate.kind == "fitted" else Fitted((ONE,) * C, ((ONE, ONE),) * C, 0.0, 0)

    def _fitted(self, candidate: Candidate, which: tuple[int, ...]) -> Counts:
        tp, pred = self._fits[candidate.fusion].table.counts(self._of(candidate, which).factors)
        return tp[:, self.scored].T, pred[:, self.scored].T

    def decided(self, candidate: Candidate, which: tuple[int, ...]) -> Ruling:
        """Return argmax with the factors that some folds chose, and the rules."""
        named = dict(zip(self.ensemble.classes, self._of(candidate, which).factors, strict=True))
        argmax = Argmax({name: factor / ONE for name, factor in named.items()}, self.background)
        return argmax, parse_rules(candidate.rules)

    def values(self, candidate: Candidate, which: tuple[int, ...]) -> list[int]:
        """Return the factor of each class that some folds chose; by the rank rule, the level of 0.5."""
        if candidate.kind == "rank":
            return [self.fused(candidate).level_of(0.5)] * len(self.ensemble.classes)
        return list(self._of(candidate, which).factors)

    def recorded(self, candidate: Candidate, crossed: CrossValidation, seed: int) -> ThresholdSet:
        """Make the set: its factors, and the rules that belong to them."""
        if candidate.kind == "rank":
            return self.ranked(candidate, crossed, seed)
        every, fused = tuple(range(len(self.folds))), self.fused(candidate)
        fits = self._fits[candidate.fusion]
        fitted = self._of(candidate, every)
        counts = [fits.table.counts(factors) for factors in (fitted.factors, (ONE,) * len(fused.classes))]
        if candidate in self._voted:
            for all_classes, own in zip(counts[0], self.counts(candidate, every), strict=True):
                all_classes[:, self.scored] = own.T
        how = {"method": "exact", "seed": seed, "trials": None, "sweeps": fitted.sweeps, "choose": "own"}
        found = recorded(fits.table, fused, self.measure, fitted, crossed, how, counts, None)
        return replace(found, rules=candidate.rules)
