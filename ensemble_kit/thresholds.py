"""`ThresholdSet`: what tuning found, in one readable file, and whether it fits an ensemble."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import IncompleteError, MismatchError, some
from ensemble_kit.metrics import Measure
from ensemble_kit.spec import LEVELS
from ensemble_kit.validation import CrossValidation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ensemble_kit.scores import Ensemble, Fusion
    from ensemble_kit.tuning import Best, Curve

FOLDER = Path("thresholds")
"""Where `tune-thresholds` writes by default and `vote` looks names up."""


@dataclass(frozen=True)
class Calibration:
    """Two numbers that are equal for calibrated scores: the best threshold of pooled Dice, and half of that Dice.

    Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", 2014.
    """

    threshold: float
    half_dice: float

    @classmethod
    def of(cls, pooled: Best, ensemble: Ensemble) -> Calibration:
        """Take them from the best level of pooled Dice."""
        return cls(shown(pooled.level, ensemble.fusion.mean), pooled.score / 2)

    @property
    def is_off(self) -> bool:
        """Tell whether the two are more than a tenth apart: the scores are no probabilities."""
        return abs(self.threshold - self.half_dice) > 0.1


@dataclass(frozen=True)
class ClassThreshold:
    """The threshold of one class and what it did on validation.

    Parameters
    ----------
    level : what decides; `threshold` shows it on the probability scale.
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
class Validation:
    """The samples a set was tuned on, the scores there, and the scores on samples that did not choose it."""

    n: int
    digest: str
    in_sample: float
    in_sample_at_half: float
    crossed: CrossValidation | None = None

    @classmethod
    def of(
        cls, samples: Sequence[str], in_sample: float, in_sample_at_half: float, crossed: CrossValidation | None
    ) -> Validation:
        """Digest the sample ids; their order does not matter."""
        text = json.dumps(sorted(samples), ensure_ascii=False, separators=(",", ":"))
        return cls(len(samples), hashlib.sha256(text.encode()).hexdigest(), in_sample, in_sample_at_half, crossed)


@dataclass(frozen=True)
class MemberRecord:
    """A member as the set knows it: its name, the store it was tuned on, and the model behind it where known."""

    name: str
    fingerprint: str
    model: str | None


