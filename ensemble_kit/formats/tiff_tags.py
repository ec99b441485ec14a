"""Whether a TIFF says where it lies on the Earth, told by the tags of its first image alone, without GDAL."""

from __future__ import annotations

import struct
from pathlib import Path

SUFFIXES = (".tif", ".tiff")

_GEO = {33550, 33922, 34264, 34735}  # ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory
_MOST = 4096  # entries of one directory


def holds_scenes(path: Path) -> bool:
    """Tell whether a file is a GeoTIFF, or the first TIFF directly in a folder is one."""
    if not path.is_dir():
        return is_georeferenced(path)
    found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]
    return bool(found) and is_georeferenced(min(found))


def is_georeferenced(path: Path) -> bool:
    """Tell whether a file is a TIFF, classic or BigTIFF, with a transform or a reference system (OGC 19-008r4)."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return False
        version = struct.unpack(f"{order}H", head[2:4])[0]
        if version not in {42, 43}:
            return False
        big = version == 43
        (start,) = struct.unpack(f"{order}Q" if big else f"{order}I", head[8:16] if big else head[4:8])
        count_form, entry = (f"{order}Q", 20) if big else (f"{order}H", 12)
        if start > path.stat().st_size:
            return False
        file.seek(start)
        raw = file.read(struct.calcsize(count_form))
        if len(raw) < struct.calcsize(count_form):
            return False
        entries = file.read(entry * min(struct.unpack(count_form, raw)[0], _MOST))
    tags = {struct.unpack_from(f"{order}H", entries, k)[0] for k in range(0, len(entries) - entry + 1, entry)}
    return bool(tags & _GEO)
