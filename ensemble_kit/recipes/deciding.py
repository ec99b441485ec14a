"""What decides: the user's words, a set's record, or what is usual for the stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, UsageError, check_choice
from ensemble_kit.spec.scoring import Convention
from ensemble_kit.thresholds.finding import find
from ensemble_kit.thresholds.thresholdset import ThresholdSet

Threshold = ThresholdSet | float | None
"""A set, a number for every class, or None: whatever is usual for the stores."""

KINDS = ("threshold", "argmax", "rank")


def resolve(threshold: str) -> Threshold:
    """Read a threshold as the user typed it: a number, or the path or name of a set.

    Raises
    ------
    IncompleteError
        There is no such set.
    DamagedError
        It is not a threshold set.
    """
    try:
        return float(threshold)
    except ValueError:
        return ThresholdSet.load(find(threshold))


@dataclass(frozen=True)
class Deciding:
    """What the user says about deciding scores.

    Parameters
    ----------
    threshold : a number or a set; None where the user gave none.
    kind : "threshold", "argmax" or "rank"; None: as the set says, or what is usual for the stores.
    background, least : of argmax, see `Argmax`; None: as the set says.
    temperature : of the rank rule; None: as the set records it.

    Raises
    ------
    UsageError
        A kind that does not exist, or that has no use for what else was given.
    """

    threshold: Threshold = None
    kind: str | None = None
    background: str | None = None
    least: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_choice("--decide", self.kind, KINDS, "cannot decide")
        if self.kind in {"argmax", "rank"} and isinstance(self.threshold, float):
            raise _unfit(
                f"cannot decide by {self.kind}",
                "--thresholds is a number",
                "leave --thresholds out, or pass a set to fuse as it was tuned",
            )
        if self.kind != "rank" and self.temperature is not None:
            raise _unfit(
                "cannot use --rank-temperature",
                "it belongs to the rank rule, which does not decide",
                "leave it out, or pass --decide rank",
            )

    def of(self, ensemble: Ensemble) -> Decision:
        """Make the decision, and check that it fits the ensemble.

        Raises
        ------
        MismatchError
            Thresholds or factors for other classes, a set that was tuned for another ensemble.
        UsageError
            A background or a least probability where argmax does not decide; thresholds of a set that has none.
        """
        tuned = self.threshold if isinstance(self.threshold, ThresholdSet) else None
        plain = self.threshold is None and self.kind in {"threshold", "rank"}
        decision = ensemble.decision(0.5 if plain else self.threshold)
        if self.kind == "rank":
            rule = RankRule.of(tuned) if tuned else RankRule(None, Convention())
            decision = rule if self.temperature is None else replace(rule, temperature=self.temperature)
        elif self.kind == "argmax" and not isinstance(decision, Argmax):
            decision = Argmax()
        elif self.kind == "threshold" and tuned is not None:
            decision = _thresholds_of(tuned)
        if self.background is not None or self.least is not None:
            if not isinstance(decision, Argmax):
                raise _unfit(
                    "cannot use --background or --least",
                    f"they belong to argmax, and decided is: {decision.told()}",
                    "leave them out, or pass --decide argmax",
                )
            background = decision.background if self.background is None else self.background
            least = decision.least if self.least is None else self.least
            decision = Argmax(decision.factors, background, least)
        return ensemble.decision(decision)

    def assumed(self, ensemble: Ensemble) -> str | None:
        """Say what was assumed; None where the user said it."""
        if self.kind == "rank" and self.threshold is None and self.temperature is None:
            return (
                "the rank rule takes scores for probabilities (ensk tune-thresholds --rank fits a temperature to them)"
            )
        if self.threshold is not None or self.kind is not None:
            return None
        if ensemble.activation == "softmax":
            return "decided by argmax: the stores are softmax"
        return "thresholds: 0.5 for every class (pass --thresholds for a tuned set)"

    def warnings(self) -> list[Caution]:
        """Say that a set records no temperature for the rank rule."""
        tuned = self.threshold
        if not isinstance(tuned, ThresholdSet) or self.kind != "rank":
            return []
        if self.temperature is not None or tuned.rank_temperature is not None:
            return []
        doubt = "the set records no temperature for the rank rule, which takes its scores for probabilities"
        return [Caution(doubt, "tune it with --rank, which fits one and scores the rule, or pass --rank-temperature")]


def _thresholds_of(tuned: ThresholdSet) -> Decision:
    if not tuned.classes:
        raise _unfit(
            "cannot decide by thresholds",
            "the set decides by argmax and has none",
            "leave --decide out, or pass a set of thresholds or a number",
        )
    return Thresholds(tuned.levels)


def _unfit(what: str, item: str, fix: str) -> UsageError:
    return UsageError("decide-invalid", what, item=item, fix=fix)
