"""Arrays of masks in open files, bool or integer {0, 1} or {0, 255}; nothing is ever unpickled.

A stack is read and written bitmap by bitmap, so memory does not grow with it.
"""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UnsafeError
from ensemble_kit.formats.bitmaps import runs_of_bitmap
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_ERRORS = (ValueError, KeyError, TypeError, EOFError, RecursionError, MemoryError, tokenize.TokenError)
"""What NumPy raises for a damaged header of an array; deep brackets are a MemoryError of Python's parser."""
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
"""What Python raises for a damaged archive, beside an OSError where it seeks to before the file's begin."""
_HEADER_LIMIT = 10_000  # characters; NumPy's own


@dataclass(frozen=True)
class Stack:
    """An array in an open file: its header is read and checked against the file's size, its data not yet."""

    file: IO[bytes]
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns_first: bool

    @classmethod
    def open(cls, file: IO[bytes], size: int, where: str) -> Stack:
        """Read and check the header of an array.

        Parameters
        ----------
        size : bytes of the file, or of the archive's entry.

        Raises
        ------
        DamagedError
            The header is invalid, or declares another size.
        UnsafeError
            It is an array of objects.
        """
        form = np.lib.format
        try:
            version = form.read_magic(file)
            reader = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[version]
            shape, columns_first, dtype = reader(file, max_header_size=_HEADER_LIMIT)
        except HEADER_ERRORS as error:
            raise damaged(where, f"its header is invalid ({str(error)[:120]})") from None
        if dtype.hasobject:
            item = f"{where} is {dtype}: unpickling it could run code"
            fix = "save the masks as bool or uint8"
            raise UnsafeError("pickle-refused", "cannot read an array of objects", item=item, fix=fix)
        need, have = math.prod(shape) * dtype.itemsize, size - file.tell()
        if any(n < 0 for n in shape) or need != have:
            raise damaged(where, f"its shape {shape} of {dtype} needs {need} bytes, it has {have}")
        return cls(file, where, shape, dtype, columns_first)

    def bitmaps(self) -> Iterator[NDArray[Any]]:
        """Read the bitmaps of the last two axes, one at a time."""
        H, W = self.shape[-2:]
        if 0 in self.shape:
            raise damaged(self.where, f"its shape {self.shape} holds no pixel")
        check_bitmap((H, W), self.where)
        if self.columns_first and len(self.shape) > 1:
            check_bitmap((math.prod(self.shape[:-1]), W), self.where)  # it must be read as a whole
            whole = np.frombuffer(self._take(math.prod(self.shape)), self.dtype)
            yield from whole.reshape(self.shape, order="F").reshape(-1, H, W)
        else:
            for _ in range(math.prod(self.shape[:-2])):
                yield np.frombuffer(self._take(H * W), self.dtype).reshape(H, W)
        self.file.read(1)  # a zip entry's checksum is compared at its end

    def _take(self, count: int) -> bytes:
        raw = self.file.read(count * self.dtype.itemsize)
        if len(raw) != count * self.dtype.itemsize:
            raise damaged(self.where, "it is cut")
        return raw


def of_stack(stack: Stack, rows: Sequence[str] | None, names: Sequence[str], sizes: ImageSizes) -> dict[Key, Runs]:
    """Read (N, C, H, W) as masks; without `rows` the samples are called by their number."""
    if len(stack.shape) != 4 or stack.shape[1] != len(names) or (rows is not None and stack.shape[0] != len(rows)):
        wanted = f"({len(rows) if rows is not None else 'samples'}, {len(names)}, height, width)"
        raise _unfit(stack, wanted)
    samples = rows if rows is not None else [str(k) for k in range(stack.shape[0])]
    for sample in samples:
        sizes.of(sample, stack.shape[2:], stack.where)
    keys = ((s, c) for s in samples for c in names)
    return {
        key: runs_of_bitmap(p, f"{stack.where}, sample {key[0]!r}, class {key[1]!r}")
        for key, p in zip(keys, stack.bitmaps(), strict=True)
    }


def of_sample(stack: Stack, sample: str, names: Sequence[str], sizes: ImageSizes) -> dict[Key, Runs]:
    """Read (C, H, W), or (H, W) where there is one class."""
    plain = len(stack.shape) == 2 and len(names) == 1
    if not plain and (len(stack.shape) != 3 or stack.shape[0] != len(names)):
        raise _unfit(stack, f"({len(names)}, height, width)")
    sizes.of(sample, stack.shape[-2:], stack.where)
    return {
        (sample, name): runs_of_bitmap(p, f"{stack.where}, class {name!r}")
        for name, p in zip(names, stack.bitmaps(), strict=True)
    }


def whole(
    path: Path, samples: tuple[str, ...], names: tuple[str, ...], masks: dict[Key, Runs], classes: Sequence[str] | None
) -> MaskSet:
    """Build the mask set of all that was read, in the order of the classes wanted; refuse to build an empty one."""
    if not masks:
        item, fix = f"{path} holds no array", "pass the file or folder that holds the masks"
        raise IncompleteError("samples-missing", "cannot read masks: there are none", item=item, fix=fix)
    return assemble(samples, order_classes(names, classes, str(path)), masks)


def put_stack(file: IO[bytes], masks: Masks) -> None:
    """Write all masks, of one size, as one array, bool (N, C, H, W)."""
    shape = (len(masks.samples), len(masks.classes), *masks.image_size(masks.samples[0]))
    _put_header(file, shape)
    for piece in masks.pieces():
        for runs in piece.values():
            file.write(runs.decode().tobytes())


def put_sample(file: IO[bytes], masks: MaskSet, sample: str) -> None:
    """Write the masks of one sample as an array, bool (C, H, W)."""
    _put_header(file, (len(masks.classes), *masks.image_size(sample)))
    for name in masks.classes:
        file.write(masks[sample, name].decode().tobytes())


def _put_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": shape})


def _unfit(stack: Stack, wanted: str) -> MismatchError:
    item = f"{stack.where} has the shape {stack.shape}, not {wanted}"
    may_be_labels = stack.dtype.kind in "iu" and len(stack.shape) in {2, 3}
    labels = "; a label map, one class a pixel, is read by --format label-map (a truth by ensk score --val-format)"
    fix = f"pass the classes of the stack, in its order{labels if may_be_labels else ''}"
    return MismatchError("stack-shape", "cannot read a stack of masks", item=item, fix=fix)


def damaged(where: object, why: str) -> DamagedError:
    """Make the error of an array or archive that is not as NumPy writes it."""
    fix = "save it again with numpy.save or numpy.savez, as bool or uint8"
    return DamagedError("stack-invalid", "cannot read a stack of masks", item=f"{where}: {why}", fix=fix)
