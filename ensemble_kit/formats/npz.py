"""Masks in an `.npz`: `samples`, `classes` (text) and `masks` (N, C, H, W), of volumes (N, C, D, H, W).

Where the samples differ in size, there are arrays `0`, `1`, … (C, H, W) or (C, D, H, W) in place of `masks`. Arrays
that are named by sample, (C, H, W) or (C, D, H, W), or (H, W) for one class, are read too. Where samples lie is kept
as arrays, too (`npz_geometry`).
"""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ensemble_kit.errors import EnskError, UsageError
from ensemble_kit.formats.classes import need_classes
from ensemble_kit.formats.index import Index
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, always
from ensemble_kit.formats.npz_geometry import NAMES, arrays_of, geometries_of
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.stacks import (
    ARCHIVE_ERRORS,
    Stack,
    damaged,
    is_volume,
    of_sample,
    of_stack,
    put_sample,
    put_stack,
    whole,
)
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.georeference import WorldGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES_LIMIT = 2**28  # bytes of names
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same masks give the same bytes on any day


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read an `.npz` of stacks.

    Raises
    ------
    DamagedError
        A damaged archive, a header that does not fit, or values of another kind than masks have.
    UnsafeError
        An array of objects.
    UsageError
        The classes have no names.
    """
    with _opened(path) as archive:
        entries = _entries(archive, path)
        stored = _names(archive, entries.get("classes"), path)
        rows = _names(archive, entries.get("samples"), path)
        geometries = _geometries(archive, entries, rows, path)
        others = {"samples", "classes", *(NAMES if rows is not None else ())}
        arrays = {name: info for name, info in entries.items() if name not in others}
        names = stored if stored is not None else need_classes(classes, str(path))
        masks: dict[Key, Runs] = {}
        if set(arrays) == {"masks"}:
            with archive.open(arrays["masks"]) as file:
                stack = Stack.open(file, arrays["masks"].file_size, f"{path}, 'masks'")
                if is_volume(stack, "masks", rows, len(names), sizes):
                    masks = of_sample(stack, rows[0] if rows else "masks", names, sizes)
                else:
                    masks = of_stack(stack, rows, names, sizes)
        else:
            if rows is not None and set(arrays) != {str(k) for k in range(len(rows))}:
                raise damaged(path, f"it names {len(rows)} samples and has {len(arrays)} arrays")
            for name, info in arrays.items():
                sample = rows[int(name)] if rows is not None else name
                with archive.open(info) as file:
                    stack = Stack.open(file, info.file_size, f"{path}, {name!r}")
                    masks |= of_sample(stack, sample, names, sizes)
    samples = rows if rows is not None else tuple(dict.fromkeys(s for s, _ in masks))
    return whole(path, samples, names, masks, classes).with_geometry(geometries)


def named_stacks(path: Path, sizes: ImageSizes) -> Iterator[tuple[Sequence[str], Stack, bool | None]]:
    """Open the arrays of an `.npz` one after the other, each with the names of the samples that it holds.

    The last value says whether they are volumes; None where only the axes tell.

    An array (N, H, W) or (N, D, H, W) by itself holds those that `samples` names, or is called by its rows; any other
    holds one, as does (D, H, W) beside one name. Beside `classes`, `values` says the value of each class.
    """
    with _opened(path) as archive:
        entries = _entries(archive, path)
        rows = _names(archive, entries.get("samples"), path)
        others = {"samples", "classes", *(["values"] if "classes" in entries else []), *(NAMES if rows else ())}
        arrays = {name: info for name, info in entries.items() if name not in others}
        for name, info in arrays.items():
            with archive.open(info) as file:
                stack = Stack.open(file, info.file_size, f"{path}, {name!r}")
                known, axes = sizes.known(rows[0] if rows else name), len(stack.shape)
                solid = None if known is None else len(known) == 3
                several = len(arrays) == 1 and axes in {3, 4} and not (rows is None and axes == 3 and solid)
                if several:
                    names = rows or [str(k) for k in range(stack.shape[0])]
                else:
                    names = [rows[int(name)] if rows and name.isdigit() and int(name) < len(rows) else name]
                yield names, stack, axes - several == 3 if "values" in entries else solid


def holds_labels(path: Path) -> bool:
    """Tell whether an `.npz` holds label maps that say what their values mean."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with _opened(path) as archive:
        return {"classes.npy", "values.npy"} <= set(archive.namelist())


def labels_index(path: Path) -> Index:
    """Read the classes of label maps and their values.

    Raises
    ------
    DamagedError
        Not every class has a value of its own.
    """
    with _opened(path) as archive:
        entries = _entries(archive, path)
        names = _names(archive, entries["classes"], path) or ()
        with archive.open(entries["values"]) as file:
            stack = Stack.open(file, entries["values"].file_size, f"{path}, 'values'")
            if stack.dtype.kind not in "iu" or stack.shape != (len(names),):
                raise damaged(path, f"its values are {stack.dtype} of shape {stack.shape}, it has {len(names)} classes")
            values = tuple(np.frombuffer(file.read(), stack.dtype).tolist())
    if len(set(values)) < len(values) or not all(0 <= v < 65536 for v in values):
        raise damaged(path, "not every class has a value of its own from 0 to 65535")
    return Index("label-map", tuple((name, "") for name in names), (), values)


