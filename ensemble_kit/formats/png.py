"""Masks as PNG files: one binary PNG a (sample, class), or one indexed PNG a sample.

    png           <folder>/<class>/<sample>.png          values {0, 255} or {0, 1}, 8-bit or 1-bit grey
    indexed-png   <folder>/<sample>.png                  value k is the k-th class, 0 none; palette or 8-bit grey

A folder that the kit wrote has an `index.json` with the names, the order and the sizes. A folder made by hand needs
none: then the sample is the file's name with its extension, and the class is its folder.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import assemble, check_wanted, need_classes, order_classes
from ensemble_kit.formats.index import INDEX, Index, file_names, files_under, index_of
from ensemble_kit.formats.planes import runs_of_plane
from ensemble_kit.formats.png_rows import SIGNATURE, check_rows, pieces
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap
from ensemble_kit.formats.submission import ONLY_CLASS
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.runs import Runs, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GREY, _PALETTE = 0, 3
_MOST_CLASSES = 255
_LOSSY = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def read_binary(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of binary PNGs.

    Raises
    ------
    DamagedError
        A file that is no whole PNG, not grey, or holds other values.
    IncompleteError
        A sample lacks a class that another has.
    """
    index = Index.load(folder)
    if index is None:
        names, samples, files = _by_name(folder, classes)
    else:
        names = order_classes((n for n, _ in index.classes), classes, str(folder))
        folders = dict(index.classes)
        samples = tuple(s for s, _, _ in index.samples)
        files = {(s, n): f"{folders[n]}/{f}" for s, f, _ in index.samples for n in folders}
        index.check_files(folder, files.values(), ".png")
    masks = {}
    for sample, name in ((s, n) for s in samples for n in names if (s, n) in files):
        path = folder / files[sample, name]
        runs = runs_of_plane(_decode(path, palette=False), str(path))
        sizes.of(sample, runs.shape, str(path))
        masks[sample, name] = runs
    return _checked(folder, samples, names, masks)


def build_binary(masks: MaskSet, folder: Path) -> None:
    """Write one binary PNG a (sample, class), 8-bit grey with the values 0 and 255."""
    folders = file_names(masks.classes, "", taken=[INDEX], flat=True)
    index = index_of("png", masks, ".png", [folders[n] for n in masks.classes])
    index.save(folder)
    for sample, file, _ in index.samples:
        for name in masks.classes:
            _encode(folder / folders[name] / file, masks[sample, name].decode().view(np.uint8) * np.uint8(255))


