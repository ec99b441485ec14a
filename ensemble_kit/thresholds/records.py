"""The values of which a threshold set consists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ensemble_kit.once import once
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.mean import Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.guarantee import Guarantee
from ensemble_kit.thresholds.members import MemberRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.scores.class_sets import ClassSets


@dataclass(frozen=True)
class Calibration:
    """Two numbers that are equal for calibrated scores: the best threshold for pooled Dice, and half of that Dice.

    Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", 2014.
    """

    threshold: float
    half_dice: float

    @classmethod
    def of(cls, pooled: Best, mean: Mean) -> Calibration:
        """Make them from the best level for pooled Dice."""
        return cls(mean.probability_of(pooled.level), pooled.score / 2)

    @property
    def distance(self) -> float:
        """How far the two are apart."""
        return abs(self.threshold - self.half_dice)

    @property
    def is_off(self) -> bool:
        """Tell whether the two are more than a tenth apart: then the scores are not probabilities."""
        return self.distance > 0.1


@dataclass(frozen=True)
class ClassThreshold:
    """The threshold of one class and what it did on validation.

    Parameters
    ----------
    level : what decides, 0 … 65535.
    score, score_at_half : the objective there and at 0.5; NaN where every sample is skipped.
    plateau : levels around it with the same score, both ends included.
    positives, samples : validation samples where the truth is not empty, and all of them.
    band : levels that were scanned, half-open; the others are certified not to be better.
    calibration : whether the class's scores are probabilities.
    """

    name: str
    level: int
    score: float
    score_at_half: float
    plateau: tuple[int, int]
    positives: int
    samples: int
    band: tuple[int, int]
    calibration: Calibration


@dataclass(frozen=True)
class ClassFactor:
    """The factor of one exclusive class and what it did on validation.

    Parameters
    ----------
    factor : what the class's score is multiplied by before the largest is taken, 512 … 8388608, 65536 for 1.
    score, score_at_one : the class's objective with all factors of the set, and with all at 1; NaN where every sample
        is skipped.
    plateau : factors around it with the same objective, both ends included.
    positives, samples : validation samples where the truth is not empty, and all of them.
    """

    name: str
    factor: int
    score: float
    score_at_one: float
    plateau: tuple[int, int]
    positives: int
    samples: int


@dataclass(frozen=True)
class DecisionRecord:
    """How a set decides, as its file says it.

    Parameters
    ----------
    kind : "threshold" by the classes' levels, "argmax" by their factors, "rank" by each mask's expected Dice.
    background : of argmax, the class that is computed but not written.
    least : of argmax, the probability that the winner must reach.
    temperature : of the rank rule.
    """

    kind: Literal["threshold", "argmax", "rank"] = "threshold"
    background: str | None = None
    least: float | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Validation:
    """The samples a set was tuned on, the scores there, and the scores on samples that did not choose it.

    Parameters
    ----------
    n, digest : how many samples, and a digest of their ids.
    in_sample, in_sample_at_half : the objective on them, at the thresholds and at 0.5.
    crossed : the scores of a cross-validation; None without one.
    seen : a digest of each sample's id, and of each group's name; none in the sets of former versions.
    """

    n: int
    digest: str
    in_sample: float
    in_sample_at_half: float
    crossed: CrossValidation | None = None
    seen: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, samples: Sequence[str], in_sample: float, in_sample_at_half: float, crossed: CrossValidation | None
    ) -> Validation:
        """Make it of the sample ids, whose order does not matter, and the scores."""
        seen = tuple(sorted(_digests("sample", samples)))
        return cls(len(samples), _digest_of(samples), in_sample, in_sample_at_half, crossed, seen)

    def saw(self, groups: Sequence[str], also: Sequence[str] = ()) -> Validation:
        """Return the same, with groups of these names, and the digests `also`, among what is known as seen."""
        return replace(self, seen=tuple(sorted({*self.seen, *also, *_digests("group", groups)})))

    def seen_of(self, samples: Sequence[str], groups: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Return those of some samples, and of some groups, that were seen."""
        known, parts = set(self.seen), []
        for kind, names in (("sample", samples), ("group", groups)):
            each = zip(names, _digests(kind, names), strict=True)
            parts.append([name for name, digest in each if digest in known])
        return parts[0], parts[1]

    def is_on(self, samples: Sequence[str]) -> bool:
        """Tell whether these are the samples that the set was tuned on."""
        return self.n == len(samples) and self.digest == _digest_of(samples)


def _digests(kind: str, names: Sequence[str]) -> list[str]:
    """Digest each name, in 16 digits: enough to tell a few thousand apart."""
    return [hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:16] for name in names]


def _digest_of(samples: Sequence[str]) -> str:
    """Digest sample ids, whose order does not matter."""
    text = json.dumps(sorted(samples), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ScoreCurve(Protocol):
    """A class's score at every level of a band, as the tuning that found its threshold left it."""

    @property
    def band(self) -> tuple[int, int]:
        """Levels that were scanned, half-open."""

    @property
    def folds(self) -> Sequence[NDArray[np.int64]]:
        """Sample numbers of each fold; one fold of all without a cross-validation."""

    def scores(self, which: Sequence[int]) -> NDArray[np.float64]:
        """Score the band's levels, and its upper edge, on the samples of some folds."""


@dataclass(frozen=True)
class Best:
    """The best level of one class: its score, and the range of equal maxima around it (both ends included)."""

    level: int
    score: float
    plateau: tuple[int, int]


@dataclass(frozen=True)
class SetFields:
    """All that the file of a threshold set holds.

    Parameters
    ----------
    classes : the threshold of each class and what it did on validation; none in a set that decides by argmax.
    fusion, members : of the ensemble that it was tuned for.
    measure : what was maximised.
    validation : the samples it was tuned on and the scores there.
    search : how it was found.
    created : date, UTC.
    rules : post-processing that belongs to the thresholds, as texts.
    factors : the factor of each class and what it did on validation, in a set that decides by argmax.
    decision : how the set decides.
    guarantee : the risk that its thresholds control, if they do.
    member_classes : which classes of its members it was tuned for: of members of one class set "same", else those that
        all have ("common") or any ("union").
    """

    classes: tuple[ClassThreshold, ...]
    fusion: Fusion
    members: tuple[MemberRecord, ...]
    measure: Measure
    validation: Validation
    search: Mapping[str, Any]
    created: str
    rules: tuple[str, ...] = ()
    factors: tuple[ClassFactor, ...] = ()
    decision: DecisionRecord = DecisionRecord()
    guarantee: Guarantee | None = None
    member_classes: ClassSets = "same"

    @property
    def rank_temperature(self) -> float | None:
        """The temperature of the rank rule: that of a set that decides by it, or the one that tuning fitted."""
        if self.decision.kind == "rank":
            return self.decision.temperature
        fitted: float | None = self.search.get("scaling", {}).get("temperature")
        return fitted

    @once
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the fusion's weights."""
        return tuple(c.name for c in self.classes or self.factors)
