"""The rows of a PNG, all that its header declares.

Pillow and libpng accept a stream that ends early: its missing rows become zeros, and so a mask that is empty there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_STEP = 1 << 20


def chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield each chunk's name, body, and whether its checksum holds, up to IEND; raises ValueError where it is cut."""
    view, begin, name = memoryview(raw), len(SIGNATURE), b""
    while name != b"IEND":
        if begin + 12 > len(raw):
            raise ValueError("it is cut")
        length, name = struct.unpack(">I4s", raw[begin : begin + 8])
        end = begin + 12 + length
        if end > len(raw):
            raise ValueError("it is cut")
        sound = zlib.crc32(view[begin + 4 : end - 4]) == int.from_bytes(raw[end - 4 : end], "big")
        yield name, view[begin + 8 : end - 4], sound
        begin = end


def check_rows(raw: bytes) -> None:
    """Refuse a PNG with fewer rows than it declares; raises ValueError. Memory stays at one megabyte."""
    for _ in _inflated(raw):
        pass


def read_rows(raw: bytes) -> bytes | None:
    """Inflate the rows of a PNG, raising ValueError where any is missing; None where it is interlaced."""
    if raw[28]:
        check_rows(raw)
        return None
    return b"".join(_inflated(raw))


def read_bands(raw: bytes, rows: int) -> Iterator[NDArray[np.uint8]]:
    """Decode 8-bit grey, not interlaced, some rows at a time, uint8 (n, W); raises ValueError where any is missing.

    Memory holds one band, however large the image is.
    """
    from ensemble_kit.kernels.png import unfilter

    width, above, done = struct.unpack(">I", raw[16:20])[0], b"", 0
    stride, held = width + 1, bytearray()

    def decoded(size: int) -> NDArray[np.uint8]:
        nonlocal above, done
        # the last row of the band before, as a row without a filter, is what the first one refers to
        before = b"\0" + above if above else b""
        block = np.frombuffer(before + bytes(held[:size]), np.uint8).reshape(-1, stride)
        del held[:size]
        out = np.empty((len(block), width), np.uint8)
        wrong = unfilter(block, 1, out)
        if wrong >= 0:
            raise ValueError(f"row {done + wrong - (1 if above else 0)} has a filter that does not exist")
        found = out[1:] if above else out
        above, done = out[-1].tobytes(), done + len(found)
        return found

    for part in _inflated(raw):
        held += part
        if len(held) >= rows * stride:
            yield decoded(len(held) // stride * stride)
    if held:
        yield decoded(len(held))


def _inflated(raw: bytes) -> Iterator[bytes]:
    """Yield the rows that the header declares, in pieces of a megabyte; raises ValueError at the end of fewer."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", raw[16:29])
    bits = depth * CHANNELS.get(kind, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    want = 0
    for x0, y0, dx, dy in passes:
        columns, rows = -(-(width - x0) // dx), -(-(height - y0) // dy)
        want += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    have, inflate = 0, zlib.decompressobj()
    for name, body, _ in chunks(raw):
        rest: bytes | memoryview = body if name == b"IDAT" else b""
        while rest and have < want and not inflate.eof:
            try:
                part = inflate.decompress(rest, min(_STEP, want - have))
            except zlib.error as error:
                raise ValueError(str(error)) from None
            have += len(part)
            rest = inflate.unconsumed_tail
            yield part
    if have < want:
        raise ValueError(f"it declares {height} x {width} pixels and holds {have} of {want} bytes of them")
