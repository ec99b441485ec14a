"""What a writer is given, made exact: names, grids, sizes and boxes of one sample or of each of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from ensemble_kit.errors import MismatchError, UsageError, check_kind, some
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import AxisKind, Placement, Shape
from ensemble_kit.spec.georeference import GeoReference, WorldGeometry
from ensemble_kit.spec.void import Intervals, pack


def arrays_of(
    spec: StoreSpec,
    names: Sequence[str],
    grid: Shape,
    image_size: Any,
    box: Any = None,
    window: Any = None,
    axes: Sequence[AxisKind] | None = None,
    geometry: WorldGeometry | None = None,
    void: Intervals | None = None,
) -> list[SampleArray]:
    """Return the arrays of samples on one grid that are to be written.

    Raises
    ------
    UsageError
        Sizes or boxes of another number of axes, or that are impossible; or a store of one grid of images, which cannot
        keep a window, kinds of axes or a geometry.
    """
    rank, count = len(grid), len(names)
    sizes = each("image_size", image_size, count, rank)
    boxes = [None] * count if box is None else each("box", box, count, 2 * rank)
    windows = [None] * count if window is None else each("window", window, count, 2 * rank)
    if geometry is not None:
        kinds = "pass Geometry.of(affine, world) of a volume, GeoReference(crs, transform) of a scene"
        check_kind("the geometry", geometry, Geometry | GeoReference, kinds)
        if rank != (3 if isinstance(geometry, Geometry) else 2):
            item = f"a geometry of {geometry.as_text()}, samples {some(names, 3)} of {rank} axes"
            raise UsageError(
                "geometry-images", "cannot keep the geometry of images", item=item, fix="pass geometry=None"
            )
    placements = [Placement.of(grid, s, b, w, axes) for s, b, w in zip(sizes, boxes, windows, strict=True)]
    odd = [p for p in placements if p.window is not None or p.axes]
    if odd and not spec.own:
        told = f"axes {odd[0].axes}" if odd[0].window is None else f"window {tuple(odd[0].window)}"
        item = f"{told} of samples {some(names, 3)}, in a store of one grid, {spec.grid}"
        fix = "make the store with grid=None, which keeps them for each sample"
        raise UsageError("grid-fixed", "cannot keep a window or kinds of axes", item=item, fix=fix)
    if geometry is not None and not spec.own:
        item = f"a geometry of samples {some(names, 3)}, in a store of one grid, {spec.grid}"
        fix = "make the store with grid=None, which keeps it for each sample"
        raise UsageError("grid-fixed", "cannot keep the geometry of a scene", item=item, fix=fix)
    if void is not None and (not spec.own or rank != 2 or count > 1):
        item = f"void pixels of samples {some(names, 3)}" + (
            f" in a store of one grid, {spec.grid}" if spec.grid else ""
        )
        fix = "make the store with grid=None, and write images with void pixels one by one"
        raise UsageError("grid-fixed", "cannot keep which pixels hold no data", item=item, fix=fix)
    return [spec.array(p, geometry, void=pack(void, p.image, s)) for p, s in zip(placements, names, strict=True)]


def grid_of(spec: StoreSpec, names: Sequence[str], shape: tuple[int, ...], batch: bool) -> Shape:
    """Return the grid of an array (C, *grid), or of a batch (B, C, *grid).

    Raises
    ------
    MismatchError
        Another number of samples or classes, or not the store's grid.
    """
    head = (len(names), len(spec.classes)) if batch else (len(spec.classes),)
    grid = shape[len(head) :]
    if shape[: len(head)] == head and (grid == spec.grid if spec.grid else len(grid) in (2, 3) and min(grid) > 0):
        return grid
    rank = len(spec.grid or shape[len(head) :])
    words = ", ".join(("classes", "slices", "rows", "columns") if rank == 3 else ("classes", "rows", "columns"))
    wanted = (*head, *spec.grid) if spec.grid else f"{str(head)[:-1].rstrip(',')}, …)"
    item = f"{some(names, 3)}: {shape} instead of {wanted} ({words})"
    fix = "pass (C, h, w) with one id or (B, C, h, w) with a list of ids"
    fix += "; a store has one grid, unless it is made with grid=None" if spec.grid else "; of a volume (C, d, h, w)"
    turned = (*shape[: len(head) - 1], shape[-1], *shape[len(head) - 1 : -1]) if len(shape) > len(head) else ()
    if turned and turned[: len(head)] == head and (not spec.grid or turned[len(head) :] == spec.grid):
        axis = -1 - len(turned[len(head) :])
        fix = f"pass it transposed, classes first: np.moveaxis(array, -1, {axis})"
    elif spec.grid and len(spec.grid) == 2 and len(shape) == len(head) + 3:
        fix += "; a volume's store is made with grid=None or grid=(d, h, w)"
    raise MismatchError("logits-shape", "cannot store logits of another shape", item=item, fix=fix)


def volume_of(spec: StoreSpec, sample: str, grid: Any) -> Shape:
    """Return the grid of a volume that comes slab by slab.

    Raises
    ------
    MismatchError
        It is not (d, h, w), or not the store's.
    """
    whole = whole_numbers(grid)
    if isinstance(whole, tuple) and len(whole) == 3 and min(whole) > 0 and spec.grid in (None, whole):
        return whole
    item = f"sample {sample!r}: grid={grid!r}" + (f" in a store of {spec.grid}" if spec.grid else "")
    fix = "pass grid=(d, h, w), of all slabs together, to a writer of grid=None or of this grid"
    raise MismatchError("logits-shape", "cannot write a volume slab by slab", item=item, fix=fix)


def each(name: str, value: Any, count: int, length: int) -> list[tuple[int, ...]]:
    """Repeat one tuple for all of a batch, or take one for each."""
    try:
        rows = list(value) if hasattr(value[0], "__len__") else [value] * count
        whole = [tuple(int(v) for v in row) for row in rows]
        sound = len(rows) == count and all(
            len(new) == length and new == tuple(old) for new, old in zip(whole, rows, strict=True)
        )
    except (TypeError, ValueError, IndexError, KeyError):
        sound, whole = False, []
    if not sound:
        what, item = "cannot tell which size or box belongs to which sample", f"{name}={value!r} for {count} samples"
        fix = f"pass one tuple of {length} whole numbers for all, or a list with one for each id"
        raise UsageError("batch-invalid", what, item=item, fix=fix)
    return whole


def several(kind: str, names: object) -> tuple[str, ...]:
    """Take names in their order; one text, whose letters would pass for names, is refused, and so is a set."""
    if isinstance(names, str | bytes | Set) or not isinstance(names, Iterable):
        fix = f"pass {kind} as a list, one text for each"
        raise UsageError("name-invalid", f"cannot use the names of {kind}", item=f"{kind}={names!r}", fix=fix)
    return tuple(names)


def whole_numbers(grid: Any) -> Any:
    """Turn whole numbers of any kind into int; what is not whole is left for `StoreSpec` to refuse."""
    try:
        values = tuple(int(v) for v in grid)
        return values if values == tuple(grid) else grid
    except (TypeError, ValueError, OverflowError):
        return grid
