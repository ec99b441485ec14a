"""What a store says about itself: the two `zarr.json` files, written and read.

    STORE/zarr.json                    the group; attributes under `ensemble_kit`
    STORE/logits/zarr.json             the array: (sample, class, y, x) float16, one chunk a sample
    STORE/logits/c.ROW.0.0.0           a sample: its payload, then its crc32c; or its shard (`shards.py`)
    STORE/logits/manifest/*.jsonl      what is committed, one part a writer (`manifest.py`)

The manifest lies inside the array's folder because zarr warns of any folder in a group that is no node.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast

from ensemble_kit.errors import DamagedError, MismatchError, UnsafeError, UsageError, some
from ensemble_kit.logits import chunkfile, shards
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import AXES, Shape
from ensemble_kit.spec.labels import check_names

Codec = Literal["none", "lossless"]
"""How a sample lies: as it is, or as a shard of compressed classes."""

FORMAT = "ensk.logits/1"
ARRAY, MANIFEST, META = "logits", "manifest", "zarr.json"
RANKS = (2,)
"""How many axes a grid may have: kernels read two so far."""
MAX_META = 1 << 28
MAX_CHUNK = 1 << 34
MAX_PACKED = (1 << 31) - 17  # what blosc takes at once
IDENTITY = ("model", "network_sha256", "weights", "preprocessing", "tta")
"""Keys of the provenance that must agree when a store is resumed, where both sides name them."""

_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_KNOWN_CODECS = {"bytes", "crc32c", "transpose", "gzip", "zstd", "blosc", "sharding_indexed"}


@dataclass(frozen=True)
class StoreSpec:
    """What every part of a store agrees on.

    Parameters
    ----------
    member : name of the network.
    classes, samples : names, in the order of the array's axes.
    grid : (h, w), the raster that the network put out.
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
        if self.activation not in {"sigmoid", "softmax"}:
            raise UsageError(
                "activation",
                "cannot tell what turns logits into probabilities",
                item=f"activation={self.activation!r}",
                fix='pass activation="sigmoid" for independent classes, "softmax" for exclusive ones',
            )
        if len(self.grid) not in RANKS or min(self.grid) < 1 or self.payload > MAX_CHUNK:
            raise UsageError(
                "grid-invalid",
                "cannot store logits on this grid",
                item=f"grid={self.grid!r} of {len(self.grid)} axes, with {len(self.classes)} classes",
                fix=f"pass grid=(h, w), both at least 1, and at most {MAX_CHUNK} bytes a sample",
            )
        if self.codec not in {"none", "lossless"} or (self.codec == "lossless" and self.plane >= MAX_PACKED):
            raise UsageError(
                "codec-invalid",
                "cannot store logits with this codec",
                item=f"codec={self.codec!r} for classes of {self.plane} bytes",
                fix=f'pass codec="none", or "lossless" for classes of at most {MAX_PACKED} bytes',
            )

    @property
    def shape(self) -> Shape:
        """(C, h, w) of a sample."""
        return len(self.classes), *self.grid

    @property
    def plane(self) -> int:
        """Bytes of one class of a sample."""
        return 2 * math.prod(self.grid)

    @property
    def payload(self) -> int:
        """Bytes of a sample."""
        return len(self.classes) * self.plane

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
        own["check"] = _check(own)
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
                "codecs": shards.codecs(self.shape) if self.codec == "lossless" else _CODECS,
                "attributes": {},
                "dimension_names": ["sample", "class", *(name for name, _ in AXES[-len(self.grid) :])],
                "storage_transformers": [],
            }
        )


