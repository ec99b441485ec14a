"""Images are read as they are meant, and what preprocessing does to them can be undone exactly."""

import io
import json
import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble_kit.dumping.images import find_images, identify, image_size, read_image
from ensemble_kit.dumping.preprocess import Preprocess, alignment, check_alignment, grid_box, parse_size
from ensemble_kit.errors import DamagedError, MismatchError, UsageError
from ensemble_kit.spec.geometry import Box

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
DEEP_COLOUR = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_lossless_formats_come_back_as_they_are(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    assert np.array_equal(read_image(path), pixels)
    assert image_size(path) == (13, 17)


def test_jpeg_is_read(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 48, dtype=np.uint8).reshape(64, 48)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == (64, 48)
    assert np.abs(read.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("pixels", [DEEP, DEEP_COLOUR], ids=["grey", "colour"])
def test_sixteen_bits_keep_all_of_them(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    read = read_image(path)
    assert read.dtype == np.uint16
    assert np.array_equal(read, pixels)
    x, _ = Preprocess((13, 17)).apply(read)
    want = pixels.astype(np.float32) / np.float32(65535)
    assert np.array_equal(x, want.transpose(2, 0, 1) if want.ndim == 3 else np.stack([want] * 3))


def test_alpha_is_dropped_and_a_palette_resolved(tmp_path: Path) -> None:
    alpha = np.dstack([COLOUR, np.full((13, 17), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), COLOUR)
    Image.fromarray(np.dstack([GREY, GREY])).save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png"), GREY)
    few = Image.fromarray(COLOUR // 64 * 64).quantize(64)
    few.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), np.asarray(few.convert("RGB")))
    Image.fromarray(GREY > 128).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png"), np.where(GREY > 128, 255, 0))


def test_float_tiff_is_taken_as_a_fraction_or_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").max() <= 1
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DamagedError, match="floats reach"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, pixels: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    smooth = cv2.resize(pixels, (64, 40))
    Image.fromarray(smooth).save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    turned = {1: smooth, 2: smooth[:, ::-1], 3: smooth[::-1, ::-1], 4: smooth[::-1], 5: np.swapaxes(smooth, 0, 1)}
    turned |= {6: turned[5][:, ::-1], 7: turned[5][::-1, ::-1], 8: turned[5][::-1]}
    want = turned[orientation]
    read = read_image(path)
    assert read.shape == want.shape
    assert np.abs(read.astype(int) - want).mean() < (6 if suffix == "jpg" else 1e-9)
    assert image_size(path) == want.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_of_sixteen_bit_images(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(DEEP).save(tmp_path / f"a.{suffix}", exif=exif)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), np.rot90(DEEP, -1))
    assert image_size(tmp_path / f"a.{suffix}") == (17, 13)


def test_orientation_of_sixteen_bit_colours(tmp_path: Path) -> None:
    """Neither Pillow nor OpenCV writes such a file, so it is put together here."""
    H, W = 13, 17
    data = DEEP_COLOUR.astype("<u2").tobytes()
    tags = {256: W, 257: H, 258: 16, 259: 1, 262: 2, 273: 8, 274: 6, 277: 3, 278: H, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items() if tag != 258)
    bits = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries = entries[:24] + struct.pack("<HHII", 258, 3, 3, bits) + entries[24:]
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + struct.pack("<HHH", 16, 16, 16)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd)
    assert np.array_equal(read_image(path), np.rot90(DEEP_COLOUR, -1))
    assert image_size(path) == (W, H)


def png_bomb(path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    png_bomb(tmp_path / "bomb.png", 30_000)
    with pytest.raises(DamagedError, match="30000 x 30000") as caught:
        read_image(tmp_path / "bomb.png")
    assert caught.value.code == "image-too-large"
    assert "bomb.png" in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG")
    whole = buffer.getvalue()
    cases = {
        "cut.png": whole[: len(whole) // 2],
        "flipped.png": whole[:100] + bytes([whole[100] ^ 0x55]) + whole[101:],
        "empty.png": b"",
        "text.jpg": b"this is not an image",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
            read_image(tmp_path / name)
    jpeg = io.BytesIO()
    Image.fromarray(np.tile(COLOUR, (8, 8, 1))).save(jpeg, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    with pytest.raises(DamagedError, match="truncated"):
        read_image(tmp_path / "cut.jpg")


def test_pages_are_not_chosen_silently(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DamagedError, match="2 pages"):
        read_image(tmp_path / "a.tif")


def test_images_are_found_and_named(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.jpeg", "notes.txt", ".hidden/d.png", "._a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = find_images(tmp_path)
    assert [p.name for p in paths] == ["a.PNG", "b.png", "c.jpeg"]
    assert list(identify(paths, tmp_path)) == ["a.PNG", "b.png", "c.jpeg"]
    assert list(identify(paths, tmp_path, "stem")) == ["a", "b", "c"]
    assert list(identify(paths, tmp_path, "path")) == ["a.PNG", "b.png", "sub/c.jpeg"]


def test_ids_that_clash_are_refused(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "b.png", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = find_images(tmp_path)
    with pytest.raises(UsageError, match=r"'x/a\.png' and 'y/a.png' are both 'a\.png'") as caught:
        identify(paths, tmp_path)
    assert "--id path" in caught.value.fix
    with pytest.raises(UsageError, match=r"are both 'b'.*1 more"):
        identify(paths, tmp_path, "stem")
    assert len(identify(paths, tmp_path, "path")) == 4
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        find_images(tmp_path / "none")


def test_stretch_is_what_a_training_script_does() -> None:
    prep = Preprocess((24, 32), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    x, box = prep.apply(COLOUR)
    want = cv2.resize(COLOUR, (32, 24), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    want = (want - np.float32(prep.mean)) / np.float32(prep.std)
    assert box == (0, 0, 24, 32)
    assert x.dtype == np.float32
    assert np.allclose(x, want.transpose(2, 0, 1), atol=1e-6)


def test_channels() -> None:
    rgb, _ = Preprocess((13, 17)).apply(COLOUR)
    bgr, _ = Preprocess((13, 17), channels="bgr").apply(COLOUR)
    grey, _ = Preprocess((13, 17), channels="grey").apply(COLOUR)
    assert np.array_equal(rgb[::-1], bgr)
    assert np.array_equal(grey[0], grey[2])
    assert np.allclose(grey[0], np.tensordot([0.299, 0.587, 0.114], rgb, 1), atol=2 / 255)
    of_grey, _ = Preprocess((13, 17)).apply(GREY)
    assert np.array_equal(of_grey, np.stack([GREY / np.float32(255)] * 3))


def test_letterbox_pads_with_the_fill_and_keeps_the_image() -> None:
    prep = Preprocess((32, 32), "letterbox", mean=(0.5, 0.5, 0.5), fill=0.25)
    image = RNG.integers(0, 256, (32, 20, 3), dtype=np.uint8)
    x, box = prep.apply(image)
    assert box == (0, 6, 32, 26)
    inside = x[:, *box.slices] + 0.5
    assert np.array_equal(np.rint(inside * 255).astype(np.uint8).transpose(1, 2, 0), image)
    assert np.all(x[:, :, :6] == -0.25)
    assert np.all(x[:, :, 26:] == -0.25)
    corner = Preprocess((32, 32), "letterbox", anchor="corner").place((32, 20))
    assert corner == (0, 0, 32, 20)


sizes = st.integers(1, 3000)


@given(sizes, sizes, st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 2, 4, 8, 16, 32]),
       st.sampled_from(["center", "corner"]))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_letterboxed_box_is_whole_cells_and_keeps_the_aspect(
    H: int, W: int, rows: int, columns: int, stride: int, anchor: str
) -> None:
    canvas, grid = (rows * 32, columns * 32), (rows * 32 // stride, columns * 32 // stride)
    align = check_alignment(canvas, grid, "test")
    assert align == (stride, stride)
    box = Preprocess(canvas, "letterbox", anchor=anchor).place((H, W), canvas, align)
    on_grid = grid_box(box, canvas, grid)
    assert tuple(v * stride for v in on_grid) == box
    assert all(0 <= a < b <= n for a, b, n in zip(box.start, box.stop, canvas, strict=True))
    scale = min(canvas[0] / H, canvas[1] / W)
    for length, image in zip(box.shape, (H, W), strict=True):
        assert abs(length - image * scale) <= max(stride / 2, stride - image * scale) + 1e-6
    assert any(length == side for length, side in zip(box.shape, canvas, strict=True))


def test_a_head_of_odd_stride_is_stretched_or_refused() -> None:
    assert alignment((513, 513), (129, 129)) == (171, 171)
    with pytest.raises(MismatchError, match="513 x 513 gives a grid of 129 x 129"):
        check_alignment((513, 513), (129, 129), "letterboxed images")
    assert grid_box(Box(0, 0, 513, 513), (513, 513), (129, 129)) == (0, 0, 129, 129)


def test_images_of_their_own_size_have_canvases_of_their_own() -> None:
    prep = Preprocess()
    assert prep.canvas((100, 50), (4, 4), least=64) == (100, 64)
    assert prep.place((60, 90), (64, 92), (4, 4)) == (0, 0, 60, 92)
    assert prep.canvas((10, 10), (4, 4), least=64) == (64, 64)


@given(st.integers(1, 999), st.integers(1, 999), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 16, 32, 24]))
def test_native_inputs_are_padded_to_multiples(h: int, w: int, stride: int, divisor: int) -> None:
    prep, align = Preprocess("native", divisor=divisor), (stride, stride)
    canvas, box = prep.canvas((h, w), align), prep.place((h, w), None, align)
    for side, image, end in zip(canvas, (h, w), box.stop, strict=True):
        assert side % divisor == side % stride == 0
        assert end <= side < end + math.lcm(divisor, stride)
        assert abs(end - image) * 2 <= stride or end == stride
    assert stride > 1 or box == (0, 0, h, w)
    x, placed = prep.apply(np.full((h, w, 3), 255, np.uint8), None, align)
    assert placed == box and x.shape == (3, *canvas)
    assert (x[:, *box.slices] == 1).all() and x.sum() == 3 * math.prod(box.shape)


def test_a_native_size_is_kept_in_the_json_form() -> None:
    prep = Preprocess("native", divisor=64)
    assert Preprocess.from_dict(prep.to_dict()) == prep and prep.to_dict()["divisor"] == 64
    assert "divisor" not in Preprocess("native").to_dict()
    with pytest.raises(UsageError, match="divisor"):
        Preprocess("native", divisor=0)


def test_json_form_is_strict(tmp_path: Path) -> None:
    values = {"size": [192, 160], "resize": "stretch", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    values["channels"] = "rgb"
    path = tmp_path / "p.json"
    path.write_text(json.dumps(values))
    prep = Preprocess.load(path)
    assert prep == Preprocess((192, 160), "stretch", (0.1, 0.2, 0.3), (1, 1, 1), "rgb")
    assert Preprocess.from_dict(prep.to_dict()) == prep
    assert json.loads(json.dumps(prep.to_dict())) == prep.to_dict()
    assert prep.but(size="64", mean=None).size == (64, 64)
    several = [{"sise": [1, 2]}, {"size": [0, 2]}, {"size": [1, 2, 3]}, {"resize": "crop"}, {"channels": "cmyk"}]
    several += [{"mean": [1, 2]}, {"mean": ["a", 1, 2]}, {"mean": 1}, {"std": [1, 0, 1]}, {"fill": 2}]
    for bad in several:
        with pytest.raises(UsageError):
            Preprocess.from_dict(bad)
    for text in ('{"size": [1, 2], "size": [3, 4]}', '{"mean": [NaN, 0, 0]}', "[" * 100_000, "no"):
        path.write_text(text)
        with pytest.raises((UsageError, DamagedError)):
            Preprocess.load(path)


@pytest.mark.parametrize(
    ("mean", "std", "fix"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        ((102, 102, 102), (1, 1, 1), "--mean 0.4,0.4,0.4 --std 0.00392157,0.00392157,0.00392157"),
        ((0, 0, 0), (255, 255, 255), "--mean 0,0,0 --std 1,1,1"),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        ((102, 102, 102), (0.25, 0.25, 0.25), "--mean 0.4,0.4,0.4 --std 0.25,0.25,0.25"),
    ],
    ids=["both", "no std", "no mean", "mean on 0..1", "std on 0..1"],
)
def test_values_of_the_255_scale_are_refused(mean: tuple[float, ...], std: tuple[float, ...], fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        Preprocess((8, 8), mean=mean, std=std)
    assert caught.value.code == "preprocess-invalid"
    assert f"divide by 255: {fix}" in caught.value.fix
    values = [[float(v) for v in part.split(",")] for part in fix.split(" ")[1::2]]
    assert Preprocess((8, 8), mean=tuple(values[0]), std=tuple(values[1])).std == tuple(values[1])


def test_limits_of_mean_and_std() -> None:
    assert Preprocess(mean=(0, 0.5, 1), std=(1, 0.5, 1 / 255)).mean == (0, 0.5, 1)
    with pytest.raises(UsageError, match="65535"):
        Preprocess(mean=(30000, 30000, 30000), std=(9000, 9000, 9000))
    for bad in ({"mean": (-0.1, 0, 0)}, {"std": (-0.5, 1, 1)}, {"std": (0, 1, 1)}):
        with pytest.raises(UsageError, match=r"0 to 1|above 0") as caught:
            Preprocess(**bad)
        assert "255" not in caught.value.fix


def test_sizes_are_read() -> None:
    assert parse_size("512x640") == (512, 640)
    assert parse_size("512") == parse_size(512) == (512, 512)
    for bad in ("", "x", "5x", "5x6x7", "-1", "0", "1.5", None, True, 10**9):
        with pytest.raises(UsageError):
            parse_size(bad)
