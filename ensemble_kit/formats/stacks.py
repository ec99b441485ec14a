"""Masks as NumPy stacks of planes, bool or integer {0, 1} or {0, 255}; nothing is ever unpickled.

    .npz     `samples`, `classes` (text) and `masks` (N, C, H, W); where sizes differ, arrays `0`, `1`, … (C, H, W)
             read also: arrays named by sample, (C, H, W), or (H, W) for one class
    .npy     (N, C, H, W): samples are called by their row, `0`, `1`, …; (C, H, W): one sample, called as the file
    folder   `<sample>.npy`, (C, H, W) each, with an `index.json`

A stack is read and written plane by plane, so memory does not grow with it.
"""

from __future__ import annotations

import errno
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, MismatchError, UnsafeError, UsageError
from ensemble_kit.formats.classes import assemble, need_classes, order_classes
from ensemble_kit.formats.index import Index, files_under, index_of
from ensemble_kit.formats.planes import runs_of_plane
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.runs import Runs

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
"""What Python raises for a damaged archive, with OSError where it seeks to an impossible place."""
_HEADER_LIMIT = 10_000  # characters; NumPy's own
_NAMES_LIMIT = 2**28  # bytes of names
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same masks give the same bytes on any day


@dataclass(frozen=True)
class _Stack:
    """An array in an open file: its header is read and checked against the file's size, its data not yet."""

    file: IO[bytes]
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns_first: bool

    @classmethod
    def open(cls, file: IO[bytes], size: int, where: str) -> _Stack:
        form = np.lib.format
        try:
            version = form.read_magic(file)
            reader = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[version]
            shape, columns_first, dtype = reader(file, max_header_size=_HEADER_LIMIT)
        except HEADER_ERRORS as error:
            raise _damaged(where, f"its header is invalid ({str(error)[:120]})") from None
        if dtype.hasobject:
            raise UnsafeError(
                "pickle-refused",
                "cannot read an array of objects",
                item=f"{where} is {dtype}: unpickling it could run code",
                fix="save the masks as bool or uint8",
            )
        need, have = math.prod(shape) * dtype.itemsize, size - file.tell()
        if any(n < 0 for n in shape) or need != have:
            raise _damaged(where, f"its shape {shape} of {dtype} needs {need} bytes, it has {have}")
        return cls(file, where, shape, dtype, columns_first)

    def planes(self) -> Iterator[NDArray[Any]]:
        """Give the last two axes, plane by plane."""
        H, W = self.shape[-2:]
        if 0 in self.shape:
            raise _damaged(self.where, f"its shape {self.shape} holds no pixel")
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
            raise _damaged(self.where, "it is cut")
        return raw


