"""Shapes of annotation files as runs: drawn as LabelMe draws them, and several of one image put together.

The raster is that of LabelMe's own `shape_to_mask` (K. Wada), which draws with Pillow: coordinates are cut to whole
pixels, outlines are part of a shape, lines are 10 pixels wide and points have a radius of 5.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError, some
from ensemble_kit.formats.bitmaps import runs_of_bitmap
from ensemble_kit.formats.png_codec import decode_png
from ensemble_kit.formats.polygons import points_of
from ensemble_kit.formats.sizes import check_bitmap
from ensemble_kit.masks.runs import Runs, encode
from ensemble_kit.spec.geometry import Shape

LINE_WIDTH, POINT_RADIUS = 10, 5
_LARGEST = 2**18  # radius of a circle: Pillow takes 9 ms for it, and 22 s for one four times as large

_POINTS = {
    "polygon": (3, None),
    "oriented_rectangle": (4, 4),
    "rectangle": (2, 2),
    "circle": (2, 2),
    "line": (2, 2),
    "linestrip": (2, None),
    "point": (1, 1),
    "points": (1, None),
    "mask": (2, 2),
}
"""LabelMe's kinds of shapes, with the least and the greatest number of their points."""


class Labelled(NamedTuple):
    """One shape of an image."""

    label: str
    runs: Runs


def draw(kind: str, points: Any, size: Shape, where: str, mask: Any = None) -> Runs:
    """Draw a shape as LabelMe does.

    Parameters
    ----------
    kind : LabelMe's `shape_type`.
    points : `[[x, y], …]`.
    mask : of the kind `mask`, a PNG in base64 of the pixels between two corners.

    Raises
    ------
    DamagedError
        Another kind, another number of points, or a mask that is not whole.
    """
    if kind not in _POINTS:
        raise _damaged(where, f"its shape is {kind[:40]!r}, which is none of {', '.join(_POINTS)}")
    least, most = _POINTS[kind]
    xy = points_of(points, where, flat=False, least=least, most=most)
    H, W = check_bitmap(size, where)
    if kind == "mask":
        return _placed(mask, xy, (H, W), where)
    if kind == "circle":
        reach = math.dist(*xy.tolist())
        if reach > _LARGEST:
            raise _damaged(where, f"its radius is {reach:g} pixels, the limit is {_LARGEST}")
        xy = np.array([xy[0] - reach, xy[0] + reach])
    elif kind in {"point", "points"}:
        xy = np.concatenate([xy - POINT_RADIUS, xy + POINT_RADIUS])
    elif kind == "rectangle":
        xy = np.sort(xy, axis=0)
    margin = LINE_WIDTH + 1  # whole rows, so that cutting to whole pixels gives the same ones
    top = min(max(0, math.floor(xy[:, 1].min()) - margin), H)
    foot = max(min(H, math.ceil(xy[:, 1].max()) + margin + 1), top)
    if top == foot:
        return Runs.empty((H, W))
    band = encode(_drawn(kind, xy - [0, top], (foot - top, W)))
    return Runs(band.starts + top * W, band.ends + top * W, (H, W))


def _drawn(kind: str, xy: np.ndarray[Any, Any], size: Shape) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("L", (size[1], size[0]))
    pen, flat = ImageDraw.Draw(image), [tuple(p) for p in xy.tolist()]
    if kind in {"polygon", "oriented_rectangle"}:
        pen.polygon(flat, outline=1, fill=1)
    elif kind == "rectangle":
        pen.rectangle(flat, outline=1, fill=1)
    elif kind == "circle":
        pen.ellipse(flat, outline=1, fill=1)
    elif kind in {"point", "points"}:
        for low, high in zip(flat[: len(flat) // 2], flat[len(flat) // 2 :], strict=True):
            pen.ellipse([low, high], outline=1, fill=1)
    else:
        pen.line(flat, fill=1, width=LINE_WIDTH)
    return np.asarray(image)


def _placed(value: Any, corners: np.ndarray[Any, Any], size: Shape, where: str) -> Runs:
    """Put a mask between its two corners, both included."""
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    bitmap = decode_png(raw, where).astype(np.uint8)
    (x0, y0), (x1, y1) = corners.astype(int).tolist()
    if bitmap.shape != (y1 - y0 + 1, x1 - x0 + 1):
        found, wanted = " x ".join(map(str, bitmap.shape)), f"{y1 - y0 + 1} x {x1 - x0 + 1}"
        raise _damaged(where, f"its mask has {found} pixels, its corners leave {wanted}")
    return cropped(runs_of_bitmap(bitmap, where), x0, y0, size)


def cropped(mask: Runs, left: int, top: int, size: Shape) -> Runs:
    """Put a mask of a part of an image where it lies; what is outside the image is left out."""
    h, w = mask.shape
    H, W = size
    y0, y1, x0, x1 = max(0, top), min(H, top + h), max(0, left), min(W, left + w)
    if y0 >= y1 or x0 >= x1:
        return Runs.empty(size)
    inside = mask.decode()[y0 - top : y1 - top, x0 - left : x1 - left]
    band = np.zeros((y1 - y0, W), bool)
    band[:, x0:x1] = inside
    runs = encode(band)
    return Runs(runs.starts + y0 * W, runs.ends + y0 * W, size)


def together(shapes: Iterable[Labelled], size: Shape, paint: bool) -> dict[str, Runs]:
    """Unite the shapes of each label.

    Parameters
    ----------
    paint : whether a later shape is drawn over those before it, so that labels exclude each other.
    """
    listed = list(shapes)
    found = {label: Runs.empty(size) for label, _ in listed}
    covered = Runs.empty(size)
    for label, runs in reversed(listed):
        seen = runs - covered if paint else runs
        found[label] = found[label] | seen
        covered = covered | runs if paint else covered
    return found


NO_PIXEL = "shapes that cover no pixel of their image"
"""What `told` calls shapes outside the image, as where coordinates are of an image of another size."""


def told(said: Mapping[str, int], unused: Sequence[str] = ()) -> str | None:
    """Say in words what was read otherwise than one may think; None where there is nothing to say.

    Parameters
    ----------
    said : how often, by what was done.
    unused : classes that the file lists and nothing in it uses.
    """
    parts = [f"{n} {what}" for what, n in said.items()]
    if unused:
        parts.append(f"nothing is annotated as {some(unused, 10)} (--except leaves classes out)")
    return "; ".join(parts) or None


def _damaged(where: str, why: str) -> DamagedError:
    fix = "correct or delete the shape in the program that wrote it, and save the file again"
    return DamagedError("shape-invalid", "cannot draw a shape", item=f"{where}: {why}", fix=fix)
