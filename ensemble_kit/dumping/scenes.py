"""Which tiles belong to which scene, and where: by GeoTIFFs that say it, or by a table of rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats import rasters, tiff_tags
from ensemble_kit.formats.index import files_under
from ensemble_kit.formats.table import read_table
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.georeference import GeoReference, same_crs
from ensemble_kit.spec.mosaic import WHOLE, placed

_WHAT = "cannot put the tiles of a scene together"
_COLUMNS = ("tile", "scene", "row", "column")
_SIZE = ("height", "width")
_FIX = f"write a CSV with the header {','.join(_COLUMNS)}: pixels of the scene from its upper left corner"


@dataclass(frozen=True)
class Tile:
    """A tile of a scene.

    Parameters
    ----------
    name : of its image.
    row, column : of the scene, in pixels, where its first pixel lies.
    size : (H, W), of its image.
    """

    name: str
    row: float
    column: float
    size: Shape


@dataclass(frozen=True)
class Scene:
    """A scene and its tiles.

    Parameters
    ----------
    path : what says where its tiles lie.
    size : (H, W), in pixels.
    reference : where it lies on the Earth, if that is known.
    void : the pixels at which it holds no data.
    """

    path: Path
    size: Shape
    reference: GeoReference | None = None
    void: Runs | None = None
    tiles: list[Tile] = field(default_factory=list)


def find_scenes(where: Path, images: Mapping[str, Path], size_of: Callable[[Path], Shape]) -> dict[str, Scene]:
    """Sort tiles into scenes.

    Parameters
    ----------
    where : a GeoTIFF, a folder of GeoTIFFs, or a table (CSV or JSON) of tile, scene, row, column, and if need be the
        height and width of the scene.
    images : the images of tiles, by name.
    size_of : reads (H, W) of an image.

    Returns
    -------
    dict
        Scenes by id: the name of a GeoTIFF, or as the table has it.

    Raises
    ------
    UsageError, DamagedError
        A table that is none.
    MismatchError
        A tile of another reference system or resolution, one that is rotated or outside of every scene.
    IncompleteError
        A tile without an image, or a scene without tiles.
    """
    if where.is_dir() or where.suffix.lower() in tiff_tags.SUFFIXES:
        found = _by_georeference(where, images, size_of)
    else:
        found = _by_table(where, images, size_of)
    if empty := [scene for scene, own in found.items() if not own.tiles]:
        item = f"{len(empty)} of {len(found)} scenes have no tile among {len(images)} images: {some(empty)}"
        raise IncompleteError(
            "tiles-missing", _WHAT, item=item, fix="pass the images of all their tiles, or fewer scenes"
        )
    return found


def _by_georeference(where: Path, images: Mapping[str, Path], size_of: Callable[[Path], Shape]) -> dict[str, Scene]:
    """Find the scene of every tile by where both lie on the Earth."""
    names = [where.name]
    if where.is_dir():
        names = sorted(file for suffix in tiff_tags.SUFFIXES for file in files_under(where, suffix))
    root = where if where.is_dir() else where.parent
    if not names:
        item, fix = f"{where} holds no GeoTIFF", "pass the scene, or a folder of scenes, or a CSV of their tiles"
        raise IncompleteError("files-missing", _WHAT, item=item, fix=fix)
    scenes = {}
    for name in names:
        with rasters.opened(root / name, _WHAT) as raster:
            scenes[name] = Scene(root / name, raster.shape, _upright(raster.reference, raster.where), raster.void())
    for name, path in images.items():
        with rasters.opened(path, _WHAT) as raster:
            own = _upright(raster.reference, raster.where)
        _sort_in(scenes, name, own, size_of(path))
    return scenes


def _upright(reference: GeoReference | None, where: str) -> GeoReference:
    if reference is None:
        item, fix = f"{where} has neither a transform nor a reference system", _FIX
        raise MismatchError("georeference-missing", _WHAT, item=item, fix=fix)
    if reference.is_rotated:
        fix = "warp it so that rows run along the reference system's axes: gdalwarp IN OUT"
        raise MismatchError("tile-rotated", _WHAT, item=f"{where}: {reference.as_text()}", fix=fix)
    return reference


def _sort_in(scenes: Mapping[str, Scene], name: str, own: GeoReference, size: Shape) -> None:
    """Give a tile to the only scene that it touches, or that holds its centre."""
    same = {s: scene for s, scene in scenes.items() if scene.reference and same_crs(own.crs, scene.reference.crs)}
    if not same:
        scene, other = next(iter(scenes.items()))
        item = f"tile {name}: {own.as_text()}; scene {scene}: {other.reference.as_text() if other.reference else ''}"
        fix = "bring both to one reference system (gdalwarp -t_srs EPSG:… IN OUT), or pass the tiles' own scene"
        raise MismatchError("tile-crs", _WHAT, item=item, fix=fix)
    touched, inside = [], []
    for scene, that in same.items():
        assert that.reference is not None
        ends = zip(
            that.reference.cell(*own.corner(0, 0)), that.reference.cell(*own.corner(*size)), that.size, strict=True
        )
        spans = [(min(a, b), max(a, b), n) for a, b, n in ends]
        if all(a < n - WHOLE and b > WHOLE for a, b, n in spans):
            touched.append(scene)
        if all(0 <= (a + b) / 2 < n for a, b, n in spans):
            inside.append(scene)
    inside = touched if len(touched) == 1 else inside
    if len(inside) != 1:
        which = f"in the scenes {some(inside)}" if inside else f"outside of every scene: {some(same)}"
        item = f"tile {name} of {as_text(size)} pixels ({own.as_text()}) lies {which}"
        fix = "pass the tiles of one scene at a time, or say the scene of each in a CSV of tile,scene,row,column"
        raise MismatchError("tile-outside", _WHAT, item=item, fix=fix)
    scene = inside[0]
    reference = scenes[scene].reference
    assert reference is not None
    ours, theirs = own.transform, reference.transform
    if any(abs(ours[k] - theirs[k]) * max(size) > 1e-2 * abs(theirs[k]) for k in (0, 4)):
        item = f"tile {name}: {own.as_text()}; scene {scene}: {reference.as_text()}"
        fix = "pass tiles at the scene's resolution, or the scene at that of the tiles"
        raise MismatchError("tile-resolution", _WHAT, item=item, fix=fix)
    scenes[scene].tiles.append(Tile(name, *reference.cell(*own.corner(0, 0)), size))


def _by_table(where: Path, images: Mapping[str, Path], size_of: Callable[[Path], Shape]) -> dict[str, Scene]:
    """Read the scene, the row and the column of every tile from a table."""
    rows, known = _rows(where), {key: name for name, path in images.items() for key in (path.stem, path.name, name)}
    found: dict[str, list[Tile]] = {}
    sizes: dict[str, Shape] = {}
    for where_row, row in rows:
        name = known.get(str(row["tile"]))
        if name is None:
            item = f"{where_row}: no image is called {row['tile']!r}; there are {some(images)}"
            raise IncompleteError("image-missing", _WHAT, item=item, fix="name tiles as their images are called")
        y, x = (_number(row[key], where_row, key) for key in _COLUMNS[2:])
        scene = str(row["scene"])
        found.setdefault(scene, []).append(Tile(name, y, x, size_of(images[name])))
        if all(row.get(key) not in (None, "") for key in _SIZE):
            size = tuple(int(_number(row[key], where_row, key)) for key in _SIZE)
            if sizes.setdefault(scene, size) != size:
                item = f"{where_row}: scene {scene!r} is {as_text(size)}, and {as_text(sizes[scene])} before"
                raise DamagedError("tiles-invalid", _WHAT, item=item, fix="keep the size that is right")
    if unused := [name for name in images if all(name != t.name for own in found.values() for t in own)]:
        item = f"{len(unused)} of {len(images)} images are not in {where}: {some(unused)}"
        raise IncompleteError("tiles-missing", _WHAT, item=item, fix="add a row for each, or take the images away")
    return {
        scene: Scene(where, sizes.get(scene, _extent(tiles)), tiles=tiles) for scene, tiles in sorted(found.items())
    }


def _extent(tiles: Sequence[Tile]) -> Shape:
    return tuple(round(max((t.row, t.column)[k] + t.size[k] for t in tiles)) for k in (0, 1))


def _rows(where: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Read the rows of a CSV or JSON table, each with its place."""
    if where.suffix.lower() == ".json":
        value = strict_json.load(where)
        listed = value if isinstance(value, list) else None
        if listed is None or not all(isinstance(row, dict) and set(_COLUMNS) <= row.keys() for row in listed):
            fix = f"write a list of objects with the keys {', '.join(_COLUMNS)}"
            item = f"{where} is not a list of objects with these keys"
            raise DamagedError("tiles-invalid", _WHAT, item=item, fix=fix)
        return [(f"{where}, entry {k}", row) for k, row in enumerate(listed)]
    table = read_table(where)
    names = [name.strip().lower() for name in table.header]
    if not set(_COLUMNS) <= set(names):
        item = f"{where} has the columns {','.join(table.header)[:200]}"
        raise UsageError("tiles-invalid", _WHAT, item=item, fix=_FIX)
    columns = {name: table.column(names.index(name)) for name in (*_COLUMNS, *_SIZE) if name in names}
    return [
        (f"{where}, line {line}", {name: values[k] for name, values in columns.items()})
        for k, line in enumerate(table.lines)
    ]


