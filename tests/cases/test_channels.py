"""Networks of other channels, and arrays of other axes (N4, N6)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ensemble_kit as ek
from cases.dumps import GREY, SIDES, arrays, dump, first_channel, onnx_of, put, stored
from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe

# --- N4: networks of other channels ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "onnx", "function"])
def test_N4_grey_feeds_one_channel_to_a_network_of_one(tmp_path, kind) -> None:
    network: Any = first_channel(1)
    if kind == "function":  # nothing tells how many channels it takes
        network = network.forward
    elif kind == "onnx":
        network = str(onnx_of(tmp_path / "net.onnx", {"y": 1}, channels=1))
    dump(tmp_path, network, Recipe(Preprocess(16, channels="grey")))
    right = np.full((16, 16), 2) if kind == "onnx" else GREY / np.float32(255)
    assert np.array_equal(stored(tmp_path)[0], right.astype(np.float16))
    kept = ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]
    assert kept["count"] == 1
    x, _ = Preprocess.from_dict(kept).apply(GREY)
    assert np.array_equal(x, GREY[None] / np.float32(255))
    error = refused_again(tmp_path, network, Recipe(Preprocess(16)))
    assert "the network takes 1 channel, images are given with 3" in error.item
    assert "--channels grey" in error.fix


def refused_again(tmp_path: Path, network: object, recipe: Recipe) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        dump_logits(network, tmp_path / "images", SIDES, tmp_path / "x.zarr", recipe, device="cpu")
    assert (caught.value.code, caught.value.exit_code) == ("model-channels", 6)
    return caught.value


def test_N4_grey_stays_three_channels_for_a_network_of_three(tmp_path) -> None:
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, channels="grey")))
    assert np.array_equal(stored(tmp_path)[0], (GREY / np.float32(255)).astype(np.float16))
    assert "count" not in ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]


SPECTRAL = np.random.default_rng(1).integers(0, 200, (16, 12, 5)).astype(np.uint16) * 300


def tiff(path: Path, array: np.ndarray, apart: bool, deflated: bool, tile: int = 0, order: str = "<") -> None:
    """Write (H, W, N) as a TIFF, by the specification of 1992: no library at hand writes more than four samples."""
    H, W, N = array.shape
    maps = np.moveaxis(array, 2, 0)[..., None] if apart else array[None]
    pieces = []
    for one in maps:
        if tile:
            padded = np.zeros((-(-H // tile) * tile, -(-W // tile) * tile, one.shape[2]), array.dtype)
            padded[:H, :W] = one
            pieces += [padded[y : y + tile, x : x + tile] for y in range(0, H, tile) for x in range(0, W, tile)]
        else:
            pieces += [one[y : y + 7] for y in range(0, H, 7)]
    raw = [np.ascontiguousarray(p).astype(array.dtype.newbyteorder(order)).tobytes() for p in pieces]
    raw = [zlib.compress(p) for p in raw] if deflated else raw
    starts = [8 + sum(map(len, raw[:k])) for k in range(len(raw))]
    bits, kind = array.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = {256: [W], 257: [H], 258: [bits] * N, 259: [8 if deflated else 1], 262: [1], 277: [N]}
    tags |= {322: [tile], 323: [tile], 324: starts, 325: [*map(len, raw)]} if tile else {}
    tags |= {} if tile else {273: starts, 278: [7], 279: [*map(len, raw)]}
    tags |= {284: [2 if apart else 1], 339: [kind] * N}
    body, extra, base = b"", b"", 8 + sum(map(len, raw))
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            extra, packed = extra + packed, struct.pack(f"{order}I", base + len(extra))
        body += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", base + len(extra))
    path.parent.mkdir(exist_ok=True)
    directory = struct.pack(f"{order}H", len(tags)) + body + struct.pack(f"{order}I", 0)
    path.write_bytes(head + b"".join(raw) + extra + directory)


def write_spectral(path: Path, form: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if form == "npy, channels last":
        np.save(path.with_suffix(".npy"), SPECTRAL)
    elif form == "npy, channels first":
        np.save(path.with_suffix(".npy"), np.moveaxis(SPECTRAL, 2, 0))
    elif form == "TIFF of pages":
        pages = [Image.fromarray(SPECTRAL[..., k]) for k in range(5)]
        pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    else:
        tiff(path.with_suffix(".tif"), SPECTRAL, "apart" in form, "deflated" in form, 16 * ("tiles" in form),
             ">" if "big" in form else "<")  # fmt: skip


FORMS = ["npy, channels last", "npy, channels first", "TIFF of pages", "TIFF", "TIFF, apart, big-endian",
         "TIFF, deflated", "TIFF, deflated, apart, tiles", "TIFF, tiles"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_N4_folders_of_five_channels(tmp_path, form) -> None:
    write_spectral(tmp_path / "images" / "a", form)
    recipe = Recipe(Preprocess((16, 12), channels=5, mean=(0.1,) * 5))
    said: list[str] = []
    dump_logits(first_channel(5), tmp_path / "images", SIDES, tmp_path / "m.zarr", recipe, ids="stem", device="cpu",
                say=said.append)  # fmt: skip
    store = ek.LogitStore(tmp_path / "m.zarr")
    right = SPECTRAL[..., 0] / np.float32(65535) - np.float32(0.1)
    assert np.allclose(store.read("a")[0], right, atol=1e-3)
    assert store.image_size("a") == (16, 12)
    x, _ = Preprocess.from_dict(store.provenance["preprocessing"]).apply(SPECTRAL)
    assert np.allclose(x, np.moveaxis(SPECTRAL, 2, 0) / np.float32(65535) - np.float32(0.1), atol=1e-6)
    assert "divided by 65535" in "".join(said)
    with pytest.raises(ek.MismatchError) as caught:
        dump_logits(first_channel(5), tmp_path / "images", SIDES, tmp_path / "x.zarr",
                    Recipe(Preprocess(16, channels=4)), device="cpu")  # fmt: skip
    assert (caught.value.code, "--channels 5" in caught.value.fix) == ("image-channels", True)


def test_N4_four_channels_of_a_png_are_colours_and_alpha(tmp_path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (16, 16, 4)).astype(np.uint8)
    put(tmp_path / "images" / "a.png", pixels)
    network = first_channel(4)
    with torch.no_grad():
        network.weight[:] = torch.tensor([0, 0, 0, 1.0])[:, None, None]
    dump(tmp_path, network, Recipe(Preprocess(16, channels=4)))
    assert np.array_equal(stored(tmp_path)[0], (pixels[..., 3] / np.float32(255)).astype(np.float16))


@pytest.mark.parametrize("form", ["TIFF", "TIFF of pages", "npy, channels last"])
def test_N4_what_has_more_channels_than_colours_says_so(tmp_path, form) -> None:
    write_spectral(tmp_path / "images" / "a", form)
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, first_channel(3), Recipe(Preprocess(16)))
    assert ("--channels N" if "npy" in form else "--channels 5") in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((5, 8, 5), "can be read as"), ((5,), "is read"), ((2, 2, 2, 5), "is read")],
    ids=["two readings", "a row", "four axes"],
)
def test_N4_arrays_that_are_no_images(tmp_path, shape, text) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ek.DamagedError, match=text):
        dump(tmp_path, first_channel(5), Recipe(Preprocess(16, channels=5)))


@pytest.mark.parametrize("cut", [0, 3, 100, 1500, -1], ids=str)
def test_N4_a_cut_tiff_is_refused(tmp_path, cut) -> None:
    write_spectral(tmp_path / "images" / "a", "TIFF")
    path = tmp_path / "images" / "a.tif"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ek.DamagedError, match=r"a\.tif"):
        dump(tmp_path, first_channel(5), Recipe(Preprocess(16, channels=5)))


# --- N6: arrays of other axes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "code", "text"),
    [
        ((3, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((4, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((4, 8, 9, 3), "array-is-volume", "(Z, Y, X, C)"),
        ((1, 3, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((2, 3, 8, 9), "array-is-volume", "a batch"),
        ((8, 9, 3), "array-shape", "--axes hwc"),
        ((1, 8, 9, 3), "array-shape", "--axes hwc"),
        ((3, 9, 3), "array-axes", "--axes chw if they stand first, --axes hwc"),
        ((4, 8, 9), "array-shape", "the background"),
        ((8, 9), "array-shape", "(8, 9)"),
    ],
    ids=["volume", "volume of one class more", "volume, classes last", "batch of a volume", "batch", "classes last",
         "batch, classes last", "first and last", "a background", "two axes"],
)  # fmt: skip
def test_N6_arrays_that_are_not_classes_of_an_image(tmp_path, shape, code, text) -> None:
    with pytest.raises(ek.MismatchError) as caught:
        arrays(tmp_path, np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape))
    assert caught.value.code == code
    assert text in str(caught.value)
    assert ("pass the volumes as --images" in caught.value.fix) == ("volume" in code and "batch" not in text)


@pytest.mark.parametrize(
    ("shape", "axes", "move"),
    [((8, 9, 3), "hwc", True), ((1, 8, 9, 3), "hwc", True), ((3, 9, 3), "hwc", True), ((3, 9, 3), "chw", False),
     ((3, 8, 9), None, False), ((3, 1, 8, 9), None, False), ((1, 3, 8, 9), "chw", False)],
    ids=str,
)  # fmt: skip
def test_N6_axes_that_are_named_are_read(tmp_path, shape, axes, move) -> None:
    values = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    three = values.reshape([n for n in shape if n > 1])
    right = np.moveaxis(three, 2, 0) if move else three
    assert np.array_equal(arrays(tmp_path, values, axes=axes), right.astype(np.float16))
    assert ek.LogitStore(tmp_path / "m.zarr").provenance.get("axes") == axes


def test_N6_a_writer_says_so_too(tmp_path) -> None:
    out = ek.LogitWriter(tmp_path / "m.zarr", ["a"], ["s"], (8, 9))
    with out, pytest.raises(ek.MismatchError, match=r"a volume.s store is made with grid=None"):
        out.write("s", np.zeros((1, 4, 8, 9), np.float32), (8, 9))
    out = ek.LogitWriter(tmp_path / "m.zarr", ["a"], ["s"], (8, 9))
    with out, pytest.raises(ek.MismatchError, match=r"classes first: np\.moveaxis"):
        out.write("s", np.zeros((8, 9, 1), np.float32), (8, 9))
