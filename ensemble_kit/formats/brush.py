"""Label Studio's RLE of brushes: the bits of thi.ng's rle-pack (K. Schmidt), which its front end packs pixels with.

32 bits count the values, 5 the bits of a value less 1, four times 4 the bits of a length less 1. Then, until all
values are there: one bit (1: one value that repeats, 0: values one by one), two bits that choose one of the four sizes,
a length less 1 of that size, and the value or values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


def opacity(rle: Any, size: Shape) -> NDArray[np.uint8]:
    """Decode the bytes of a brush: its opacity at every pixel, uint8 (H, W), the last of four values.

    Raises ValueError where they are anything else. No more is unpacked than the image has, and nothing where the bytes
    are too few for it.

    Parameters
    ----------
    rle : a list of whole numbers from 0 to 255.
    """
    if not isinstance(rle, list) or not all(type(v) is int and 0 <= v < 256 for v in rle):
        raise ValueError("its rle is not a list of bytes")
    count = 4 * math.prod(size)
    stream = _Bits(np.array(rle, np.uint8))
    found, word = stream.number(32), stream.number(5) + 1
    sizes = [stream.number(4) + 1 for _ in range(4)]
    if found != count or word != 8:
        raise ValueError(f"its rle has {found} values of {word} bits; its image has {count} of 8: 4 a pixel")
    if count > stream.left // (11 + min(sizes)) * 2 ** max(sizes):
        raise ValueError("its rle is cut")
    out, done = np.empty(count // 4, np.uint8), 0
    while done < count:
        repeats = stream.number(1)
        end = done + 1 + stream.number(sizes[stream.number(2)])
        if end > count:
            raise ValueError(f"its rle has more than its {count} values")
        values = stream.number(word) if repeats else stream.bytes(end - done)[(3 - done) % 4 :: 4]
        out[done // 4 : end // 4] = values
        done = end
    return out.reshape(size)


class _Bits:
    """Bits of a stream, the highest of each byte first."""

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self._raw, self._at, self._end = raw.tobytes(), 0, 8 * raw.size

    @property
    def left(self) -> int:
        """How many bits are not read yet."""
        return self._end - self._at

    def number(self, bits: int) -> int:
        """Read a whole number of this many bits, 32 at most."""
        begin, end = self._at, self._at + bits
        if end > self._end:
            raise ValueError("its rle is cut")
        self._at = end
        last = -(-end // 8)
        return (int.from_bytes(self._raw[begin // 8 : last]) >> (8 * last - end)) & ((1 << bits) - 1)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Read this many values of 8 bits."""
        begin, end = self._at, self._at + 8 * count
        if end > self._end:
            raise ValueError("its rle is cut")
        self._at = end
        part = np.frombuffer(self._raw[begin // 8 : -(-end // 8)], np.uint8)
        shift = begin % 8
        if not shift:
            return part
        pairs = part[:-1].astype(np.uint16) << 8 | part[1:]
        return (pairs >> (8 - shift)).astype(np.uint8)
