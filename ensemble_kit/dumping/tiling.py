"""A sliding window over images that are larger than the network's input.

Windows that overlap are averaged with weights. The default is a Hann window, which is positive everywhere and adds up
to a constant at an overlap of one half, so that no seam shows; others give what MONAI and nnU-Net compute. Memory holds
the whole output in float32, (C, h, w), its weights, and one batch of windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ensemble_kit.dumping.preprocess import grid_box
from ensemble_kit.spec.geometry import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ensemble_kit.backends import Network
    from ensemble_kit.dumping.preprocess import Size


TileWeights = Literal["hann", "constant", "gaussian"]
"""How much a cell of a window counts, by where it lies in it."""


def slide(
    network: Network,
    image: NDArray[np.float32],
    box: Box,
    tile: Size,
    cells: Size,
    overlap: float,
    batch: int,
    fill: float = 0.0,
    weights: TileWeights = "hann",
) -> NDArray[np.float32]:
    """Run a network over the image in an input, window by window.

    Parameters
    ----------
    image : (channels, h, w), the whole input.
    box : where the image is; windows start there, so that the padding around it, which depends on the size of other
        images, changes nothing.
    tile, cells : (h, w) of a window, and of the grid that the network makes of it.
    overlap : of neighbouring windows, as a fraction of the window, at least 0 and below 1.
    fill : value of the cells that no window reaches.
    weights : of a window's cells.

    Returns
    -------
    ndarray
        float32 (C, h', w') on the grid of the whole input.
    """
    canvas = image.shape[1], image.shape[2]
    windows = list(place_windows(canvas, box, tile, cells, overlap))
    weight = importance(cells, weights)
    total: NDArray[np.float32] | None = None
    for k in range(0, len(windows), batch):
        chosen = windows[k : k + batch]
        x = np.stack([image[:, *w.slices] for w in chosen])
        outputs = network.get(network.forward(network.put(x)))
        if total is None:
            grid = canvas[0] * cells[0] // tile[0], canvas[1] * cells[1] // tile[1]
            total, divisor = np.zeros((outputs.shape[1], *grid), np.float32), np.zeros(grid, np.float32)
        for window, output in zip(chosen, outputs, strict=True):
            y0, x0, y1, x1 = grid_box(window, canvas, grid)
            total[:, y0:y1, x0:x1] += output * weight
            divisor[y0:y1, x0:x1] += weight
    assert total is not None
    reached = divisor > 0
    np.divide(total, divisor, out=total, where=reached)
    if not reached.all():
        total[:, ~reached] = fill
    return total


def place_windows(canvas: Size, box: Box, tile: Size, cells: Size, overlap: float) -> Iterator[Box]:
    """List windows that cover `box`, row by row, on whole grid cells; the last of a row ends where the box does."""
    spans = zip(box.start, box.stop, strict=True)
    rows, columns = (
        _starts(span, n, t, t // c if t >= c else 1, overlap)
        for span, n, t, c in zip(spans, canvas, tile, cells, strict=True)
    )
    for y in rows:
        for x in columns:
            yield Box(y, x, y + tile[0], x + tile[1])


def _starts(span: tuple[int, int], canvas: int, tile: int, align: int, overlap: float) -> list[int]:
    """Place windows of one side evenly, no further apart than the overlap allows."""
    first = min(span[0], canvas - tile)
    last = max(first, span[1] - tile)
    step = max(align, int(tile * (1 - overlap)) // align * align)
    gaps = -(-(last - first) // step)
    return [first + (last - first) // align * k // max(gaps, 1) * align for k in range(gaps + 1)]


def importance(shape: Size, kind: TileWeights) -> NDArray[np.float32]:
    """Make the weights of a window of (h, w), float32 and positive.

    "gaussian" is MONAI's and nnU-Net's: a standard deviation of an eighth of the side, at least 0.001 anywhere.
    """
    if kind == "constant":
        return np.ones(shape, np.float32)
    if kind == "hann":
        return hann(shape)
    sides = [np.exp(-(((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) / 2) for n in shape]
    window: NDArray[np.float32] = np.maximum(np.multiply.outer(*sides), 1e-3).astype(np.float32)
    return window


def hann(shape: Size) -> NDArray[np.float32]:
    """Make a Hann window of (h, w), taken at the cells' centres and so positive everywhere, as float32."""
    sides = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape]
    window: NDArray[np.float32] = np.multiply.outer(*sides).astype(np.float32)
    return window
