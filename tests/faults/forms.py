"""The formats of stores, for fault families that hold in each: how a sample is written, and read back.

Processes that the families start import this and nothing of pytest: `forms.use("scenes")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble_kit.logits import layout
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter

CLASSES = "radius", "ulna"


@dataclass(frozen=True)
class Form:
    """A format of stores, in which a test of the store is run.

    Parameters
    ----------
    grid : what a writer is told.
    shape : of a sample's grid: 48 cells.
    plane : the size of its image.
    slab : the most bytes of a slab, so that a small volume has two, and each tile is one.
    tiles : the boxes of a scene's tiles, which overlap; the last one is smaller.
    """

    name: str
    grid: tuple[int, ...] | None
    shape: tuple[int, ...]
    plane: tuple[int, ...]
    slab: int = 1 << 24
    tiles: tuple[tuple[int, ...], ...] = ()

    @property
    def chunks(self) -> int:
        """How many chunks a sample has."""
        return len(self.tiles) or len(self.shape) - 1

    @property
    def files(self) -> int:
        """How many files a sample has."""
        return 1 if self.grid else self.chunks + 1

    def chunk_name(self, number: int) -> str:
        """Return a chunk's name in the folder of a sample that is an array of its own."""
        return f"c.0.{number}.0.0" if self.chunks > 1 else "c.0.0.0"

    def value(self, k: int) -> np.ndarray:
        """Draw the logits of one sample."""
        return (np.random.default_rng(k).normal(size=(len(CLASSES), *self.shape)) * 5).astype(np.float16)

    def write(self, out: LogitWriter, sample: str, array: np.ndarray, **options: Any) -> None:
        """Write a sample: as a whole, or a scene tile by tile."""
        if self.tiles:
            tiles = (array[:, y0:y1, x0:x1] for y0, x0, y1, x1 in self.tiles)
            out.write_tiles(sample, tiles, self.tiles, self.shape, self.plane, **options)
        else:
            out.write(sample, array, self.plane, **options)

    def write_in_parts(
        self, out: LogitWriter, sample: str, array: np.ndarray, between: Callable[[], object], **options: Any
    ) -> None:
        """Write a sample of several chunks, and do something when the first is staged and the next is not."""

        def parts() -> Iterator[np.ndarray]:
            cuts = [np.s_[:, y0:y1, x0:x1] for y0, x0, y1, x1 in self.tiles] or [np.s_[:, :2], np.s_[:, 2:]]
            for k, cut in enumerate(cuts):
                if k:
                    between()
                yield array[cut]

        if self.tiles:
            out.write_tiles(sample, parts(), self.tiles, self.shape, self.plane, **options)
        else:
            out.write_slabs(sample, parts(), self.shape, self.plane, **options)

    def read(self, store: LogitStore, sample: str) -> np.ndarray:
        """Read a sample; of a scene every tile, which agree where they overlap."""
        if not self.tiles:
            return store.read(sample)
        out = np.full((len(CLASSES), *self.shape), np.nan, np.float16)
        for k, (y0, x0, y1, x1) in enumerate(self.tiles):
            tile, there = store.read_tile(sample, k), out[:, y0:y1, x0:x1]
            assert np.array_equal(there[~np.isnan(there)], tile[~np.isnan(there)])
            there[:] = tile
        return out


FORMS = {
    form.name: form
    for form in (
        Form("one grid", (8, 6), (8, 6), (32, 24)),
        Form("grids", None, (8, 6), (32, 24)),
        Form("volumes", None, (4, 4, 3), (16, 32, 24), 2 * 2 * 2 * 4 * 3),
        Form("scenes", None, (8, 6), (32, 24), 2 * 2 * 5 * 6, ((0, 0, 5, 6), (4, 0, 8, 6))),
    )
}
"""`ensk.logits/1`, and `ensk.logits/2` of images, of volumes and of scenes in tiles."""


def use(name: str) -> Form:
    """Let slabs be as small as a format wants them."""
    layout.MAX_SLAB = FORMS[name].slab
    return FORMS[name]
