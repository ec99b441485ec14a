"""Everything that a notebook draws: all HTML and all matplotlib of the project, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.thresholds.records import ClassThreshold
from ensemble_kit.thresholds.thresholdset import ThresholdSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ensemble_kit.reports.report import Report
    from ensemble_kit.tuning.curve import Curve

_COLUMNS = 4
_POINTS = 1500  # of a curve; a panel is narrower than that
_LINE, _POINT, _FOLD = "#1f5fa8", "#b3261e", "#8a8a8a"


def set_html(tuned: ThresholdSet) -> str:
    """Draw a threshold set as an HTML table with its sentences and warnings."""
    from ensemble_kit.reports.report import of_set

    return report_html(of_set(tuned))


def report_html(report: Report) -> str:
    """Draw any report as HTML; nothing in it is taken for markup."""
    head = "".join(_cell("th", text, k) for k, text in enumerate(report.columns))
    rows = "".join("<tr>" + "".join(_cell("td", v, k) for k, v in enumerate(row)) + "</tr>" for row in report.rows)
    return (
        "<div><table><caption style='caption-side: top; text-align: left'>"
        f"{_text(report.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        + "".join(f"<p>{_text(line)}</p>" for line in report.lines)
        + "".join(f"<p><strong>Warning:</strong> {_text(line)}</p>" for line in report.warnings)
        + "</div>"
    )


def _cell(tag: str, text: str, column: int) -> str:
    return f"<{tag} style='text-align: {'right' if column else 'left'}'>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    """Escape markup, and the dollar signs that a notebook takes for formulas."""
    return escape(str(text)).replace("$", "&#36;")


def plot_set(tuned: ThresholdSet, classes: Sequence[str] | None = None) -> Figure:
    """Draw a panel for each class: its score at every threshold that was scanned.

    A point marks the chosen threshold, a bar its plateau. Of a cross-validated set a band spans the curves that the
    folds chose from (all samples but one fold's), and marks at the foot are the thresholds that they chose.

    Parameters
    ----------
    classes : names to draw, in this order; default: all.

    Raises
    ------
    UsageError
        matplotlib is not installed, or the set was read from a file, which holds no curves.
    MismatchError
        A name that is none of the set's classes.
    """
    if not tuned.curves:
        raise UsageError(
            "curves-missing",
            "cannot draw a threshold set",
            item="it was read from a file, which holds no curves",
            fix="draw the set that tune_thresholds returned; kept statistics make it again without counting",
        )
    by_name = {c.name: c for c in tuned.classes}
    names = list(by_name) if classes is None else list(classes)
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise MismatchError(
            "classes-differ",
            "cannot draw a threshold set",
            item=f"no class is called {some(unknown)}; it has {some(by_name)}" if unknown else "no class is named",
            fix="pass names of its classes, or none for all",
        )
    figure, axes = _panels(len(names))
    for ax, name in zip(axes, names, strict=True):
        _draw(ax, tuned, by_name[name], tuned.curves[name])
    figure.supxlabel("threshold")
    figure.supylabel(f"{tuned.measure.objective} {tuned.measure.title}")
    handles: dict[str, Any] = {}
    for ax in axes:
        handles.update({label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)})
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=5, frameon=False)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = _figure_class()(figsize=(max(3.2 * columns, 6.4), 2.4 * rows + 1.0), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


@cache
def _figure_class() -> type[Figure]:
    """Make a figure that a notebook shows, without pyplot, which keeps figures alive and may open windows."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(
            "extra-missing",
            "cannot draw a threshold set",
            item=f"the package {error.name!r} is not installed",
            fix="pip install 'ensemble_kit[plot]'",
        ) from None

    class Drawing(Figure):
        def _repr_png_(self) -> bytes:
            out = BytesIO()
            self.savefig(out, format="png")
            return out.getvalue()

    return Drawing


def _draw(ax: Axes, tuned: ThresholdSet, c: ClassThreshold, curve: Curve) -> None:
    mean, crossed = tuned.fusion.mean, tuned.validation.crossed
    levels = _thinned(curve, c.level)
    at = [mean.probability_of(level) for level in levels.tolist()]
    parts = range(len(curve.parts))
    values = curve.scores(parts)[levels - curve.table.low]
    lowest = highest = values
    if crossed is not None:
        rest = np.stack([curve.scores([j for j in parts if j != k])[levels - curve.table.low] for k in parts])
        lowest, highest = rest.min(0), rest.max(0)
        ax.fill_between(at, lowest, highest, color=_FOLD, alpha=0.25, lw=0, label="without one fold")
    foot, top = min(float(np.quantile(lowest, 0.05)), c.score), float(max(values.max(), highest.max()))
    room = 0.06 * (top - foot) or 0.05
    ax.set_ylim(foot - 2 * room, top + room)  # the plunge at the ends would flatten all the rest
    ax.plot(at, values, color=_LINE, lw=1.2, label="all samples")
    low, high = (mean.probability_of(level) for level in c.plateau)
    ax.plot([low, high], [c.score] * 2, color=_POINT, lw=4, alpha=0.35, solid_capstyle="butt", label="plateau")
    ax.plot([mean.probability_of(c.level)], [c.score], "o", color=_POINT, ms=4, label="chosen")
    ax.set_title(_plain(c.name), fontsize=9, parse_math=False)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25, lw=0.5)
    if crossed is not None:
        marks = [mean.probability_of(level) for level in crossed.classes[c.name].levels]
        at_foot = ax.get_xaxis_transform()  # x in data, y in the panel
        ax.plot(
            marks, [0.04] * len(marks), "|", color="black", ms=9, mew=1.2, transform=at_foot, label="chosen by a fold"
        )


def _thinned(curve: Curve, level: int) -> NDArray[np.int64]:
    """Choose levels to draw: evenly over the band, and the chosen one."""
    table = curve.table
    last = min(table.high, LEVELS - 1)
    even = np.linspace(table.low, last, _POINTS).round().astype(np.int64)
    return np.unique(np.append(even, min(max(level, table.low), last)))


def _plain(name: str, limit: int = 40) -> str:
    """Shorten a class name for a panel's title; one line."""
    text = " ".join(name.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
