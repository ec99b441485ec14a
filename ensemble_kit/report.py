"""What a threshold set says to a person: one table and a few sentences, for terminal and notebook alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from ensemble_kit.spec import LEVELS
from ensemble_kit.thresholds import ClassThreshold, ThresholdSet, shown

_FEW = 20


@dataclass(frozen=True)
class Report:
    """A table with its title, sentences to go below it, and warnings."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def of_set(tuned: ThresholdSet) -> Report:
    """Describe a set: per class the threshold, its plateau and spread over folds, and the scores."""
    name, v = tuned.measure.title, tuned.validation
    crossed = v.crossed
    columns = ["class", "threshold", "plateau", *(["over folds"] if crossed else []), name, f"{name} at 0.5", "gain"]
    columns += ["out of fold"] if crossed else []
    rows = [_row(tuned, c) for c in tuned.classes]
    gain = f"{v.in_sample - v.in_sample_at_half:+.4f}"
    rows.append(["all", "", "", *([""] if crossed else []), f"{v.in_sample:.4f}", f"{v.in_sample_at_half:.4f}", gain])
    rows[-1] += [f"{crossed.scores['tuned']:.4f}"] if crossed else []
    title = (
        f"{tuned.measure} on {v.n} validation samples; all but the last column in-sample"
        if crossed
        else (f"{tuned.measure} on {v.n} validation samples, in-sample")
    )
    return Report(title, columns, rows, _lines(tuned), _warnings(tuned))


def _row(tuned: ThresholdSet, c: ClassThreshold) -> list[str]:
    crossed = tuned.validation.crossed
    low, high = (_short(level, tuned.fusion.mean) for level in c.plateau)
    row = [c.name, _short(c.level, tuned.fusion.mean), f"{low}–{high}"]
    if crossed:
        levels = crossed.classes[c.name].levels
        row.append(f"{_short(min(levels), tuned.fusion.mean)}–{_short(max(levels), tuned.fusion.mean)}")
    row += [f"{c.score:.4f}", f"{c.score_at_half:.4f}", f"{c.score - c.score_at_half:+.4f}"]
    return [*row, f"{crossed.classes[c.name].score:.4f}"] if crossed else row


def _short(level: int, mean: str) -> str:
    return f"{shown(level, mean):.4f}"


def _lines(tuned: ThresholdSet) -> list[str]:
    crossed = tuned.validation.crossed
    if crossed is None:
        return ["In-sample: the thresholds were chosen on these samples. Pass folds for an honest score."]
    s = crossed.scores
    how = f"{crossed.folds} folds of {crossed.groups} groups"
    settings = f"tuned {s['tuned']:.4f}, each class its own {s['own']:.4f}, one shared {s['shared']:.4f}"
    lines = [
        f"Out of fold ({how}): {settings}, 0.5 {s['half']:.4f}.",
        f"Gain of tuning over 0.5 on unseen samples: {crossed.gain} (95 % interval over groups).",
    ]
    common = _short(crossed.common_level, tuned.fusion.mean)
    plain = [name for name, c in crossed.classes.items() if not c.keeps]
    if crossed.shrink and plain:
        lines.append(
            f"{len(plain)} of {len(crossed.classes)} classes take the common threshold {common}, since their own gains "
            f"nothing above noise out of fold: {', '.join(plain)}."
        )
    return lines


def _warnings(tuned: ThresholdSet) -> list[str]:
    out = []
    if tuned.validation.n < _FEW:
        out.append(f"{tuned.validation.n} validation samples are few: expect less on unseen images than in-sample")
    blind = [c.name for c in tuned.classes if not c.positives]
    if blind:
        out.append(f"no validation sample has them, so nothing informs their thresholds: {', '.join(blind)}")
    off = [c for c in tuned.classes if c.positives and c.calibration.is_off]
    if off:
        told = ", ".join(f"{c.name} {c.calibration.threshold:.2f} and {c.calibration.half_dice:.2f}" for c in off)
        out.append(
            "scores are no calibrated probabilities where the best threshold of pooled Dice and half of that Dice "
            f"differ (Lipton 2014): {told}"
        )
    edge = [c.name for c in tuned.classes if c.level in {0, LEVELS - 1}]
    if edge:
        out.append(f"the best threshold lies at the end of the scale, so every pixel is on or off: {', '.join(edge)}")
    return out
