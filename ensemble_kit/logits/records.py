"""Lines of a manifest: what is known of a committed sample, each line with its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from ensemble_kit.errors import LockedError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.spec.geometry import Box, Placement, Shape, as_text

FORMAT = "ensk.manifest/1"
SUFFIX = ".jsonl"
CHECK = ',"check":"01234567"}'
"""How a line ends, with its own checksum."""


@dataclass(frozen=True)
class Record:
    """What is known of a committed sample.

    Parameters
    ----------
    sample, row : its id and its index on the array's first axis.
    placement : where its image lies on the grid, and how large it is.
    crcs : running CRC-32C of the payload after each class, as 8 hex digits each.
    saturated : values that were cut to ±65504.
    take : 1, or more where a lost or damaged sample was dumped again; the highest counts.
    stored : bytes of its chunk where the layout does not tell them (a shard), else 0.
    source : digest of the file that its logits were made from, by which a dump sees a change; "" where none was given.
    """

    sample: str
    row: int
    placement: Placement
    crcs: str
    saturated: int = 0
    take: int = 1
    stored: int = 0
    source: str = ""

    @cached_property
    def digest(self) -> str:
        """Digest of the payload, bound to id, row and shape; a file under another's key does not match."""
        bound = f"{self.sample}\0{self.row}\0{len(self.crcs) // 8}\0{self.placement.grid}\0{self.crcs[-8:]}"
        return hashlib.sha256(bound.encode()).hexdigest()[:32]

    @property
    def checksum(self) -> int:
        """CRC-32C of the whole payload; the chunk file ends with it."""
        return int(self.crcs[-8:], 16)

    @property
    def running(self) -> list[int]:
        """CRC-32C of the payload up to the end of each class."""
        return [int(self.crcs[i : i + 8], 16) for i in range(0, len(self.crcs), 8)]

    def same_content(self, other: Record) -> bool:
        """Tell whether both have the same logits and the same image."""
        return self.digest == other.digest and self.placement == other.placement

    def belongs_to(self, spec: StoreSpec) -> bool:
        """Tell whether the store has this sample in this row, and as many classes."""
        known = 0 <= self.row < len(spec.samples) and spec.samples[self.row] == self.sample
        return known and len(self.crcs) == 8 * len(spec.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the record as its line has it."""
        out: dict[str, Any] = {
            "sample": self.sample,
            "row": self.row,
            "image_size": list(self.placement.image),
            "box": list(self.placement.box),
            "digest": self.digest,
            "saturated": self.saturated,
            "crcs": self.crcs,
        }
        if self.stored:
            out["stored"] = self.stored
        if self.source:
            out["source"] = self.source
        return out if self.take == 1 else {**out, "take": self.take}

    @classmethod
    def from_json(cls, line: Mapping[str, Any], grid: Shape) -> Record:
        """Read a line; raises ValueError, KeyError or TypeError where it cannot be one."""
        crcs, stored, source = line["crcs"], line.get("stored", 0), line.get("source", "")
        numbers = (line["row"], line["saturated"], line.get("take", 1), stored)
        whole = (*numbers, *line["image_size"], *line["box"])
        if (
            any(type(v) is not int or abs(v) >= 1 << 63 for v in whole)
            or not isinstance(line["sample"], str)
            or not isinstance(source, str)
        ):
            raise ValueError("a field of another type")
        if not isinstance(crcs, str) or len(crcs) % 8 or not crcs or bytes.fromhex(crcs).hex() != crcs:
            raise ValueError("its checksums are not hex digits")
        placement = Placement(grid, Box(*line["box"]), tuple(line["image_size"]))
        record = cls(line["sample"], numbers[0], placement, crcs, *numbers[1:], source)
        if record.digest != line["digest"]:
            raise ValueError("its digest does not fit the line")
        return record


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
        fix="write every sample once, in one process; what differs goes into a store of its own, at another path",
    )


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
