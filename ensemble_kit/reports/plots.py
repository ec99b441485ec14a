"""Plots by matplotlib: panels of curves, as figures that a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_COLUMNS = 4
_LINE, _POINT, _FOLD = "#1f5fa8", "#b3261e", "#8a8a8a"


@dataclass(frozen=True)
class Panel:
    """One curve with a chosen point.

    Parameters
    ----------
    name : title of the panel.
    x, y : float64 (n,), the curve.
    chosen : (x, y) of the chosen point.
    plateau : where the curve is as high as there, from and to.
    without : float64 (folds, n), the curves of all samples but one fold's; None without a cross-validation.
    marks : what each fold chose.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    chosen: tuple[float, float]
    plateau: tuple[float, float]
    without: NDArray[np.float64] | None = None
    marks: tuple[float, ...] = ()


def draw(panels: Sequence[Panel], x: str, y: str) -> Figure:
    """Draw panels, with names for their common axes.

    Parameters
    ----------
    x, y : names of the axes.

    Returns
    -------
    Figure
        A notebook shows it as an image.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    figure, axes = _panels(len(panels))
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, panel)
    figure.supxlabel(x)
    figure.supylabel(y)
    handles: dict[str, Any] = {}
    for ax in axes:
        handles.update({label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)})
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_reliability(curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """Draw reliability curves, a panel each: name, mean score and true share of each bin, NaN where it has no pixel.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    figure, axes = _panels(len(curves))
    for ax, (name, score, true) in zip(axes, curves, strict=True):
        has = ~np.isnan(score)
        ax.plot([0, 1], [0, 1], color=_FOLD, lw=0.8)
        ax.plot(score[has], true[has], "o-", color=_LINE, lw=1.2, ms=3)
        ax.set_title(_plain(name), fontsize=9, parse_math=False)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.25, lw=0.5)
    figure.supxlabel("score")
    figure.supylabel("share of the pixels that is true")
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = figure_class()(figsize=(max(3.2 * columns, 6.4), 2.4 * rows + 1.0), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


@cache
def figure_class() -> type[Figure]:
    """Return a class of figures that notebooks show, made without pyplot, which keeps figures alive.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        item = f"the package {error.name!r} is not installed"
        raise UsageError("extra-missing", "cannot draw", item=item, fix="pip install 'ensemble_kit[plot]'") from None

    class Drawing(Figure):
        def _repr_png_(self) -> bytes:
            out = BytesIO()
            self.savefig(out, format="png")
            return out.getvalue()

    return Drawing


def _draw(ax: Axes, panel: Panel) -> None:
    x, y, score = panel.x, panel.y, panel.chosen[1]
    lowest = highest = y
    if panel.without is not None:
        lowest, highest = panel.without.min(0), panel.without.max(0)
        ax.fill_between(x, lowest, highest, color=_FOLD, alpha=0.25, lw=0, label="without one fold")
    foot, top = min(float(np.quantile(lowest, 0.05)), score), float(max(y.max(), highest.max()))
    room = 0.06 * (top - foot) or 0.05
    ax.set_ylim(foot - 2 * room, top + room)  # the drop at the ends would flatten the rest
    ax.plot(x, y, color=_LINE, lw=1.2, label="all samples")
    ax.plot(panel.plateau, [score] * 2, color=_POINT, lw=4, alpha=0.35, solid_capstyle="butt", label="plateau")
    ax.plot(*([v] for v in panel.chosen), "o", color=_POINT, ms=4, label="chosen")
    ax.set_title(_plain(panel.name), fontsize=9, parse_math=False)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25, lw=0.5)
    if panel.marks:
        heights = [0.04] * len(panel.marks)
        at_foot = ax.get_xaxis_transform()  # x in data, y in the panel
        ax.plot(panel.marks, heights, "|", color="black", ms=9, mew=1.2, transform=at_foot, label="chosen by a fold")


def _plain(name: str, limit: int = 40) -> str:
    """Shorten a class name for a panel's title; one line."""
    text = " ".join(name.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
