"""A store's description, read strictly: nothing is opened whose two `zarr.json` files contradict each other."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, UnsafeError, UsageError, some
from ensemble_kit.logits import chunkfile, layout, shards
from ensemble_kit.logits.layout import (
    ARRAY,
    FORMATS,
    FORMER_META,
    MANIFEST,
    MAX_META,
    META,
    Codec,
    Layout,
    StoreSpec,
)
from ensemble_kit.logits.samplearray import MAX_CHUNK

_KNOWN_CODECS = {"bytes", "crc32c", "transpose", "gzip", "zstd", "blosc", "sharding_indexed"}
_TOO_LARGE = "refuse to open a store"


def describe(root: Path) -> tuple[StoreSpec, Layout]:
    """Read the description of a store in a folder.

    Raises
    ------
    IncompleteError
        There is nothing at this path.
    DamagedError
        It is not a store, or has lost one of the files; and what `parse` raises.
    """
    if not root.exists():
        raise nothing_there(root, "check the path, or make the store with `ensk dump-logits`")
    for inside in (root / ARRAY, root / ARRAY / MANIFEST):
        if inside.is_symlink():
            raise chunkfile.link(inside)
    try:
        group = chunkfile.read_small(root / META, MAX_META)
        array = chunkfile.read_small(root / ARRAY / META, MAX_META)
    except (FileNotFoundError, NotADirectoryError) as error:
        if any((root / name).exists() for name in FORMER_META):
            raise former(root) from None
        if (root / META).is_file() and b'"ome"' in chunkfile.read_small(root / META, MAX_META):
            fix = "to read masks pass the folder that holds index.json; a store is made by `ensk dump-logits`"
            raise not_a_store(f"{root} is an image or labels of OME-Zarr", fix) from None
        lost = os.path.relpath(error.filename or root, root)
        fix = f"run `ensk repair {shlex.quote(str(root))}`, or make the store with `ensk dump-logits`"
        raise not_a_store(f"{root}: no {lost}", fix) from None
    return parse(group, array, root)


def nothing_there(where: object, fix: str) -> IncompleteError:
    """Return the error of a path without a store."""
    return IncompleteError("store-missing", "cannot open a store: the path does not exist", item=str(where), fix=fix)


def former(where: object) -> UsageError:
    """Return the error of a store of zarr 2."""
    item = f"zarr 2: {where} has {' or '.join(FORMER_META)}; a store of logits is zarr 3, with checksums"
    fix = "save its logits as one .npy a sample and make a store of them: ensk dump-logits FOLDER --out STORE"
    return UsageError("store-version", "cannot read a store of another version", item=item, fix=fix)


def not_a_store(item: str, fix: str) -> DamagedError:
    """Say that a file of the description is not there."""
    what = "cannot open what is not a store of logits, or has lost its description"
    return DamagedError("store-foreign", what, item=item, fix=fix)


def parse(group: bytes, array: bytes, path: object) -> tuple[StoreSpec, Layout]:
    """Read the two `zarr.json` files.

    Raises
    ------
    DamagedError
        Broken JSON, another program's store, or a description that contradicts itself.
    UnsafeError
        A codec that the kit does not know, or a size beyond its limits.
    UsageError
        A newer version of the format.
    """
    about, laid = f"{path}/{META}", f"{path}/{ARRAY}/{META}"  # every message names the file
    own = _own(_load(group, about), about)
    meta = _load(array, laid)
    version = own.pop("format")
    alone = version == FORMATS[1]
    if alone and (meta.get("zarr_format") != 3 or meta.get("node_type") != "group"):
        raise _broken(laid, f"{ARRAY} is not a zarr v3 group, as in {version}")
    shape = [] if alone else _array_shape(meta, laid)
    try:
        grid = own.get("grid") if alone else shape[2:]
        provenance, clamp = own.get("provenance", {}), own.get("clamp")
        if clamp is not None and (type(clamp) not in {int, float} or not 0 < clamp <= 65504):
            raise TypeError(f"clamp {layout.shortened(clamp)}")
        spec = StoreSpec(
            member=own["member"],
            classes=_names(own["classes"]),
            samples=_names(own["samples"]),
            grid=None if grid is None else tuple(grid),
            activation=own["activation"],
            provenance=provenance if isinstance(provenance, dict) else {},
            store=str(own["store"]),
            clamp=clamp,
            codec=own["codec"] if alone else "none",
        )
        if spec.format != version:
            raise TypeError(f"grid {layout.shortened(grid)}")
    except (KeyError, TypeError, UsageError) as error:
        raise _broken(about, f"its attributes: {error}") from None
    if alone:
        return spec, spec.layout
    if shape[:2] != [len(spec.samples), len(spec.classes)]:
        named = f"names of {len(spec.samples)} x {len(spec.classes)}"
        raise _broken(laid, f"array of {shape[0]} samples x {shape[1]} classes, {named}")
    how = _layout(meta, shape, laid)
    return (replace(spec, codec="lossless") if how.codec == "lossless" else spec), how


def _broken(path: object, item: str) -> DamagedError:
    root = str(path).removesuffix(f"/{META}").removesuffix(f"/{ARRAY}")
    mend = f"run `ensk repair {shlex.quote(root)}`, which restores it from its copy"
    fix = mend if Path(root).is_dir() else "take an undamaged copy, or dump (or pack) the store again"
    return DamagedError("store-metadata", "cannot read a store's description", item=f"{path}: {item}", fix=fix)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("names are not a list")
    return tuple(sys.intern(name) if type(name) is str else name for name in value)  # members share a million ids


def _load(raw: bytes, path: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(raw.decode("utf-8-sig"))
    except ValueError as error:
        why = "empty, probably by a power cut" if not raw.strip() else f"not valid JSON ({error})"
        raise _broken(path, why) from None
    if not isinstance(value, dict):
        raise _broken(path, "not a JSON object")
    return value


def _own(group: dict[str, Any], path: object) -> dict[str, Any]:
    attributes = group.get("attributes")
    own = attributes.get("ensemble_kit") if isinstance(attributes, dict) else None
    if not isinstance(own, dict) or not isinstance(own.get("format"), str):
        item, fix = f"{path}: its attributes have no `ensemble_kit`", "make a store with `ensk dump-logits`"
        what = "cannot read a zarr group as a store of logits"
        raise DamagedError("store-foreign", what, item=item, fix=f"{fix}; it also takes a folder of arrays")
    if own["format"] not in FORMATS:
        item = f"{path}: {own['format']!r}, this ensk reads {' and '.join(FORMATS)}"
        fix = "install the ensk that wrote it, or a newer one"
        raise UsageError("store-version", "cannot read a store of another version", item=item, fix=fix)
    check = own.pop("check", None)  # the first stores have none
    if check is not None and check != layout.checksum(own):
        raise _broken(path, "its attributes were changed: their checksum is wrong")
    return own


def _array_shape(meta: dict[str, Any], path: object) -> list[int]:
    shape = meta.get("shape")
    if meta.get("zarr_format") != 3 or meta.get("node_type") != "array" or meta.get("data_type") != "float16":
        raise _broken(path, f"{ARRAY} is not a zarr v3 array of float16 (data_type {meta.get('data_type')!r})")
    if meta.get("fill_value") != "NaN":
        raise _broken(path, f"fill value {meta.get('fill_value')!r} instead of NaN: missing data would look like data")
    if not _are_sizes(shape) or len(shape) != 4:
        raise _broken(path, f"shape {layout.shortened(shape)}")
    if 2 * math.prod(shape[1:]) > MAX_CHUNK or shape[0] > MAX_META:
        raise chunkfile.too_large(f"{path}: shape {shape}, at most {MAX_CHUNK} bytes a sample", _TOO_LARGE)
    return shape


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and v > 0 for v in value)


def _layout(meta: dict[str, Any], shape: list[int], path: object) -> Layout:
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
    if not _are_sizes(chunk) or len(chunk) != len(shape):
        raise _broken(path, f"chunks of {layout.shortened(chunk)}")
    if 2 * math.prod(chunk) > MAX_CHUNK:
        raise chunkfile.too_large(f"{path}: chunks of {chunk}, at most {MAX_CHUNK} bytes each", _TOO_LARGE)
    if encoding not in ("default", "v2") or separator not in (".", "/"):  # either may be a list
        raise _broken(path, f"chunk keys {encoding!r} with {separator!r}")
    if meta.get("storage_transformers"):
        raise _undecodable("refuse to decode a store", f"{path}: it has storage transformers")
    codec: Codec | Literal["other"] = "other"
    if chunk == [1, *shape[1:]]:
        packed = shards.codecs((1, 1, *shape[2:]))
        codec = "none" if codecs == layout.PLAIN else "lossless" if codecs == packed else "other"
    return Layout(codec, 2, separator, "c" if encoding == "default" else "")


def _check_codecs(codecs: Sequence[Mapping[str, Any]], path: object, guarded: bool = False) -> None:
    names = [codec["name"] for codec in codecs]
    unknown = [name for name in names if name not in _KNOWN_CODECS]
    if unknown:
        known = ", ".join(sorted(_KNOWN_CODECS))
        raise _undecodable(
            "refuse to decode a store with unknown codecs", f"{path}: {some(unknown)}, known are {known}"
        )
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            guard = guarded or names[-1] == "crc32c"  # one around the whole shard guards what is in it
            _check_codecs(codec["configuration"]["codecs"], path, guard)
            _check_codecs(codec["configuration"]["index_codecs"], path)
    # blosc and gzip decoders over-read or inflate what was damaged: a checksum has to come before them
    if _any(names, ("blosc", "gzip", "zstd")) and names[-1] != "crc32c" and not guarded:
        raise _undecodable("refuse to decompress what no checksum guards", f"{path}: codecs {names}")


def _undecodable(what: str, item: str) -> UnsafeError:
    return UnsafeError("store-codec", what, item=item, fix="dump it again with this ensk, which puts crc32c last")


def _any(names: Iterable[str], wanted: Iterable[str]) -> bool:
    return not set(names).isdisjoint(wanted)
