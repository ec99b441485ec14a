"""Drawings as SVG: elements whose texts are escaped, and the few charts that a page needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_DOTS = 300
"""Samples of a row that have a dot each; of more a dot stands for all that lie on one pixel."""


class Svg(str):
    """Markup that is made of escaped texts; `__html__` tells templates so."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def element(name: str, *children: str, **attributes: Any) -> Svg:
    """Make an element; texts and values are escaped, elements are taken as they are.

    Examples
    --------
    >>> str(element("text", "a < b", x=1.25, text_anchor="end"))
    '<text x="1.2" text-anchor="end">a &lt; b</text>'
    """
    told = "".join(f' {k.rstrip("_").replace("_", "-")}="{_value(v)}"' for k, v in attributes.items())
    inner = "".join(child if isinstance(child, Svg) else escape(child) for child in children)
    return Svg(f"<{name}{told}>{inner}</{name}>")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escape(str(value))


def drawing(width: int, height: int, *children: str) -> Svg:
    """Make a drawing that scales with its column; the page says in words what it shows."""
    return element("svg", *children, viewBox=f"0 0 {width} {height}", width=width, height=height, aria_hidden="true")


def path(x: NDArray[np.float64], y: NDArray[np.float64], **attributes: Any) -> Svg:
    """Draw a line through points."""
    steps = "L".join(f"{_value(float(a))} {_value(float(b))}" for a, b in zip(x, y, strict=True))
    return element("path", d=f"M{steps}", **attributes)


class Scale:
    """A linear axis: from values to places in a drawing."""

    def __init__(self, values: tuple[float, float], places: tuple[float, float]) -> None:
        self.values, self.places = values, places

    def __call__(self, value: Any) -> Any:
        """Return where values lie."""
        (low, high), (first, last) = self.values, self.places
        return first + (np.asarray(value, np.float64) - low) / ((high - low) or 1.0) * (last - first)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values between the ends, at most so many."""
        low, high = self.values
        rough = (high - low) / max(1, most - 1)
        if not rough > 0 or not math.isfinite(rough):
            return [low]
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * k for k in (1, 2, 2.5, 5, 10, 20) if unit * k >= rough * 0.999)
        first = math.ceil(low / step - 1e-9)
        return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def curve(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    chosen: tuple[float, float],
    plateau: tuple[float, float],
    marks: Sequence[float] = (),
    size: tuple[int, int] = (210, 120),
) -> Svg:
    """Draw a score against the threshold, with the chosen point, its plateau, and what each fold chose."""
    width, height = size
    foot = min(float(np.quantile(y, 0.05)), chosen[1])
    top = max(float(y.max()), chosen[1])
    room = 0.08 * (top - foot) or 0.05
    across, up = Scale((0.0, 1.0), (34.0, width - 8.0)), Scale((foot - room, top + room), (height - 18.0, 6.0))
    kept = y >= foot - room
    parts = [
        element("path", d=f"M{_value(float(across(v)))} {6}V{height - 18}", class_="grid")
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for v in up.ticks(4):
        place = float(up(v))
        parts += [element("path", d=f"M34 {_value(place)}H{width - 8}", class_="grid"),
                  element("text", f"{v:.3g}", x=30, y=place + 3.5, class_="end")]  # fmt: skip
    for v in (0.0, 0.5, 1.0):
        parts.append(element("text", f"{v:g}", x=float(across(v)), y=height - 5, class_="mid"))
    parts.append(path(across(x[kept]), up(y[kept]), class_="line"))
    level = float(up(chosen[1]))
    parts.append(path(across(np.array(plateau)), np.array([level, level]), class_="plateau"))
    parts += [element("path", d=f"M{_value(float(across(m)))} {height - 18}v-7", class_="fold") for m in marks]
    parts.append(element("circle", cx=float(across(chosen[0])), cy=level, r=3.5, class_="chosen"))
    return drawing(width, height, *parts)


def strip(
    rows: Sequence[tuple[str, NDArray[np.float64]]], name: str, marked: Sequence[int] = (), width: int = 880
) -> Svg:
    """Draw values of samples as dots, one row each, with the median of a row as a line.

    Parameters
    ----------
    rows : name and values, NaN where there is none.
    marked : samples of the first row that are drawn larger: those with a picture.
    """
    left, step = 170, 18
    known = np.concatenate([v[~np.isnan(v)] for _, v in rows]) if rows else np.zeros(0)
    low = min(0.0 if not known.size or known.min() < 0.5 else math.floor(known.min() * 10) / 10, 0.9)
    across = Scale((low, 1.0), (left + 6.0, width - 12.0))
    height = step * len(rows) + 34
    parts = []
    for v in across.ticks(6):
        place = float(across(v))
        parts += [element("path", d=f"M{_value(place)} 4V{height - 28}", class_="grid"),
                  element("text", f"{v:.3g}", x=place, y=height - 14, class_="mid")]  # fmt: skip
    parts.append(element("text", name, x=(left + width) / 2, y=height - 2, class_="mid"))
    for k, (label, values) in enumerate(rows):
        y = 4 + step * (k + 0.5)
        own = values[~np.isnan(values)]
        parts.append(element("text", _short(label), element("title", label), x=left - 4, y=y + 3.5, class_="end"))
        if own.size:
            at = across(np.sort(own)) if own.size <= _DOTS else np.unique(across(own).round())
            dots = "".join(f"M{_value(float(x))} {_value(y)}h0" for x in at)
            parts.append(element("path", d=dots, class_="dots"))
            middle = float(across(np.median(own)))
            parts.append(element("path", d=f"M{_value(middle)} {_value(y - 6)}v12", class_="median"))
        if k == 0:
            parts += [
                element("circle", cx=float(across(values[s])), cy=y, r=3.5, class_="chosen")
                for s in marked
                if not math.isnan(values[s])
            ]
    return drawing(width, height, *parts)


def _short(text: str, limit: int = 26) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bars(first: NDArray[np.float64], second: NDArray[np.float64], size: tuple[int, int] = (210, 96)) -> Svg:
    """Draw two distributions of values as outlines over common bins, each of area 1."""
    width, height = size
    both = np.concatenate([first, second])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, 17)
    heights = [np.histogram(v, edges)[0] / max(1, v.size) for v in (first, second)]
    top = max(float(h.max()) for h in heights) or 1.0
    across, up = Scale((float(edges[0]), float(edges[-1])), (8.0, width - 8.0)), Scale((0, top), (height - 18.0, 6.0))
    parts = [element("path", d=f"M8 {height - 18}H{width - 8}", class_="grid")]
    for own, kind in zip(heights, ("first", "second"), strict=True):
        x, y = np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(own, 2), [0.0]])
        parts.append(path(across(x), up(y), class_=kind))
    for value, place, kind in ((edges[0], 8, "start"), (edges[-1], width - 8, "end")):
        parts.append(element("text", f"{value:.3g}", x=place, y=height - 5, class_=kind))
    return drawing(width, height, *parts)
