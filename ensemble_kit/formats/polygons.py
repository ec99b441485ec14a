"""Polygons to masks, as two references fill them, and masks to polygons.

COCO's polygons are filled as pycocotools does, LabelMe-like ones as `cv2.fillPoly` does: the two differ along the
boundary, and each data set is scored by its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, ResourceError
from ensemble_kit.formats.sizes import check_bitmap
from ensemble_kit.masks.runs import Runs, encode
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FARTHEST = 2**20  # a coordinate beyond any image; OpenCV's own arithmetic is 32-bit
_LONGEST = 2**25  # steps along one boundary


def points_of(value: Any, where: str, flat: bool, least: int = 3, most: int | None = None) -> NDArray[np.float64]:
    """Check the points of a shape: float64 (n, 2) of x, y, finite.

    Parameters
    ----------
    flat : the file has `[x, y, x, y, …]`, otherwise `[[x, y], …]`.
    least, most : how many there have to be; a polygon has three or more.
    """
    rows = [value] if flat else value
    numbers = isinstance(rows, list) and all(
        isinstance(row, list) and all(type(v) in {int, float} for v in row) for row in rows
    )
    points = [v for row in rows for v in row] if numbers else []
    sound = numbers and len(points) % 2 == 0 and (flat or all(len(row) == 2 for row in rows))
    if not sound or not least <= len(points) / 2 <= (most or math.inf):
        wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise _damaged(where, f"it needs {wanted} pairs x, y of numbers, and it has {len(points)} numbers")
    if any(not abs(v) <= _FARTHEST for v in points):
        raise _damaged(where, f"a coordinate lies beyond ±{_FARTHEST}")
    return np.array(points, np.float64).reshape(-1, 2)


def fill_opencv(polygons: Sequence[NDArray[np.float64]], size: Shape, where: str) -> Runs:
    """Fill polygons as `cv2.fillPoly` does, each on its own, and unite them; coordinates are rounded half up."""
    H, W = check_bitmap(size, where)
    corners = [np.floor(p + 0.5).astype(np.int32) for p in polygons]
    top = max(0, min(int(c[:, 1].min()) for c in corners))
    foot = min(H, max(int(c[:, 1].max()) for c in corners) + 1)
    if top >= foot:
        return Runs.empty(size)
    band = np.zeros((foot - top, W), np.uint8)  # only the rows that the polygons touch
    for c in corners:
        _cv2().fillPoly(band, [c - np.array([0, top], np.int32)], 1)
    runs = encode(band)
    return Runs(runs.starts + top * W, runs.ends + top * W, size)


def fill_coco(points: NDArray[np.float64], size: Shape, where: str) -> Runs:
    """Fill a polygon as pycocotools does (`rleFrPoly`, P. Dollár and T.-Y. Lin 2015): no bitmap is made.

    The boundary is followed on a raster five times as fine. Where it crosses the middle of a column, the mask changes
    from there on, down the columns.
    """
    H, W = size
    scale = 5.0
    x, y = np.trunc(scale * np.concatenate([points, points[:1]]).T + 0.5).astype(np.int64)
    u, v = _walk(x, y, where)
    turn = np.flatnonzero(u[1:] != u[:-1]) + 1
    column = np.where(u[turn] < u[turn - 1], u[turn], u[turn] - 1)
    column_at = (column + 0.5) / scale - 0.5
    keep = (np.floor(column_at) == column_at) & (column_at >= 0) & (column_at <= W - 1)
    row_at = np.ceil(np.clip((np.minimum(v[turn], v[turn - 1]) + 0.5) / scale - 0.5, 0, H))
    changes = (column_at[keep] * H + row_at[keep]).astype(np.int64)
    edges, times = np.unique(changes, return_counts=True)
    edges = edges[times % 2 == 1]  # two changes at one pixel cancel
    starts, ends = edges[::2], edges[1::2]  # a closed boundary crosses a column an even number of times
    some = starts < ends
    return Runs(starts[some], ends[some], (W, H)).transposed()


def _walk(x: NDArray[np.int64], y: NDArray[np.int64], where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Step along every edge of a closed polygon, one pixel along its longer side at a time."""
    moved = (np.diff(x) != 0) | (np.diff(y) != 0)
    xs, xe, ys, ye = x[:-1][moved], x[1:][moved], y[:-1][moved], y[1:][moved]
    dx, dy = np.abs(xe - xs), np.abs(ye - ys)
    wide = dx >= dy
    steps = np.maximum(dx, dy) + 1
    if int(steps.sum()) > _LONGEST:
        raise _damaged(where, f"a polygon's boundary has more than {_LONGEST} steps")
    flip = np.where(wide, xs > xe, ys > ye)
    xs, xe, ys, ye = (np.where(flip, b, a) for a, b in ((xs, xe), (xe, xs), (ys, ye), (ye, ys)))
    slope = np.where(wide, ye - ys, xe - xs) / np.maximum(steps - 1, 1)
    edge = np.repeat(np.arange(steps.size), steps)
    step = np.arange(edge.size) - np.repeat(np.cumsum(steps) - steps, steps)
    t = np.where(flip[edge], steps[edge] - 1 - step, step)
    other = np.trunc(np.where(wide, ys, xs)[edge] + slope[edge] * t + 0.5).astype(np.int64)
    along = np.where(wide, xs, ys)[edge] + t
    return np.where(wide[edge], along, other), np.where(wide[edge], other, along)


