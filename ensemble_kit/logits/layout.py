"""A store's description: what its two `zarr.json` files say, and under which keys its samples are.

    STORE/zarr.json                    the group; attributes under `ensemble_kit`
    STORE/logits/zarr.json             the array: (sample, class, y, x) float16, one chunk a sample
    STORE/logits/c.ROW.0.0.0           a sample: its payload, then its crc32c; or its shard (`shards.py`)
    STORE/logits/manifest/*.jsonl      what is committed, one segment a writer (`manifest.py`)
    STORE/sample, STORE/class          names of the axes, for xarray (`coordinates.py`)

and where each sample has a grid of its own, or is a volume:

    STORE/logits/zarr.json             a group
    STORE/logits/ROW/zarr.json         a sample's array: (class, y, x) or (class, z, y, x) float16 (`samplearray.py`)
    STORE/logits/ROW/c.0.0.0           an image; c.0.K.0.0 is a slab of a volume
    STORE/logits/manifest/zarr.json    an empty array

The manifest is inside an array's folder because zarr warns of any folder in a group that is not a node.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.logits import chunkfile, shards
from ensemble_kit.logits.samplearray import MAX_CHUNK, MAX_SLAB, Keys, SampleArray
from ensemble_kit.once import once
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import AXES, Placement, Shape
from ensemble_kit.spec.georeference import GeoReference
from ensemble_kit.spec.labels import check_names
from ensemble_kit.spec.mosaic import Mosaic

Codec = Literal["none", "lossless"]
"""How a sample is stored: as it is, or as a shard of compressed classes."""

FORMATS = ("ensk.logits/1", "ensk.logits/2")
"""One grid a store, of two axes; and an array a sample, of its own grid and of two axes or three."""
ARRAY, MANIFEST, META = "logits", "manifest", "zarr.json"
FORMER_META = (".zgroup", ".zarray")
"""What a group and an array of zarr 2 have in place of `zarr.json`."""
RANKS = (2, 3)
"""How many axes a grid may have."""
MAX_META = 1 << 28
MAX_PACKED = (1 << 31) - 17  # what blosc takes at once
IDENTITY = ("model", "network_sha256", "weights", "preprocessing", "tta", "domain")
"""Keys of the provenance that must agree when a store is resumed, where both sides name them."""
PLAIN: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
"""The array's codecs where a sample is stored as it is."""
TEXTS: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}, {"name": "crc32c"}]
"""The codecs of an array of texts."""


