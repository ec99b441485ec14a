"""Tiles of a scene, blended: sums of weighted codes, and their rounded means."""

# mypy: allow-untyped-defs, allow-untyped-calls

from ensemble_kit.kernels.jit import kernel


@kernel
def add_tile(codes, rows, columns, top, left, total, weight):
    """Add a tile's codes, each times its weight, to the sums of a band of a scene's grid.

    Parameters
    ----------
    codes : uint16 (C, h, w).
    rows, columns : int64 (h,) and (w,); the weight of a cell is their product.
    top, left : where the tile's first cell stands in the band.
    total : int64 (C, H, W) and `weight` int64 (H, W); added to.
    """
    for y in range(codes.shape[1]):
        for x in range(codes.shape[2]):
            weight[top + y, left + x] += rows[y] * columns[x]
    for c in range(codes.shape[0]):
        for y in range(codes.shape[1]):
            for x in range(codes.shape[2]):
                total[c, top + y, left + x] += rows[y] * columns[x] * codes[c, y, x]


@kernel
def put_means(total, weight, out):
    """Divide sums by their weights, halves rounded up, into `out`, uint16 (C, H, W); every cell has a weight."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = (total[c, y, x] + weight[y, x] // 2) // weight[y, x]