def geometries_in(path: Path) -> dict[str, WorldGeometry]:
    """Read where the samples of an `.npz` lie, of those of which it says so."""
    with _opened(path) as archive:
        entries = _entries(archive, path)
        return _geometries(archive, entries, _names(archive, entries.get("samples"), path), path)


def _geometries(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], rows: Sequence[str] | None, path: Path
) -> dict[str, WorldGeometry]:
    arrays = {}
    for name in NAMES & entries.keys() if rows is not None else ():
        with archive.open(entries[name]) as file:
            stack = Stack.open(file, entries[name].file_size, f"{path}, {name!r}")
            if entries[name].file_size > _NAMES_LIMIT or stack.columns_first:
                raise damaged(f"{path}, {name!r}", f"it is {stack.dtype} of shape {stack.shape}")
            arrays[name] = np.frombuffer(file.read(), stack.dtype).reshape(stack.shape)
    return geometries_of(arrays, rows or (), path)


def write(masks: Masks, out: BinaryIO) -> None:
    """Write an `.npz` with the names, deflated."""
    with zipfile.ZipFile(out, "w") as archive:
        put_names(archive, masks)
        put_geometries(archive, masks)
        if len({masks.image_size(s) for s in masks.samples}) == 1:
            with _entry(archive, "masks") as file:
                put_stack(file, masks)
        else:
            for k, (piece, sample) in enumerate(by_sample(masks)):
                with _entry(archive, str(k)) as file:
                    put_sample(file, piece, sample)


def put_names(archive: zipfile.ZipFile, masks: Masks) -> None:
    """Write the names of samples and classes."""
    for title, names in (("samples", masks.samples), ("classes", masks.classes)):
        if any(n.endswith("\0") for n in names):
            item, fix = f"one of the {title} ends in NUL", "rename it, or pass --format handbone"
            raise UsageError("name-invalid", "cannot write names as an array", item=item, fix=fix)
        put_array(archive, title, np.array(names, np.str_))


def put_geometries(archive: zipfile.ZipFile, masks: Masks) -> None:
    """Write where samples lie, of those of which it is known."""
    for name, array in arrays_of(masks).items():
        put_array(archive, name, array)


def put_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Write one array."""
    with _entry(archive, name) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def put_arrays(
    archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: Sequence[int], parts: Iterable[NDArray[Any]]
) -> None:
    """Write one array of that dtype and shape, part by part."""
    with _entry(archive, name) as file:
        put_parts(file, kind, shape, parts)


def put_parts(file: IO[bytes], kind: np.dtype[Any], shape: Sequence[int], parts: Iterable[NDArray[Any]]) -> None:
    """Write one array to an open file, part by part."""
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)
    for part in parts:
        file.write(part.tobytes())


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
        raise damaged(path, f"the archive is damaged ({error})") from None
    except OSError as error:  # a damaged directory of the archive seeks to before the file's begin
        if isinstance(error, EnskError) or error.errno not in {None, errno.EINVAL}:
            raise
        raise damaged(path, f"the archive is damaged ({error})") from None


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in entries:
            raise damaged(path, f"the entry {info.filename[:200]!r} is doubled or not .npy")
        entries[name] = info
    return entries


def _names(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, path: Path) -> tuple[str, ...] | None:
    """Read an array of names; None where there is none."""
    if info is None:
        return None
    where = f"{path}, {info.filename!r}"
    with archive.open(info) as file:
        stack = Stack.open(file, info.file_size, where)
        if stack.dtype.kind != "U" or len(stack.shape) != 1 or info.file_size > _NAMES_LIMIT:
            raise damaged(where, f"it is {stack.dtype} of shape {stack.shape}, not a list of names")
        try:
            names = tuple(np.frombuffer(file.read(), stack.dtype).tolist())
        except (ValueError, SystemError) as error:  # NumPy's answer to a character beyond Unicode
            raise damaged(where, str(error)) from None
    if len(set(names)) != len(names) or not all(names):
        raise damaged(where, "a name stands twice or is blank")
    return names


def _sniff(contents: Contents) -> bool:
    if contents.is_folder or holds_labels(contents.path):
        return False
    head = contents.head
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]  # the name of the archive's first file
    return (head.startswith(b"PK\x03\x04") and first.endswith(b".npy")) or contents.path.suffix.lower() == ".npz"


FORMAT = MaskFormat(
    "npz",
    read,
    sniff=_sniff,
    write=write,
    in_pieces=always,
    suffix=".npz",
    is_folder=False,
    ranks=frozenset({2, 3}),
    keeps_geometry=EITHER,
)
