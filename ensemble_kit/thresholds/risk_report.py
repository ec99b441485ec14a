"""The report of a set whose thresholds control a risk."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ensemble_kit.errors import Caution, some
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.guarantee import LIMITS, ClassRisk, Guarantee
from ensemble_kit.thresholds.records import ClassThreshold


def risk_report(
    found: Guarantee, classes: Sequence[ClassThreshold], measure: Measure, mean: Mean, samples: int
) -> Report:
    """Describe the set: per class its threshold, what it misses, the bound, and its score."""
    r = found.risk
    columns = ["class", "threshold", "missed", "bound", "groups with it", "missed there", measure.title, "at 0.5"]
    rows = [_row(found.classes[c.name], c, mean) for c in classes]
    if r.over == "all":
        rows.append(["worst class", "", f"{found.value:.4f}", f"{found.bound:.4f}", "", "", "", ""])
    legend = (
        "Missed: share of the class's true pixels that the mask misses, 0 where the truth is empty; mean over the "
        "images of a group, then over groups. Missed there: the same over the groups that have the class. "
        f"Bound: {r.bound_name}, at most alpha. {measure.title}: {measure.legend}; {measure.counted}; in-sample."
    )
    if r.over == "all":
        legend += " Worst class: the largest share missed in each image, mean over groups."
    title = f"Share of the truth missed, on {found.groups} groups of {samples} calibration samples"
    lines = [f"Guaranteed: {found}.", f"{LIMITS[0].upper()}{LIMITS[1:]}."]
    if r.over == "class":
        lines.append("Each class's bound holds by itself: that all hold at once is not guaranteed.")
    return Report(title, columns, rows, legend, lines, _warnings(found, classes))


def _row(own: ClassRisk, c: ClassThreshold, mean: Mean) -> list[str]:
    bound = "" if own.bound is None else f"{own.bound:.4f}"
    there = f"{own.risk_present:.4f}" if own.present else "–"
    row = [c.name, f"{mean.probability_of(c.level):.4f}", f"{own.risk:.4f}", bound, str(own.present), there]
    return [*row, *("–" if isnan(score) else f"{score:.4f}" for score in (c.score, c.score_at_half))]


def _warnings(found: Guarantee, classes: Sequence[ClassThreshold]) -> list[Caution]:
    out, alpha = [], found.risk.alpha
    absent = [name for name, c in found.classes.items() if not c.present]
    if absent:
        doubt = f"no calibration sample has {some(absent)}, so nothing is known of what is missed of them"
        out.append(Caution(doubt, "calibrate on samples that have them; until then leave their masks out of use"))
    rare = [f"{name} {c.risk_present:.2f}" for name, c in found.classes.items() if c.risk_present > alpha]
    if rare:
        more = f" and {len(rare) - 3} more classes" if len(rare) > 3 else ""
        doubt = (
            f"more than {alpha:g} is missed of {', '.join(rare[:3])}{more}, in the groups that have them: "
            "groups without a class count, and nothing can be missed there"
        )
        fix = "calibrate on samples that have the class, if it is to hold for them"
        out.append(Caution(doubt, fix))
    ends = [c.name for c in classes if c.level == 0]
    if ends:
        doubt = f"every pixel is on for {some(ends)}: nothing less keeps the risk at {alpha:g}"
        out.append(Caution(doubt, "calibrate on more groups, or allow more with --alpha"))
    blank = [c.name for c in classes if c.level == LEVELS - 1 and found.classes[c.name].present]
    if blank:
        doubt = f"only saturated pixels are on for {some(blank)}: groups without them suffice for the bound"
        out.append(Caution(doubt, "calibrate on samples that have the class, or allow less with --alpha"))
    return out
