"""Images of many channels: what damaged and hostile files of them end in."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.dumping import multichannel
from ensemble_kit.dumping.images import image_size, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)


def seeds(folder: Path) -> list[bytes]:
    """A .npy, a TIFF of colours and alpha by Pillow, as it is and deflated, and one of pages."""
    np.save(folder / "a.npy", PIXELS)
    for name, options in (("a", {}), ("b", {"compression": "tiff_adobe_deflate"})):
        Image.fromarray(PIXELS).save(folder / f"{name}.tif", **options)
    pages = [Image.fromarray(PIXELS[..., k]) for k in range(4)]
    pages[0].save(folder / "c.tif", save_all=True, append_images=pages[1:])
    return [(folder / name).read_bytes() for name in ("a.npy", "a.tif", "b.tif", "c.tif")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("seeds")
    return folder, seeds(folder)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "b.tif", "c.tif"])
def test_files_of_other_writers_are_read(place: tuple[Path, list[bytes]], name: str) -> None:
    assert np.array_equal(read_image(place[0] / name, channels=4), PIXELS)
    assert image_size(place[0] / name, channels=4) == (9, 7)


@given(seed=st.integers(0, 3), where=st.floats(0, 1), what=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_mutated_files_end_in_an_error_of_ours_or_an_image(
    place: tuple[Path, list[bytes]], seed: int, where: float, what: bytes, cut: bool
) -> None:
    data = place[1][seed]
    at = int(where * len(data))
    path = place[0] / f"mutated{'.npy' if seed == 0 else '.tif'}"
    path.write_bytes(data[:at] if cut else data[:at] + what + data[at + len(what) :])
    tracemalloc.start()
    try:
        read = read_image(path, channels=4)
        assert read.ndim == 3
        assert read.shape[2] == 4
    except (ek.DamagedError, ek.MismatchError):
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 32e6


def tags(values: dict[int, int]) -> bytes:
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + body + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tags({256: 20000, 257: 20000, 258: 8, 277: 4, 273: 8, 279: 10}), "more pixels than a file of its length"),
        (tags({256: 8, 257: 8, 258: 8, 277: 4, 259: 5, 273: 8, 279: 256}), "truncated|method 5"),
        (tags({256: 8, 257: 8, 258: 12, 277: 4}), "12"),
        (tags({256: 8, 257: 8, 258: 8, 277: 4, 274: 6}), "turned"),
        (b"II*\0" + struct.pack("<IH", 8, 9999) + bytes(99), "9999 tags"),
        (b"II+\0" + bytes(40), "not a TIFF"),
    ],
    ids=["a bomb", "LZW", "12 bits", "turned", "tags", "BigTIFF"],
)
def test_what_is_not_read_says_why(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ek.DamagedError, match=text):
        read_image(tmp_path / "a.tif", channels=4)


def test_channels_are_counted_where_nothing_else_helps(place: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    assert [multichannel.count(place[0] / name) for name in ("a.tif", "c.tif")] == [4, 4]
    assert multichannel.count(tmp_path / "gone.tif") == 0
