"""Images on disk: which files a folder holds, their ids, their sizes, and their pixels.

Formats are recognised by their first bytes, and only PNG, JPEG, TIFF and BMP are tried: a file in a folder of images
must not reach the other forty decoders of the imaging library. The number of pixels is read from the header and
checked before anything is decoded. EXIF orientation is applied, alpha dropped, a palette resolved, 16 bits kept.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from ensemble_kit.dumping import multichannel
from ensemble_kit.errors import DamagedError, MismatchError, ResourceError, UsageError, some
from ensemble_kit.formats.png_rows import check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

IdForm = Literal["name", "stem", "path"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
UNREAD = frozenset({".webp", ".gif", ".jp2", ".heic", ".avif", ".dcm", ".nii", ".svs", ".ppm", ".pgm"})
"""Suffixes of images that are not read."""
MAX_PIXELS = 2**29
"""Largest image that is decoded: 537 million pixels, a 23,000 × 23,000 slide."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "JpegImageFile"),
    b"II*\x00": ("TiffImagePlugin", "TiffImageFile"),
    b"MM\x00*": ("TiffImagePlugin", "TiffImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
}
_WIDTH, _LENGTH, _BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274

_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: np.rot90,
}
"""What turns an image upright, by its EXIF orientation; 1 and unknown ones need nothing."""


def find_images(
    folder: str | Path,
    say: Callable[[str], None] = lambda _: None,
    channels: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """List the image files of a folder and its subfolders, sorted by their path; hidden files are left out.

    Parameters
    ----------
    say : receives how many other files there are, by their extension.
    channels : of images that are arrays, .npy, too; None: only files that show colours or grey.
    warn : receives the names of images in formats that are not read, such as .webp: they may well be meant.

    Raises
    ------
    DamagedError
        A link among the images leads nowhere.
    """
    root, suffixes = Path(folder), SUFFIXES if channels is None else SUFFIXES | multichannel.SUFFIXES
    if not root.is_dir():
        raise _none_found(f"{str(root)!r} is not a folder", "pass the folder that holds the images")
    listed = [p for p in root.rglob("*") if not _hidden(p.relative_to(root))]
    broken = sorted(p for p in listed if p.is_symlink() and not p.exists() and p.suffix.lower() in suffixes)
    if broken:
        item = f"{len(broken)} in {str(root)!r}: {some(p.relative_to(root).as_posix() for p in broken)}"
        fix = "put the files back that they point to, or remove the links"
        raise DamagedError("image-link", "cannot read images: links lead nowhere", item=item, fix=fix)
    files = [p for p in listed if p.is_file()]
    found = [p for p in files if p.suffix.lower() in suffixes]
    ignored = _ignored(Counter(p.suffix.lower() for p in files if p.suffix.lower() not in suffixes))
    if not found:
        fix = f"pass a folder with files ending in {', '.join(sorted(suffixes))}"
        fix += (
            "; --channels N for arrays" if channels is None and any(p.suffix.lower() == ".npy" for p in files) else ""
        )
        raise _none_found(f"{str(root)!r} holds no image{ignored and '; '}{ignored}", fix)
    if ignored:
        say(f"{root}: {ignored}")
    unread = sorted(p.relative_to(root).as_posix() for p in files if p.suffix.lower() in UNREAD)
    if unread:
        warn(f"{root}: {len(unread)} left out, of formats that are not read: {some(unread)}; convert them to PNG")
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _none_found(item: str, fix: str) -> UsageError:
    return UsageError("images-missing", "cannot list images", item=item, fix=fix)


def _ignored(suffixes: Counter[str]) -> str:
    """Say how many files are ignored, by their extension; nothing where there are none."""
    if not suffixes:
        return ""
    shown = sorted((-n, suffix or "without extension") for suffix, n in suffixes.items())
    kinds = [f"{-n} {suffix}" for n, suffix in shown]
    several = "1 file is" if suffixes.total() == 1 else f"{suffixes.total()} files are"
    return f"{several} ignored: {', '.join(kinds[:5])}" + (", …" if len(kinds) > 5 else "")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)  # also "._x.png", which macOS leaves beside x.png


