"""The copy of a store's description beside its manifest, from which the two `zarr.json` files can be made again."""

from __future__ import annotations

import json
from pathlib import Path

from ensemble_kit.errors import EnskError
from ensemble_kit.logits import chunkfile, description
from ensemble_kit.logits.layout import ARRAY, MANIFEST, MAX_META, META
from ensemble_kit.logits.records import from_line, to_line

COPY = "description.json"


def to_copy(group: bytes, array: bytes) -> bytes:
    """Write the copy: one line with its checksum."""
    return to_line({"group": group.decode(), "array": array.decode()})


def read_copy(root: Path) -> tuple[bytes, bytes] | None:
    """Read both files from the copy; None where there is none, or it is damaged."""
    try:
        raw = chunkfile.read_small(root / ARRAY / MANIFEST / COPY, MAX_META)
        body = from_line(raw.rstrip(b"\n")) or {}
        copy = str(body["group"]).encode(), str(body["array"]).encode()
        description.parse(*copy, root)
    except (OSError, KeyError, EnskError):
        return None
    return copy


def copy_fault(root: Path) -> str:
    """Say what is wrong with the copy of a store's description; "" where nothing is, or the store never had one."""
    try:
        group = json.loads(chunkfile.read_small(root / META, MAX_META))
        array = json.loads(chunkfile.read_small(root / ARRAY / META, MAX_META))
        if "check" not in group["attributes"]["ensemble_kit"]:
            return ""
    except (OSError, EnskError, ValueError, KeyError, TypeError):
        return ""  # the description itself is at fault
    copy = read_copy(root)
    if copy is None:
        return "it is gone or damaged"
    same = json.loads(copy[0])["attributes"]["ensemble_kit"] == group["attributes"]["ensemble_kit"]
    return "" if same and json.loads(copy[1]).get("shape") == array.get("shape") else "it describes another store"
