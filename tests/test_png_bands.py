"""PNGs that are read and written some rows at a time, against Pillow."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.formats.bitmaps import runs_of_bands
from ensemble_kit.formats.png_codec import read_labels
from ensemble_kit.formats.png_rows import read_bands
from ensemble_kit.formats.png_writing import height_of_bands, write_png
from ensemble_kit.formats.sizes import PIXEL_LIMIT
from ensemble_kit.masks.runs import encode


def png(pixels: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=6, compress_type=strategy)
    return out.getvalue()


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 30), st.integers(1, 9))
def test_rows_some_at_a_time_are_those_of_pillow(seed: int, height: int, width: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.cumsum(rng.integers(0, 3, (height, width)), axis=1).astype(np.uint8)
    bands = list(read_bands(png(pixels), rows))
    assert np.array_equal(np.concatenate(bands), pixels)
    mask = pixels % 2 == 1
    found = runs_of_bands([mask[y : y + rows] for y in range(0, height, rows)], (height, width), "x")
    assert found == encode(mask)


@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 9),
    st.sampled_from([("uint8", False), ("uint8", True), ("uint16", False)]),
)
def test_pillow_reads_what_is_written_some_rows_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int, rows: int, how: tuple[str, bool]
) -> None:
    (kind, coloured), rng = how, np.random.default_rng(seed)
    top = int(rng.choice([2, 256, np.iinfo(kind).max + 1]))
    pixels = rng.integers(0, min(top, np.iinfo(kind).max + 1), (height, width)).astype(kind)
    palette = rng.integers(0, 256, 768).astype(np.uint8).tobytes() if coloured else None
    path = tmp_path_factory.getbasetemp() / "written.png"
    write_png(path, (pixels[y : y + rows] for y in range(0, height, rows)), pixels.shape, pixels.dtype, palette)
    with Image.open(path) as image:
        assert image.mode == ("P" if coloured else "L" if kind == "uint8" else "I;16")
        assert np.array_equal(np.asarray(image), pixels)
        assert not coloured or bytes(image.getpalette("RGB")) == palette
    read, colours = read_labels(path)
    assert np.array_equal(read, pixels)
    assert (None if colours is None else colours.tobytes()) == palette


def test_writing_holds_one_band(tmp_path: Path) -> None:
    side, kind = 6000, np.dtype(np.uint8)
    rows = height_of_bands(side)
    assert side**2 > 30 * rows * side
    tracemalloc.start()
    try:
        bands = (np.zeros((min(rows, side - y), side), kind) for y in range(0, side, rows))
        write_png(tmp_path / "zeros.png", bands, (side, side), kind)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 8 * rows * side
    with Image.open(tmp_path / "zeros.png") as image:
        assert image.size == (side, side)


@pytest.mark.slow
def test_a_mask_larger_than_a_bitmap_may_be_is_written_and_read(tmp_path: Path) -> None:
    side = 1 + int(PIXEL_LIMIT**0.5)
    mask = ek.Runs(np.array([5, side * 7 + 1]), np.array([side * 3, side * side]), (side, side))
    masks = ek.MaskSet({("plane", "x"): mask})
    masks.write(tmp_path / "png", format="png")
    assert ek.read_masks(tmp_path / "png") == masks


@pytest.mark.slow
def test_a_large_mask_that_is_cut_is_refused(tmp_path: Path) -> None:
    side = 1 + int(PIXEL_LIMIT**0.5)
    folder = tmp_path / "png" / "x"
    folder.mkdir(parents=True)
    head = png(np.zeros((2, side), np.uint8), zlib.Z_RLE)
    size = side.to_bytes(4, "big")
    body = b"IHDR" + size + size + head[24:29]
    (folder / "plane.png").write_bytes(head[:8] + head[8:12] + body + zlib.crc32(body).to_bytes(4, "big") + head[33:])
    with pytest.raises(ek.DamagedError, match=r"holds .* of .* bytes"):
        ek.read_masks(tmp_path / "png")
