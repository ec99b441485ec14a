"""`ThresholdBench`: settings that decide each class by a threshold, with competition and least areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ensemble_kit.decisions.across import Compete
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.areas import Setting
from ensemble_kit.tuning.class_options import ClassOptions, gather_options
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.search.bench import Bench, Ruling
from ensemble_kit.tuning.search.ladder import Candidate


@dataclass
class ThresholdBench(Bench):
    """Counts of settings by thresholds: of each fusion and ratio what classes can choose, read off one pass."""

    _options: dict[tuple[tuple[tuple[int, ...], str], Ratio], Sequence[ClassOptions]] = field(default_factory=dict)

    def _is_counted(self, candidate: Candidate) -> bool:
        return (candidate.fusion, candidate.ratio) in self._options

    def _count(self, candidates: Sequence[Candidate]) -> None:
        fused, ratios = self.fused(candidates[0]), list(dict.fromkeys(c.ratio for c in candidates))
        self.passes += 1
        found = gather_options(
            fused, self.truth_masks, self.measure, self.folds, ratios, range(len(fused.classes)), areas=True,
            executor=self.executor, listener=self.listener, at_once=self.at_once,
        )  # fmt: skip
        self._options |= {(candidates[0].fusion, ratio): options for ratio, options in found.items()}

    def settings(self, candidate: Candidate, which: tuple[int, ...]) -> list[Setting]:
        """Return the level and the least area of each class that some folds chose."""
        half, seen = Setting(self.fused(candidate).level_of(0.5)), np.concatenate([self.folds[j] for j in which])
        out = []
        for c, options in enumerate(self._options[candidate.fusion, candidate.ratio]):
            best = (options.gated if candidate.kind == "areas" else options.own)[which]
            out.append(best if candidate.kind != "plain" and self.truth[c, seen].any() else half)
        return out

    def _fitted(self, candidate: Candidate, which: tuple[int, ...]) -> Counts:
        options = self._options[candidate.fusion, candidate.ratio]
        found = [o.counts[s] for o, s in zip(options, self.settings(candidate, which), strict=True)]
        return np.stack([tp for tp, _ in found]), np.stack([pred for _, pred in found])

    def decided(self, candidate: Candidate, which: tuple[int, ...]) -> Ruling:
        """Return the thresholds that some folds chose, and all rules in the order in which they are applied."""
        settings, names = self.settings(candidate, which), self.ensemble.classes
        levels = Thresholds({name: s.level for name, s in zip(names, settings, strict=True)})
        return levels, parse_rules([*_fitted_rules(candidate.ratio, settings, names), *candidate.rules])

    def values(self, candidate: Candidate, which: tuple[int, ...]) -> list[int]:
        """Return the level of each class that some folds chose; by the rank rule, that of 0.5."""
        if candidate.kind == "rank":
            return [self.fused(candidate).level_of(0.5)] * len(self.ensemble.classes)
        return [setting.level for setting in self.settings(candidate, which)]

    def recorded(self, candidate: Candidate, crossed: CrossValidation, seed: int) -> ThresholdSet:
        """Make the set: its thresholds, and the rules that belong to them."""
        every = tuple(range(len(self.folds)))
        if candidate.kind == "rank":
            return self.ranked(candidate, crossed, seed)
        found = self.in_classes(candidate, crossed, seed, self.values(candidate, every))
        found = replace(found, rules=tuple(map(str, self.decided(candidate, every)[1])))
        if candidate.rules:  # whose plateaus nobody knows
            return found
        options, settings = self._options[candidate.fusion, candidate.ratio], self.settings(candidate, every)
        plateaus = [own.described[setting].plateau for own, setting in zip(options, settings, strict=True)]
        classes = [replace(c, plateau=plateau) for c, plateau in zip(found.classes, plateaus, strict=True)]
        return replace(found, classes=tuple(classes))


def _fitted_rules(ratio: Ratio, settings: Sequence[Setting], names: Sequence[str]) -> list[str]:
    """Write the rules that go with settings: competition, then each least area for the classes that have it."""
    texts = [] if ratio is None else [str(Compete(ratio))]
    for least in dict.fromkeys(s.least for s in settings if s.least is not None):
        own = tuple(name for name, s in zip(names, settings, strict=True) if s.least == least)
        texts.append(str(replace(least, classes=None if len(own) == len(names) else own)))
    return texts
