"""The report of a threshold set, and the panel of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.errors import Caution, some
from ensemble_kit.reports.plots import Panel
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.factors import LEAST, MOST, ONE
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice, CrossValidation
from ensemble_kit.thresholds.records import ClassFactor, ClassThreshold, ScoreCurve, Validation

_FEW = 20
_HAVE = "validate on samples that have them; until then leave their masks out of use"
_POINTS = 1500  # of a curve; a panel is narrower than that


def report(
    classes: Sequence[ClassThreshold], measure: Measure, mean: Mean, v: Validation, plain: bool, choose: Choice
) -> Report:
    """Describe a set: per class the threshold, its plateau and spread over folds, and the scores.

    Parameters
    ----------
    plain : whether it decides as without tuning.
    choose : how thresholds were chosen.
    """
    rows = [_row(c, mean, v.crossed) for c in classes]
    gain = _mean_gain(v, [c.score - c.score_at_half for c in classes if c.positives], len(classes))
    lines = _lines(mean, v.crossed, plain)
    if choose == "bagged":
        kept = v.crossed is None or any(c.keeps for c in v.crossed.classes.values())
        how = "Thresholds: each class's mean of the best ones over draws of the groups (bagged)"
        lines.append(f"{how}." if kept else f"{how} gain nothing above noise out of fold, so all are 0.5.")
    return _table(("threshold", "0.5"), rows, gain, measure, v, lines, _warnings(classes, v, mean.level_of(0.5)))


def factor_report(factors: Sequence[ClassFactor], measure: Measure, v: Validation, plain: bool) -> Report:
    """Describe a set that decides by argmax: per class the factor, its plateau and spread, and the scores."""
    rows = [_factor_row(c, v.crossed) for c in factors]
    gain = v.in_sample - v.in_sample_at_half
    return _table(
        ("factor", "1"), rows, gain, measure, v, _factor_lines(v.crossed, plain), _factor_warnings(factors, v)
    )


def _mean_gain(v: Validation, gains: Sequence[float], classes: int) -> float:
    """Return the gain over all classes; where some have no positives, the mean over the others."""
    return v.in_sample - v.in_sample_at_half if len(gains) in {0, classes} else float(np.nanmean(gains))


def _table(
    tuned: tuple[str, str],
    rows: list[list[str]],
    gain: float,
    measure: Measure,
    v: Validation,
    lines: list[str],
    told: list[Caution],
) -> Report:
    """Make the report of rows, one a class; `tuned` is what was tuned, and its value without tuning."""
    name, crossed = measure.title, v.crossed
    what, plain = tuned
    columns = ["class", what, "plateau", *(["over folds"] if crossed else []), name, f"{name} at {plain}", "gain"]
    columns += ["out of fold"] if crossed else []
    last = ["all", "", "", *([""] if crossed else []), f"{v.in_sample:.4f}", f"{v.in_sample_at_half:.4f}"]
    last += [f"{gain:+.4f}"]
    last += [f"{crossed.scores['tuned']:.4f}"] if crossed else []
    how = "; all but the last column in-sample" if crossed else ", in-sample"
    title = f"{measure} on {v.n} validation samples{how}"
    return Report(title, columns, [*rows, last], legend(tuned, measure, crossed is not None), lines, told)


def legend(tuned: tuple[str, str], measure: Measure, crossed: bool) -> str:
    """Say what the columns of a set's table hold; `tuned` is what was tuned, and its value without tuning."""
    what, plain = tuned
    name, told = measure.title, f"{measure.legend}; {measure.counted}."
    told += f" Plateau: values of the {what} with the same {name}."
    told += f" Gain: {name} less {name} at {plain}, in all without classes that no sample has."
    if crossed:
        told += f" Over folds: the lowest and the highest {what} that a fold's training samples chose."
        told += f" Out of fold: {name} on samples that did not choose."
    return told


def _factor_row(c: ClassFactor, crossed: CrossValidation | None) -> list[str]:
    row = [c.name, _times(c.factor), f"{_times(c.plateau[0])}–{_times(c.plateau[1])}"]
    if crossed:
        chosen = crossed.classes[c.name].levels
        row.append(f"{_times(min(chosen))}–{_times(max(chosen))}")
    scores = [c.score, c.score_at_one, *([crossed.classes[c.name].score] if crossed else [])]
    told = ["–" if np.isnan(score) else f"{score:.4f}" for score in scores]
    gain = c.score - c.score_at_one
    return [*row, *told[:2], "–" if np.isnan(gain) else f"{gain:+.4f}", *told[2:]]


