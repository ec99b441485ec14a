"""The decision that a threshold set records."""

from __future__ import annotations

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.spec.factors import ONE
from ensemble_kit.thresholds.records import SetFields


def recorded(tuned: SetFields) -> Decision:
    """Make the decision of a set: its thresholds, its factors, or the rank rule with its convention."""
    record = tuned.decision
    if record.kind == "argmax":
        return Argmax({c.name: c.factor / ONE for c in tuned.factors}, record.background, record.least)
    if record.kind == "rank":
        return RankRule.of(tuned)
    return Thresholds({c.name: c.level for c in tuned.classes})
