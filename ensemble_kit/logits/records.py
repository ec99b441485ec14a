"""Lines of a manifest: what is known of a committed sample, each line with its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ensemble_kit.errors import LockedError, MismatchError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import Layout, StoreSpec
from ensemble_kit.logits.samplearray import Keys, SampleArray, from_fields
from ensemble_kit.once import once
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement, as_text

FORMAT = "ensk.manifest/1"
SUFFIX = ".jsonl"
CHECK = ',"check":"01234567"}'
"""How a line ends, with its own checksum."""
DIGEST = 16  # bytes; 32 hex digits
NO_RECORD = (LookupError, RecursionError, TypeError, ValueError)
"""What is raised where a line cannot be a record; our errors of a placement, a geometry or tiles are among them."""


@dataclass(frozen=True)
class Record:
    """What is known of a committed sample.

    Parameters
    ----------
    sample, row : its id and its index on the array's first axis.
    array : its shape, how it is cut into chunks, and where its image lies on it.
    crcs : of each chunk in order the running CRC-32C of its values after each class, as 8 hex digits each.
    saturated : values that were cut to ±65504.
    take : 1, or more where a lost or damaged sample was dumped again; the highest counts.
    stored : bytes of each chunk where the layout does not tell them (a shard), else ().
    source : digest of the file that its logits were made from, by which a dump sees a change; "" where none was given.
    keys : how the chunks of an array of its own are named.
    """

    sample: str
    row: int
    array: SampleArray
    crcs: str
    saturated: int = 0
    take: int = 1
    stored: tuple[int, ...] = ()
    source: str = ""
    keys: Keys = "default"

    @property
    def placement(self) -> Placement:
        """Where its image lies on the grid, and how large it is."""
        return self.array.placement

    @once
    def digest(self) -> str:
        """Digest of the values, bound to id, row, shape and placement; a file under another's key does not match."""
        return digest(self.sample.encode(), self.row, self.array, self.crcs.encode()).hex()

    def checksum(self, number: int = 0) -> int:
        """Return the CRC-32C of a chunk's values; where they are stored as they are the chunk file ends with it."""
        return self.running(number)[-1]

    def running(self, number: int = 0) -> list[int]:
        """Return the CRC-32C of a chunk's values up to the end of each class."""
        width = 8 * self.array.classes
        own = self.crcs[number * width : (number + 1) * width]
        return [int(own[i : i + 8], 16) for i in range(0, width, 8)]

    def bytes_of(self, number: int = 0) -> int:
        """Return how many bytes a chunk's file has."""
        return self.stored[number] if self.stored else self.array.payload + chunkfile.TRAILER

    def key(self, how: Layout, number: int = 0) -> str:
        """Return the path of a chunk inside the folder of `logits`."""
        own = how.key(self.row)
        return f"{own}/{self.array.key(number, self.keys)}" if self.array.own else own

    def same_content(self, other: Record) -> bool:
        """Tell whether both have the same logits and the same image."""
        return self.digest == other.digest and self.placement == other.placement

    def belongs_to(self, spec: StoreSpec) -> bool:
        """Tell whether the store has this sample in this row, and as many classes."""
        known = 0 <= self.row < len(spec.samples) and spec.samples[self.row] == self.sample
        return known and len(self.crcs) == 8 * len(spec.classes) * self.array.count

    def to_json(self) -> dict[str, Any]:
        """Return the record as its line has it."""
        out: dict[str, Any] = {
            "sample": self.sample,
            "row": self.row,
            **self.array.fields(),
            "digest": self.digest,
            "saturated": self.saturated,
            "crcs": self.crcs,
        }
        if self.stored:
            out["stored"] = list(self.stored) if self.array.has_slabs else self.stored[0]
        if self.source:
            out["source"] = self.source
        if self.keys != "default":
            out["keys"] = self.keys
        if isinstance(self.array.geometry, Geometry):  # for other readers: it follows from the affine
            out["spacing"] = list(self.array.geometry.spacing)
        return out if self.take == 1 else {**out, "take": self.take}

    @classmethod
    def from_json(cls, line: Mapping[str, Any], spec: StoreSpec) -> Record:
        """Read a line; raises one of `NO_RECORD` where it cannot be one."""
        crcs, stored, source, keys = line["crcs"], line.get("stored", ()), line.get("source", ""), line.get("keys")
        sizes = tuple(stored) if isinstance(stored, list | tuple) else (stored,) if stored else ()
        numbers = (line["row"], line["saturated"], line.get("take", 1))
        if (
            any(type(v) is not int or abs(v) >= 1 << 63 for v in (*numbers, *sizes))
            or not isinstance(line["sample"], str)
            or not isinstance(source, str)
            or keys not in (None, "v2")
        ):
            raise ValueError("a field of another type")
        if not isinstance(crcs, str) or len(crcs) % 8 or not crcs or bytes.fromhex(crcs).hex() != crcs:
            raise ValueError("its checksums are not hex digits")
        array = from_fields(line, len(spec.classes), spec.grid, spec.own)
        if sizes and len(sizes) != array.count:
            raise ValueError(f"sizes of {len(sizes)} chunks of {array.count}")
        record = cls(line["sample"], numbers[0], array, crcs, *numbers[1:], sizes, source, keys or "default")
        if record.digest != line["digest"]:
            raise ValueError("its digest does not fit the line")
        return record


