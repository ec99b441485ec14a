"""What `ensk tune-thresholds --risk` makes of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.recipes.controlling import Controlling
    from ensemble_kit.spec.scoring import Measure
    from ensemble_kit.thresholds.thresholdset import ThresholdSet
    from ensemble_kit.tuning.folds import Groups


def risk_set(name: str | None) -> ThresholdSet | None:
    """Find the set whose fusion and rules are used."""
    from ensemble_kit.thresholds.thresholdset import ThresholdSet, find

    return None if name is None else ThresholdSet.load(find(name))


def controlling(
    ensemble: Ensemble,
    kind: str,
    alpha: float | None,
    delta: float | None,
    over: str | None,
    groups: Groups,
    base: ThresholdSet | None,
    measure: Measure,
    compared: Ensemble | None,
) -> Controlling:
    """Make the calibration that the options ask for."""
    from ensemble_kit.recipes.controlling import Controlling
    from ensemble_kit.spec.risk import Risk

    if alpha is None:
        fix = "pass the share of the truth that may be missed, such as --alpha 0.1"
        raise UsageError("option-invalid", "cannot control a risk", item="--risk without --alpha", fix=fix)
    risk = Risk(alpha, delta, cast("Any", over or "class"), cast("Any", kind))
    return Controlling(ensemble, risk, groups, base, measure=measure, compared=compared)


def refuse_idle_with_risk(risk: str | None, of_risk: dict[str, object], of_tuning: dict[str, object]) -> None:
    """Refuse options of a risk where none is controlled, and options of a tuning where one is; None was not given."""
    idle, how = (of_risk, "without --risk") if risk is None else (of_tuning, "with --risk")
    given = [f"--{name.replace('_', '-')}" for name, value in idle.items() if value is not None]
    if given:
        raise UsageError(
            "option-idle",
            f"cannot use {', '.join(given)} here",
            item=f"{'it has' if len(given) == 1 else 'they have'} no effect {how}",
            fix=f"leave {' and '.join(given)} out" + (", or add --risk fnr" if risk is None else ""),
        )