def read_indexed(folder: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a folder of indexed PNGs; `classes` names the values 1, 2, … unless an index does.

    Raises
    ------
    UsageError
        Nobody names the classes.
    DamagedError
        A file that is no whole PNG, not indexed or grey, or holds a value without a class.
    """
    index = Index.load(folder)
    if index is None:
        stored = names = need_classes(classes, str(folder))
        files = {file: file for file in files_under(folder, ".png")}
        _check_any(folder, files)
    else:
        stored = tuple(n for n, _ in index.classes)
        names = order_classes(stored, classes, str(folder))
        files = {s: f for s, f, _ in index.samples}
        index.check_files(folder, files.values(), ".png")
    masks: dict[Key, Runs] = {}
    for sample, file in files.items():
        plane = _decode(folder / file, palette=True)
        sizes.of(sample, (plane.shape[0], plane.shape[1]), str(folder / file))
        if int(plane.max()) > len(stored):
            raise DamagedError(
                "mask-values",
                "cannot read an indexed mask",
                item=f"{folder / file} holds the value {int(plane.max())}, there are {len(stored)} classes",
                fix="name the class of every value, in order (--classes FILE, classes=[…])",
            )
        masks |= {(sample, name): encode(plane == k) for k, name in enumerate(stored, 1)}
    return assemble(files, names, masks)


def build_indexed(masks: MaskSet, folder: Path) -> None:
    """Write one indexed PNG a sample; the k-th class has the value k.

    Raises
    ------
    MismatchError
        Two classes of a sample overlap: an indexed PNG holds one class a pixel.
    """
    if len(masks.classes) > _MOST_CLASSES:
        raise UsageError(
            "classes-too-many",
            "cannot write an indexed PNG",
            item=f"{len(masks.classes)} classes, {_MOST_CLASSES} fit",
            fix="pass --format png",
        )
    index = index_of("indexed-png", masks, ".png")
    index.save(folder)
    for sample, file, size in index.samples:
        plane = np.zeros(size[0] * size[1], np.uint8)
        for k, name in enumerate(masks.classes, 1):
            runs = masks[sample, name]
            for start, end in zip(runs.starts.tolist(), runs.ends.tolist(), strict=True):
                under = plane[start:end]
                if under.any():
                    raise _overlapping(sample, masks.classes[int(under[under > 0][0]) - 1], name)
                under[:] = k
        _encode(folder / file, plane.reshape(size), _palette())


def _by_name(folder: Path, classes: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...], dict[Key, str]]:
    """Read classes and samples off the names of folders and files; a flat folder holds one class."""
    files: dict[Key, str] = {}
    flat = {file: file for file in files_under(folder, ".png") if "/" not in file}
    if flat:
        only = check_wanted(classes) if classes is not None else (ONLY_CLASS,)
        names = order_classes(only[:1], classes, str(folder))
        files = {(sample, names[0]): file for sample, file in flat.items()}
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    nested = {name: files_under(folder / name, ".png") for name in inside}
    if flat and any(nested.values()):
        raise DamagedError(
            "folder-mixed",
            "cannot read a folder of masks",
            item=f"{folder} holds both PNGs and folders of PNGs",
            fix="keep one or the other",
        )
    if not flat:
        names = order_classes((n for n, found in nested.items() if found), classes, str(folder))
        files = {(sample, name): f"{name}/{sample}" for name in names for sample in nested[name]}
    lossy = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in _LOSSY)
    if lossy:
        raise DamagedError(
            "folder-mixed",
            "cannot read a folder of masks",
            item=f"{folder}: {len(lossy)} files are no PNG: {some(lossy)}",
            fix="save masks as PNG; keep images elsewhere",
        )
    _check_any(folder, files)
    return names, tuple(sorted({sample for sample, _ in files})), files


def _check_any(folder: Path, files: Iterable[Any]) -> None:
    if not list(files):
        raise IncompleteError(
            "files-missing",
            "cannot read masks: there are no files",
            item=f"{folder} holds no PNG",
            fix="pass the folder that holds the masks",
        )


def _checked(folder: Path, samples: tuple[str, ...], names: tuple[str, ...], masks: dict[Key, Runs]) -> MaskSet:
    missing = [(s, n) for s in samples for n in names if (s, n) not in masks]
    if missing:
        raise IncompleteError(
            "files-missing",
            "cannot read masks: files are missing",
            item=f"{folder}: {len(missing)} of {len(samples) * len(names)} (sample, class): {some(missing, 10)}",
            fix="write one PNG for every sample and class, also for empty masks",
        )
    return assemble(samples, names, masks)


def _overlapping(sample: str, first: str, second: str) -> MismatchError:
    return MismatchError(
        "classes-overlap",
        "cannot write an indexed PNG: it holds one class a pixel",
        item=f"sample {sample!r}: classes {first!r} and {second!r} overlap",
        fix="pass --format png, which holds a file for each class",
    )


def _decode(path: Path, palette: bool) -> NDArray[Any]:
    """Decode a PNG after its header and checksums are checked: bool or uint8 (H, W)."""
    from PIL.PngImagePlugin import PngImageFile  # not Image.open: its own, lower limit of pixels is the process's

    depth, kind = _check_chunks(path)
    sound = (kind == _GREY and depth in {1, 8}) or (palette and kind == _PALETTE)
    if not sound:
        what = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}.get(kind, "unknown")
        wanted = "a palette or 8-bit grey" if palette else "8-bit or 1-bit grey"
        raise _damaged(path, f"it is {depth}-bit {what}, wanted is {wanted}", "save the mask in that mode")
    try:
        with PngImageFile(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise _damaged(path, str(error)) from None


def _check_chunks(path: Path) -> tuple[int, int]:
    """Check size and checksums of a PNG, which decoders leave unchecked in part; return its depth and colour type."""
    raw = path.read_bytes()
    if raw[:8] != SIGNATURE or raw[12:16] != b"IHDR" or len(raw) < 33:
        raise _damaged(path, "it is no PNG")
    width, height, depth, kind = struct.unpack(">IIBB", raw[16:26])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise _damaged(path, f"it declares {height} x {width} pixels")
    check_bitmap((height, width), str(path))
    try:
        for name, _, sound in pieces(raw):
            if not sound:
                raise _damaged(path, f"the checksum of its part {name.decode('ascii', 'replace')!r} is wrong")
        check_rows(raw)
    except DamagedError:
        raise
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return depth, kind


def _encode(path: Path, plane: NDArray[np.uint8], palette: bytes | None = None) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(plane)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, format="PNG", compress_level=1)  # masks are nearly all runs: 1 packs them nearly as well as 9


def _palette() -> bytes:
    """Colours that tell neighbouring classes apart (the bit-reversed palette of PASCAL VOC)."""
    colours = np.zeros((256, 3), np.uint8)
    for k in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[k, channel] |= ((k >> bit) & 1 if bit % 3 == channel else 0) << (7 - bit // 3)
    return colours.tobytes()


def _damaged(path: Path, why: str, fix: str = "write the file again") -> DamagedError:
    return DamagedError("png-invalid", "cannot read a PNG mask", item=f"{path}: {why}", fix=fix)
