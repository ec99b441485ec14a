"""`Volume`: the voxels of an open file, read slice by slice, so that memory does not grow with it.

Every format of volumes is a header and then the voxels, x fastest, raw or compressed. A format's module reads the
header; what comes behind it is read here.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UnsafeError, UsageError
from ensemble_kit.formats.filenames import check_inside
from ensemble_kit.formats.sizes import check_bitmap
from ensemble_kit.spec.affine import Geometry, World
from ensemble_kit.spec.geometry import Shape, check_image_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

WHOLE = 1e-4
"""How far a value may lie from a whole number: a scaled file keeps 1 as 0.99999998."""

_RATIO = 1032  # bytes that a byte of deflate can become
_AFTER = 1 << 20  # bytes that may stand behind the voxels
DECODING = (EOFError, zlib.error, gzip.BadGzipFile)
"""What Python raises for compressed data that is damaged or cut."""


class Segment(NamedTuple):
    """A class that a file names itself."""

    name: str
    channel: int
    value: int


@dataclass(frozen=True)
class Volume:
    """A file of voxels whose header is read and checked; its voxels are not read yet.

    Parameters
    ----------
    where : what messages call it.
    shape : (D, H, W), the sizes of the axes z, y, x.
    dtype : of a voxel, in the file's byte order.
    opened : opens the voxels, decompressed, at the first one.
    size : bytes of the file, and whether they are compressed: more voxels than they can hold are refused.
    geometry : where the volume lies in the world; None where the file does not say it.
    channels : values of a voxel; one channel comes after the other, or all of a voxel together.
    together : whether they do.
    slope, inter : voxels mean `slope * value + inter`.
    told : what was assumed, in words.
    segments : classes that the file names itself.
    """

    where: str
    shape: Shape
    dtype: np.dtype[Any]
    opened: Callable[[], AbstractContextManager[IO[bytes]]]
    size: tuple[int, bool]
    geometry: Geometry | None = None
    channels: int = 1
    together: bool = False
    slope: float = 1.0
    inter: float = 0.0
    told: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype.kind not in "iuf" or self.dtype.itemsize > 8:
            fix = "save one number a voxel: labels as uint8 or uint16"
            raise MismatchError("volume-soft", WHAT, item=f"{self.where}: its voxels are {self.dtype}", fix=fix)
        if len(self.shape) != 3 or any(n < 1 for n in (*self.shape, self.channels)):
            raise damaged(self.where, f"it declares {self.shape} voxels (z, y, x) of {self.channels} channels")
        check_image_size(self.shape, 3)
        check_bitmap((self.shape[1], self.shape[2] * (self.channels if self.together else 1)), self.where)
        size, compressed = self.size
        if self.nbytes > (size * _RATIO + _AFTER if compressed else size):
            raise damaged(self.where, f"it declares {self.nbytes} bytes of voxels, the file has {size}")

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.channels * self.dtype.itemsize

    def slices(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read every slice: the number of its channel, and the values (H, W), scaled where the file says so.

        Raises
        ------
        DamagedError
            The file is cut, or its compressed data is damaged.
        """
        depth, height, width = self.shape
        several = self.channels if self.together else 1
        with _blamed(self.where), self.opened() as file:
            for channel in range(1 if self.together else self.channels):
                for _ in range(depth):
                    slab = self._take(file, height * width * several).reshape(height, width, several)
                    for k in range(several):
                        yield channel + k, self._scaled(slab[..., k])
            if len(file.read(_AFTER)) == _AFTER:  # also compares the checksum of gzip
                raise damaged(self.where, f"more than {self.nbytes} bytes of voxels follow its header")

    def _take(self, file: IO[bytes], count: int) -> NDArray[Any]:
        raw = bytearray()
        while len(raw) < count * self.dtype.itemsize:
            part = file.read(count * self.dtype.itemsize - len(raw))
            if not part:
                raise damaged(self.where, f"it is cut: its header declares {self.nbytes} bytes of voxels")
            raw += part
        return np.frombuffer(raw, self.dtype)

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        if (self.slope, self.inter) == (1, 0):
            return values
        with np.errstate(over="ignore", invalid="ignore"):
            return values * np.float64(self.slope) + np.float64(self.inter)


WHAT = "cannot read a volume"


def damaged(where: object, why: str, fix: str = "copy the file again, or write it again as labels") -> DamagedError:
    """Make the error of a volume whose file is not as its format says."""
    return DamagedError("volume-invalid", WHAT, item=f"{where}: {why}", fix=fix)


def voxels_beside(path: Path, name: str) -> Path:
    """Return the file beside `path` that its header names for the voxels.

    Raises
    ------
    UnsafeError
        The name leaves the folder.
    DamagedError
        The file is not there.
    """
    try:
        check_inside(name)
    except UnsafeError as error:
        item = f"{path}: its voxels are in {name[:200]!r}, which leaves the folder"
        fix = "copy that file beside it, and let the header name it so"
        raise UnsafeError(error.code, "cannot read voxels outside of a folder", item=item, fix=fix) from None
    there = False
    with suppress(OSError):  # a name that no file can have
        there = (path.parent / name).is_file()
    if not there:
        raise damaged(path, f"its voxels are in {name[:200]}, which is not there", "copy both files")
    return path.parent / name


def missing_extra(package: str) -> UsageError:
    """Make the error of a package of the extra `volumes` that is not installed."""
    item, fix = f"the package {package} is not installed", 'pip install "ensemble_kit[volumes]"'
    return UsageError("extra-missing", "cannot read or write volumes", item=item, fix=fix)


def geometry_of(affine: ArrayLike, world: World, where: str) -> Geometry:
    """Build the geometry that a file's header says; the error of one that cannot be names the file."""
    try:
        return Geometry.of(affine, world)
    except DamagedError as error:
        raise DamagedError(error.code, error.what, item=f"{where}: {error.item}", fix=HEADER_FIX) from None


HEADER_FIX = "write the header of the image that the masks belong to (ITK-SNAP, SimpleITK: CopyInformation)"


@contextmanager
def _blamed(where: str) -> Iterator[None]:
    """Name the file in an error of decompression."""
    try:
        yield
    except EnskError:
        raise
    except DECODING as error:
        raise damaged(where, f"its compressed data is damaged or cut ({error})") from None


@contextmanager
def open_at(path: Path, offset: int, gzipped: bool) -> Iterator[IO[bytes]]:
    """Open a file, unpacked where it is gzip, at an offset of what it holds."""
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) if gzipped else nullcontext(file) as opened:
        opened.seek(offset)
        yield cast("IO[bytes]", opened)


def head_of(path: Path, count: int) -> tuple[bytes, bool]:
    """Read the first bytes of a file, unpacked where it is gzip; and tell whether it is."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    try:
        with open_at(path, 0, gzipped) as opened:
            return opened.read(count), gzipped
    except DECODING as error:
        raise damaged(path, f"its compressed data is damaged or cut ({error})") from None
