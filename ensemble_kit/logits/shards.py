"""The lossless layout: a sample is one shard, a class one inner chunk in it, byte-shuffled and compressed by lz4.

    c.ROW.0.0.0 = class 0 | class 1 | … | index | crc32c of the index
    a class     = blosc(shuffle of 2 bytes, lz4) | its crc32c
    index       = where each class begins and how long it is, two uint64 a class

It is what zarr writes with its own codecs. A checksum guards every byte and is compared before anything is
decompressed: blosc's decoder trusts the sizes in its header, and returns other memory where they are wrong.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.logits.chunkfile import TRAILER, crc
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.body import Body

HEADER = 16
_ENTRY = 16
_ABSENT = 2**64 - 1
_LZ4, _STORED = 1, 0x02
_LEVEL = 5


class ShardError(ValueError):
    """A damaged shard; `reason` says why, `number` is the class at fault or None."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.number = reason, number


def codecs(inner: Shape) -> list[dict[str, Any]]:
    """Return the array's codecs as zarr's metadata has them; `inner` is the shape of one class in a chunk."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"typesize": 2, "cname": "lz4", "clevel": _LEVEL, "shuffle": "shuffle", "blocksize": 0}
    return [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": list(inner),
                "codecs": [little, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
                "index_codecs": [little, {"name": "crc32c"}],
                "index_location": "end",
            },
        }
    ]


def encode(payload: NDArray[np.uint8], classes: int) -> tuple[NDArray[np.uint8], int]:
    """Compress a payload; return the shard's bytes without the last four, and these as a number."""
    blosc, at = _blosc(), 0
    index, blocks = np.empty((classes, 2), "<u8"), []
    for k, one in enumerate(payload.view("<u2").reshape(classes, -1)):
        packed = blosc.compress(one, b"lz4", _LEVEL, blosc.SHUFFLE)
        blocks += [packed, crc(packed).to_bytes(TRAILER, "little")]
        index[k] = at, len(packed) + TRAILER
        at += len(packed) + TRAILER
    raw = index.tobytes()
    return np.frombuffer(b"".join([*blocks, raw]), np.uint8), crc(raw)


def decode(body: Body, out: NDArray[np.uint8], classes: int) -> list[int]:
    """Decompress a shard into `out`, class by class while it is in the cache; return the payload's running CRC-32C.

    Raises
    ------
    ShardError
        A checksum or a size is wrong; nothing was decompressed whose own checksum is.
    """
    blosc, rows = _blosc(), out.reshape(classes, -1)
    index = _index(body, classes)
    most = rows.shape[1] + HEADER + TRAILER
    scratch = np.empty(min(max((size for _, size in index), default=0), most), np.uint8)
    value, running = 0, []
    end = body.size - _ENTRY * classes - TRAILER
    for k, (at, size) in enumerate(index):
        if at == size == _ABSENT:
            raise ShardError("it is absent", k)
        if not HEADER + TRAILER <= size <= most or at + size > end:
            raise ShardError(f"bytes {at} to {at + size} of {body.size} cannot hold it", k)
        packed = scratch[:size]
        body.read_into(packed, at)
        if crc(packed[:-TRAILER]) != int.from_bytes(packed[-TRAILER:].tobytes(), "little"):
            raise ShardError("bytes were changed", k)
        _check_header(packed[:-TRAILER], rows.shape[1], k)
        try:
            blosc.decompress(packed[:-TRAILER], rows[k])
        except (RuntimeError, ValueError):
            raise ShardError("it cannot be decompressed", k) from None
        value = crc(rows[k], value)
        running.append(value)
    return running


def _index(body: Body, classes: int) -> list[tuple[int, int]]:
    size = _ENTRY * classes + TRAILER
    if body.size < size:
        raise ShardError(
            f"it has {body.size} bytes, its index alone {size}" + ("; probably a power cut" if body.size == 0 else "")
        )
    raw = np.empty(size, np.uint8)
    body.read_into(raw, body.size - size)
    if crc(raw[:-TRAILER]) != int.from_bytes(raw[-TRAILER:].tobytes(), "little"):
        raise ShardError("its index was changed or cut")
    return [(int(at), int(n)) for at, n in raw[:-TRAILER].view("<u8").reshape(-1, 2)]


def _check_header(packed: NDArray[np.uint8], size: int, k: int) -> None:
    """Compare what blosc's decoder would trust with what is there."""
    version, _, flags, width, raw, block, whole = struct.unpack("<BBBBIII", packed[:HEADER].tobytes())
    sound = version == 2 and width == 2 and raw == size and whole == packed.size and 0 < block <= max(size, 1 << 16)
    if not sound or not (flags & _STORED or flags >> 5 == _LZ4):
        raise ShardError(f"its header speaks of {raw} bytes in {whole}, there are {size} in {packed.size}", k)


def _blosc() -> Any:
    from numcodecs import blosc

    blosc.use_threads = False  # as zarr sets it: with threads of its own, equal input gives other bytes every time
    return blosc
