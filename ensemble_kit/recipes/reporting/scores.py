"""What the score is, how well it is known, and which classes and samples it is of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import Caution
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import Overlap
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.score import Scores
from ensemble_kit.reports.page import Block, Cautions, Figures, Section, Sentences, Table
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Interval
from ensemble_kit.tuning.folds import group_of
from ensemble_kit.tuning.resampling import Counts, Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 60
"""Classes that have a chart of their own, those of the lowest scores: a page of thousands must still open."""
_FEWEST = 6
"""Groups from which on a gain can be told from chance: fewer have one sign by chance in over 5 % of all cases."""
_ANSWER = "this answer"


def score_section(m: Material) -> Section | None:
    """Say what the score is: in-sample beside out of fold, against each member, and against no tuning."""
    scores, tuned, blocks = m.scores, m.tuned, list[Block]()
    figures = [] if scores is None else [_headline(m, scores)]
    if tuned is not None and m.measure == tuned.measure:
        crossed = tuned.validation.crossed
        if scores is None:
            n = tuned.validation.n
            figures.append((f"{tuned.measure.name}, in-sample", f"{tuned.score:.4f}", f"{n} validation samples"))
        if crossed is not None:
            expected = tuned.score_on_new
            note = "on samples that did not choose the thresholds"
            figures.append(("out of fold", f"{crossed.scores['tuned']:.4f}", note))
            if expected is not None:
                span = f"{expected.low:.4f} – {expected.high:.4f}"
                figures.append(("to expect", span, f"on {crossed.groups} new groups of the same kind, 95 %"))
    rows = [] if scores is None else _rows(m, scores)
    blocks += [Figures(figures)] if figures else []
    lines = _verdicts(m, rows)
    if tuned is not None:
        report = tuned.report()
        if scores is not None and m.measure != tuned.measure:
            lines.append(f"The set was tuned by {tuned.measure}, and the sentences below are of that.")
        lines += report.lines
        blocks += [Sentences(lines)] if lines else []
        blocks += [Cautions(report.warnings)] if report.warnings else []
    elif lines:
        blocks.append(Sentences(lines))
    if scores is not None:
        if told := scores.told():
            blocks.append(Sentences(told))
        if warned := [*score_cautions(m), *scores.warnings()]:
            blocks.append(Cautions(warned))
        if len(rows) > 1:
            blocks.append(_table(m, rows))
    if not blocks:
        return None
    return Section("score", "Score", "What it reaches, how well that is known, and against what.", blocks)


Row = tuple[str, float, Interval | None, int, int]
"""Name, score, gain of the answer over it, and samples in which the answer is better and worse."""


def _headline(m: Material, scores: Scores) -> tuple[str, str, str]:
    where = (
        "in-sample: the set was tuned on these samples" if m.in_sample else "on samples that the set was not tuned on"
    )
    n = len(scores.overlap.samples)
    note = f"{n} samples" if m.tuned is None else f"{n} samples, {where}"
    return m.measure.name, _text(scores.score), note


def _rows(m: Material, scores: Scores) -> list[Row]:
    """Compare the answer with what needed no tuning, and with each member alone."""
    own, samples = _counts(scores.overlap, m.measure), scores.overlap.samples
    judge, truth = Resampler(group_of(samples, m.groups), m.seed), _of_classes(scores.overlap, m.measure, "truth")
    by_sample = _by_sample(scores.overlap, m.measure)
    plain: list[tuple[str, MaskSet]] = [] if m.plain is None else [(_plain_name(m), m.plain)]
    others = [(name, m.scores_of(masks)) for name, masks in [*plain, *m.members.items()]]
    pairs = [(own, _counts(other.overlap, m.measure), truth) for _, other in others]
    rows: list[Row] = [(_ANSWER, scores.score, None, 0, 0)]
    for (name, other), gain in zip(others, judge.intervals(m.measure, pairs), strict=True):
        gaps = by_sample - _by_sample(other.overlap, m.measure)
        rows.append((name, other.score, gain, int((gaps > 0).sum()), int((gaps < 0).sum())))
    return rows


def _plain_name(m: Material) -> str:
    what = "argmax without factors" if m.voted is not None and m.voted.softmax else "0.5 for all"
    return f"{what}, no rules" if m.voted is not None and m.voted.ruled else what


def _counts(o: Overlap, measure: Measure) -> Counts:
    return _of_classes(o, measure, "tp"), _of_classes(o, measure, "pred")


def _of_classes(o: Overlap, measure: Measure, which: str) -> np.ndarray:
    kept = [k for k, name in enumerate(o.classes) if name != measure.background]
    return np.asarray(getattr(o, which)).T[kept]


def _by_sample(o: Overlap, measure: Measure) -> np.ndarray:
    """Score each sample: the mean over its classes, NaN where all are skipped."""
    kept = [k for k, name in enumerate(o.classes) if name != measure.background]
    values = o.under(measure).values[:, kept]
    counted = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counted, values, 0).sum(1) / counted.sum(1))


def lowest_classes(m: Material, most: int) -> list[int]:
    """Return the numbers of the classes of the lowest scores, in the order of the classes; all where they are few."""
    if m.scores is not None:
        own = np.array(list(m.scores.overlap.per_class.values()))
    else:
        own = np.zeros(0) if m.expected is None else m.expected.expected.mean(0)
    return sorted(np.argsort(np.where(np.isnan(own), np.inf, own), kind="stable")[:most].tolist())


def sample_scores(m: Material) -> np.ndarray:
    """Return the score of each sample, float64 (samples,): the mean over its classes, or what it is expected to be."""
    if (scores := m.scores) is not None:
        return _by_sample(scores.overlap, m.measure)
    return np.zeros(0) if m.expected is None else m.expected.scores


def _verdicts(m: Material, rows: Sequence[Row]) -> list[str]:
    """Say in words what the comparison means."""
    lines = []
    alone = [row for row in rows[1:] if row[0] in m.members]
    if alone:
        best = max(alone, key=lambda row: row[1] if not math.isnan(row[1]) else -1.0)
        lines.append(_verdict(f"the best member alone, {best[0]}", best, m))
    lines += [_verdict(row[0], row, m) for row in rows[1:] if row[0] not in m.members]
    return lines + _lowest(m)


def _lowest(m: Material) -> list[str]:
    """Name the classes and the samples of the lowest scores."""
    if m.scores is None or m.masks is None:
        return []
    o, pooled = m.scores.overlap, m.measure.objective == "pooled"
    values = o.pooled_per_class if pooled else o.per_class
    by_sample = dict(zip(o.samples, _by_sample(o, m.measure).tolist(), strict=True))
    lines = []
    for what, found in (("classes", values), ("samples", by_sample)):
        known = sorted((v, name) for name, v in found.items() if not math.isnan(v) and name != m.measure.background)
        if len(known) > 1:
            few = known[: max(1, min(3, len(known) // 2))]
            lines.append(f"Lowest {what}: {', '.join(f'{name} {v:.4f}' for v, name in few)}.")
    return lines


def _verdict(name: str, row: Row, m: Material) -> str:
    _, score, gain, better, worse = row
    assert gain is not None
    if m.in_sample and row[0] not in m.members:
        how = (
            "out of fold it is said below" if m.tuned and m.tuned.validation.crossed else "out of fold it is not known"
        )
        return f"Against {name} ({_text(score)}) it gains {gain.value:+.4f} in-sample, on samples that chose it; {how}."
    if math.isnan(gain.value):
        return f"Against {name} ({_text(score)}) no gain is known: no pair of sample and class counts in both."
    if (n := _groups(m)) < 2:
        return f"Against {name} ({_text(score)}) it gains {gain.value:+.4f}; one of {_unit(m)} tells nothing of others."
    told = f"Against {name} ({_text(score)}) it gains {gain} (95 % interval over {_unit(m)})"
    if n < _FEWEST:
        word = f", but {n} {_unit(m)} are too few to tell it from chance"
    elif gain.low > 0:
        word = ", more than chance explains"
    elif gain.high < 0:
        word = ": it is worse, by more than chance explains"
    else:
        word = ", which chance explains"
    seen = ", in-sample" if m.in_sample and not (m.tuned is not None and m.tuned.is_plain) else ""
    return f"{told}{seen}{word}. It is better in {better} samples and worse in {worse}."


def _groups(m: Material) -> int:
    """Count what is resampled: groups of samples, or samples."""
    return 0 if m.scores is None else len(set(group_of(m.scores.overlap.samples, m.groups)))


def _unit(m: Material) -> str:
    return "samples" if m.groups is None else "groups"


def _table(m: Material, rows: Sequence[Row]) -> Table:
    shown = []
    for name, score, gain, better, worse in rows:
        if gain is None:
            shown.append([name, _text(score), "", "", "", "", ""])
            continue
        known = (gain.value, gain.low, gain.high) if _groups(m) > 1 else (gain.value, math.nan, math.nan)
        ends = ["–" if math.isnan(v) else f"{v:+.4f}" for v in known]
        shown.append([name, _text(score), *ends, str(better), str(worse)])
    columns = ["masks", m.measure.name, "gain of the answer", "95 % from", "to", "better in", "worse in"]
    legend = (
        f"{m.measure}. {'' if m.voted is None else 'Members alone decide as without tuning. '}"
        "Gain: the answer less the row, with a bootstrap "
        f"interval over {_unit(m)} (2,000 resamples). Better, worse: samples whose mean over classes is higher, or "
        "lower."
    )
    return Table("The answer against its parts", columns, shown, legend)


def class_section(m: Material) -> Section | None:
    """Tell of each class: its score, its threshold with the plateau, and in which direction it errs."""
    scores, tuned = m.scores, m.tuned
    if scores is None:
        if tuned is None or not (tuned.classes or tuned.factors):
            return None
        table = Table.of(tuned.report(), last=tuned.guarantee is None)
        return Section("classes", "Classes", "Click a column's head to sort.", [table])
    blocks: list[Block] = [_class_table(m, scores)]
    if scores.confusion is not None:
        blocks.append(Table.of(scores.reports()[1]))
    lead = "Which are weak, and whether they are drawn too large or too small. Click a column's head to sort."
    return Section("classes", "Classes", lead, blocks)


def _class_table(m: Material, scores: Scores) -> Table:
    o, name = scores.overlap, m.measure.title
    pooled = m.measure.objective == "pooled"
    values = o.pooled_per_class if pooled else o.per_class
    chosen, crossed = _chosen(m), None if m.tuned is None else m.tuned.validation.crossed
    out_of_fold = {} if crossed is None or m.measure != m.tuned.measure else crossed.classes  # type: ignore[union-attr]
    what = next(iter(chosen.values()))[0] if chosen else ""
    columns = ["class", f"{name}{' pooled' if pooled else ''}", *(["out of fold"] if out_of_fold else [])]
    columns += [*([what, "plateau"] if chosen else []), *([f"HD95 {m.distances.unit}"] if m.distances else [])]
    columns += ["area", "has it", "missed", "invented"]
    rows = []
    for k, c in enumerate(o.classes):
        pred, truth = o.pred[:, k], o.truth[:, k]
        area = f"{100 * (pred.sum() / truth.sum() - 1):+.1f} %" if truth.any() else "–"
        counts = [(truth > 0).sum(), ((truth > 0) & (pred == 0)).sum(), ((truth == 0) & (pred > 0)).sum()]
        row = [c, _text(values[c])]
        row += [_text(out_of_fold[c].score) if c in out_of_fold else "–"] if out_of_fold else []
        row += list(chosen.get(c, ("", "–", "–"))[1:]) if chosen else []
        row += [_distance(m.distances.values[:, k])] if m.distances else []
        rows.append([*row, area, *(str(int(v)) for v in counts)])
    without = "" if m.measure.background is None else f" without {m.measure.background}"
    last = [f"all{without}", _text(scores.score)]
    last += [_text(crossed.scores["tuned"])] if out_of_fold and crossed is not None else []
    last += ["", ""] if chosen else []
    counted = [k for k, c in enumerate(o.classes) if c != m.measure.background]
    last += [_distance(m.distances.values[:, counted])] if m.distances else []
    rows.append([*last, "", "", "", ""])
    legend = (
        f"{m.measure.legend}; {m.measure.counted}. "
        f"{'Plateau: values with the same score. ' if chosen else ''}"
        f"{_HD95 if m.distances else ''}"
        "Area: pixels of all masks against those of the truth, so + is drawn too large. Has it: samples whose truth "
        "has the class. Missed: those of them whose mask is empty. Invented: samples with a mask and no truth."
    )
    title = f"{m.measure} over {len(o.samples)} samples"
    return Table(title, columns, rows, legend, last=True)


_HD95 = (
    "HD95: 95th percentile of the distances between the surfaces of mask and truth, the larger of both directions, its "
    "mean over the pairs of sample and class that have both. "
)


def _distance(values: NDArray[np.float64]) -> str:
    """Write the mean of the distances that are known."""
    known = values[~np.isnan(values)]
    return f"{known.mean():.2f}" if known.size else "–"


def _chosen(m: Material) -> dict[str, tuple[str, str, str]]:
    """Return what decides each class: the name of the quantity, its value and its plateau."""
    if m.tuned is None or m.tuned.guarantee is not None:
        return {}
    t = m.tuned
    if t.factors:
        return {
            c.name: ("factor", f"{c.factor / ONE:.4g}", f"{c.plateau[0] / ONE:.4g}–{c.plateau[1] / ONE:.4g}")
            for c in t.factors
        }
    at = t.fusion.mean.probability_of
    return {
        c.name: ("threshold", f"{at(c.level):.4f}", f"{at(c.plateau[0]):.4f}–{at(c.plateau[1]):.4f}") for c in t.classes
    }


def score_cautions(m: Material) -> list[Caution]:
    """Warn that the score is in-sample, where nothing better is known."""
    if not m.in_sample or m.tuned is None or m.tuned.validation.crossed is not None or m.tuned.is_plain:
        return []
    doubt = "the score is of the samples that chose the thresholds, and no score out of fold is known"
    return [Caution(doubt, "tune with folds (ensk tune-thresholds, 3 samples or more), or score on other samples")]


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