def identify(paths: Sequence[Path], folder: str | Path, form: IdForm = "name") -> dict[str, Path]:
    """Give every image its sample id: the file's name, its stem, or its path below the folder.

    Returns
    -------
    dict
        Path by id, sorted by id.

    Raises
    ------
    UsageError
        Two files get one id, or a name cannot be an id.
    """
    root = Path(folder)
    make: dict[str, Callable[[Path], str]] = {
        "name": lambda p: p.name,
        "stem": lambda p: p.stem,
        "path": lambda p: p.relative_to(root).as_posix(),
    }
    if form not in make:
        fix = "pass --id name, --id stem or --id path"
        raise UsageError("id-form", "cannot make sample ids", item=f"--id {form!r}", fix=fix)
    by_id: dict[str, list[Path]] = {}
    for path in paths:
        by_id.setdefault(make[form](path), []).append(path)
    clashes = {i: p for i, p in by_id.items() if len(p) > 1}
    if clashes:
        first, files = next(iter(clashes.items()))
        named = " and ".join(repr(p.relative_to(root).as_posix()) for p in files[:3])
        named += f" are both {first!r}" + (f", and {len(clashes) - 1} more ids clash" if len(clashes) > 1 else "")
        fix = "pass --id path" if form != "path" else "rename one of the files"
        raise UsageError("id-clash", "cannot tell samples apart by id", item=named, fix=fix)
    odd = [ascii(i) for i in by_id if not i.isprintable()]
    if odd:
        fix = "rename the files: valid UTF-8 without control characters"
        raise UsageError("id-invalid", "cannot use a file's name as a sample id", item=some(odd), fix=fix)
    return {i: by_id[i][0] for i in sorted(by_id)}


def image_size(path: Path, channels: int | None = None) -> tuple[int, int]:
    """Read an image's (H, W) from its header, after its EXIF orientation is applied; `channels` as for `read_image`.

    Raises
    ------
    DamagedError
        The file is not an image that can be read.
    """
    if channels is not None and path.suffix.lower() in multichannel.SUFFIXES:
        return _extent(path, channels)[:2]
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillows turn its size themselves
            tags: Any = image
            width, height = int(tags.tag_v2[_WIDTH]), int(tags.tag_v2[_LENGTH])
        return (width, height) if _orientation(image, path) >= 5 else (height, width)


def read_image(path: Path, channels: int | None = None, scaled: bool = False) -> NDArray[Any]:
    """Read an image as uint8 or uint16, or as float32 within 0..1: (H, W) if it is grey, else RGB (H, W, 3).

    Parameters
    ----------
    channels : of an image that is an array or a TIFF of as many, (H, W, channels); None: colours or grey.
    scaled : whether the caller knows what values mean, so that integers and floats of any range are read.

    Raises
    ------
    DamagedError
        The file, which is named, is truncated, damaged, or not an image.
    MismatchError
        It has another number of channels.
    """
    if channels is not None:
        return _read_channels(path, channels, scaled)
    with _opened(path) as image:
        try:
            orientation = _orientation(image, path)
            if image.format == "PNG":
                check_rows(path.read_bytes())
            pixels, upright = _pixels(image, path, scaled)
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(path, error) from error
    turn = None if upright else _UPRIGHT.get(orientation)
    return np.ascontiguousarray(pixels if turn is None else turn(pixels))


def _read_channels(path: Path, channels: int, scaled: bool) -> NDArray[Any]:
    if path.suffix.lower() not in multichannel.SUFFIXES:
        pixels = read_image(path, scaled=scaled)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        _check_channels(path, pixels.shape[2], channels)
        return pixels
    _extent(path, channels)
    try:
        pixels = multichannel.read(path, channels)
        if not scaled:
            _check_type(pixels)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels


def _extent(path: Path, channels: int) -> multichannel.Extent:
    """Read size and channels of an array or a TIFF, and check both before anything is decoded."""
    try:
        found = multichannel.extent(path, channels)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    _check_channels(path, found.channels, channels)
    _check_pixels(path, found.height, found.width)
    return found


