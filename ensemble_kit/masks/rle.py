"""Run-length texts and COCO's counts: strict readers that say what is wrong with what they refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.errors import DamagedError, UsageError, check_kind
from ensemble_kit.spec.geometry import Shape, as_text, check_image_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Edges = tuple[NDArray[np.int64], NDArray[np.int64]]

Order = Literal["C", "F"]
"""How pixels are numbered: "C" along rows, "F" down columns."""

_GRAMMAR_FIX = "write `start length` pairs with one space between numbers"
_SIZE_FIX = "check the image's height and width, the order (C or F), and the base (0 or 1)"


def check_options(order: str, base: int) -> None:
    """Refuse an order or a base that no text has."""
    if order not in ("C", "F") or base not in (0, 1):
        item, fix = f"order={order!r}, base={base!r}", "pass order='C' or 'F' and base=0 or 1"
        raise UsageError("rle-options", "cannot number pixels", item=item, fix=fix)


def parse_text(text: str, shape: Shape, base: int, relative: bool) -> Edges:
    """Read `start length start length …`: starts and ends of the runs, numbered as in the text but from 0.

    Raises
    ------
    DamagedError
        A text that breaks the grammar (see `Runs.parse`), naming the number at fault.
    """
    from ensemble_kit.kernels import rle as kernels

    check_kind("an RLE text", text, str)
    raw = _bytes(text)
    padded = np.frombuffer(raw + bytes(kernels.PAD), np.uint8)
    starts, ends, sound = kernels.parse_text(padded, len(raw), math.prod(shape), base, relative)
    if not sound:
        item, fix = _fault(raw, shape, base, relative)
        raise DamagedError("rle-invalid", "cannot read an RLE text", item=item, fix=fix)
    return starts, ends


def parse_counts(rle: Mapping[str, Any]) -> tuple[Edges, Shape]:
    """Read COCO's RLE: starts and ends of the runs down the columns, and the size of the image.

    Raises
    ------
    DamagedError
        Counts that are malformed, negative, or do not add up to the pixels of the image.
    """
    try:
        counts, shape = rle["counts"], check_image_size([_exact_int(v) for v in rle["size"]])
    except (KeyError, TypeError, UsageError) as error:
        raise _refused(f"its size or counts are missing or invalid ({error})") from None
    lengths = _compressed(counts) if isinstance(counts, (bytes, str)) else _listed(counts)
    total, pixels = sum(lengths.tolist()), math.prod(shape)
    if (lengths < 0).any() or total != pixels:
        raise _refused(f"its counts add up to {total}, the image of {as_text(shape)} has {pixels} pixels")
    edges = np.cumsum(lengths)
    starts, ends = edges[: edges.size // 2 * 2 : 2], edges[1::2]
    some = starts < ends
    return (starts[some], ends[some]), shape


def _compressed(counts: bytes | str) -> NDArray[np.int64]:
    from ensemble_kit.kernels import rle as kernels

    raw = np.frombuffer(_bytes(counts) if isinstance(counts, str) else counts, np.uint8)
    lengths, sound = kernels.coco_to_counts(raw)
    if not sound:
        raise _refused("its compressed counts are cut or hold a foreign character")
    return lengths


def _listed(counts: Sequence[Any]) -> NDArray[np.int64]:
    try:
        return np.array([_exact_int(v) for v in counts], np.int64)
    except (TypeError, OverflowError):
        raise _refused("its counts are not whole numbers") from None


def _refused(item: str) -> DamagedError:
    fix = "pass {'size': [H, W], 'counts': …} as pycocotools.mask.encode returns it"
    return DamagedError("coco-invalid", "cannot read a COCO RLE", item=item, fix=fix)


def _exact_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{value!r} is not a whole number")
    return int(value)


def _bytes(text: str) -> bytes:
    """Encode what may not be Unicode text: JSON can hold half a surrogate pair."""
    return text.encode(errors="surrogatepass")


def _fault(raw: bytes, shape: Shape, base: int, relative: bool) -> tuple[str, str]:
    """Tell what is wrong with an RLE text that the kernel refused, and how to mend it."""
    pixels, size = math.prod(shape), as_text(shape)
    last = pixels - 1 + base
    start = behind = 0
    found = re.match(rb"[0-9]++(?: [0-9]++)*+", raw)
    numbers, end = (found[0].split(b" "), found.end()) if found else ([], 0)
    for k, digits in enumerate(numbers):
        number = digits.decode() if len(digits) <= 24 else f"{digits[:20].decode()}… ({len(digits)} digits)"
        named = f"number {k + 1} is {number}, "
        if digits.startswith(b"0") and len(digits) > 1:
            return f"{named}which has a leading zero", _GRAMMAR_FIX
        value = int(digits[:20])  # more digits only make it larger, and this is beyond any image
        if k % 2:
            if value == 0:
                return f"{named}a length of zero", _GRAMMAR_FIX
            if value > pixels - start:
                return f"{named}and its run ends beyond the last pixel {last} of {size}", _SIZE_FIX
            behind = start + value
        else:
            start = behind + value if relative and k else value - base
            if start < 0:
                return f"{named}a start below the first pixel, {base}", "pass base=0, or write starts that count from 1"
            if start < behind:
                return f"{named}a start inside or before the run before it", _GRAMMAR_FIX
            if start >= pixels:
                return f"{named}beyond the last pixel {last} of {size}", _SIZE_FIX
    if end < len(raw):
        where = min(end + (raw[end : end + 1] == b" " and end > 0), len(raw) - 1)
        around = raw[max(0, where - 8) : where + 8].decode(errors="replace")
        return f"unexpected character at byte {where} of {len(raw)}, around {around!r}", _GRAMMAR_FIX
    return f"{len(numbers)} numbers, which is odd: the last start has no length", _GRAMMAR_FIX
