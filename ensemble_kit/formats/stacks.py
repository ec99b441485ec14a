"""Arrays of masks in open files, bool or integer {0, 1} or {0, 255}; nothing is ever unpickled.

A stack is read and written bitmap by bitmap, of volumes slice by slice, so memory does not grow with it.
"""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UnsafeError
from ensemble_kit.formats.bitmaps import runs_of_bitmap, runs_of_volume
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap
from ensemble_kit.masks.labelmaps import draw_slices
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.packedmasks import Key
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
    """Read (N, C, H, W) or (N, C, D, H, W) as masks; without `rows` the samples are called by their number."""
    known = len(rows) if rows is not None else stack.shape[0] if stack.shape else 0
    if len(stack.shape) not in {4, 5} or stack.shape[:2] != (known, len(names)):
        count = known if rows is not None else "samples"
        raise _unfit(stack, f"({count}, {len(names)}, height, width) or ({count}, {len(names)}, depth, height, width)")
    samples = rows if rows is not None else [str(k) for k in range(known)]
    for sample in samples:
        sizes.of(sample, stack.shape[2:], stack.where)
    keys = [(s, c) for s in samples for c in names]
    wheres = (f"{stack.where}, sample {sample!r}, class {name!r}" for sample, name in keys)
    return dict(zip(keys, _encoded(stack, len(stack.shape) - 2, wheres), strict=True))


def of_sample(stack: Stack, sample: str, names: Sequence[str], sizes: ImageSizes) -> dict[Key, Runs]:
    """Read (C, H, W), or (C, D, H, W) of a volume; where there is one class also (H, W).

    (D, H, W) of one class is read where the sample is known to be a volume: it may as well be other classes' images.
    """
    axes, known = len(stack.shape), sizes.known(sample)
    plain = len(names) == 1 and (axes == 2 or (axes == 3 and known is not None and len(known) == 3))
    if not plain and (axes not in {3, 4} or stack.shape[0] != len(names)):
        one = ", or with --image-size DxHxW a volume of the class" if axes == 3 and len(names) == 1 else ""
        raise _unfit(stack, f"({len(names)}, height, width) or ({len(names)}, depth, height, width){one}")
    rank = axes if plain else axes - 1
    sizes.of(sample, stack.shape[-rank:], stack.where)
    wheres = (f"{stack.where}, class {name!r}" for name in names)
    return dict(zip([(sample, name) for name in names], _encoded(stack, rank, wheres), strict=True))


def is_volume(stack: Stack, sample: str, rows: Sequence[str] | None, count: int, sizes: ImageSizes) -> bool:
    """Tell whether four axes are the classes of one volume, (C, D, H, W), and not images, (N, C, H, W).

    What the numbers of samples and classes leave open is an image, unless the size that was passed is a volume's.

    Parameters
    ----------
    sample : what the one would be called.
    rows : names of the samples, if there are any.
    count : of the classes.
    """
    if len(stack.shape) != 4 or stack.shape[0] != count or (rows is not None and len(rows) != 1):
        return False
    known = sizes.known(rows[0] if rows else sample)
    of_images = stack.shape[1] == count and (rows is None or stack.shape[0] == 1)
    return len(known) == 3 if known is not None else not of_images


def _encoded(stack: Stack, rank: int, wheres: Iterable[str]) -> Iterator[Runs]:
    """Encode masks of so many axes, one after the other."""
    bitmaps, shape = stack.bitmaps(), stack.shape[-rank:]
    for where in wheres:
        if rank == 2:
            yield runs_of_bitmap(next(bitmaps), where)
        else:
            yield runs_of_volume(islice(bitmaps, shape[0]), shape, where)
    next(bitmaps, None)  # which compares the checksum of a zip entry


def whole(
    path: Path, samples: tuple[str, ...], names: tuple[str, ...], masks: dict[Key, Runs], classes: Sequence[str] | None
) -> MaskSet:
    """Build the mask set of all that was read, in the order of the classes wanted; refuse to build an empty one."""
    if not masks:
        item, fix = f"{path} holds no array", "pass the file or folder that holds the masks"
        raise IncompleteError("samples-missing", "cannot read masks: there are none", item=item, fix=fix)
    return assemble(samples, order_classes(names, classes, str(path)), masks)


def put_stack(file: IO[bytes], masks: Masks) -> None:
    """Write all masks, of one size, as one array, bool (N, C, H, W) or (N, C, D, H, W)."""
    shape = (len(masks.samples), len(masks.classes), *masks.image_size(masks.samples[0]))
    _put_header(file, shape)
    for piece in masks.pieces():
        for runs in piece.values():
            _put(file, runs)


def put_sample(file: IO[bytes], masks: MaskSet, sample: str) -> None:
    """Write the masks of one sample as an array, bool (C, H, W) or (C, D, H, W)."""
    _put_header(file, (len(masks.classes), *masks.image_size(sample)))
    for name in masks.classes:
        _put(file, masks[sample, name])


def _put(file: IO[bytes], runs: Runs) -> None:
    if len(runs.shape) == 2:
        file.write(runs.decode().tobytes())
        return
    for drawn in draw_slices(ManyRuns.of([runs]), np.zeros(1, np.int64), Runs.empty(runs.shape), ([1], 0, 0)):
        file.write(drawn.tobytes())


def _put_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": shape})


def _unfit(stack: Stack, wanted: str) -> MismatchError:
    item = f"{stack.where} has the shape {stack.shape}, not {wanted}"
    may_be_labels = stack.dtype.kind in "iu" and len(stack.shape) in {2, 3, 4}
    labels = "; a label map, one class a pixel, is read by --format label-map (a truth by ensk score --val-format)"
    fix = f"pass the classes of the stack, in its order{labels if may_be_labels else ''}"
    return MismatchError("stack-shape", "cannot read a stack of masks", item=item, fix=fix)


def damaged(where: object, why: str) -> DamagedError:
    """Make the error of an array or archive that is not as NumPy writes it."""
    fix = "save it again with numpy.save or numpy.savez, as bool or uint8"
    return DamagedError("stack-invalid", "cannot read a stack of masks", item=f"{where}: {why}", fix=fix)