def _times(factor: int) -> str:
    return f"{factor / ONE:.4g}"


def _factor_lines(crossed: CrossValidation | None, plain: bool) -> list[str]:
    if crossed is None:
        return ["In-sample: the factors were chosen on these samples. Pass folds for an honest score."]
    s, how = crossed.scores, f"{crossed.folds} folds of {crossed.groups} groups"
    words = {"tuned": "tuned", "own": "each class its own", "uniform": "uniform weights", "one": "all 1"}
    settings = ", ".join(f"{words[name]} {score:.4f}" for name, score in s.items())
    lines = [
        f"Out of fold ({how}): {settings}.",
        _gain_told(crossed, "factors of 1", plain),
        *_score_told(crossed),
    ]
    shrunk = [name for name, c in crossed.classes.items() if not c.keeps]
    if crossed.shrink and shrunk:
        lines.append(
            f"{len(shrunk)} of {len(crossed.classes)} classes take factor 1, since their own gain nothing above noise "
            f"out of fold: {some(shrunk)}."
        )
    return lines


def _gain_told(crossed: CrossValidation, plain: str, is_plain: bool) -> str:
    """Say what tuning gained, how well that is known, and what to expect of new samples."""
    told = f"Gain of tuning over {plain}, out of fold: {crossed.gain} (95 % confidence interval of the mean gain)"
    if is_plain:
        return f"{told}. The set is {plain} for every class, so on new samples it gains and loses nothing."
    expected = crossed.expected()
    if expected is None:
        return f"{told}."
    span = f"{expected.low:+.4f} to {expected.high:+.4f}"
    return f"{told}; on {crossed.groups} new groups of the same kind expect {span} (95 % prediction interval)."


def _score_told(crossed: CrossValidation) -> list[str]:
    """Say what score to expect of new samples, where that is known."""
    expected, mean = crossed.expected_score(), crossed.score
    if expected is None or mean is None:
        return []
    known = f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}] (95 % confidence interval of the mean score)"
    new = f"on {crossed.groups} new groups of the same kind expect {expected.low:.4f} to {expected.high:.4f}"
    return [f"Score out of fold: {known}; {new} (95 % prediction interval)."]


def _factor_warnings(factors: Sequence[ClassFactor], v: Validation) -> list[Caution]:
    out = _few(v)
    blind = [c.name for c in factors if not c.positives]
    if blind:
        how = "factor 1 is taken for" if v.crossed else "only false pixels inform the factor of"
        doubt = f"{how} {_counted(blind, factors)}: no validation sample has them"
        out.append(Caution(doubt, _HAVE))
    edge = [c.name for c in factors if c.factor in {LEAST, MOST}]
    if edge:
        doubt = f"the best factor lies at the end of its range, 1/128 … 128, for {_counted(edge, factors)}"
        out.append(Caution(doubt, "look at their masks: the members may hardly know them, or labels may be mixed up"))
    return out


def _counted(names: Sequence[str], classes: Sequence[ClassThreshold] | Sequence[ClassFactor]) -> str:
    """Name the first few of many classes, with their number."""
    return f"{len(names)} of {len(classes)} classes ({some(names, 3)})"


def _row(c: ClassThreshold, mean: Mean, crossed: CrossValidation | None) -> list[str]:
    low, high = (_short(level, mean) for level in c.plateau)
    row = [c.name, _short(c.level, mean), f"{low}–{high}"]
    if crossed:
        levels = crossed.classes[c.name].levels
        row.append(f"{_short(min(levels), mean)}–{_short(max(levels), mean)}")
    gain = f"{c.score - c.score_at_half:+.4f}" if c.positives else "–"
    row += [f"{c.score:.4f}", f"{c.score_at_half:.4f}", gain]
    return [*row, f"{crossed.classes[c.name].score:.4f}"] if crossed else row


def _short(level: int, mean: Mean) -> str:
    return f"{mean.probability_of(level):.4f}"


