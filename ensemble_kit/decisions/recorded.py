"""The decision and the rules that a threshold set records."""

from __future__ import annotations

from collections.abc import Iterable

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.errors import DamagedError, EnskError
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


def rules_of(given: Iterable[Rule | str] | Rule | str | None, decision: object) -> tuple[Rule, ...]:
    """Read what the user passes as rules; None: those of the decision, if it is a set."""
    if given is None:
        return recorded_rules(decision) if isinstance(decision, SetFields) else ()
    return parse_rules(given)


def recorded_rules(tuned: SetFields) -> tuple[Rule, ...]:
    """Read the rules of a set.

    Raises
    ------
    DamagedError
        One cannot be read, of a file that somebody edited.
    """
    try:
        return parse_rules(tuned.rules)
    except EnskError as error:
        path = getattr(tuned, "path", None)
        raise DamagedError(
            "set-invalid",
            "cannot read the rules of a threshold set",
            item=f"{'the set' if path is None else repr(str(path))}: {error.item}",
            fix=f"correct it in the file ({error.fix}), or make the set again with ensk tune-thresholds",
        ) from None
