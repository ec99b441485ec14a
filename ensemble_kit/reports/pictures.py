"""Pictures as files: photographs as WebP, layers of few colours as PNG with a palette; within a page, or beside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUALITIES = (70, 50, 35, 20)  # of WebP
_MOST = 26_000  # bytes of a picture, as an X-ray of 512 x 512 has; a noisy one is coded more coarsely


def photograph(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (h, w) or RGB (h, w, 3) as WebP, so that 24 of 512 × 512 take 0.8 MB of a page at most."""
    from PIL import Image

    shown, found = Image.fromarray(image).convert("RGB"), b""
    for quality in _QUALITIES:
        out = BytesIO()
        shown.save(out, "WEBP", quality=quality, method=2)
        found = out.getvalue()
        if len(found) <= _MOST:
            break
    return found


def flat(index: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """Encode a layer as PNG: uint8 (h, w), numbers of colours, and the colours, uint8 (n, 4) with their opacity."""
    from PIL import Image

    image, out = Image.fromarray(index), BytesIO()
    image.putpalette(colours[:, :3].tobytes())
    image.save(out, "PNG", transparency=colours[:, 3].tobytes(), optimize=True)
    return out.getvalue()


def smaller(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Average an image down to (h, w)."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    small = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small)


@dataclass
class Shelf:
    """Where the pictures of a page are kept: within it, or as files of a folder beside it.

    Parameters
    ----------
    folder : name of the folder; None: within the page.
    """

    folder: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, content: bytes, kind: str) -> str:
        """Keep a picture of a kind ("webp" or "png"); return its address."""
        if self.folder is None:
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        name = f"{len(self.files) + 1:04}.{kind}"
        self.files[name] = content
        return f"{quote(self.folder)}/{name}"