def _lines(mean: Mean, crossed: CrossValidation | None, plain: bool) -> list[str]:
    if crossed is None:
        return ["In-sample: the thresholds were chosen on these samples. Pass folds for an honest score."]
    s = crossed.scores
    how = f"{crossed.folds} folds of {crossed.groups} groups"
    settings = f"tuned {s['tuned']:.4f}, each class its own {s['own']:.4f}, one shared {s['shared']:.4f}"
    lines = [
        f"Out of fold ({how}): {settings}, 0.5 {s['half']:.4f}.",
        _gain_told(crossed, "0.5", plain),
        *_score_told(crossed),
    ]
    common = _short(crossed.common_level, mean)
    shrunk = [name for name, c in crossed.classes.items() if not c.keeps]
    if crossed.shrink and shrunk:
        lines.append(
            f"{len(shrunk)} of {len(crossed.classes)} classes take the common threshold {common}, since their own "
            f"gains nothing above noise out of fold: {some(shrunk)}."
        )
    return lines


def _few(v: Validation) -> list[Caution]:
    few = f"{v.n} validation samples are few: expect less on unseen images than in-sample"
    return (
        [Caution(few, "go by the out-of-fold score, and tune on more samples if there are any")] if v.n < _FEW else []
    )


def _warnings(classes: Sequence[ClassThreshold], v: Validation, half: int) -> list[Caution]:
    out = _few(v)
    blind = [c.name for c in classes if not c.positives]
    if blind:
        how = "the common threshold is taken, and no gain counted, for"
        how = how if v.crossed else "nothing informs the threshold of"
        doubt = f"{how} {_counted(blind, classes)}: no validation sample has them"
        out.append(Caution(doubt, _HAVE))
    out += _uncalibrated(
        [c for c in classes if c.positives and c.calibration.is_off],
        len(classes),
        all(c.level == half for c in classes),
    )
    edge = [c.name for c in classes if c.level in {0, LEVELS - 1}]
    if edge:
        doubt = f"every pixel is on or off at the best threshold, an end of the scale, of {_counted(edge, classes)}"
        out.append(Caution(doubt, "look at their masks and their truth: the members may not know them"))
    return out


def _uncalibrated(off: Sequence[ClassThreshold], classes: int, at_half: bool) -> list[Caution]:
    """Warn of scores that are not probabilities: how many classes, and the worst three."""
    if not off:
        return []
    worst = sorted(off, key=lambda c: (-c.calibration.distance, c.name))[:3]
    told = ", ".join(f"{c.name} {c.calibration.threshold:.2f} and {c.calibration.half_dice:.2f}" for c in worst)
    doubt = (
        f"the scores of {len(off)} of {classes} classes are not calibrated probabilities: the best threshold of pooled "
        f"Dice and half of that Dice differ by over 0.1 (Lipton 2014), most in {told}"
    )
    do = "do not read scores as probabilities" if at_half else "decide by this set and not by 0.5 or the rank rule"
    fix = f"{do}; --search temperature scales members against each other"
    return [Caution(doubt, fix)]


def panel(c: ClassThreshold, curve: ScoreCurve, mean: Mean, crossed: CrossValidation | None) -> Panel:
    """Make the panel of one class: its curve, its threshold, and those of the folds."""
    levels = _thinned(curve, c.level)
    folds, low = range(len(curve.folds)), curve.band[0]
    without = None
    if crossed is not None:
        without = np.stack([curve.scores([j for j in folds if j != k])[levels - low] for k in folds])
    return Panel(
        c.name,
        np.array([mean.probability_of(level) for level in levels.tolist()]),
        curve.scores(folds)[levels - low],
        (mean.probability_of(c.level), c.score),
        (mean.probability_of(c.plateau[0]), mean.probability_of(c.plateau[1])),
        without,
        () if crossed is None else tuple(mean.probability_of(level) for level in crossed.classes[c.name].levels),
    )


def _thinned(curve: ScoreCurve, level: int) -> NDArray[np.int64]:
    """Choose levels to draw: evenly over the band, and the chosen one."""
    low, high = curve.band
    last = min(high, LEVELS - 1)
    even = np.linspace(low, last, _POINTS).round().astype(np.int64)
    return np.unique(np.append(even, min(max(level, low), last)))
