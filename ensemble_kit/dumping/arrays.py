"""Arrays that another pipeline dumped: a .npy or .npz file for each sample, (C, h, w), never unpickled."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UsageError,
    some,
)
from ensemble_kit.formats.volume_files import name_of
from ensemble_kit.logits.plausible import with_background

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Axes = Literal["chw", "hwc"]
"""Where the classes of an array stand."""

SUFFIXES = (".npy", ".npz")
DEFAULT_LIMIT = 2**32


@dataclass(frozen=True)
class ArrayForm:
    """How arrays in files are to be read.

    Parameters
    ----------
    classes : their names; a (C, 1, h, w) of nnU-Net or a (1, C, h, w) loses its single axis.
    key : which array of an .npz; None where there is only one.
    scale : what the values were multiplied by, such as 10000 for `uint16 = 10000 · p`. Integers need it.
    axes : "chw" or "hwc", where the classes stand; None: first, and refused where they seem to stand last.
    limit : most bytes that one array may decode to; an .npz of 1 MB can declare gigabytes.
    """

    classes: Sequence[str]
    key: str | None = None
    scale: float | None = None
    axes: Axes | None = None
    limit: int = DEFAULT_LIMIT

    def read(self, path: Path) -> NDArray[np.float32]:
        """Read a file as float32 (C, h, w).

        Raises
        ------
        DamagedError
            The file does not hold an array of numbers.
        MismatchError
            The array's shape does not fit the classes.
        """
        raw = self.numbers(path)
        self._check_bytes(path, raw.nbytes)
        values = self._squeezed(raw, path).astype(np.float32)
        return values if self.scale is None else values / np.float32(self.scale)

    def grid(self, path: Path) -> tuple[int, int]:
        """Read (h, w) from what a file says of its shape; raises as `read` does."""
        shape = self.declared(path)
        _, h, w = self._squeezed(np.broadcast_to(np.float32(0), shape), path).shape
        return h, w

    def declared(self, path: Path) -> tuple[int, ...]:
        """Read the shape that a file declares."""
        try:
            if path.suffix.lower() == ".npy":
                with path.open("rb") as file:
                    return _head(file)
            with zipfile.ZipFile(path) as archive, archive.open(f"{self._key(archive, path)}.npy") as member:
                return _head(member)
        except EnskError:
            raise
        except Exception as error:
            raise _unread(path, error) from error

    def key_in(self, path: Path) -> str:
        """Return the name of the array in an archive."""
        try:
            with zipfile.ZipFile(path) as archive:
                return self._key(archive, path)
        except (OSError, zipfile.BadZipFile) as error:
            raise _unread(path, error) from error

    def numbers(self, path: Path) -> NDArray[Any]:
        """Read an array as it is: mapped, of a .npy file."""
        raw = self._raw(path)
        if raw.dtype.kind not in "fiu":
            fix = "save numbers: float16, float32, or integers with --scale"
            raise _damaged("array-invalid", f"{str(path)!r} holds {raw.dtype}", fix)
        if raw.dtype.kind in "iu" and self.scale is None:
            item = f"{str(path)!r} holds {raw.dtype} up to {int(raw.max(initial=0))}"
            fix = "pass --scale with what the values were multiplied by, such as --scale 10000"
            raise UsageError("scale-missing", "cannot tell what integers mean", item=item, fix=fix)
        return raw

    def _raw(self, path: Path) -> NDArray[Any]:
        try:
            if path.suffix.lower() == ".npy":
                # refuses objects, and a file shorter than it says
                return np.asarray(np.lib.format.open_memmap(path, mode="r"))
            return self._from_archive(path)
        except (EnskError, MemoryError):
            raise
        except Exception as error:
            raise _unread(path, error) from error

    def _from_archive(self, path: Path) -> NDArray[Any]:
        with zipfile.ZipFile(path) as archive:
            key = self._key(archive, path)
            self._check_bytes(path, archive.getinfo(f"{key}.npy").file_size)
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[key])

    def _key(self, archive: zipfile.ZipFile, path: Path) -> str:
        """Find which array of an archive is meant."""
        sizes = [e.filename.removesuffix(".npy") for e in archive.infolist()]
        key = self.key if self.key is not None else next(iter(sizes), None)
        if key not in sizes or (self.key is None and len(sizes) > 1):
            item = f"{str(path)!r} holds {some(sorted(sizes)) or 'none'}"
            item += "" if self.key is None else f", not {self.key!r}"
            fix = "pass --key with one of its names"
            raise UsageError("key-missing", "cannot tell which array is meant", item=item, fix=fix)
        return key

    def _check_bytes(self, path: Path, size: int) -> None:
        if size > self.limit:
            item = f"{str(path)!r} decodes to {size} bytes; {self.limit} are allowed"
            fix = "pass --memory with more than that"
            raise ResourceError("array-too-large", "cannot read an array", item=item, fix=fix)

    def _squeezed(self, raw: NDArray[Any], path: Path) -> NDArray[Any]:
        """Bring an array to (C, h, w)."""
        shape, count = raw.shape, len(self.classes)
        if raw.ndim == 5 and shape[0] == 1:
            raw = raw[0]
        if raw.ndim == 4 and raw.shape[:2] == (count, 1):
            raw = raw[:, 0]
        elif raw.ndim == 4 and raw.shape[0] == 1 and count > 1 and raw.ndim == len(shape):
            raw = raw[0]
        if raw.ndim == 2 and count == 1:
            return raw[None]
        if raw.ndim == 4:
            raise _four_axes(path, raw.shape, count)
        first, last = (raw.ndim == 3 and raw.shape[k] == count for k in (0, 2))
        if first and last and self.axes is None:
            item = f"{str(path)!r} is {shape} with {count} classes: they may stand first or last"
            fix = "pass --axes chw if they stand first, --axes hwc if they stand last"
            raise MismatchError("array-axes", "cannot tell the axes of an array", item=item, fix=fix)
        if last and self.axes == "hwc":
            return np.moveaxis(raw, 2, 0)
        if first and self.axes != "hwc":
            return raw
        fix = "pass the class list that the arrays were made with"
        if last:
            fix = "pass --axes hwc: the classes seem to stand last, as Keras has them"
        elif first:
            fix = "pass --axes chw: the classes stand first"
        elif raw.ndim == 3:
            fix += with_background(raw.shape[0], self.classes) or with_background(raw.shape[2], self.classes)
        raise MismatchError(
            "array-shape",
            "cannot take an array for a sample's classes",
            item=f"{str(path)!r} is {shape}; (C, h, w) with C = {count} classes is wanted",
            fix=fix,
        )


def _four_axes(path: Path, shape: tuple[int, ...], count: int) -> MismatchError:
    """Say what an array of four axes is: a volume, or a batch."""
    what, axes = "a volume", "(C, Z, Y, X)"
    if shape[0] != count and shape[1] == count:
        what, axes = "a batch", "(B, C, h, w)"
    elif shape[0] != count and shape[3] == count:
        axes = "(Z, Y, X, C)"
    each = "slice" if what == "a volume" else "sample"
    fix = f"save each {each} as an array (C, h, w) of its own, beside an image of its own"
    if what == "a volume":
        fix += "; or pass the volumes as --images (NIfTI, NRRD, MetaImage), one for each array"
    return MismatchError(
        "array-is-volume",
        f"cannot take {what} for a sample",
        item=f"{str(path)!r} is {shape}: four axes, {axes}; a sample has (C, h, w)",
        fix=fix,
    )


def match(images: Mapping[str, Path], folder: Path, root: Path) -> dict[str, Path]:
    """Find each sample's array: by its image's name or stem, or by its path below the folder.

    Raises
    ------
    IncompleteError
        Samples have no array.
    MismatchError
        A sample has two arrays, or two samples have the same one: equal stems in two folders.
    """
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES}
    found: dict[str, Path] = {}
    for sample, image in images.items():
        names = [n for n in _candidates(image.relative_to(root)) if n in files]
        if len(names) > 1:
            raise _ambiguous(f"sample {sample!r} could be {some(names)}", "keep one array for each sample")
        if names:
            found[sample] = folder / names[0]
    missing = [s for s in images if s not in found]
    if missing:
        raise IncompleteError(
            "arrays-missing",
            "cannot find the arrays of all samples",
            item=f"{len(missing)} of {len(images)} images have none in {str(folder)!r}: {some(missing)}",
            fix="name each array after its image (x.png: x.npy, x.npz, x.png.npz), or pass only their images",
        )
    shared = next((path for path, n in Counter(found.values()).items() if n > 1), None)
    if shared is not None:
        item = f"{shared.name!r} fits samples {some(s for s in found if found[s] == shared)}"
        raise _ambiguous(item, "keep the arrays in the same subfolders as the images")
    return found


def _candidates(image: Path) -> Iterable[str]:
    bases = {image.as_posix(), image.with_suffix("").as_posix(), image.name, image.stem}
    bases |= {name_of(image.as_posix()), name_of(image.name)}  # case_1.nii.gz: case_1.npz
    return sorted(base + suffix for base in bases for suffix in SUFFIXES)


def _head(file: IO[bytes]) -> tuple[int, ...]:
    """Read the shape that an array declares."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, _ = read(file)
    return tuple(shape)


def _unread(path: Path, error: Exception) -> DamagedError:
    fix = "copy the file again; arrays of objects are never unpickled, save plain numbers"
    return _damaged("array-damaged", f"{str(path)!r}: {error}", fix)


def _damaged(code: str, item: str, fix: str) -> DamagedError:
    return DamagedError(code, "cannot read an array", item=item, fix=fix)


def _ambiguous(item: str, fix: str) -> MismatchError:
    return MismatchError("array-ambiguous", "cannot tell which array belongs to which sample", item=item, fix=fix)
