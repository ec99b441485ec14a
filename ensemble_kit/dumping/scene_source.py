"""`SceneSource`: a network run over whole scenes, window by window; each window becomes a tile of its scene.

Windows are read from the GeoTIFF one batch at a time, and their outputs are written as they are. They are blended in
the vote (docs/concepts.md#rule-16-tiles-of-a-scene), so that memory does not depend on the size of a scene.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.backends import Network
from ensemble_kit.dumping.outputs import failing_as, outputs_of
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.dumping.scenes import Scene, cells_of
from ensemble_kit.dumping.sources import Failure, Grids, Piece, TiledPiece, digest_of
from ensemble_kit.dumping.tiling import place_windows
from ensemble_kit.errors import MismatchError, ResourceError, UsageError, check_number
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.formats import rasters
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Box
from ensemble_kit.spec.void import covers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.dumping.preprocess import Size
    from ensemble_kit.spec.geometry import Shape

_WHAT = "cannot run over a scene"


class SceneSource:
    """Pieces from a network that runs over windows of GeoTIFFs.

    Parameters
    ----------
    scenes : the GeoTIFF of each sample.
    batch : windows that run together.
    """

    def __init__(
        self, network: Network, recipe: Recipe, classes: Sequence[str], scenes: Mapping[str, Path], batch: int
    ) -> None:
        check_number("--batch-size", batch, "pass at least 1", least=1, whole=True)
        _check(recipe)
        self._network, self._recipe, self._classes = network, recipe, tuple(classes)
        self._scenes, self._batch, self._tile = scenes, batch, recipe.tile or 0
        self._cells: Size = (1, 1)
        self._sizes: dict[str, Size] = {}
        self._voids: dict[str, Runs | None] = {}

    def record(self) -> dict[str, Any]:
        """Return what ran."""
        return {**self._network.record(), "scenes": True}

    def digest(self, sample: str) -> str:
        """Digest a scene's GeoTIFF."""
        return digest_of(self._scenes[sample])

    def learn(self, todo: Sequence[str]) -> Grids:
        """Run the first window of the first scene, and read the sizes of the others."""
        for k, sample in enumerate(todo):
            with rasters.opened(self._scenes[sample], _WHAT) as raster:
                self._sizes[sample] = raster.shape[0], raster.shape[1]
                self._voids[sample] = raster.void()
                if not k:
                    first = self._outputs(raster, [Box(0, 0, self._tile, self._tile)], sample)
        self._cells = first.shape[2], first.shape[3]
        windows = sum(len(self._laid(sample)[0]) for sample in todo)
        return Grids(None, self._cells, windows * self._cells[0] * self._cells[1])

    def check_memory(self, budget: int) -> None:
        """Refuse where a batch of windows would not fit."""
        each = 4 * self._tile**2 * (2 * self._recipe.preprocess.feeds + 2 * len(self._classes))
        needed = max(used(), PLAIN) + self._batch * each
        if needed > budget:
            item = f"about {needed / 1e6:,.0f} MB for {self._batch} windows, {budget / 1e6:,.0f} MB allowed"
            fix = "pass a smaller --batch-size or --tile, or a larger --memory"
            raise ResourceError("memory-budget", "cannot dump within the memory budget", item=item, fix=fix)

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | TiledPiece | Failure, None, None]:
        """Yield one piece a scene, whose windows run when they are written."""
        for sample in todo:
            with rasters.opened(self._scenes[sample], _WHAT) as raster:
                windows, boxes, grid = self._laid(sample)
                source = self.digest(sample)
                tiles = self._run(raster, windows, sample)
                where = boxes, grid, self._sizes[sample], raster.reference
                yield TiledPiece(sample, tiles, *where, source, self._voids[sample])

    def _laid(self, sample: str) -> tuple[list[Box], list[tuple[int, int, int, int]], Shape]:
        """Return the windows of a scene that hold data, the cells of each on the scene's grid, and that grid."""
        size, window = self._sizes[sample], (self._tile, self._tile)
        grid, (a, b) = cells_of(Scene(self._scenes[sample], size), "of a window", window, self._cells)
        canvas = max(size[0], self._tile), max(size[1], self._tile)
        windows = list(place_windows(canvas, Box(0, 0, *size), window, self._cells, self._recipe.overlap))
        if (void := self._voids[sample]) is not None:
            cut = [(w, (w[0], min(w[2], size[0])), (w[1], min(w[3], size[1]))) for w in windows]
            windows = [w for w, rows, columns in cut if not covers(void, rows, columns)] or windows[:1]
        return windows, [(y0 // a, x0 // b, y1 // a, x1 // b) for y0, x0, y1, x1 in windows], grid

    def _run(self, raster: rasters.Raster, windows: Sequence[Box], sample: str) -> Iterator[NDArray[np.float32]]:
        for k in range(0, len(windows), self._batch):
            yield from self._outputs(raster, windows[k : k + self._batch], sample)

    def _outputs(self, raster: rasters.Raster, windows: Sequence[Box], sample: str) -> NDArray[np.float32]:
        """Run a batch of windows: float32 (B, C, h, w)."""
        import numpy as np

        prep, canvas = self._recipe.preprocess, (self._tile, self._tile)
        x = np.stack([prep.apply(self._pixels(raster, window), canvas)[0] for window in windows])
        with failing_as([sample], self._network.channels, x.shape[1]):
            return outputs_of(self._network, x, self._classes)

    def _pixels(self, raster: rasters.Raster, window: Box) -> NDArray[Any]:
        """Read what of a window is inside the scene, (h, w) or (h, w, channels)."""
        import numpy as np

        prep, count = self._recipe.preprocess, int(raster.dataset.count)
        wanted = {prep.arrays} if prep.arrays is not None else {1, 3, 4}
        kind = np.dtype(raster.dataset.dtypes[0])
        if count not in wanted or (prep.arrays is None and len(set(raster.dataset.dtypes)) > 1):
            item, fix = f"{raster.where} has {count} channels of {kind}", f"pass --channels {count}"
            raise MismatchError("image-channels", "cannot use an image of other channels", item=item, fix=fix)
        if prep.by_type and kind != np.uint8 and kind.kind != "f":
            item = f"{raster.where} holds {kind}: which values are black and white is not said"
            fix = "pass --range LO,HI, such as --range 0,10000 for reflectance"
            raise UsageError("range-ambiguous", "cannot tell what values of images mean", item=item, fix=fix)
        height, width = min(window[2], raster.shape[0]) - window[0], min(window[3], raster.shape[1]) - window[1]
        bands = raster.window(window[0], window[1], height, width, list(range(1, (3 if count == 4 else count) + 1)))
        if prep.arrays is None and count == 1:
            return bands[0]
        return np.ascontiguousarray(np.moveaxis(bands, 0, 2))


def _check(recipe: Recipe) -> None:
    """Refuse options that need a whole scene, or have no meaning for windows that are kept as they are."""
    prep = recipe.preprocess
    idle = {
        "--size": prep.fixed,
        "--normalise zscore": None if prep.normalise == "none" else prep.normalise,
        "--tile-weights": None if recipe.tile_weights == "hann" else recipe.tile_weights,
    }
    given = [option for option, value in idle.items() if value is not None]
    if given or recipe.tile is None:
        item = f"--scenes with {given[0]}" if given else "--scenes without --tile"
        fix = f"leave {given[0]} out" if given else "pass --tile N, the side of the windows that the network takes"
        raise UsageError("option-invalid", _WHAT, item=item, fix=fix)
