"""A store's description: what its two `zarr.json` files say, and under which keys its samples are.

    STORE/zarr.json                    the group; attributes under `ensemble_kit`
    STORE/logits/zarr.json             the array: (sample, class, y, x) float16, one chunk a sample
    STORE/logits/c.ROW.0.0.0           a sample: its payload, then its crc32c; or its shard (`shards.py`)
    STORE/logits/manifest/*.jsonl      what is committed, one segment a writer (`manifest.py`)

The manifest is inside the array's folder because zarr warns of any folder in a group that is not a node.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.logits import chunkfile, shards
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import AXES, Shape
from ensemble_kit.spec.labels import check_names

Codec = Literal["none", "lossless"]
"""How a sample is stored: as it is, or as a shard of compressed classes."""

FORMAT = "ensk.logits/1"
ARRAY, MANIFEST, META = "logits", "manifest", "zarr.json"
FORMER_META = (".zgroup", ".zarray")
"""What a group and an array of zarr 2 have in place of `zarr.json`."""
RANKS = (2,)
"""How many axes a grid may have: kernels read two so far."""
MAX_META = 1 << 28
MAX_CHUNK = 1 << 34
MAX_PACKED = (1 << 31) - 17  # what blosc takes at once
IDENTITY = ("model", "network_sha256", "weights", "preprocessing", "tta", "domain")
"""Keys of the provenance that must agree when a store is resumed, where both sides name them."""
PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
"""The array's codecs where a sample is stored as it is."""


@dataclass(frozen=True)
class StoreSpec:
    """What all writers of a store agree on.

    Parameters
    ----------
    member : name of the network.
    classes, samples : names, in the order of the array's axes.
    grid : (h, w), the raster that the network puts out.
    activation : what turns these logits into probabilities.
    provenance : where they come from, JSON-able: model, weights, preprocessing, tta, versions, created.
    store : this store's own id; binds a manifest to it.
    codec : "none", or "lossless" for shards of compressed classes.
    clamp : the bound that logits were limited to, if any.
    """

    member: str
    classes: tuple[str, ...]
    samples: tuple[str, ...]
    grid: Shape
    activation: Activation
    provenance: Mapping[str, Any] = field(default_factory=dict)
    store: str = field(default_factory=lambda: uuid.uuid4().hex)
    codec: Codec = "none"
    clamp: float | None = None

    def __post_init__(self) -> None:
        check_names("members", [self.member])
        check_names("classes", self.classes)
        check_names("samples", self.samples)
        if self.activation not in ("sigmoid", "softmax"):  # a list has no hash
            item = f"activation={self.activation!r}"
            fix = 'pass activation="sigmoid" for independent classes, "softmax" for exclusive ones'
            raise UsageError("activation", "cannot tell what turns logits into probabilities", item=item, fix=fix)
        whole = isinstance(self.grid, tuple) and all(type(v) is int and v > 0 for v in self.grid)
        if not whole or len(self.grid) not in RANKS or self.payload > MAX_CHUNK:
            item = f"grid={self.grid!r} for {len(self.classes)} classes"
            fix = f"pass grid=(h, w), what the network puts out: both at least 1, at most {MAX_CHUNK} bytes a sample"
            raise UsageError("grid-invalid", "cannot store logits on this grid", item=item, fix=fix)
        if self.codec not in ("none", "lossless") or (self.codec == "lossless" and self.class_bytes >= MAX_PACKED):
            item = f"codec={self.codec!r} for classes of {self.class_bytes} bytes"
            fix = f'pass codec="none", or "lossless" for classes of at most {MAX_PACKED} bytes'
            raise UsageError("codec-invalid", "cannot store logits with this codec", item=item, fix=fix)

    @property
    def shape(self) -> Shape:
        """(C, h, w) of a sample."""
        return len(self.classes), *self.grid

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of every sample."""
        return {sample: row for row, sample in enumerate(self.samples)}

    @property
    def class_bytes(self) -> int:
        """Bytes of one class of a sample."""
        return 2 * math.prod(self.grid)

    @property
    def payload(self) -> int:
        """Bytes of a sample."""
        return len(self.classes) * self.class_bytes

    @property
    def layout(self) -> Layout:
        """How this kit writes its chunks."""
        return Layout(self.codec, len(self.grid))

    def group_json(self) -> bytes:
        """Write the group's `zarr.json`."""
        own: dict[str, Any] = {
            "format": FORMAT,
            "store": self.store,
            "member": self.member,
            "classes": list(self.classes),
            "samples": list(self.samples),
            "activation": self.activation,
            "provenance": dict(self.provenance),
        }
        if self.clamp is not None:
            own["clamp"] = self.clamp
        own["check"] = checksum(own)
        return _dump({"zarr_format": 3, "node_type": "group", "attributes": {"ensemble_kit": own}})

    def array_json(self) -> bytes:
        """Write the array's `zarr.json`, as zarr itself does."""
        return _dump(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": [len(self.samples), *self.shape],
                "data_type": "float16",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *self.shape]}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
                "fill_value": "NaN",
                "codecs": shards.codecs(self.shape) if self.codec == "lossless" else PLAIN,
                "attributes": {},
                "dimension_names": ["sample", "class", *(name for name, _ in AXES[-len(self.grid) :])],
                "storage_transformers": [],
            }
        )


