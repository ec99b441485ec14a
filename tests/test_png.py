"""PNG decoded here, against Pillow and against the filters' oracle."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ensemble_kit.errors import DamagedError
from ensemble_kit.formats.png_codec import read_labels
from ensemble_kit.kernels import png, reference

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MODES = {(0, 8): 1, (0, 16): 2, (2, 8): 3, (3, 8): 1, (6, 8): 4}


def png_of(rows: np.ndarray, width: int, depth: int, kind: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    table = chunk(b"PLTE", bytes(range(256)) * 3) if kind == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + table + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")


@few
@given(data=st.data(), mode=st.sampled_from(list(MODES)), shape=st.tuples(st.integers(1, 6), st.integers(1, 9)))
def test_every_filter_is_undone(tmp_path: Path, data, mode, shape) -> None:
    step = MODES[mode]
    rows = data.draw(hnp.arrays(np.uint8, (shape[0], 1 + shape[1] * step)))
    rows[:, 0] = data.draw(hnp.arrays(np.uint8, shape[0], elements=st.integers(0, 4)))
    if mode[0] == 6:
        rows[:, 0] = 0
        rows[:, 4::4] = 255
    out = np.empty((shape[0], shape[1] * step), np.uint8)
    assert png.unfilter(rows, step, out) == -1
    assert np.array_equal(out, reference.unfiltered(rows, step))
    path = tmp_path / "a.png"
    path.write_bytes(png_of(rows, shape[1], mode[1], mode[0]))
    pixels, palette = read_labels(path)
    with Image.open(path) as image:
        wanted = np.asarray(image)
        assert np.array_equal(pixels, wanted[..., :3] if mode[0] == 6 else wanted)
        assert palette is None or palette.reshape(-1).tolist() == image.getpalette()
    assert (palette is not None) == (mode[0] == 3)


def test_a_filter_that_does_not_exist_and_a_missing_row(tmp_path: Path) -> None:
    rows = np.zeros((3, 5), np.uint8)
    rows[1, 0] = 5
    path = tmp_path / "a.png"
    path.write_bytes(png_of(rows, 4, 8, 0))
    with pytest.raises(DamagedError, match="row 1 has a filter"):
        read_labels(path)
    raw = bytearray(png_of(rows[:2], 4, 8, 0))
    raw[20:24] = struct.pack(">I", 3)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match="10 of 15 bytes"):
        read_labels(path)


def test_an_interlaced_png_and_few_bits(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
    path = tmp_path / "a.png"
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path, bits=1)
    assert np.array_equal(read_labels(path)[0], values)