class ThresholdSet:
    """Thresholds per class, with the fusion, convention and validation that they belong to.

    Made by `tune_thresholds`, kept by `save` and `load`; `Ensemble.vote` takes it and refuses one that does not fit.

    Attributes
    ----------
    levels, thresholds : dict by class, the deciding level and the same on the probability scale.
    score : the objective over all classes, exactly what the vote gets on the same samples.
    per_class : dict by class, the objective of each.
    """

    def __init__(
        self,
        classes: Sequence[ClassThreshold],
        fusion: Fusion,
        members: Sequence[MemberRecord],
        measure: Measure,
        validation: Validation,
        search: Mapping[str, Any],
        created: str,
        rules: tuple[str, ...] = (),
    ) -> None:
        self.classes, self.fusion, self.members = tuple(classes), fusion, tuple(members)
        self.measure, self.validation = measure, validation
        self.search, self.created, self.rules = dict(search), created, rules
        self.curves: Mapping[str, Curve] = {}  # of the tuning that made it; a loaded set has none

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        classes: Sequence[ClassThreshold],
        measure: Measure,
        validation: Validation,
        search: Mapping[str, Any],
        rules: tuple[str, ...] = (),
    ) -> ThresholdSet:
        """Record what was found together with the ensemble it was found for."""
        from ensemble_kit import __version__

        members = [MemberRecord(m.member, m.fingerprint, model_digest(m.provenance)) for m in ensemble.members]
        versions = {"ensemble_kit": __version__, "numpy": np.__version__}
        return cls(
            classes,
            ensemble.fusion,
            members,
            measure,
            validation,
            {**search, "versions": versions},
            _today(),
            rules,
        )

    @property
    def levels(self) -> dict[str, int]:
        """Deciding level of each class, 0 … 65535."""
        return {c.name: c.level for c in self.classes}

    @property
    def thresholds(self) -> dict[str, float]:
        """Threshold of each class on the probability scale."""
        return {c.name: shown(c.level, self.fusion.mean) for c in self.classes}

    @property
    def score(self) -> float:
        """The objective over all classes on the validation samples."""
        return self.validation.in_sample

    @property
    def per_class(self) -> dict[str, float]:
        """The objective of each class on the validation samples."""
        return {c.name: c.score for c in self.classes}

    def __repr__(self) -> str:
        return (
            f"ThresholdSet({len(self.classes)} classes, {self.measure.objective} {self.measure.title} {self.score:.6f})"
        )

    def _repr_html_(self) -> str:
        from ensemble_kit.notebook import set_html

        return set_html(self)

    def plot(self, classes: Sequence[str] | None = None) -> Figure:
        """Draw each class's score at every threshold; see `ensemble_kit.notebook.plot_set`."""
        from ensemble_kit.notebook import plot_set

        return plot_set(self, classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThresholdSet) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.validation.digest, *self.levels.items()))

    def check_fits(self, ensemble: Ensemble) -> None:
        """Refuse an ensemble of other classes, members, models, mean, upsampling, weights or temperatures."""
        self.check_members(ensemble)
        ours, theirs = self.fusion, ensemble.fusion
        weights = dict(zip(ensemble.classes, theirs.weights, strict=True))
        tuned = dict(zip(self.levels, ours.weights, strict=True))
        self._compare(
            [
                ("mean", ours.mean, theirs.mean),
                ("upsample", ours.upsample, theirs.upsample),
                ("temperatures", ours.temperatures, theirs.temperatures),
                *((f"weights of class {name!r}", _shares(tuned[name]), _shares(weights[name])) for name in weights),
            ]
        )

    def check_members(self, ensemble: Ensemble) -> None:
        """Refuse an ensemble of other classes, members or models, however it is fused."""
        tuned = {m.name: m.model for m in self.members}
        now = {m.member: model_digest(m.provenance) for m in ensemble.members}
        self._compare(
            [
                ("classes", sorted(self.levels), sorted(ensemble.classes)),
                ("members", sorted(m.name for m in self.members), sorted(ensemble.fusion.members)),
                *(
                    (f"model of member {name!r}", tuned[name], model)
                    for name, model in now.items()
                    if model is not None and tuned.get(name) is not None
                ),
            ]
        )

    @staticmethod
    def _compare(pairs: list[tuple[str, object, object]]) -> None:
        for what, tuned, now in pairs:
            if tuned != now:
                raise MismatchError(
                    "set-does-not-fit",
                    "cannot vote with a threshold set that was tuned for another ensemble",
                    item=f"{what}: tuned for {tuned}, asked for {now}",
                    fix="pass the ensemble that it was tuned for, or tune this one (ensk tune-thresholds)",
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file (thresholds/schema.json)."""
        from ensemble_kit import threshold_file

        return threshold_file.encode(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON: sorted keys, numbers in full; complete, or nothing."""
        from ensemble_kit import threshold_file

        threshold_file.write(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ThresholdSet:
        """Read a set.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It is no threshold set, or one that says impossible things.
        """
        from ensemble_kit import threshold_file

        return threshold_file.read(Path(path))


def find(name: str) -> Path:
    """Find a set by path, or by name in the folder `thresholds/`."""
    for path in (Path(name), FOLDER / name, FOLDER / f"{name}.json"):
        if path.is_file():
            return path
    known = sorted(p.stem for p in FOLDER.glob("*.json") if p.name != "schema.json")
    raise IncompleteError(
        "set-missing",
        "cannot find a threshold set",
        item=f"{name!r} is no file, and {FOLDER!s}/ holds {some(known) if known else 'no set'}",
        fix="pass a path or a name of that folder; make one with ensk tune-thresholds",
    )


def shown(level: int, mean: str) -> float:
    """Show a level as a threshold, the probability that has it: level / 65535 for mean="probability"."""
    from ensemble_kit.kernels import tables

    power = tables.power_of(mean)
    if power is None:
        return float(tables.sigmoid(tables.logit_of_q(level)))
    return level / (LEVELS - 1) if power == 1 else float(tables.probability_of_power(level, power))


def model_digest(provenance: Mapping[str, Any]) -> str | None:
    """Tell what made a store: digest of its network and of what was done to images; None where it does not say."""
    network = provenance.get("network_sha256")
    if not isinstance(network, str):
        return None
    recipe = {k: provenance.get(k) for k in ("preprocessing", "tta", "swap", "tile", "overlap", "scale", "clamp")}
    return hashlib.sha256(json.dumps([network, recipe], sort_keys=True).encode()).hexdigest()


def _shares(weights: Sequence[int]) -> str:
    return ", ".join(f"{w / LEVELS:.5g}" for w in weights)


def _today() -> str:
    """Return the date (UTC), or SOURCE_DATE_EPOCH's: a command run again must end in the same bytes."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
