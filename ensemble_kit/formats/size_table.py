"""Sizes of images from a CSV that has a column of heights and one of widths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.formats.sizes import declared_size
from ensemble_kit.formats.table import Table, read_table
from ensemble_kit.spec.geometry import Shape, as_text

_HEIGHTS = ("height", "imgheight", "imageheight", "h")
_WIDTHS = ("width", "imgwidth", "imagewidth", "w")
_IDS = ("sample", "id", "imageid", "imagename", "image", "img", "name", "filename", "file", "recordid")
"""Names of columns in small letters and without `_`; of several ids the first that is there."""


def read_sizes(path: Path) -> dict[str, Shape]:
    """Read (H, W) by sample from a CSV with columns such as sample,height,width, in any order, others left out.

    A sample may have several rows, as in the tables of competitions that have a row an object, if they agree.

    Raises
    ------
    UsageError
        Columns that cannot be told.
    DamagedError
        A size that is not whole pixels, or two sizes of one sample.
    """
    table = read_table(path)
    names, heights, widths = (_column(table, known) for known in (_IDS, _HEIGHTS, _WIDTHS))
    if names is None and len(table.header) == 3 and heights is not None and widths is not None:
        names = next(k for k in range(3) if k not in {heights, widths})
    if names is None or heights is None or widths is None:
        item = f"{path} has the columns {','.join(table.header)[:200]}"
        fix = "pass a CSV with the header sample,height,width, or --image-size HxW"
        raise UsageError("image-size-columns", "cannot read the sizes of images", item=item, fix=fix)
    sizes: dict[str, Shape] = {}
    rows = zip(table.lines, *(table.column(k) for k in (names, heights, widths)), strict=True)
    for line, sample, height, width in rows:
        where = f"{path}, line {line}, sample {sample!r}"
        size = declared_size(_number(height), _number(width), where)
        other = sizes.setdefault(sample, size)
        if other != size:
            item, fix = f"{where}: {as_text(size)}, and {as_text(other)} before", "keep the one that is right"
            raise DamagedError("image-size-invalid", "cannot use two sizes of one image", item=item, fix=fix)
    return sizes


def has_sizes(table: Table) -> bool:
    """Tell whether a table has columns of heights and widths."""
    return all(_column(table, known) is not None for known in (_IDS, _HEIGHTS, _WIDTHS))


def _column(table: Table, known: Sequence[str]) -> int | None:
    folded = [name.strip().lower().replace("_", "") for name in table.header]
    return next((folded.index(name) for name in known if name in folded), None)


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text
