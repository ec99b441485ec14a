"""Images on disk: which files a folder holds, their ids, their sizes, and their pixels.

The number of pixels is read from the header and checked before anything is decoded (`decoding.py`). EXIF orientation is
applied, alpha dropped, a palette resolved, 16 bits kept; images of other channels are read by `multichannel.py`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.dumping import multichannel
from ensemble_kit.dumping.decoding import (
    LENGTH,
    UPRIGHT,
    WIDTH,
    check_pixels,
    check_type,
    opened,
    orientation,
    pixels_of,
    unreadable,
)
from ensemble_kit.errors import Caution, DamagedError, MismatchError, UsageError, some
from ensemble_kit.formats.png_rows import check_rows
from ensemble_kit.formats.volume_files import name_of
from ensemble_kit.masks.idforms import IdForm, check_form
from ensemble_kit.remote.copies import here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
UNREAD = frozenset({".webp", ".gif", ".jp2", ".heic", ".avif", ".dcm", ".nii", ".svs", ".ppm", ".pgm"})
"""Suffixes of images that are not read."""


def find_images(
    folder: str | Path,
    say: Callable[[str], None] = lambda _: None,
    channels: int | None = None,
    warn: Callable[[Caution], None] = lambda _: None,
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
    root, suffixes = (
        here(folder, "cannot list images"),
        SUFFIXES if channels is None else SUFFIXES | multichannel.SUFFIXES,
    )
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
        doubt = f"{root}: {len(unread)} files of formats that are not read are left out: {some(unread)}"
        warn(Caution(doubt, "convert them to PNG"))
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
        "name": lambda p: name_of(p.name),  # a volume is called as its masks are, without its suffix
        "stem": lambda p: p.stem if name_of(p.name) == p.name else name_of(p.name),
        "path": lambda p: p.relative_to(root).as_posix(),
    }
    called, by_id = make[check_form(form)], dict[str, list[Path]]()
    for path in paths:
        by_id.setdefault(called(path), []).append(path)
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
    with opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillows turn its size themselves
            tags: Any = image
            width, height = int(tags.tag_v2[WIDTH]), int(tags.tag_v2[LENGTH])
        return (width, height) if orientation(image, path) >= 5 else (height, width)


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
    return _decoded(path, scaled) if channels is None else _read_channels(path, channels, scaled)


def _decoded(path: Path, scaled: bool, alpha: bool = False) -> NDArray[Any]:
    with opened(path) as image:
        try:
            turned = orientation(image, path)
            if image.format == "PNG":
                check_rows(path.read_bytes())
            pixels, upright = pixels_of(image, path, scaled, alpha)
        except MemoryError:
            raise
        except Exception as error:
            raise unreadable(path, error) from error
    turn = None if upright else UPRIGHT.get(turned)
    return np.ascontiguousarray(pixels if turn is None else turn(pixels))


def _read_channels(path: Path, channels: int, scaled: bool) -> NDArray[Any]:
    if path.suffix.lower() not in multichannel.SUFFIXES:
        pixels = _decoded(path, scaled, alpha=channels in {2, 4})
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        _check_channels(path, pixels.shape[2], channels)
        return pixels
    _extent(path, channels)
    try:
        pixels = multichannel.read(path, channels)
        if not scaled:
            check_type(pixels, path)
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    return pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels


def _extent(path: Path, channels: int) -> multichannel.Extent:
    """Read size and channels of an array or a TIFF, and check both before anything is decoded."""
    try:
        found = multichannel.extent(path, channels)
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    _check_channels(path, found.channels, channels)
    check_pixels(path, found.height, found.width)
    return found


def _check_channels(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        item = f"{str(path)!r} has {found} channels, --channels says {wanted}"
        fix = f"pass --channels {found}, or keep the file outside the folder"
        raise MismatchError("image-channels", "cannot use an image of other channels", item=item, fix=fix)
