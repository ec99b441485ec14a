"""Names of samples and classes as arrays of zarr, by which xarray labels the axes of `logits`.

    STORE/sample/zarr.json, STORE/sample/c.0     strings (sample): what the rows of `logits` are called
    STORE/class/zarr.json, STORE/class/c.0       strings (class)

Nothing of ours reads them: names come from the group's description, and so do these arrays. Stores of before have none,
and need none. Where each sample is an array of its own there is no axis of samples to label.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.errors import EnskError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import MAX_META, META, StoreSpec, names_json

KEYS = tuple(f"{axis}/{name}" for axis in ("sample", "class") for name in (META, "c.0"))


def files(spec: StoreSpec) -> dict[str, bytes]:
    """Return the content of every file of the two arrays, by key."""
    if spec.own:
        return {}
    samples, classes = spec.samples, spec.classes
    contents = names_json("sample", len(samples)), _chunk(samples), names_json("class", len(classes)), _chunk(classes)
    return dict(zip(KEYS, contents, strict=True))


def _chunk(names: Sequence[str]) -> bytes:
    """Encode texts as zarr's `vlen-utf8` and `crc32c` do: how many, then the length of each and its bytes."""
    texts = [name.encode() for name in names]
    parts = [struct.pack("<I", len(texts)), *(struct.pack("<I", len(text)) + text for text in texts)]
    payload = b"".join(parts)
    return payload + struct.pack("<I", chunkfile.crc(payload))


def damaged(root: Path, spec: StoreSpec) -> list[str]:
    """Name the files of the two arrays that are gone or changed; none where the store never had any."""
    wanted = files(spec)
    if not any((root / key).parent.exists() for key in wanted):
        return []
    return [key for key, content in wanted.items() if not _is(root / key, content)]


def _is(file: Path, content: bytes) -> bool:
    try:
        return not file.parent.is_symlink() and chunkfile.read_small(file, max(MAX_META, len(content))) == content
    except (OSError, EnskError):
        return False
