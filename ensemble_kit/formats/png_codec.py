"""PNG files of masks: grey or palette, decoded only after their header, size and checksums are checked."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError
from ensemble_kit.formats.bitmaps import runs_of_bands, runs_of_bitmap
from ensemble_kit.formats.png_rows import CHANNELS, SIGNATURE, chunks, read_bands, read_rows
from ensemble_kit.formats.sizes import PIXEL_LIMIT, check_bitmap, declared_size
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND = 1 << 21  # pixels that are decoded at a time, where not all are at once
_GREY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6
_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}


def read_png(path: Path) -> NDArray[Any]:
    """Decode a PNG of a binary mask after its header and checksums are checked: bool or uint8 (H, W).

    Raises
    ------
    DamagedError
        It is not a whole PNG, or not 1-bit or 8-bit grey.
    """
    return decode_png(path.read_bytes(), path)


def read_mask(path: Path) -> Runs:
    """Read the mask of a binary PNG; grey of 8 bits that no bitmap should hold is decoded some rows at a time.

    Raises
    ------
    DamagedError
        It is not a whole PNG, not 1-bit or 8-bit grey, holds other values, or is too large to be decoded at once.
    """
    raw = path.read_bytes()
    width, height, *how = struct.unpack(">IIBBBBB", raw[16:29]) if len(raw) > 28 else (0, 0)
    if width * height <= PIXEL_LIMIT or how != [8, _GREY, 0, 0, 0]:
        return runs_of_bitmap(decode_png(raw, path), str(path))
    _checked(raw, path, at_once=False)
    try:
        bands = read_bands(raw, max(1, _BAND // width))
        return runs_of_bands(bands, declared_size(height, width, str(path)), str(path))
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def decode_png(raw: bytes, path: str | Path) -> NDArray[Any]:
    """Decode the bytes of a PNG as `read_png` does; `path` is where they come from, in messages."""
    depth, kind = _checked(raw, path)
    if kind != _GREY or depth not in {1, 8}:
        why = f"it is {depth}-bit {_MODES.get(kind, 'unknown')}, not 8-bit or 1-bit grey"
        raise _damaged(path, why, "write binary masks as grey; label maps are read with --format label-map")
    return _decode(path, raw, depth, kind)[0]


def read_labels(path: Path) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Decode a PNG of labels after its header and checksums are checked: its pixels, and its palette if it has one.

    Grey and palette give bool, uint8 or uint16 (H, W), colours uint8 (H, W, 3); a palette is uint8 (n, 3).

    Raises
    ------
    DamagedError
        It is not a whole PNG, of another mode, or partly transparent.
    """
    raw = path.read_bytes()
    depth, kind = _checked(raw, path)
    sound = depth in {_GREY: {1, 8, 16}, _PALETTE: {1, 2, 4, 8}, _RGB: {8}, _RGBA: {8}}.get(kind, set())
    if not sound:
        why = f"it is {depth}-bit {_MODES.get(kind, 'unknown')}, not 1-, 8- or 16-bit grey, palette, or 8-bit RGB"
        raise _damaged(path, why, "write the value of every pixel as 8-bit or 16-bit grey")
    pixels, palette = _decode(path, raw, depth, kind)
    return _opaque(pixels, path), palette


def grey_of(pixels: NDArray[Any]) -> NDArray[Any] | None:
    """Return the one channel of a grey image that was stored as colours; None where any pixel has a colour."""
    first = pixels[..., 0]
    same = bool((first == pixels[..., 1]).all() and (first == pixels[..., 2]).all())
    return np.ascontiguousarray(first) if same else None


def _opaque(pixels: NDArray[Any], path: str | Path) -> NDArray[Any]:
    """Take an alpha channel off that hides nothing, and refuse another one."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if int(pixels[..., 3].min()) < 255:
            raise _damaged(path, "its colours are partly transparent", "write it as RGB, without an alpha channel")
        return pixels[..., :3]
    return pixels


def _decode(path: str | Path, raw: bytes, depth: int, kind: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Decode whole bytes here, the rest by Pillow: the rows have to be inflated anyway, to tell that none is missing.

    Pillow inflates them once more: 5.7 ms for an image of 1024 x 2048, this 2.9.
    """
    from ensemble_kit.kernels.png import unfilter

    try:
        rows = read_rows(raw)
        if rows is None or depth < 8:
            return _by_pillow(raw)
        width, height = struct.unpack(">II", raw[16:24])
        step = depth // 8 * CHANNELS[kind]
        out = np.empty((height, width * step), np.uint8)
        wrong = unfilter(np.frombuffer(rows, np.uint8).reshape(height, -1), step, out)
        if wrong >= 0:
            raise ValueError(f"row {wrong} has a filter that does not exist")
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    table = next((bytes(body) for name, body, _ in chunks(raw) if name == b"PLTE"), b"") if kind == _PALETTE else b""
    palette = np.frombuffer(table[: len(table) // 3 * 3], np.uint8).reshape(-1, 3) if kind == _PALETTE else None
    if depth == 16:
        return out.view(">u2").astype(np.uint16), None
    return out.reshape(height, width, -1) if CHANNELS[kind] > 1 else out, palette


def _by_pillow(raw: bytes) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    from PIL.PngImagePlugin import PngImageFile  # not Image.open: its own, lower limit of pixels is the process's

    try:
        with PngImageFile(io.BytesIO(raw)) as image:
            pixels = np.asarray(image)
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.palette else None
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(str(error)) from None
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels, palette  # 16 bits of an older Pillow


def _checked(raw: bytes, path: str | Path, at_once: bool = True) -> tuple[int, int]:
    """Check a PNG's size and checksums, which decoders check in part; return its depth and colour type."""
    if raw[:8] != SIGNATURE or raw[12:16] != b"IHDR" or len(raw) < 33:
        raise _damaged(path, "it is not a PNG")
    width, height, depth, kind = struct.unpack(">IIBB", raw[16:26])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise _damaged(path, f"it declares {height} x {width} pixels")
    if at_once:
        check_bitmap((height, width), str(path))
    try:
        for name, _, sound in chunks(raw):
            if not sound:
                raise _damaged(path, f"the checksum of its chunk {name.decode('ascii', 'replace')!r} is wrong")
    except DamagedError:
        raise
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return depth, kind


def _damaged(path: str | Path, why: str, fix: str = "write the file again") -> DamagedError:
    return DamagedError("png-invalid", "cannot read a PNG mask", item=f"{path}: {why}", fix=fix)
