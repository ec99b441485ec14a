"""`SampleArray`: the array of one sample, how it is cut into chunks, and where its image lies on it.

A store of one grid (`ensk.logits/1`) keeps every sample as a row of one array, a chunk each. Where each sample has its
own grid (`ensk.logits/2`) it is an array of its own: an image is one chunk, a volume slabs of whole slices, each of
which is checked by itself. The last slab is filled up with NaN, as zarr has it. The tiles of a scene are a stack like
the slices of a volume; what smaller tiles leave of theirs is filled up too, and not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ensemble_kit.once import once
from ensemble_kit.spec.geometry import Box, Placement, Shape
from ensemble_kit.spec.georeference import WorldGeometry, fields_of, geometry_of
from ensemble_kit.spec.mosaic import Mosaic

Keys = Literal["default", "v2"]
"""zarr's two encodings of chunk keys: a sample that is written again takes the other one, beside the former chunks."""

MAX_CHUNK = 1 << 34
MAX_SLAB = 1 << 24
"""Most bytes of a slab: large enough to be read at the disk's rate, small enough to be held by every thread."""


def other_keys(keys: Keys) -> Keys:
    """Return the other encoding."""
    return "v2" if keys == "default" else "default"


@dataclass(frozen=True)
class SampleArray:
    """The array of one sample.

    Parameters
    ----------
    classes : how many there are.
    placement : its grid, and where the image lies on it.
    own : whether it is an array of its own, not a row of the store's.
    geometry : where a volume lies in the world, or a scene on the Earth, if that is known.
    depth : slices, or tiles, of a slab; 0 for an image.
    mosaic : the tiles of a scene, if it is kept as tiles.
    void : the pixels at which its image holds no data, as `spec.void.pack` writes them.
    """

    classes: int
    placement: Placement
    own: bool = False
    geometry: WorldGeometry | None = None
    depth: int = 0
    mosaic: Mosaic | None = None
    void: str = ""

    def __post_init__(self) -> None:
        if not (0 < self.depth <= self.stack[0] if self.has_slabs else self.depth == 0):
            raise ValueError(f"slabs of {self.depth} slices of a grid of {self.stack}")

    @property
    def grid(self) -> Shape:
        """(h, w) or (d, h, w)."""
        return self.placement.grid

    @once
    def stack(self) -> Shape:
        """The grid; of tiles (tiles, h, w), as high and wide as the largest."""
        if self.mosaic is None:
            return self.grid
        sides = zip(*(box.shape for box in self.mosaic.boxes), strict=True)
        return len(self.mosaic.boxes), *(max(side) for side in sides)

    @property
    def has_slabs(self) -> bool:
        """Whether it has slices, or tiles."""
        return len(self.stack) == 3

    @property
    def shape(self) -> Shape:
        """(C, h, w) or (C, d, h, w); of tiles (C, tiles, h, w)."""
        return self.classes, *self.stack

    @property
    def size(self) -> int:
        """Bytes of its logits."""
        return 2 * math.prod(self.shape)

    @property
    def chunk_shape(self) -> Shape:
        """(C, h, w), or (C, depth, h, w) of a volume or of tiles."""
        return (self.classes, self.depth, *self.stack[1:]) if self.has_slabs else self.shape

    @once
    def payload(self) -> int:
        """Bytes of a chunk's values."""
        return 2 * math.prod(self.chunk_shape)

    @once
    def count(self) -> int:
        """How many chunks there are."""
        return math.ceil(self.stack[0] / self.depth) if self.has_slabs else 1

    def span(self, number: int) -> tuple[int, int]:
        """Return the first slice of a slab, and the one behind its last."""
        return number * self.depth, min((number + 1) * self.depth, self.stack[0])

    def named(self, number: int) -> str:
        """Name a slab in words: the slices of a volume, or the tiles of a scene, that are in it."""
        (first, stop), what = self.span(number), "slice" if self.mosaic is None else "tile"
        return f"{what} {first}" if stop - first == 1 else f"{what}s {first} to {stop - 1}"

    def key(self, number: int, keys: Keys) -> str:
        """Return a chunk's name in the folder of an array of its own."""
        numbers = ["0", *([str(number)] if self.has_slabs else []), "0", "0"]
        return ".".join(["c", *numbers] if keys == "default" else numbers)

    def fields(self) -> dict[str, Any]:
        """Return what a line of the manifest says of it, by name."""
        place = self.placement
        out: dict[str, Any] = {"image_size": list(place.image), "box": list(place.box)}
        if not self.own:
            return out
        out = {"grid": list(self.grid), **out}
        if place.window is not None:
            out["window"] = list(place.window)
        if place.axes:
            out["axes"] = list(place.axes)
        if self.geometry is not None:
            out |= fields_of(self.geometry)
        if self.mosaic is not None:
            out["tiles"] = [list(box) for box in self.mosaic.boxes]
        if self.void:
            out["void"] = self.void
        return {**out, "slab": self.depth} if self.has_slabs else out

    @once
    def laid(self) -> bytes:
        """What a line says of it, as it stands there."""
        return json.dumps(self.fields(), ensure_ascii=True, separators=(",", ":")).encode()[1:-1]

    @once
    def bound(self) -> bytes:
        """What a sample's digest is bound to beside its id, row and checksums."""
        return b"%d\0%b" % (self.classes, self.laid if self.own else str(self.grid).encode())


def from_fields(line: Mapping[str, Any], classes: int, grid: Shape | None, own: bool) -> SampleArray:
    """Read what a line says of a sample's array; raises one of `records.NO_RECORD` where it cannot be one.

    Parameters
    ----------
    grid : the store's; None where each sample has its own.
    """
    found = tuple(line["grid"]) if own else grid
    tiles = tuple(Box(*box) for box in line.get("tiles") or ())
    whole = (*line["image_size"], *line["box"], *(line.get("window") or ()), *(found or ()), line.get("slab", 0))
    whole += tuple(edge for box in tiles for edge in box)
    if any(type(v) is not int or abs(v) >= 1 << 63 for v in whole):
        raise ValueError("a field of another type")
    if not found or len(found) not in (2, 3) or min(found) < 1 or (grid is not None and found != grid):
        raise ValueError(f"a grid of {found}")
    box, image = Box(*line["box"]), tuple(line["image_size"])
    if not own:
        return SampleArray(classes, Placement(found, box, image))
    window = line.get("window")
    placement = Placement(found, box, image, None if window is None else Box(*window), tuple(line.get("axes", ())))
    void = line.get("void", "")
    if type(void) is not str:
        raise ValueError("a field of another type")
    mosaic = Mosaic(found, tiles, bool(void)) if tiles else None
    out = SampleArray(classes, placement, True, geometry_of(line), line.get("slab", 0), mosaic, void)
    if out.payload > MAX_CHUNK:
        raise ValueError(f"chunks of {out.payload} bytes")
    return out