def _check_channels(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        item = f"{str(path)!r} has {found} channels, --channels says {wanted}"
        fix = f"pass --channels {found}, or remove the file from the folder"
        raise MismatchError("image-channels", "cannot use an image of other channels", item=item, fix=fix)


def _check_type(pixels: NDArray[Any]) -> None:
    """Refuse values whose scale nothing tells."""
    if pixels.dtype.kind == "f":
        _check_fractions(pixels)
    elif pixels.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ValueError(f"its values are {pixels.dtype} and have no scale: pass --range LO,HI or --normalise zscore")


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Open an image by its first bytes, without decoding it, and check its number of pixels."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file, _decoder(file, path) as image:
        width, height = image.size
        _check_pixels(path, height, width)
        yield image


def _check_pixels(path: Path, height: int, width: int) -> None:
    if width * height > MAX_PIXELS or min(width, height) < 1:
        item = f"{str(path)!r} says {height} x {width} pixels; at most {MAX_PIXELS} are decoded"
        fix = "cut or shrink the image, or remove the file"
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
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> Exception:
    if isinstance(error, DamagedError):
        return error
    if isinstance(error, PermissionError):
        item, fix = f"{str(path)!r}: {error.strerror}", "give this user the right to read it"
        return ResourceError("image-permission", "cannot read an image", item=item, fix=fix)
    fix = "copy the file again, or remove it from the folder"
    if path.suffix.lower() in multichannel.SUFFIXES and (several := multichannel.count(path)) > 1:
        fix = f"pass --channels {several} if they are the channels of one image; else save what is meant alone"
    return DamagedError("image-unreadable", "cannot read an image", item=f"{str(path)!r}: {error}", fix=fix)


def _orientation(image: ImageFile, path: Path) -> int:
    """Read the EXIF orientation, 1…8; 1 where there is none."""
    from PIL.Image import Image

    if image.format == "PNG" and b"eXIf" not in path.read_bytes():
        exif = Image.getexif(image)  # PNG's own getexif decodes the whole image to look behind it
    else:
        exif = image.getexif()
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _pixels(image: ImageFile, path: Path, scaled: bool) -> tuple[NDArray[Any], bool]:
    """Decode an image, of any range where it is to be `scaled`.

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
    return _shallow(image, scaled), upright


def _shallow(image: ImageFile, scaled: bool) -> NDArray[Any]:
    if image.mode == "F" or (scaled and image.mode == "I"):
        values = np.asarray(image)
        if not scaled:
            _check_fractions(values)
        return values.astype(np.float32)
    if image.mode in {"1", "L", "LA"}:
        return np.asarray(image.convert("L"))
    if image.mode == "I":
        raise ValueError("32-bit integers have no scale: pass --range LO,HI, or save it with 8 or 16 bits")
    return np.asarray(cast("Image", image).convert("RGB"))


def _sixteen_grey(image: ImageFile, tags: dict[int, Any]) -> NDArray[np.uint16]:
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits != 16:
        raise ValueError(f"{bits}-bit values have no scale that can be known: save it with 8 or 16 bits")
    values = np.asarray(image).astype(np.uint16)
    return np.uint16(65535) - values if tags.get(_PHOTOMETRIC) == 0 else values  # 0: white is zero


def _check_fractions(values: NDArray[Any]) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(f"its floats reach from {low:g} to {high:g}, not 0 to 1: pass --range LO,HI")


def _sixteen_colour(path: Path, high: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Decode 16-bit colours, of which Pillow keeps the high bytes: `high`, uint8 (H, W, 3).

    OpenCV turns some TIFF files although it is told not to, so its pixels are turned until they agree with Pillow's.
    """
    cv2 = import_cv2()
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if values is not None and values.dtype == np.uint16:
        rgb: NDArray[np.uint16] = values[..., ::-1]
        for turned in (rgb, *(turn(rgb) for turn in _UPRIGHT.values())):
            if turned.shape == high.shape and np.array_equal(turned >> 8, high):
                return cast("NDArray[np.uint16]", turned)
    raise ValueError("its 16-bit colours cannot be decoded: save it with 8 bits")


def import_cv2() -> Any:
    """Import OpenCV late, and say what to install where it cannot be loaded."""
    try:
        import cv2
    except ImportError as error:  # opencv-python links the system's libGL, which servers lack
        fix = "run: pip install --force-reinstall opencv-python-headless"
        raise UsageError("opencv-missing", "cannot load OpenCV", item=str(error), fix=fix) from error
    return cv2
