"""PNG files of masks: grey or palette, decoded only after their header, size and checksums are checked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError
from ensemble_kit.formats.png_rows import SIGNATURE, check_rows, chunks
from ensemble_kit.formats.sizes import check_bitmap

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GREY, _PALETTE = 0, 3
_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}


def read_png(path: Path, palette: bool) -> NDArray[Any]:
    """Decode a PNG after its header and checksums are checked: bool or uint8 (H, W).

    Parameters
    ----------
    palette : whether it may be a palette PNG, whose values are indices.

    Raises
    ------
    DamagedError
        It is not a whole PNG, or of another mode.
    """
    from PIL.PngImagePlugin import PngImageFile  # not Image.open: its own, lower limit of pixels is the process's

    depth, kind = _check_chunks(path)
    sound = (kind == _GREY and depth in {1, 8}) or (palette and kind == _PALETTE)
    if not sound:
        wanted = "a palette or 8-bit grey" if palette else "8-bit or 1-bit grey"
        why = f"it is {depth}-bit {_MODES.get(kind, 'unknown')}, not {wanted}"
        raise _damaged(path, why, "save the mask in that mode")
    try:
        with PngImageFile(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise _damaged(path, str(error)) from None


def _check_chunks(path: Path) -> tuple[int, int]:
    """Check size and checksums of a PNG, which decoders leave unchecked in part; return its depth and colour type."""
    raw = path.read_bytes()
    if raw[:8] != SIGNATURE or raw[12:16] != b"IHDR" or len(raw) < 33:
        raise _damaged(path, "it is not a PNG")
    width, height, depth, kind = struct.unpack(">IIBB", raw[16:26])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise _damaged(path, f"it declares {height} x {width} pixels")
    check_bitmap((height, width), str(path))
    try:
        for name, _, sound in chunks(raw):
            if not sound:
                raise _damaged(path, f"the checksum of its chunk {name.decode('ascii', 'replace')!r} is wrong")
        check_rows(raw)
    except DamagedError:
        raise
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return depth, kind


def write_png(path: Path, bitmap: NDArray[np.uint8], palette: bytes | None = None) -> None:
    """Write a bitmap (H, W) as 8-bit grey, or with a palette of 256 colours."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(bitmap)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, format="PNG", compress_level=1)  # masks are nearly all runs: 1 packs them nearly as well as 9


def _damaged(path: Path, why: str, fix: str = "write the file again") -> DamagedError:
    return DamagedError("png-invalid", "cannot read a PNG mask", item=f"{path}: {why}", fix=fix)