@dataclass(frozen=True)
class Layout:
    """How chunks are stored: by a codec that this kit reads itself, or by another ("other"), which zarr reads."""

    codec: Codec | Literal["other"]
    rank: int
    separator: str = "."
    prefix: str = "c"

    @property
    def ours(self) -> bool:
        """Tell whether this kit reads and writes it itself."""
        return self.codec != "other"

    def key(self, row: int) -> str:
        """Return the path of a sample's chunk inside the array's folder."""
        numbers = [str(row), "0", *["0"] * self.rank]
        return self.separator.join([self.prefix, *numbers] if self.prefix else numbers)


def checksum(own: Mapping[str, Any]) -> str:
    """Digest the group's attributes, so that a flipped bit does not change a class's name unnoticed."""
    try:
        text = json.dumps(own, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return ""  # refused by _dump
    return f"{chunkfile.crc(text.encode()):08x}"


def _dump(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError) as error:  # surrogates in a name are a UnicodeEncodeError, which is a ValueError
        fix = "give names as valid Unicode and provenance as JSON values without NaN"
        what = "cannot write a store's description as JSON"
        raise UsageError("store-spec", what, item=str(error), fix=fix) from None


def check_resumable(found: StoreSpec, how: Layout, wanted: StoreSpec, path: object) -> None:
    """Refuse to resume a store that was begun as something else.

    Raises
    ------
    MismatchError
        Names what differs, with both values; or the store's layout is one that this kit does not write.
    """
    for name in ("classes", "grid", "activation", "member", "codec", "clamp"):
        a, b = getattr(found, name), getattr(wanted, name)
        if a != b:
            raise _differs(path, name, shortened(a), shortened(b))
    if set(found.samples) != set(wanted.samples):
        gone, new = set(found.samples) - set(wanted.samples), set(wanted.samples) - set(found.samples)
        ours = f"{len(found.samples)} (only there: {some(sorted(gone)) or 'none'})"
        theirs = f"{len(wanted.samples)} (only here: {some(sorted(new)) or 'none'})"
        raise _differs(path, "samples", ours, theirs)
    for key in IDENTITY:
        a, b = found.provenance.get(key), json.loads(_dump(wanted.provenance.get(key)))
        if a is not None and b is not None and a != b:
            raise _differs(path, f"provenance {key!r}", shortened(a), shortened(b))
    if not how.ours:
        fix = "write to another path; this one stays readable"
        raise MismatchError("store-layout", "cannot resume a store of another layout", item=str(path), fix=fix)


def _differs(path: object, name: str, ours: str, theirs: str) -> MismatchError:
    return MismatchError(
        "store-differs",
        "cannot resume a store that was begun as something else",
        item=f"{path}: {name} is {ours} there, {theirs} here",
        fix="write to another path, or as the store was begun",
    )


def shortened(value: object) -> str:
    """Write a value for a message, long ones cut."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"