@dataclass(frozen=True)
class StoreSpec:
    """What all writers of a store agree on.

    Parameters
    ----------
    member : name of the network.
    classes, samples : names, in the order of the array's axes.
    grid : (h, w) or (d, h, w), the raster that the network puts out; None where each sample has its own.
    activation : what turns these logits into probabilities.
    provenance : where they come from, JSON-able: model, weights, preprocessing, tta, versions, created.
    store : this store's own id; binds a manifest to it.
    codec : "none", or "lossless" for shards of compressed classes.
    clamp : the bound that logits were limited to, if any.
    """

    member: str
    classes: tuple[str, ...]
    samples: tuple[str, ...]
    grid: Shape | None
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
        if self.grid is not None and (not whole or len(self.grid) not in RANKS):
            raise _grid(self.grid, len(self.classes))
        if self.codec not in ("none", "lossless"):
            raise _codec(f"codec={self.codec!r}")
        if self.grid is not None:
            self.array(Placement.of(self.grid, self.grid))

    @once
    def rows(self) -> Mapping[str, int]:
        """The row of every sample."""
        return {sample: row for row, sample in enumerate(self.samples)}

    @property
    def own(self) -> bool:
        """Whether each sample is an array of its own."""
        return self.grid is None or len(self.grid) == 3

    @property
    def format(self) -> str:
        """The version of the format."""
        return FORMATS[self.own]

    @property
    def layout(self) -> Layout:
        """How this kit writes its chunks."""
        return Layout(self.codec, 0 if self.own else 2)

    def array(
        self,
        placement: Placement,
        geometry: Geometry | GeoReference | None = None,
        mosaic: Mosaic | None = None,
        void: str = "",
    ) -> SampleArray:
        """Return the array of a sample that is to be written.

        Raises
        ------
        UsageError
            A chunk of it would be too large.
        """
        classes, grid = len(self.classes), placement.grid
        depth = int(len(grid) == 3 or mosaic is not None)
        out = SampleArray(classes, placement, self.own, geometry, depth, mosaic, void)
        if out.has_slabs:
            count, fit = out.stack[0], max(1, MAX_SLAB // out.payload)
            out = replace(out, depth=math.ceil(count / math.ceil(count / fit)))
        if out.payload > MAX_CHUNK:
            raise _grid(grid, classes)
        if self.codec == "lossless" and out.payload // classes >= MAX_PACKED:
            raise _codec(f"codec='lossless' for classes of {out.payload // classes} bytes")
        return out

    def group_json(self) -> bytes:
        """Write the group's `zarr.json`."""
        own: dict[str, Any] = {
            "format": self.format,
            "store": self.store,
            "member": self.member,
            "classes": list(self.classes),
            "samples": list(self.samples),
            "activation": self.activation,
            "provenance": dict(self.provenance),
        }
        if self.clamp is not None:
            own["clamp"] = self.clamp
        if self.own:
            own |= {"codec": self.codec, **({} if self.grid is None else {"grid": list(self.grid)})}
        own["check"] = checksum(own)
        return _dump({"zarr_format": 3, "node_type": "group", "attributes": {"ensemble_kit": own}})

    def array_json(self) -> bytes:
        """Write the `zarr.json` of `logits`, as zarr itself does: an array's, or where samples are arrays a group's."""
        if self.grid is None or self.own:
            return _dump({"zarr_format": 3, "node_type": "group", "attributes": {}})
        shape = (len(self.classes), *self.grid)
        codecs = shards.codecs((1, 1, *self.grid)) if self.codec == "lossless" else PLAIN
        return _array([len(self.samples), *shape], [1, *shape], codecs, ["sample", "class", "y", "x"])

    def sample_json(self, sample: str, array: SampleArray, keys: Keys) -> bytes:
        """Write the `zarr.json` of a sample that is an array of its own."""
        chunk = list(array.chunk_shape)
        codecs = shards.codecs((1, *chunk[1:])) if self.codec == "lossless" else PLAIN
        names = ["class", *(name for name, _ in AXES[-len(array.stack) :])]
        names[1:-2] = ["tile"] if array.mosaic is not None else names[1:-2]
        return _array(list(array.shape), chunk, codecs, names, {"sample": sample}, keys)


@dataclass(frozen=True)
class Layout:
    """How chunks are stored: by a codec that this kit reads itself, or by another ("other"), which zarr reads.

    Parameters
    ----------
    rank : axes of the grid; 0 where each sample is an array of its own.
    separator, prefix : of the keys of the store's array.
    """

    codec: Codec | Literal["other"]
    rank: int
    separator: str = "."
    prefix: str = "c"

    @property
    def ours(self) -> bool:
        """Tell whether this kit reads and writes it itself."""
        return self.codec != "other"

    def key(self, row: int) -> str:
        """Return the path of a sample inside the folder of `logits`: its chunk, or the folder of its array."""
        if not self.rank:
            return str(row)
        numbers = [str(row), "0", *["0"] * self.rank]
        return self.separator.join([self.prefix, *numbers] if self.prefix else numbers)


def names_json(axis: str, count: int) -> bytes:
    """Write the `zarr.json` of an array that names what lies along an axis."""
    return _array([count], [count], TEXTS, [axis], data_type="string", fill_value="")


MANIFEST_JSON = b"""{
 "zarr_format": 3,
 "node_type": "array",
 "shape": [0],
 "data_type": "uint8",
 "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
 "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
 "fill_value": 0,
 "codecs": [{"name": "bytes"}],
 "attributes": {},
 "dimension_names": [null],
 "storage_transformers": []
}"""
"""The `zarr.json` of the manifest's folder in a group: it is an empty array there, so that zarr does not warn of it."""


def _array(
    shape: list[int],
    chunk: list[int],
    codecs: list[dict[str, Any]],
    names: list[str],
    attributes: Mapping[str, str] | None = None,
    keys: Keys = "default",
    data_type: str = "float16",
    fill_value: str = "NaN",
) -> bytes:
    return _dump(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": keys, "configuration": {"separator": "."}},
            "fill_value": fill_value,
            "codecs": codecs,
            "attributes": dict(attributes or {}),
            "dimension_names": names,
            "storage_transformers": [],
        }
    )


def _grid(grid: object, classes: int) -> UsageError:
    fix = f"pass grid=(h, w) or (d, h, w), what the network puts out: at least 1, at most {MAX_CHUNK} bytes a chunk"
    item = f"grid={grid!r} for {classes} classes"
    return UsageError("grid-invalid", "cannot store logits on this grid", item=item, fix=fix)


def _codec(item: str) -> UsageError:
    fix = f'pass codec="none", or "lossless" for classes of at most {MAX_PACKED} bytes'
    return UsageError("codec-invalid", "cannot store logits with this codec", item=item, fix=fix)


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
