"""What `ensk tune-thresholds --risk` makes of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ensemble_kit.cli.options import refuse_idle
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.spec.risk import Risk
    from ensemble_kit.thresholds.thresholdset import ThresholdSet


def risk_set(name: str | None) -> ThresholdSet | None:
    """Find the set whose fusion and rules are used."""
    from ensemble_kit.thresholds.finding import find
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    return None if name is None else ThresholdSet.load(find(name))


def risk_of(kind: str | None, alpha: float | None, delta: float | None, over: str | None) -> Risk | None:
    """Make the risk that `--risk` and the options beside it describe; None without `--risk`."""
    from ensemble_kit.spec.risk import Risk

    if kind is None:
        return None
    if alpha is None:
        fix = "pass the share of the truth that may be missed, such as --alpha 0.1"
        raise UsageError("option-invalid", "cannot control a risk", item="--risk without --alpha", fix=fix)
    return Risk(alpha, delta, cast("Any", over or "class"), cast("Any", kind))


def refuse_idle_with_risk(risk: str | None, of_risk: dict[str, object], of_tuning: dict[str, object]) -> None:
    """Refuse options of a risk where none is controlled, and options of a tuning where one is; None was not given."""
    if risk is None:
        refuse_idle("without --risk", "add --risk fnr", **of_risk)
    else:
        refuse_idle("with --risk", "", **of_tuning)