def read_npz(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read an `.npz` of stacks.

    Raises
    ------
    DamagedError
        A damaged archive, a header that does not fit, other values than two.
    UnsafeError
        An array of objects.
    UsageError
        Nobody names the classes.
    """
    with _opened(path) as archive:
        entries = _entries(archive, path)
        stored = _names(archive, entries.get("classes"), path)
        rows = _names(archive, entries.get("samples"), path)
        arrays = {name: info for name, info in entries.items() if name not in {"samples", "classes"}}
        names = stored if stored is not None else need_classes(classes, str(path))
        masks: dict[Key, Runs] = {}
        if set(arrays) == {"masks"}:
            with archive.open(arrays["masks"]) as file:
                stack = _Stack.open(file, arrays["masks"].file_size, f"{path}, 'masks'")
                masks = _of_stack(stack, rows, names, sizes)
        else:
            if rows is not None and set(arrays) != {str(k) for k in range(len(rows))}:
                raise _damaged(path, f"it names {len(rows)} samples and has {len(arrays)} arrays")
            for name, info in arrays.items():
                sample = rows[int(name)] if rows is not None else name
                with archive.open(info) as file:
                    stack = _Stack.open(file, info.file_size, f"{path}, {name!r}")
                    masks |= _of_sample(stack, sample, names, sizes)
    samples = rows if rows is not None else tuple(dict.fromkeys(s for s, _ in masks))
    return _whole(path, samples, names, masks, classes)


def read_npy(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read one `.npy`, or a folder of one a sample."""
    masks: dict[Key, Runs] = {}
    if not path.is_dir():
        names = need_classes(classes, str(path))
        with path.open("rb") as file:
            stack = _Stack.open(file, path.stat().st_size, str(path))
            one = len(stack.shape) in {2, 3}
            masks = (
                _of_sample(stack, path.name.removesuffix(".npy"), names, sizes)
                if one
                else _of_stack(stack, None, names, sizes)
            )
        return _whole(path, tuple(dict.fromkeys(s for s, _ in masks)), names, masks, classes)
    index = Index.load(path)
    names = tuple(n for n, _ in index.classes) if index is not None else need_classes(classes, str(path))
    files = (
        {s: f for s, f, _ in index.samples}
        if index is not None
        else {f.removesuffix(".npy"): f for f in files_under(path, ".npy")}
    )
    if index is not None:
        index.check_files(path, files.values(), ".npy")
    for sample, name in files.items():
        with (path / name).open("rb") as file:
            stack = _Stack.open(file, (path / name).stat().st_size, str(path / name))
            masks |= _of_sample(stack, sample, names, sizes)
    return _whole(path, tuple(files), names, masks, classes)


def write_npz(masks: MaskSet, out: BinaryIO) -> None:
    """Write an `.npz` with the names, deflated."""
    with zipfile.ZipFile(out, "w") as archive:
        for title, names in (("samples", masks.samples), ("classes", masks.classes)):
            if any(n.endswith("\0") for n in names):
                raise UsageError(
                    "name-invalid",
                    "cannot write names as an array",
                    item=f"one of the {title} ends in NUL",
                    fix="rename it, or pass --format handbone",
                )
            with _entry(archive, title) as file:
                np.lib.format.write_array(file, np.array(names, np.str_), allow_pickle=False)
        if len({masks.image_size(s) for s in masks.samples}) == 1:
            with _entry(archive, "masks") as file:
                _put_stack(file, masks, masks.samples, stacked=True)
        else:
            for k, sample in enumerate(masks.samples):
                with _entry(archive, str(k)) as file:
                    _put_stack(file, masks, (sample,), stacked=False)


def write_npy(masks: MaskSet, out: BinaryIO) -> None:
    """Write one `.npy`, bool (N, C, H, W), in samples' and classes' order; it holds no names.

    Raises
    ------
    MismatchError
        Samples of different sizes make no stack.
    """
    sizes = {masks.image_size(s): s for s in masks.samples}
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise MismatchError(
            "image-size-differs",
            "cannot write one stack of masks",
            item=f"sample {first!r} has {a[0]} x {a[1]}, sample {second!r} {b[0]} x {b[1]}",
            fix="pass a path that ends in .npz, or a folder with --format npy",
        )
    _put_stack(out, masks, masks.samples, stacked=True)


def build_npy(masks: MaskSet, folder: Path) -> None:
    """Write a folder of one `.npy` a sample, bool (C, H, W)."""
    index = index_of("npy", masks, ".npy")
    index.save(folder)
    for sample, name, _ in index.samples:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            _put_stack(file, masks, (sample,), stacked=False)


def _put_stack(file: IO[bytes], masks: MaskSet, samples: Sequence[str], stacked: bool) -> None:
    shape = (len(masks.classes), *masks.image_size(samples[0]))
    header = {"descr": "|b1", "fortran_order": False, "shape": (len(samples), *shape) if stacked else shape}
    np.lib.format.write_array_header_1_0(file, header)
    for sample in samples:
        for name in masks.classes:
            file.write(masks[sample, name].decode().tobytes())


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return archive.open(info, "w", force_zip64=True)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ARCHIVE_ERRORS as error:
        raise _damaged(path, f"the archive is damaged ({error})") from None
    except OSError as error:  # a damaged directory of the archive asks for a place before the file's begin
        if isinstance(error, EnskError) or error.errno not in {None, errno.EINVAL}:
            raise
        raise _damaged(path, f"the archive is damaged ({error})") from None


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in entries:
            raise _damaged(path, f"the entry {info.filename[:200]!r} is doubled or no .npy")
        entries[name] = info
    return entries


def _names(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, path: Path) -> tuple[str, ...] | None:
    """Read an array of names; None where there is none."""
    if info is None:
        return None
    where = f"{path}, {info.filename!r}"
    with archive.open(info) as file:
        stack = _Stack.open(file, info.file_size, where)
        if stack.dtype.kind != "U" or len(stack.shape) != 1 or info.file_size > _NAMES_LIMIT:
            raise _damaged(where, f"it is {stack.dtype} of shape {stack.shape}, not a list of names")
        try:
            names = tuple(np.frombuffer(file.read(), stack.dtype).tolist())
        except (ValueError, SystemError) as error:  # NumPy's answer to a character beyond Unicode
            raise _damaged(where, str(error)) from None
    if len(set(names)) != len(names) or not all(names):
        raise _damaged(where, "a name stands twice or is blank")
    return names


def _of_stack(stack: _Stack, rows: Sequence[str] | None, names: Sequence[str], sizes: ImageSizes) -> dict[Key, Runs]:
    """Read (N, C, H, W)."""
    if len(stack.shape) != 4 or stack.shape[1] != len(names) or (rows is not None and stack.shape[0] != len(rows)):
        wanted = f"({len(rows) if rows is not None else 'samples'}, {len(names)}, height, width)"
        raise _unfit(stack, wanted)
    samples = rows if rows is not None else [str(k) for k in range(stack.shape[0])]
    for sample in samples:
        sizes.of(sample, stack.shape[2:], stack.where)
    keys = ((s, c) for s in samples for c in names)
    return {
        key: runs_of_plane(p, f"{stack.where}, sample {key[0]!r}, class {key[1]!r}")
        for key, p in zip(keys, stack.planes(), strict=True)
    }


def _of_sample(stack: _Stack, sample: str, names: Sequence[str], sizes: ImageSizes) -> dict[Key, Runs]:
    """Read (C, H, W), or (H, W) where there is one class."""
    plain = len(stack.shape) == 2 and len(names) == 1
    if not plain and (len(stack.shape) != 3 or stack.shape[0] != len(names)):
        raise _unfit(stack, f"({len(names)}, height, width)")
    sizes.of(sample, stack.shape[-2:], stack.where)  # type: ignore[arg-type]
    return {
        (sample, name): runs_of_plane(p, f"{stack.where}, class {name!r}")
        for name, p in zip(names, stack.planes(), strict=True)
    }


def _whole(
    path: Path, samples: tuple[str, ...], names: tuple[str, ...], masks: dict[Key, Runs], classes: Sequence[str] | None
) -> MaskSet:
    if not masks:
        raise IncompleteError(
            "samples-missing",
            "cannot read masks: there are none",
            item=f"{path} holds no array",
            fix="pass the file or folder that holds the masks",
        )
    return assemble(samples, order_classes(names, classes, str(path)), masks)


def _unfit(stack: _Stack, wanted: str) -> MismatchError:
    return MismatchError(
        "stack-shape",
        "cannot read a stack of masks",
        item=f"{stack.where} has the shape {stack.shape}, wanted is {wanted}",
        fix="pass the classes of the stack, in its order",
    )


def _damaged(where: object, why: str) -> DamagedError:
    return DamagedError(
        "stack-invalid",
        "cannot read a stack of masks",
        item=f"{where}: {why}",
        fix="save it again with numpy.save or numpy.savez, as bool or uint8",
    )