def _number(value: object, where: str, key: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < 2**40:
        fix = "write pixels of the scene, whole numbers"
        raise DamagedError("tiles-invalid", _WHAT, item=f"{where}: {key} is {str(value)[:40]!r}", fix=fix)
    return number


def cells_of(scene: Scene, name: str, tile: Shape, cells: Shape) -> tuple[Shape, tuple[int, int]]:
    """Return the grid of a scene, and pixels a cell, by the cells (h, w) that a network made of a tile.

    Raises
    ------
    MismatchError
        The tile or the scene is no whole number of cells.
    """
    steps = tuple(n // c for n, c in zip(tile, cells, strict=True))
    if any(n % c or n < c for n, c in zip(tile, cells, strict=True)):
        item = f"tile {name} has {as_text(tile)} pixels and {as_text(cells)} cells: not whole pixels a cell"
        raise MismatchError(
            "tile-resolution", _WHAT, item=item, fix="keep what the network put out, without resizing it"
        )
    if any(n % s for n, s in zip(scene.size, steps, strict=True)):
        item = f"the scene has {as_text(scene.size)} pixels, a cell {as_text(steps)}"
        fix = f"pad the scene to multiples of {as_text(steps)} pixels"
        raise MismatchError("tile-resolution", _WHAT, item=item, fix=fix)
    grid = tuple(n // s for n, s in zip(scene.size, steps, strict=True))
    return grid, (steps[0], steps[1])


def box_of(tile: Tile, cells: Shape, steps: tuple[int, int], grid: Shape) -> Any:
    """Return the box of a tile on its scene's grid and which of its cells are inside, as `placed` does."""
    return placed(tile.row / steps[0], tile.column / steps[1], cells, grid, tile.name)
