"""One image decoded: recognised by its first bytes, checked before it is decoded, 16 bits kept.

Only PNG, JPEG, TIFF and BMP are tried: a file in a folder of images must not reach the other forty decoders of the
imaging library.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ensemble_kit.dumping import multichannel
from ensemble_kit.errors import DamagedError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 2**29
"""Largest image that is decoded: 537 million pixels, a 23,000 × 23,000 slide."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "JpegImageFile"),
    b"II*\x00": ("TiffImagePlugin", "TiffImageFile"),
    b"MM\x00*": ("TiffImagePlugin", "TiffImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
}
WIDTH, LENGTH, _BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274

UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: np.rot90,
}
"""What turns an image upright, by its EXIF orientation; 1 and unknown ones need nothing."""


@contextmanager
def opened(path: Path) -> Iterator[ImageFile]:
    """Open an image by its first bytes, without decoding it, and check its number of pixels."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with file, _decoder(file, path) as image:
        width, height = image.size
        check_pixels(path, height, width)
        yield image


def check_pixels(path: Path, height: int, width: int) -> None:
    """Refuse an image whose header says more pixels than are decoded."""
    if width * height > MAX_PIXELS or min(width, height) < 1:
        item = f"{str(path)!r} says {height} x {width} pixels; at most {MAX_PIXELS} are decoded"
        fix = "cut or shrink the image, or keep the file outside the folder"
        raise DamagedError("image-too-large", "cannot read an image", item=item, fix=fix)


def _decoder(file: BinaryIO, path: Path) -> ImageFile:
    from importlib import import_module

    try:
        head = file.read(8)
        file.seek(0)
        kinds = [kind for magic, kind in _MAGIC.items() if head.startswith(magic)]
        if not kinds:
            raise ValueError("it is not PNG, JPEG, TIFF or BMP" if head else "the file is empty")
        module, name = kinds[0]
        # The class itself: Image.open would add a limit of 0.18 gigapixels that only a global can lift. And an
        # open file: given a path, Pillow 13 maps an uncompressed TIFF into memory and turns it wrongly
        image: ImageFile = getattr(import_module(f"PIL.{module}"), name)(file)
        return image
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> Exception:
    """Make the error of a file that cannot be decoded, by what went wrong."""
    if isinstance(error, DamagedError):
        return error
    if isinstance(error, PermissionError):
        item, fix = f"{str(path)!r}: {error.strerror}", "give this user the right to read it"
        return ResourceError("image-permission", "cannot read an image", item=item, fix=fix)
    fix = "copy the file again, or keep it outside the folder"
    if path.suffix.lower() in multichannel.SUFFIXES and (several := multichannel.count(path)) > 1:
        fix = f"pass --channels {several} if they are the channels of one image; else save what is meant alone"
    return DamagedError("image-unreadable", "cannot read an image", item=f"{str(path)!r}: {error}", fix=fix)


def orientation(image: ImageFile, path: Path) -> int:
    """Read the EXIF orientation, 1…8; 1 where there is none."""
    from PIL.Image import Image

    if image.format == "PNG" and b"eXIf" not in path.read_bytes():
        exif = Image.getexif(image)  # PNG's own getexif decodes the whole image to look behind it
    else:
        exif = image.getexif()
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def pixels_of(image: ImageFile, path: Path, scaled: bool, alpha: bool) -> tuple[NDArray[Any], bool]:
    """Decode an image, of any range where it is to be `scaled`, with its `alpha` as a channel or without it.

    Tell whether it is upright already, as Pillow turns TIFF and nothing else.
    """
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"it holds {getattr(image, 'n_frames', 0)} pages, and only one can be read: save it alone")
    raw = str([tile[3] for tile in image.tile])
    tags = dict(getattr(image, "tag_v2", {}))  # loading drops some
    image.load()
    upright = image.format == "TIFF"
    if image.mode.startswith("I;16") or (image.mode == "I" and ";16" in raw):
        return _sixteen_grey(image, tags), upright
    if ";16" in raw:
        return _sixteen_colour(path, np.asarray(cast("Image", image).convert("RGB"))), upright
    if alpha and image.mode in {"RGBA", "LA"}:
        return np.asarray(image), upright
    return _shallow(image, path, scaled), upright


def _shallow(image: ImageFile, path: Path, scaled: bool) -> NDArray[Any]:
    if image.mode == "F" or (scaled and image.mode == "I"):
        values = np.asarray(image)
        if not scaled:
            _check_fractions(values, path)
        return values.astype(np.float32)
    if image.mode in {"1", "L", "LA"}:
        return np.asarray(image.convert("L"))
    if image.mode == "I":
        raise _no_scale(path, "its values are 32-bit integers and have no scale")
    return np.asarray(cast("Image", image).convert("RGB"))


def _sixteen_grey(image: ImageFile, tags: dict[int, Any]) -> NDArray[np.uint16]:
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits != 16:
        raise ValueError(f"{bits}-bit values have no scale that can be known: save it with 8 or 16 bits")
    values = np.asarray(image).astype(np.uint16)
    return np.uint16(65535) - values if tags.get(_PHOTOMETRIC) == 0 else values  # 0: white is zero


def _check_fractions(values: NDArray[Any], path: Path) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise _no_scale(path, f"its floats reach from {low:g} to {high:g}, not 0 to 1")


def _no_scale(path: Path, why: str) -> DamagedError:
    fix = "pass --range LO,HI with the values that become 0 and 1, --window C,W as of a CT, or --normalise zscore"
    return DamagedError(
        "image-unreadable", "cannot tell what an image's values mean", item=f"{str(path)!r}: {why}", fix=fix
    )


def _sixteen_colour(path: Path, high: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Decode 16-bit colours, of which Pillow keeps the high bytes: `high`, uint8 (H, W, 3).

    OpenCV turns some TIFF files although it is told not to, so its pixels are turned until they agree with Pillow's.
    """
    cv2 = import_cv2()
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if values is not None and values.dtype == np.uint16:
        rgb: NDArray[np.uint16] = values[..., ::-1]
        for turned in (rgb, *(turn(rgb) for turn in UPRIGHT.values())):
            if turned.shape == high.shape and np.array_equal(turned >> 8, high):
                return cast("NDArray[np.uint16]", turned)
    raise ValueError("its 16-bit colours cannot be decoded: save it with 8 bits")


def import_cv2() -> Any:
    """Import OpenCV late, and say what to install where it cannot be loaded."""
    try:
        import cv2
    except ImportError as error:  # opencv-python links the system's libGL, which servers lack
        fix = "run: pip install --force-reinstall --no-deps opencv-python-headless"
        raise UsageError("opencv-missing", "cannot load OpenCV", item=str(error), fix=fix) from error
    return cv2


def check_type(pixels: NDArray[Any], path: Path) -> None:
    """Refuse values whose scale nothing tells."""
    if pixels.dtype.kind == "f":
        _check_fractions(pixels, path)
    elif pixels.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise _no_scale(path, f"its values are {pixels.dtype} and have no scale")
