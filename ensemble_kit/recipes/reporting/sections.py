"""The other sections of a page: what was voted, curves and confusion, members, the test set, rules, the machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from functools import reduce
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ensemble_kit.metrics.confusion import NO_CLASS, Confusion
from ensemble_kit.metrics.overlap import dice
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.rules import FIGURES
from ensemble_kit.recipes.reporting.scores import MOST, lowest_classes
from ensemble_kit.recipes.reporting.voted import member_rows
from ensemble_kit.reports import svg
from ensemble_kit.reports.page import Block, Cautions, Chart, Charts, Commands, Facts, Section, Sentences, Table
from ensemble_kit.spec.geometry import as_text
from ensemble_kit.tuning.counting import HIGHS, LOWS

_MATRIX = 40  # classes of the largest confusion matrix that can be read
_PAIRS = 20
_PACKAGES = ("ensemble_kit", "numpy", "scipy", "numba", "pandas", "opencv-python", "pillow", "zarr", "jinja2")


def voted_section(m: Material, sources: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]]) -> Section:
    """Say what was voted, from what, and by which commands it is done again.

    Parameters
    ----------
    sources : names and paths of what was read.
    commands : what each does, and the line.
    """
    facts, blocks = list(sources), list[Block]()
    masks = m.masks
    if masks is not None:
        sizes = sorted({masks.image_size(s) for s in masks.samples})
        between = (
            as_text(sizes[0]) if len(sizes) == 1 else f"{len(sizes)} sizes, {as_text(sizes[0])} to {as_text(sizes[-1])}"
        )
        facts += [("samples", str(len(masks.samples))), ("classes", str(len(masks.classes))), ("images", between)]
    if m.left_out:
        facts.append(("truth left out", f"{m.left_out} samples that the stores do not hold"))
    if m.voted is None and m.rule is not None:
        facts.append(("masks", m.rule))
    blocks.append(Facts(facts))
    if m.voted is not None:
        blocks.append(Sentences([line[0].upper() + line[1:] for line in m.voted.told]))
        if m.voted.doubts:
            blocks.append(Cautions(m.voted.doubts))
    if (members := _members(m)) is not None:
        blocks.append(members)
    if commands:
        blocks.append(Commands(commands))
    return Section(
        "voted", "What was voted", "The members, how they were combined, and the commands that do it again.", blocks
    )


def _members(m: Material) -> Table | None:
    """List the members with their weights and digests: of the vote, else as the set records them."""
    if m.voted is not None:
        rows = m.voted.members
    elif m.tuned is not None:
        rows = member_rows(m.tuned.fusion, m.tuned.members)
    else:
        return None
    columns = ["member", "weight", "folds", "temperature", "store", "model"]
    legend = (
        "Weight: share of the mean; two numbers where it differs by class. Store and model: the first 16 digits of "
        "their digests."
    )
    return Table("Members", columns, rows, legend)


def curve_section(m: Material) -> Section | None:
    """Draw each class's score at every threshold, or the confusion of exclusive classes."""
    scores = m.scores
    if scores is not None and scores.confusion is not None and not m.curves:
        return _confusion_section(scores.confusion)
    if not m.curves or m.voted is None:
        return None
    mean = m.voted.mean
    crossed = None if m.tuned is None else m.tuned.validation.crossed
    charts, names = [], list(m.curves)
    few = [names[k] for k in lowest_classes(m, MOST)]
    for name, own in ((name, m.curves[name]) for name in few):
        threshold, score = mean.probability_of(min(own.level, 65535)), own.score
        if math.isnan(score) or not own.scores.size:  # no pair of this class counts
            continue
        ends = (mean.probability_of(own.plateau[0]), mean.probability_of(own.plateau[1]))
        marks = [] if crossed is None or name not in crossed.classes else crossed.classes[name].levels
        drawn = svg.curve(
            np.array([mean.probability_of(v) for v in own.levels.tolist()]), own.scores, (threshold, score), ends,
            [mean.probability_of(v) for v in marks],
        )  # fmt: skip
        if math.isnan(own.best.score):
            top = "no pair counts where its masks are empty"
        else:
            top = f"the best of the curve is {own.best.score:.4f} at {mean.probability_of(own.best.level):.4f}"
        told = f"{score:.4f} at {threshold:.4f}; {top}"
        charts.append(Chart(drawn, f"{m.measure.title} of {name} against the threshold: {told}", f"{name}: {told}"))
    which = "each class" if len(few) == len(names) else f"the {len(few)} lowest of {len(names)} classes"
    told = (
        f"{m.measure.title} of {which} at every threshold from {mean.probability_of(LOWS[0]):.4g} to "
        f"{mean.probability_of(HIGHS[0]):.4g}, and as far as the one that decides, before rules. The dot is the "
        "threshold that decides, the bar its plateau"
        + (", ticks at the foot what each fold chose." if crossed else ".")
    )
    if not charts:
        return None
    lead = "How much hangs on each threshold: a flat top forgives, a narrow one does not carry over."
    return Section("curves", "Score against threshold", lead, [Charts(charts, told)])