def outline(runs: Runs) -> list[list[list[int]]]:
    """Write a mask as polygons `[[x, y], …]` without holes, whose `cv2.fillPoly` is the mask exactly."""
    if not runs:
        return []
    H, W = check_bitmap(runs.shape, "a mask")
    top, foot = int(runs.starts[0]) // W, (int(runs.ends[-1]) - 1) // W + 1
    band = Runs(runs.starts - top * W, runs.ends - top * W, (foot - top, W)).decode().view(np.uint8)
    shapes = [np.concatenate([c, c[-1:], c[-1:]])[: max(3, len(c))] for c in _contours(band)]
    shapes = [c + np.array([0, top], np.int32) for c in shapes]
    if fill_opencv([c.astype(np.float64) for c in shapes], (H, W), "a mask") != runs:
        shapes = _rows(runs)  # never seen; the check is cheap, a wrong mask is not
    return [c.tolist() for c in shapes]


def _contours(band: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
    """Outer contours of pieces without holes: a piece with a hole is cut in two through the hole."""
    cv2 = _cv2()
    done: list[NDArray[np.int32]] = []
    waiting = [(band, 0, 0)]
    while waiting:
        bitmap, y, x = waiting.pop()
        contours, tree = cv2.findContours(bitmap, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for k, contour in enumerate(contours):
            _, _, child, parent = tree[0][k]
            if parent != -1:
                continue
            if child == -1:
                done.append(contour.reshape(-1, 2) + np.array([x, y], np.int32))
                continue
            left, top, w, h = cv2.boundingRect(contour)
            piece = np.zeros((h, w), np.uint8)
            cv2.fillPoly(piece, [contour - np.array([left, top], np.int32)], 1)
            piece &= bitmap[top : top + h, left : left + w]
            hole, _, width, _ = cv2.boundingRect(contours[child])
            cut = hole + width // 2 - left
            waiting += [
                (np.ascontiguousarray(piece[:, :cut]), y + top, x + left),
                (np.ascontiguousarray(piece[:, cut:]), y + top, x + left + cut),
            ]
    return done


def _rows(runs: Runs) -> list[NDArray[np.int32]]:
    W = runs.shape[1]
    shapes = []
    for start, end in zip(runs.starts.tolist(), runs.ends.tolist(), strict=True):
        for row in range(start // W, (end - 1) // W + 1):
            low, high = max(start - row * W, 0), min(end - row * W, W) - 1
            shapes.append(np.array([[low, row], [high, row], [high, row]], np.int32))
    return shapes


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        fix = "pip install --force-reinstall --no-deps opencv-python-headless"
        what = "cannot fill polygons: OpenCV does not load"
        raise ResourceError("opencv-missing", what, item=str(error), fix=fix) from None
    return cv2


def _damaged(where: str, why: str) -> DamagedError:
    fix = "write finite points of the image, a polygon at least three"
    return DamagedError("polygon-invalid", "cannot fill a polygon", item=f"{where}: {why}", fix=fix)
