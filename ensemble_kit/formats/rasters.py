"""GeoTIFFs by rasterio (extra `geo`): read and written by bands of rows, never a whole scene in memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.access import reading
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UsageError
from ensemble_kit.formats.sizes import declared_size
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.georeference import GeoReference

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 512
"""Height and width of the blocks that are written."""

_CACHE = 64  # MB of blocks that GDAL keeps: by default it takes 5 % of the machine's memory
_BAND = 2**24  # pixels that are read at a time
_BLOCK_LIMIT = 2**28  # pixels of one block, which GDAL unpacks at once
_PIXEL_LIMIT = 2**36  # pixels of a scene: a sparse TIFF of a few bytes can declare any number


class Raster(NamedTuple):
    """A GeoTIFF that is open."""

    dataset: Any
    where: str
    shape: Shape
    reference: GeoReference | None
    """None where the file says neither a transform nor a reference system."""

    @property
    def nodata(self) -> float | None:
        """The value of pixels that hold nothing; None where the file names none."""
        value = self.dataset.nodata
        return None if value is None else float(value)

    def rows(self, channels: int | list[int] = 1) -> Iterator[NDArray[Any]]:
        """Read bands of rows, (n, W) of one channel or (C, n, W) of several, from the first row to the last.

        Raises
        ------
        DamagedError
            A block cannot be unpacked.
        """
        for first, height in self._bands():
            yield self.window(first, 0, height, self.shape[1], channels)

    def void(self) -> Runs | None:
        """Find the pixels that hold nothing: of nodata in every channel, or hidden by a mask or an alpha channel.

        None where the file has neither of them, or no such pixel.
        """
        if all(flag.name == "all_valid" for flags in self.dataset.mask_flag_enums for flag in flags):
            return None
        hidden = LabelMap.of_slices((band == 0 for band in self._masks()), self.shape, self.where)
        ends = np.append(hidden.edges[1:], math.prod(self.shape))
        on = hidden.values == 1
        return Runs(hidden.edges[on], ends[on], self.shape) if on.any() else None

    def _masks(self) -> Iterator[NDArray[np.uint8]]:
        """Read bands of rows of the mask, uint8 (n, W), 0 where a pixel holds nothing."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        for first, height in self._bands():
            try:
                yield self.dataset.dataset_mask(window=Window(0, first, self.shape[1], height))
            except RasterioError as error:
                raise _damaged(self.where, error) from None

    def _bands(self) -> Iterator[tuple[int, int]]:
        """Give the first row and the height of each band of rows."""
        H, W = self.shape
        high = self.dataset.block_shapes[0][0]
        step = max(high, _BAND // W // high * high)
        return ((first, min(step, H - first)) for first in range(0, H, step))

    def window(self, row: int, column: int, height: int, width: int, channels: int | list[int]) -> NDArray[Any]:
        """Read a window, of one channel or of several."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            found: NDArray[Any] = self.dataset.read(channels, window=Window(column, row, width, height))
        except RasterioError as error:
            raise _damaged(self.where, error) from None
        return found


@contextmanager
def opened(path: Path, what: str = "cannot read a GeoTIFF") -> Iterator[Raster]:
    """Open a GeoTIFF for reading; GDAL's other formats, of which some refer to other files, are not tried.

    Raises
    ------
    UsageError
        rasterio is not installed.
    DamagedError
        It is not a TIFF, or one whose blocks or size no memory holds.
    """
    rasterio = _rasterio(what)
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with reading(path, what):
        path.open("rb").close()
    with _environment(rasterio):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # which is looked at here
                dataset = rasterio.open(path, driver="GTiff")
        except RasterioError as error:
            raise _damaged(path, error) from None
        with dataset:
            shape = declared_size(dataset.height, dataset.width, str(path))
            block = dataset.block_shapes[0]
            if math.prod(shape) > _PIXEL_LIMIT or math.prod(block) > _BLOCK_LIMIT:
                item = f"{path}: {as_text(shape)} pixels in blocks of {as_text(block)}"
                fix = f"write it tiled: rio convert {path} tiled.tif --co tiled=yes; at most {_PIXEL_LIMIT} pixels"
                raise DamagedError("image-too-large", what, item=item, fix=fix)
            yield Raster(dataset, str(path), shape, _reference(dataset))


class Labels(NamedTuple):
    """A label map of a GeoTIFF."""

    map: LabelMap
    reference: GeoReference
    nodata: int | None
    """The value that the file calls empty; None where it names none, or one that no pixel can have."""


def read_labels(path: Path) -> Labels:
    """Read the label map of a GeoTIFF band by band.

    Raises
    ------
    DamagedError
        It is damaged, has several channels, a mask of its own, or values that are not whole numbers of 16 bits.
    MismatchError
        It does not say where it lies on the Earth.
    """
    with opened(path) as raster:
        if raster.reference is None:
            fix = "pass --format label-map, which reads TIFFs by themselves, or write its crs and transform into it"
            item = f"{path} has neither a transform nor a reference system"
            raise MismatchError("georeference-missing", "cannot read a GeoTIFF", item=item, fix=fix)
        kind = np.dtype(raster.dataset.dtypes[0])
        if raster.dataset.count != 1 or kind.kind not in "ui":
            item = f"{path} has {raster.dataset.count} channels of {kind}; a label map is one, of whole numbers"
            fix = "write the label of every pixel as one channel: gdal_translate -b 1 -ot Byte IN OUT"
            raise DamagedError("tiff-invalid", "cannot read a TIFF of labels", item=item, fix=fix)
        flags = [flag.name for flag in raster.dataset.mask_flag_enums[0]]
        if "per_dataset" in flags:
            item, fix = f"{path} has a mask beside its values", "write pixels without a label as 255, and nodata 255"
            raise DamagedError("tiff-invalid", "cannot read a TIFF of labels", item=item, fix=fix)
        return Labels(
            LabelMap.of_slices(raster.rows(), raster.shape, str(path)), raster.reference, _whole(raster.nodata)
        )


def write_labels(
    path: Path,
    rows: Iterable[NDArray[np.unsignedinteger]],
    shape: Shape,
    kind: np.dtype[Any],
    nodata: int,
    reference: GeoReference,
    palette: bytes | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a label map as a GeoTIFF of deflated blocks, band by band; equal masks are equal bytes.

    Parameters
    ----------
    path : of a file that is not there yet.
    rows : bands of rows (n, W), of `BLOCK` rows each but for the last one.
    palette : the colour of each value of 8 bits: red, green and blue of 0, of 1, …
    tags : metadata, text by name.
    """
    rasterio = _rasterio("cannot write a GeoTIFF")
    from rasterio.crs import CRS
    from rasterio.transform import Affine
    from rasterio.windows import Window

    H, W = shape
    profile = {
        "driver": "GTiff",
        "height": H,
        "width": W,
        "count": 1,
        "dtype": kind.name,
        "crs": CRS.from_wkt(reference.crs) if reference.crs else None,
        "transform": Affine(*reference.transform),
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    with _environment(rasterio), rasterio.open(path, "w", **profile) as dataset:
        if palette is not None:
            dataset.write_colormap(1, {v: (*palette[3 * v : 3 * v + 3], 255) for v in range(len(palette) // 3)})
        dataset.update_tags(**(tags or {}))
        first = 0
        for band in rows:
            dataset.write(band, 1, window=Window(0, first, W, band.shape[0]))
            first += band.shape[0]


def tag_of(path: Path, name: str) -> str | None:
    """Return a text of a GeoTIFF's metadata; None where it has none of that name."""
    with opened(path) as raster:
        text = raster.dataset.tags().get(name)
        return None if text is None else str(text)


def _rasterio(what: str) -> Any:
    try:
        import rasterio
    except ImportError as error:
        fix = "pip install 'ensemble_kit[geo]'"
        raise UsageError("extra-missing", what, item=str(error), fix=fix) from None
    return rasterio


def _environment(rasterio: Any) -> Any:
    return rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO")


def _reference(dataset: Any) -> GeoReference | None:
    crs = "" if dataset.crs is None else str(dataset.crs.to_wkt())
    if not crs and dataset.transform.is_identity:
        return None
    return GeoReference(crs, tuple(dataset.transform)[:6])


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and value.is_integer() and 0 <= value < 65536 else None


def _damaged(where: object, error: Exception) -> EnskError:
    fix = "write or copy the file again; gdalinfo -checksum FILE reads every block"
    why = str(error.__cause__ or error)[:200]
    return DamagedError("tiff-invalid", "cannot read a GeoTIFF", item=f"{where}: {why}", fix=fix)
