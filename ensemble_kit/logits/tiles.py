"""The tiles of a scene on their way into a store, and out of it: as a stack, each filled up to the largest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.logits.arguments import each, whole_numbers
from ensemble_kit.logits.floats import Floats, recognise
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.georeference import GeoReference
from ensemble_kit.spec.mosaic import Mosaic, placed
from ensemble_kit.spec.void import Intervals, hides, pack

if TYPE_CHECKING:
    from numpy.typing import NDArray


def array_of(
    spec: StoreSpec,
    sample: str,
    boxes: Sequence[Sequence[int]],
    grid: Any,
    image_size: Any,
    box: Any = None,
    geometry: GeoReference | None = None,
    void: Intervals | None = None,
) -> SampleArray:
    """Return the array of a scene that is to be written tile by tile.

    Raises
    ------
    MismatchError
        A store of one grid, a grid that is not (h, w), or a tile outside it.
    UsageError
        A tile twice, or sizes that are impossible.
    IncompleteError
        Cells that no tile covers.
    """
    whole = whole_numbers(grid)
    if spec.grid is not None or not (isinstance(whole, tuple) and len(whole) == 2 and min(whole) > 0):
        item = f"sample {sample!r}: grid={grid!r}" + (f" in a store of {spec.grid}" if spec.grid else "")
        fix = "make the store with grid=None, and pass grid=(h, w), the cells of the whole scene"
        raise MismatchError("logits-shape", "cannot write a scene tile by tile", item=item, fix=fix)
    (size,) = each("image_size", image_size, 1, 2)
    own = None if box is None else each("box", box, 1, 4)[0]
    several = list(boxes)
    edges = each("boxes", several, len(several), 4) if several else []
    inside = [placed(y0, x0, (y1 - y0, x1 - x0), whole, str(k))[0] for k, (y0, x0, y1, x1) in enumerate(edges)]
    placement, text = Placement.of(whole, size, own), pack(void, size, sample)
    mosaic = Mosaic(whole, tuple(inside), bool(text))
    check_holes(mosaic, placement, void)
    return spec.array(placement, geometry, mosaic, text)


def check_holes(mosaic: Mosaic, placement: Placement, void: Intervals | None) -> None:
    """Refuse cells without a tile where the image holds data.

    Raises
    ------
    IncompleteError
        It names them.
    """
    if void is None:
        return
    for hole in mosaic.holes:
        if not hides(void, hole, placement):
            raise mosaic.lacks(hole)


def slabs_of(
    tiles: Iterable[object], boxes: Sequence[Sequence[int]], array: SampleArray, sample: str
) -> Iterator[Floats]:
    """Yield each tile as one slice of the stack, (C, 1, h, w); what of it is outside the grid is left out.

    Raises
    ------
    MismatchError
        A tile of another shape than its box, or another number of tiles.
    """
    assert array.mosaic is not None
    count = 0
    for tile in tiles:
        if count == len(boxes):
            raise _shape(sample, f"more tiles than the {count} boxes")
        y0, x0, y1, x1 = boxes[count]
        found, wanted = recognise(tile), (array.classes, y1 - y0, x1 - x0)
        if found.shape != wanted:
            raise _shape(sample, f"tile {count} has the shape {found.shape} instead of {wanted}")
        box = array.mosaic.boxes[count]
        cut = np.s_[box[0] - y0 : box[2] - y0, box[1] - x0 : box[3] - x0]
        rows, columns = (n - m for n, m in zip(array.stack[1:], box.shape, strict=True))
        values = np.stack([found.class_map(c)[cut] for c in range(array.classes)])
        yield recognise(np.pad(values, ((0, 0), (0, rows), (0, columns)), mode="edge")[:, None])
        count += 1
    if count < len(boxes):
        raise _shape(sample, f"{count} tiles for {len(boxes)} boxes")


def cut(record: Record, number: int, slab: NDArray[np.float16]) -> NDArray[np.float16]:
    """Return the cells of a tile, (C, h, w), of its slice of the stack, (C, 1, h, w)."""
    h, w = _mosaic(record).boxes[number].shape
    return slab[:, 0, :h, :w]


def check_tile(record: Record, number: int) -> None:
    """Refuse the number of a tile that a sample does not have."""
    count = len(record.array.mosaic.boxes) if record.array.mosaic is not None else 0
    if not 0 <= number < count:
        item = f"tile {number} of sample {record.sample!r}, which has {count or 'none'}"
        fix = f"pass 0 to {count - 1}" if count else "read the sample with `read`"
        raise UsageError("tile-unknown", "cannot read a tile", item=item, fix=fix)


def check_whole(record: Record) -> None:
    """Refuse to read a scene of tiles as if it were one array."""
    if record.array.mosaic is not None:
        item = f"sample {record.sample!r} is {len(record.array.mosaic.boxes)} tiles, which overlap"
        fix = "read each with read_tile(sample, number); Ensemble([store]).levels(sample) blends them"
        raise UsageError("sample-tiled", "cannot read a scene as a whole", item=item, fix=fix)


def _mosaic(record: Record) -> Mosaic:
    assert record.array.mosaic is not None
    return record.array.mosaic


def _shape(sample: str, item: str) -> MismatchError:
    fix = "pass one array (C, h, w) for each box, of its shape and in the order of the boxes"
    return MismatchError("logits-shape", "cannot write a scene tile by tile", item=f"{sample!r}: {item}", fix=fix)
