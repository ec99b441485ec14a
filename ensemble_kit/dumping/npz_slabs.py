"""A compressed .npz of a volume, read slab by slab: an array (C, D, H, W) of which no more than a slab is in memory.

The stream of bytes is class-major, and a slab needs a few slices of every class. Deflate cannot seek, but its decoder
can be copied: a first pass over the file, up to the last class, keeps a copy where each class begins (40 KiB each);
then all classes are read side by side, by threads. So all but the last class are decoded twice.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, UsageError, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT = 1 << 16
"""Bytes that are read from the file at a time."""
OUTPUT = 1 << 20
"""Bytes that are decompressed at a time."""
RATIO = 1100
"""Times that deflate can shrink bytes, and a little more: a file that says otherwise is not read."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


@dataclass(frozen=True)
class NpzVolume:
    """An array of floats (C, D, H, W) in an .npz.

    Parameters
    ----------
    path : of the .npz.
    key : name of the array in it.
    shape, dtype : of the array.
    entry : of the zip file.
    header : bytes of the array's own header, which stand before its values.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    entry: zipfile.ZipInfo
    header: int

    @classmethod
    def open(cls, path: Path, key: str) -> NpzVolume:
        """Read the description of an array; nothing is unpickled.

        Raises
        ------
        UsageError
            The file has no array of this name.
        DamagedError
            It is not a whole .npz, or the array is not of floats with four axes in the order of C.
        """
        with _told(path), zipfile.ZipFile(path) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
            if key not in entries:
                raise _missing(path, key, entries)
            with archive.open(entries[key]) as file:
                declared, fortran, dtype = _read_header(file)
                shape, header = without_batch(declared), file.tell()
            entry = entries[key]
        whole = entry.file_size == header + math.prod(shape) * dtype.itemsize
        whole = whole and entry.file_size <= RATIO * (entry.compress_size + 1)
        if dtype.kind != "f" or len(shape) != 4 or 0 in shape or fortran or not whole:
            order = ", in Fortran's order" if fortran else ""
            item = f"{str(path)!r}: {key!r} is {dtype} {declared}{order}, in {entry.file_size} bytes"
            fix = "save float32 (classes, z, y, x) in C order: np.savez_compressed(file, probabilities=array)"
            raise _damaged(item, fix)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            item = f"{str(path)!r}: {key!r} is compressed by method {entry.compress_type}, or encrypted"
            raise _damaged(item, "save it by np.savez_compressed")
        return cls(path, key, tuple(shape), dtype, entry, header)

    def slabs(self, memory: int = 1 << 23, jobs: int = 1) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield arrays (C, n, H, W) of consecutive slices; the array is overwritten by the next one.

        Parameters
        ----------
        memory : most bytes of a slab, but for one slice of all classes.
        jobs : threads that decode.

        Raises
        ------
        DamagedError
            The file is cut short or damaged; found before the last slab is yielded.
        """
        classes, depth, *slice_shape = self.shape
        one = math.prod(slice_shape) * self.dtype.itemsize
        thickness = max(1, min(depth, memory // (classes * one)))
        out = np.empty((classes, thickness, *slice_shape), self.dtype)
        with self.path.open("rb", buffering=0) as file, ThreadPoolExecutor(min(jobs, classes)) as pool:
            with _told(self.path):
                streams, crc = self._starts(file, depth * one)
            for first in range(0, depth, thickness):
                slab = out[:, : min(thickness, depth - first)]
                parts = [memoryview(values.reshape(-1).view(np.uint8)) for values in slab]
                with _told(self.path):
                    list(pool.map(_Stream.read_into, streams, parts))
                    crc = zlib.crc32(parts[-1], crc)
                    if first + thickness >= depth and crc != self.entry.CRC:
                        raise zipfile.BadZipFile(f"its checksum is {crc:08x}, the file says {self.entry.CRC:08x}")
                yield slab

    def _starts(self, file: BinaryIO, size: int) -> tuple[list[_Stream], int]:
        """Pass over all classes but the last; return a stream at the start of each, and the checksum so far."""
        signature, name, extra = _LOCAL_HEADER.unpack(os.pread(file.fileno(), 30, self.entry.header_offset))
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile("a local header is missing")
        start = self.entry.header_offset + 30 + name + extra
        deflated = self.entry.compress_type == zipfile.ZIP_DEFLATED
        stream = _Stream(file.fileno(), start, start + self.entry.compress_size, deflated)
        out, crc = [], 0
        for count in (self.header, *[size] * (self.shape[0] - 1)):
            for part in stream.parts(count):
                crc = zlib.crc32(part, crc)
            out.append(stream.copy())
        return out, crc


class _Stream:
    """Bytes of an entry of a zip file, read in order from any place that was reached."""

    def __init__(self, file: int, at: int, stop: int, deflated: bool) -> None:
        self._file, self._at, self._stop = file, at, stop
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._waiting = b""  # compressed bytes that were read and not yet decoded

    def copy(self) -> _Stream:
        out = _Stream(self._file, self._at - len(self._waiting), self._stop, deflated=False)
        out._decoder = self._decoder.copy() if self._decoder is not None else None
        return out

    def parts(self, count: int) -> Iterator[bytes]:
        """Yield the next bytes, `count` in all."""
        while count:
            found = self._next(min(OUTPUT, count))
            count -= len(found)
            yield found

    def read_into(self, out: memoryview) -> None:
        """Fill `out` with the next bytes."""
        done = 0
        for found in self.parts(len(out)):
            out[done : done + len(found)] = found
            done += len(found)

    def _next(self, most: int) -> bytes:
        if self._decoder is None:
            found = os.pread(self._file, min(most, self._stop - self._at), self._at)
            self._at += len(found)
        else:
            if not self._waiting:
                self._waiting = os.pread(self._file, min(INPUT, self._stop - self._at), self._at)
                self._at += len(self._waiting)
            ended = not self._waiting
            found = self._decoder.decompress(self._waiting, most)
            self._waiting = self._decoder.unconsumed_tail
            if not found and not ended and not self._decoder.eof:
                return found  # it read a header of a block and nothing else
        if not found:
            raise EOFError("it ends before its values do")
        return found


def without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the first of five axes where it is 1: a volume in a batch of its own, (1, C, D, H, W)."""
    return tuple(shape[1:] if len(shape) == 5 and shape[0] == 1 else shape)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what zip files and their decoders raise into an error that names the file."""
    try:
        yield
    except EnskError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error, OSError) as error:
        raise _damaged(f"{str(path)!r}: {error}", "copy the file again, or export it again") from error


def _missing(path: Path, key: str, entries: Any) -> EnskError:
    what, item = "cannot read an array", f"{str(path)!r} holds {some(sorted(entries)) or 'none'}, not {key!r}"
    if "softmax" in entries:
        what = "cannot read the probabilities of nnU-Net version 1, which are of the cropped image"
        fix = "predict again by nnU-Net 2: nnUNetv2_predict … --save_probabilities"
        return DamagedError("nnunet-version", what, item=item, fix=fix)
    return UsageError("key-missing", what, item=item, fix="pass the folder of another export")


def _damaged(item: str, fix: str) -> DamagedError:
    return DamagedError("array-damaged", "cannot read an array", item=item, fix=fix)