def _check(own: Mapping[str, Any]) -> str:
    """Digest the attributes, whatever program wrote them down: a bit that flips in a class's name is else a name."""
    try:
        text = json.dumps(own, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return ""  # told by _dump
    return f"{chunkfile.crc(text.encode()):08x}"


def _dump(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError) as error:  # surrogates in a name are a UnicodeEncodeError, which is a ValueError
        raise UsageError(
            "store-spec",
            "cannot write a store's description as JSON",
            item=str(error),
            fix="give names as valid Unicode and provenance as JSON values without NaN",
        ) from None


@dataclass(frozen=True)
class Layout:
    """How chunks lie: a codec that this kit reads itself; "other" goes through zarr."""

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


def check_same(found: StoreSpec, wanted: StoreSpec, path: object) -> None:
    """Refuse to go on with a store that was begun as something else."""

    def refuse(name: str, ours: object, theirs: object) -> MismatchError:
        return MismatchError(
            "store-differs",
            "cannot go on with a store that was begun as something else",
            item=f"{path}: {name} is {ours} there, {theirs} here",
            fix="write to another path, or replace the store with overwrite=True (--force)",
        )

    for name in ("classes", "grid", "activation", "member", "codec", "clamp"):
        a, b = getattr(found, name), getattr(wanted, name)
        if a != b:
            raise refuse(name, _short(a), _short(b))
    if set(found.samples) != set(wanted.samples):
        gone, new = set(found.samples) - set(wanted.samples), set(wanted.samples) - set(found.samples)
        raise refuse(
            "samples",
            f"{len(found.samples)} (only there: {some(sorted(gone)) or 'none'})",
            f"{len(wanted.samples)} (only here: {some(sorted(new)) or 'none'})",
        )
    for key in IDENTITY:
        a, b = found.provenance.get(key), json.loads(_dump(wanted.provenance.get(key)))
        if a is not None and b is not None and a != b:
            raise refuse(f"provenance {key!r}", _short(a), _short(b))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"


def parse(group: bytes, array: bytes, path: object) -> tuple[StoreSpec, Layout]:
    """Read the two `zarr.json` files, strictly.

    Raises
    ------
    DamagedError
        Broken JSON, no store of ours, or a description that contradicts itself.
    UnsafeError
        A codec that the kit does not know, or a size beyond its limits.
    UsageError
        A newer version of the format.
    """
    about, laid = f"{path}/{META}", f"{path}/{ARRAY}/{META}"  # every message names the file
    own = _own(_load(group, about), about)
    meta = _load(array, laid)
    shape = _array_shape(meta, laid)
    try:
        provenance, clamp = own.get("provenance", {}), own.get("clamp")
        if clamp is not None and (type(clamp) not in {int, float} or not 0 < clamp <= 65504):
            raise TypeError(f"clamp {_short(clamp)}")
        spec = StoreSpec(
            member=own["member"],
            classes=_names(own["classes"]),
            samples=_names(own["samples"]),
            grid=tuple(shape[2:]),
            activation=own["activation"],
            provenance=provenance if isinstance(provenance, dict) else {},
            store=str(own["store"]),
            clamp=clamp,
        )
    except (KeyError, TypeError, UsageError) as error:
        raise _broken(about, f"its attributes: {error}") from None
    if shape[:2] != [len(spec.samples), len(spec.classes)]:
        raise _broken(
            laid,
            f"array of {shape[0]} samples x {shape[1]} classes, names of {len(spec.samples)} x {len(spec.classes)}",
        )
    how = _layout(meta, spec, laid)
    return (replace(spec, codec="lossless") if how.codec == "lossless" else spec), how


def _broken(path: object, item: str) -> DamagedError:
    root = str(path).removesuffix(f"/{META}").removesuffix(f"/{ARRAY}")
    return DamagedError(
        "store-metadata",
        "cannot read what a store says about itself",
        item=f"{path}: {item}",
        fix=f"run `ensk repair {root}`, or dump the store again with --force"
        if Path(root).is_dir()
        else "take an undamaged copy, or dump (or pack) the store again",
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("names are no list")
    return tuple(value)


def _load(raw: bytes, path: str) -> dict[str, Any]:
    try:
        value = _load_json(raw)
    except ValueError as error:
        probably = "empty, probably by a power cut" if not raw.strip() else f"no sound JSON ({error})"
        raise _broken(path, probably) from None
    if not isinstance(value, dict):
        raise _broken(path, "no JSON object")
    return value


def _load_json(raw: bytes) -> Any:
    """Read JSON, refusing doubled keys, NaN and endless depth; raises ValueError only."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("a key stands twice")
        return out

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    def finite(text: str) -> float:
        if float(text) in {float("inf"), float("-inf")}:
            raise ValueError(f"the number {text[:24]} is too large")
        return float(text)

    try:
        return json.loads(raw, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _own(group: dict[str, Any], path: object) -> dict[str, Any]:
    attributes = group.get("attributes")
    own = attributes.get("ensemble_kit") if isinstance(attributes, dict) else None
    if not isinstance(own, dict) or not isinstance(own.get("format"), str):
        raise DamagedError(
            "store-foreign",
            "cannot read a zarr group as a store of logits",
            item=f"{path}: its attributes hold no `ensemble_kit`",
            fix="make a store with `ensk dump-logits`; it also takes a folder of arrays",
        )
    if own["format"] != FORMAT:
        raise UsageError(
            "store-version",
            "cannot read a store of another version",
            item=f"{path}: {own['format']!r}, this ensk reads {FORMAT!r}",
            fix="install the ensk that wrote it, or a newer one",
        )
    check = own.pop("check", None)  # stores of the first days have none
    if check is not None and check != _check(own):
        raise _broken(path, "its attributes were changed: their checksum does not hold")
    return own


def _array_shape(meta: dict[str, Any], path: object) -> list[int]:
    shape = meta.get("shape")
    if meta.get("zarr_format") != 3 or meta.get("node_type") != "array" or meta.get("data_type") != "float16":
        raise _broken(path, f"{ARRAY} is no zarr v3 array of float16 (data_type {meta.get('data_type')!r})")
    if meta.get("fill_value") != "NaN":
        raise _broken(path, f"fill value {meta.get('fill_value')!r} in place of NaN: missing data would look like data")
    if not _are_sizes(shape) or len(shape) - 2 not in RANKS:
        raise _broken(path, f"shape {_short(shape)}")
    if 2 * math.prod(shape[1:]) > MAX_CHUNK or shape[0] > MAX_META:
        raise UnsafeError(
            "store-too-large",
            "refuse to open a store",
            item=f"{path}: shape {shape}, at most {MAX_CHUNK} bytes a sample",
            fix="check where it comes from; dump the store again",
        )
    return shape


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and v > 0 for v in value)


def _layout(meta: dict[str, Any], spec: StoreSpec, path: object) -> Layout:
    codecs = meta.get("codecs")
    grid, keys = meta.get("chunk_grid"), meta.get("chunk_key_encoding")
    try:
        chunk = cast(Any, grid)["configuration"]["chunk_shape"]
        if cast(Any, grid)["name"] != "regular" or chunk[0] != 1:
            raise _broken(path, f"chunks of {chunk}: no chunk may hold two samples")
        encoding = cast(Any, keys)["name"]
        separator = cast(Any, keys).get("configuration", {}).get("separator", "/" if encoding == "default" else ".")
        _check_codecs(cast(Any, codecs), path)
    except (TypeError, KeyError, IndexError, AttributeError):
        raise _broken(path, "its chunks, keys or codecs are not described") from None
    if not _are_sizes(chunk) or len(chunk) != 1 + len(spec.shape):
        raise _broken(path, f"chunks of {_short(chunk)}")
    if 2 * math.prod(chunk) > MAX_CHUNK:
        raise UnsafeError(
            "store-too-large",
            "refuse to open a store",
            item=f"{path}: chunks of {chunk}, at most {MAX_CHUNK} bytes each",
            fix="check where it comes from; dump the store again",
        )
    if encoding not in ("default", "v2") or separator not in (".", "/"):  # either may be a list
        raise _broken(path, f"chunk keys {encoding!r} with {separator!r}")
    if meta.get("storage_transformers"):
        raise UnsafeError(
            "store-codec",
            "refuse to decode a store",
            item=f"{path}: it has storage transformers",
            fix="dump it again with this ensk",
        )
    codec: Codec | Literal["other"] = "other"
    if chunk == [1, *spec.shape]:
        codec = "none" if codecs == _CODECS else "lossless" if codecs == shards.codecs(spec.shape) else "other"
    return Layout(codec, len(spec.grid), separator, "c" if encoding == "default" else "")


def _check_codecs(codecs: Sequence[Mapping[str, Any]], path: object, guarded: bool = False) -> None:
    names = [codec["name"] for codec in codecs]
    unknown = [name for name in names if name not in _KNOWN_CODECS]
    if unknown:
        raise UnsafeError(
            "store-codec",
            "refuse to decode a store with codecs that are not known",
            item=f"{path}: {some(unknown)}, known are {', '.join(sorted(_KNOWN_CODECS))}",
            fix="dump it again with this ensk",
        )
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            guard = guarded or names[-1] == "crc32c"  # one around the whole shard guards what is in it
            _check_codecs(codec["configuration"]["codecs"], path, guard)
            _check_codecs(codec["configuration"]["index_codecs"], path)
    # blosc and gzip decoders over-read or inflate what was damaged: a checksum has to come before them
    if _any(names, ("blosc", "gzip", "zstd")) and names[-1] != "crc32c" and not guarded:
        raise UnsafeError(
            "store-codec",
            "refuse to decompress what no checksum guards",
            item=f"{path}: codecs {names}",
            fix="dump it again with this ensk, which puts crc32c last",
        )


def _any(names: Iterable[str], wanted: Iterable[str]) -> bool:
    return not set(names).isdisjoint(wanted)