def _confusion_section(found: Confusion) -> Section:
    counts = found.counts
    names = [*found.classes, NO_CLASS]
    some = [k for k in range(len(names)) if counts[k].any() or counts[:, k].any()]
    blocks: list[Block] = []
    if len(some) <= _MATRIX:
        totals = counts.sum(1, keepdims=True)
        shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)[np.ix_(some, some)]
        rows = [
            [names[k], *(f"{100 * v:.1f}" if totals[k, 0] else "–" for v in row)]
            for k, row in zip(some, shares, strict=True)
        ]
        legend = "Of the true pixels of a row's class, the percentage that was predicted as a column's."
        blocks.append(
            Table("Confusion", ["truth", *(names[k] for k in some)], rows, legend, shades=shares.tolist(), sorts=False)
        )
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off.reshape(-1), kind="stable")[:_PAIRS]
    wrong = max(1, int(off.sum()))
    pairs = [(*divmod(int(k), len(names)), int(off.reshape(-1)[k])) for k in order if off.reshape(-1)[k]]
    rows = [[f"{names[t]} as {names[p]}", str(n), f"{100 * n / wrong:.1f} %"] for t, p, n in pairs]
    if rows:
        legend = "Pixels of all samples; the share is of all pixels that are wrong."
        blocks.append(Table("Most frequent confusions", ["truth as prediction", "pixels", "share"], rows, legend))
    return Section("confusion", "Confusion", "Which classes are taken for which.", blocks)


def member_section(m: Material) -> Section | None:
    """Show how much members agree with each other: those that err alike add little."""
    if len(m.members) < 2:
        return None
    names, sets = list(m.members), list(m.members.values())
    table = np.eye(len(sets))
    for i, a in enumerate(sets):
        for k in range(i):
            table[i, k] = table[k, i] = dice(a, sets[k]).mean
    off = table[~np.eye(len(sets), dtype=bool)]
    low, spread = float(np.nanmin(off)), float(np.nanmax(off) - np.nanmin(off)) or 1.0
    shades = np.clip((table - low) / spread, 0, 1)
    np.fill_diagonal(shades, 0)
    rows = [[a, *("" if i == k else f"{table[i, k]:.4f}" for k in range(len(sets)))] for i, a in enumerate(names)]
    how = "as its file has them" if m.voted is None else "each decided as without tuning"
    legend = (
        f"Dice between the masks of two members, {how}: the mean over all pairs of sample and class, both empty = 1. "
        "The darker, the more alike."
    )
    lead = "Members that disagree have something to add to each other; two that agree almost everywhere count as one."
    return Section(
        "members",
        "Agreement of members",
        lead,
        [Table("Agreement", ["member", *names], rows, legend, shades=shades.tolist(), sorts=False)],
    )


def shift_section(m: Material) -> Section | None:
    """Compare the scores of the test set with those of validation."""
    if m.measured is None:
        return None
    shift = m.measured.compared()
    report = shift.report()
    charts = [
        Chart(
            svg.bars(c.area.validation, c.area.test),
            f"area of {c.name}: mean {c.area.validation.mean():.5f} in validation, {c.area.test.mean():.5f} in test",
            f"{c.name}{' (shifted)' if c.is_shifted else ''}",
        )
        for c in shift.classes
    ]
    told = "Share of the image that each class takes: validation drawn through, test dashed."
    blocks: list[Block] = [
        Table.of(report),
        *([Cautions(report.warnings)] if report.warnings else []),
        Charts(charts, told),
    ]
    lead = "Whether thresholds and scores may carry over to the test images."
    return Section("shift", "Validation against test", lead, blocks)


def rule_section(m: Material) -> Section | None:
    """Say what each rule of post-processing removed."""
    if not m.effects:
        return None
    blocks = list[Block]()
    for effect in m.effects:
        rows = [
            [name, *map(str, own.tolist())]
            for name, own in zip(effect.classes, effect.figures, strict=True)
            if own.any()
        ]
        total = ["all", *map(str, reduce(np.add, effect.figures).tolist())]
        blocks.append(Table(effect.rule, ["class", *FIGURES], [*rows, total], "", last=True))
    return Section(
        "rules", "Post-processing", "What each rule removed, in the order in which they were applied.", blocks
    )


def machine_section() -> Section:
    """Say what made the page: versions and platform."""
    facts = [("Python", platform.python_version()), ("platform", platform.platform())]
    for name in _PACKAGES:
        try:
            facts.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return Section("environment", "Environment", "", [Facts(facts)])
