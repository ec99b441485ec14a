"""`TileSource`: arrays that another pipeline made of the tiles of scenes; each scene is a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ensemble_kit.dumping.images import image_size
from ensemble_kit.dumping.scenes import Scene, box_of, cells_of, find_scenes
from ensemble_kit.dumping.sources import Failure, Grids, Piece, TiledPiece, digest_of, form_of
from ensemble_kit.errors import MismatchError, ResourceError, UsageError
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.logits.tiles import check_holes
from ensemble_kit.remote.copies import here
from ensemble_kit.spec.geometry import Placement, Shape, as_text
from ensemble_kit.spec.mosaic import Mosaic
from ensemble_kit.spec.void import pack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.dumping.arrays import ArrayForm
    from ensemble_kit.dumping.preprocess import Size
    from ensemble_kit.dumping.recipe import Recipe


class _Laid(NamedTuple):
    """Where the tiles of a scene lie on its grid: as they were made, and the cells of each that are inside."""

    grid: Shape
    boxes: tuple[tuple[int, int, int, int], ...]


class TileSource:
    """Pieces from a folder of arrays, one a tile.

    Parameters
    ----------
    name : of the folder.
    arrays : of tiles, by the name of their image.
    scenes : by id.
    form : how arrays are read.
    """

    def __init__(self, name: str, arrays: Mapping[str, Path], scenes: Mapping[str, Scene], form: ArrayForm) -> None:
        self._name, self._arrays, self._scenes, self._form = name, arrays, scenes, form
        self._laid: dict[str, _Laid] = {}

    def record(self) -> dict[str, Any]:
        """Return what is read."""
        import numpy as np

        return {"model": f"arrays in {self._name}", "versions": {"numpy": np.__version__}}

    def digest(self, sample: str) -> str:
        """Digest the arrays of a scene's tiles, and where each lies."""
        scene, own = self._scenes[sample], hashlib.sha256()
        own.update(repr((scene.size, scene.reference, pack(scene.void, scene.size, sample))).encode())
        for tile in sorted(scene.tiles, key=lambda tile: tile.name):
            one = digest_of(self._arrays[tile.name])
            if not one:
                return ""
            own.update(f"{(tile, one)!r}".encode())
        return own.hexdigest()[:32]

    def learn(self, todo: Sequence[str]) -> Grids:
        """Lay all tiles out, by the heads of their arrays: holes and tiles elsewhere are refused before any work."""
        cells, largest = 0, (1, 1)
        for sample in todo:
            laid = self._laid[sample] = self._lay(self._scenes[sample])
            sizes = [(y1 - y0, x1 - x0) for y0, x0, y1, x1 in laid.boxes]
            cells += sum(h * w for h, w in sizes)
            largest = max(largest[0], *(h for h, _ in sizes)), max(largest[1], *(w for _, w in sizes))
        return Grids(None, largest, cells)

    def _lay(self, scene: Scene) -> _Laid:
        grid: Shape = ()
        steps, boxes, inside = (1, 1), [], []
        for tile in scene.tiles:
            h, w = self._form.grid(self._arrays[tile.name])
            own, step = cells_of(scene, tile.name, tile.size, (h, w))
            if grid and step != steps:
                item = (
                    f"tile {tile.name} has {as_text(step)} pixels a cell, tile {scene.tiles[0].name} {as_text(steps)}"
                )
                fix = "pass the outputs of one network, whose stride is one"
                raise MismatchError("tile-resolution", "cannot put the tiles of a scene together", item=item, fix=fix)
            grid, steps = own, step
            inside.append(box_of(tile, (h, w), steps, grid)[0])
            top, left = round(tile.row / steps[0]), round(tile.column / steps[1])
            boxes.append((top, left, top + h, left + w))
        check_holes(Mosaic(grid, tuple(inside), scene.void is not None), Placement.of(grid, scene.size), scene.void)
        return _Laid(grid, tuple(boxes))

    def check_memory(self, budget: int) -> None:
        """Refuse where one tile, read and converted, would not fit."""
        most = max((y1 - y0) * (x1 - x0) for laid in self._laid.values() for y0, x0, y1, x1 in laid.boxes)
        needed = max(used(), PLAIN) + 12 * len(self._form.classes) * most
        if needed > budget:
            item = f"about {needed / 1e6:,.0f} MB are needed, --memory allows {budget / 1e6:,.0f} MB"
            fix = f"pass --memory {-int(-needed * 1.1 // 10_000_000)}0MB or more"
            raise ResourceError("memory-budget", "cannot read tiles within the memory budget", item=item, fix=fix)

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | TiledPiece | Failure, None, None]:
        """Yield one piece a scene, whose tiles are read when they are written."""
        for sample in todo:
            scene, laid = self._scenes[sample], self._laid[sample]
            size: Size = (scene.size[0], scene.size[1])
            where = laid.boxes, laid.grid, size, scene.reference
            yield TiledPiece(sample, self._tiles(scene), *where, self.digest(sample), scene.void)

    def _tiles(self, scene: Scene) -> Iterator[NDArray[np.float32]]:
        return (self._form.read(self._arrays[tile.name]) for tile in scene.tiles)


def tile_source(
    model: object,
    scenes: str | Path,
    images: Mapping[str, Path],
    root: Path,
    recipe: Recipe,
    classes: Sequence[str],
    jobs: int,
    memory: int | None,
    weights: str | Path | None,
) -> tuple[dict[str, Path], TileSource]:
    """Open a folder of arrays of tiles: what says where each scene's tiles lie, and the source of all.

    Parameters
    ----------
    scenes : as `find_scenes` takes them.
    images : of the tiles, by name, below `root`.

    Raises
    ------
    UsageError
        The model is not a folder.
    """
    from ensemble_kit.dumping.arrays import match

    if not isinstance(model, str | Path) or not Path(model).is_dir():
        item = f"--scenes {scenes} with a model that runs"
        fix = "pass a folder with an array for each tile as MODEL; or the folder of --images as --scenes, and --tile N"
        raise UsageError("option-invalid", "cannot put tiles together", item=item, fix=fix)
    folder, channels = Path(model), recipe.preprocess.arrays
    form = form_of(folder, recipe, classes, jobs, memory, weights)
    found = find_scenes(here(scenes, "cannot read scenes"), images, lambda path: image_size(path, channels))
    source = TileSource(folder.resolve().name, match(images, folder, root), found, form)
    return {scene: own.path for scene, own in found.items()}, source
