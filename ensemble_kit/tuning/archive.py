"""Files of counts: an `.npz` without pickles, checked before a kernel sees its arrays."""

from __future__ import annotations

import errno
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.files import atomic_write
from ensemble_kit.formats import stacks
from ensemble_kit.remote.copies import local

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
Arrays = Callable[[str], "NDArray[Any]"]


class Kind(NamedTuple):
    """What a file should hold, by the errors of one that is missing, and of one that holds something else."""

    missing: Callable[[Path], IncompleteError]
    invalid: Callable[[Path, object], DamagedError]


def _missing(path: Path) -> IncompleteError:
    item, fix = f"{str(path)!r} does not exist", "make it with ensk tune-thresholds --statistics"
    return IncompleteError("statistics-missing", "cannot read statistics", item=item, fix=fix)


def _invalid(path: Path, why: object) -> DamagedError:
    fix = "pass another path, where ensk tune-thresholds --statistics counts again"
    return DamagedError("statistics-invalid", "cannot read statistics", item=f"{str(path)!r}: {why}", fix=fix)


STATISTICS = Kind(_missing, _invalid)


def save(path: Path, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a head and arrays; complete, or nothing."""
    with atomic_write(path) as out:
        np.savez(out, allow_pickle=False, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)


def load(path: Path, build: Callable[[dict[str, Any], Arrays], T], kind: Kind = STATISTICS) -> T:
    """Read what `save` wrote; nothing in the file is executed.

    Parameters
    ----------
    build : makes the statistics of the head and of a function that reads an array by name; raises ValueError where
        they do not fit each other.
    kind : what the file should hold.

    Raises
    ------
    IncompleteError
        There is no such file.
    DamagedError
        It holds something else.
    """
    path = local(path)
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:

            def read(name: str) -> NDArray[Any]:
                return _read(archive, name)

            return build(json.loads(read("head").tobytes()), read)
    except FileNotFoundError:
        raise kind.missing(path) from None
    except IsADirectoryError:
        raise kind.invalid(path, "it is a folder") from None
    except (*stacks.HEADER_ERRORS, *stacks.ARCHIVE_ERRORS, AttributeError, IndexError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        raise kind.invalid(path, error) from None


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read an array, never unpickled, and never larger than the file: nothing in it is compressed."""
    info, form = archive.getinfo(f"{name}.npy"), np.lib.format
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(info) as file:
        form.read_magic(file)
        shape, _, dtype = form.read_array_header_1_0(file)
        raw = file.read()
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"{name} is {dtype} of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape).copy()  # a kernel takes read-only arrays for another type