def digest(sample: bytes, row: int, array: SampleArray, crcs: bytes) -> bytes:
    """Digest what a sample holds, from its id as it is and its checksums as hex digits; 16 bytes."""
    if array.count == 1:
        last = crcs[-8:]
    else:
        width = 8 * array.classes
        last = b"".join(crcs[k - 8 : k] for k in range(width, len(crcs) + 1, width))
    return hashlib.sha256(b"%b\0%d\0%b\0%b" % (sample, row, array.bound, last)).digest()[:DIGEST]


def to_line(body: Mapping[str, Any]) -> bytes:
    """Write a line with its checksum."""
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
    return text[:-1] + b',"check":"%08x"}\n' % chunkfile.crc(text)


def from_line(raw: bytes) -> dict[str, Any] | None:
    """Read a line; None if its checksum is wrong."""
    body, check = raw[: -len(CHECK)] + b"}", raw[-len(CHECK) :]
    if check != b',"check":"%08x"}' % chunkfile.crc(body):
        return None
    try:
        value = json.loads(body)  # what carries its own checksum need not be read as strictly as what may not
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def to_segment(store: str, records: Iterable[Record]) -> bytes:
    """Write a finished segment."""
    return b"".join(segment_lines(store, records))


def segment_lines(store: str, records: Iterable[Record]) -> Iterator[bytes]:
    """Write a finished segment line by line: its head, a line for each record, and a mark."""
    yield to_line({"format": FORMAT, "store": store})
    samples = 0
    for record in records:
        yield to_line(record.to_json())
        samples += 1
    yield to_line({"sync": samples})


def committed_otherwise(there: Record, here: Record, store: object) -> LockedError:
    """Say that a sample is committed with other content."""
    told = [f"digest {r.digest[:8]} of {as_text(r.placement.image)}" for r in (there, here)]
    return LockedError(
        "sample-committed",
        "cannot write a sample a second time with other content",
        item=f"{here.sample!r} in {store}: {told[0]} there, {told[1]} here",
        fix='write every sample once, in one process, or pass duplicates="first" where a distributed sampler repeats '
        "some; what differs goes into a store of its own, at another path",
    )


def check_rank(rank: int, record: Record, store: object) -> None:
    """Refuse a volume in a store of images, and the reverse; a store of rank 0 has neither yet."""
    if rank and rank != len(record.array.grid):
        kinds = {2: "images", 3: "volumes"}
        grid = as_text(record.array.grid)
        item = f"sample {record.sample!r} on a grid of {grid} into {store}, which has {kinds[rank]}"
        raise ranks_differ(item)


def ranks_differ(item: str) -> MismatchError:
    """Say that images and volumes are in one store."""
    fix = "write images and volumes into stores of their own"
    return MismatchError("store-ranks", "cannot keep images and volumes in one store", item=item, fix=fix)


def fingerprint(spec: StoreSpec, digests: Iterable[tuple[str, Placement, str]]) -> str:
    """Digest what a store says and holds: the same for equal content, whatever the order of commits.

    Parameters
    ----------
    digests : id, placement and digest of every committed sample, sorted by id.
    """
    about = [spec.member, spec.classes, spec.grid, spec.activation, spec.samples]  # what follows is JSON of one list
    digest = hashlib.sha256(f"[{json.dumps(about)}, [".encode())
    lines, between = ([s, *place.image, *place.box, own] for s, place, own in digests), ""
    while block := list(islice(lines, 4096)):  # all at once would be 0.5 GB of a million
        digest.update(f"{between}{json.dumps(block)[1:-1]}".encode())
        between = ", "
    digest.update(b"]]")
    return digest.hexdigest()
