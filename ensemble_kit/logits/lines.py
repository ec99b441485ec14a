"""Lines of a manifest as columns, and what counts of them by sample.

A million lines of 29 classes take 0.3 GB so; as objects they took 1.5 GB. A line that stands as this kit writes it is
read by one regular expression: 5 µs, where JSON and a `Record` take 20. Any other goes through `Record.from_json`,
which says what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from binascii import hexlify, unhexlify
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import CHECK, Record
from ensemble_kit.spec.geometry import Box, Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBER = rb"(0|[1-9]\d{0,17})"
_NUMBERS = rb"\[[\d,]+\]"
_NONE = -1
_DIGEST = 16  # bytes; 32 hex digits
_BEFORE_CHECK = -len(CHECK) - 1


class Lines:
    """Every line about a sample, in the order in which they were read; lines of one sample are a chain.

    Parameters
    ----------
    spec : the store's description.
    """

    def __init__(self, spec: StoreSpec) -> None:
        self._spec, self._bytes_of_crcs = spec, 4 * len(spec.classes)
        self._form = re.compile(
            rb'\{"sample":"([^"\x00-\x1f\x80-\xff]*)","row":%b,"image_size":(%b,"box":%b),"digest":"([0-9a-f]{32})",'
            rb'"saturated":%b,"crcs":"(.{%d})"(?:,"stored":%b)?(?:,"source":"([^"\\\x00-\x1f\x80-\xff]*)")?'
            rb'(?:,"take":%b)?,"check":"(.{8})"\}\n'
            % (_NUMBER, _NUMBERS, _NUMBERS, _NUMBER, 2 * self._bytes_of_crcs, _NUMBER, _NUMBER)
        )
        self._tail = b"\0%d\0%b\0" % (len(spec.classes), str(spec.grid).encode())
        self._placements: list[Placement] = []
        self._numbers: dict[Placement, int] = {}
        self._written: dict[bytes, int] = {}
        self.rows, self._takes, self._saturated, self._stored, self._placed, self._ends = (array("q") for _ in range(6))
        self._crcs, self._digests, self._sources = bytearray(), bytearray(), bytearray()
        self.before = array("q")
        """The line before of the same sample, -1 where there is none."""
        self.latest = array("q", [_NONE]) * len(spec.samples)
        """By row, the last line of its sample, -1 where there is none."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, raw: bytes) -> bool:
        """Take a line that stands as `to_line` writes it, and is sound; False: not taken."""
        found = self._form.fullmatch(raw)
        if found is None:
            return False
        sample, row_text, laid, digest, saturated, crcs, stored, source, take, check = found.groups()
        row = int(row_text)
        try:
            name = sample.decode("ascii")
            if b"\\" in sample:
                name = json.loads(f'"{name}"')
                sample = name.encode()
            packed, place = unhexlify(crcs), self._written.get(laid)
            if place is None:
                place = self._place(laid)
        except (ValueError, TypeError):  # of a UnicodeError and a placement, too
            return False
        bound = hashlib.sha256(b"%b\0%d%b%b" % (sample, row, self._tail, crcs[-8:])).digest()[:_DIGEST]
        sound = (
            row < len(self._spec.samples)
            and self._spec.samples[row] == name
            and b"%08x" % chunkfile.crc(raw[:_BEFORE_CHECK] + b"}") == check
            and hexlify(bound) == digest
            and hexlify(packed) == crcs
        )
        if sound:
            self._append(row, place, packed, bound, source or b"", int(take or 1), int(saturated), int(stored or 0))
        return sound

    def add(self, record: Record) -> None:
        """Take a record."""
        place, source = self._number(record.placement), record.source.encode("utf-8", "surrogatepass")
        numbers = record.take, record.saturated, record.stored
        self._append(record.row, place, bytes.fromhex(record.crcs), bytes.fromhex(record.digest), source, *numbers)

    def record(self, line: int) -> Record:
        """Return a line as a record."""
        row, numbers = self.rows[line], (self._saturated[line], self._takes[line], self._stored[line])
        sample, place, crcs = self._spec.samples[row], self.placement(line), self.crcs_of(line).hex()
        return Record(sample, row, place, crcs, *numbers, self.source(line))

    def source(self, line: int) -> str:
        """Return the digest of the file that a line's logits were made from; "" where none was recorded."""
        begin = self._ends[line - 1] if line else 0
        return self._sources[begin : self._ends[line]].decode("utf-8", "surrogatepass")

    def placement(self, line: int) -> Placement:
        """Return where the image of a line's sample lies, and how large it is."""
        return self._placements[self._placed[line]]

    def saturated(self, line: int) -> int:
        """Return how many values of a line's sample were cut."""
        return self._saturated[line]

    def digest(self, line: int) -> str:
        """Return the digest of a line."""
        return self._digests[line * _DIGEST : (line + 1) * _DIGEST].hex()

    def take(self, line: int) -> int:
        """Return which take of its sample a line is."""
        return self._takes[line]

    def stored(self) -> NDArray[np.int64]:
        """Return the bytes of every line's chunk where the layout does not tell them, else 0: int64."""
        return np.array(self._stored, np.int64)

    def crcs_of(self, line: int) -> bytes:
        """Return the checksums of one line as bytes."""
        return bytes(self._crcs[line * self._bytes_of_crcs : (line + 1) * self._bytes_of_crcs])

    def crcs(self, lines: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the checksums of some lines as bytes: uint8 (lines, 4 × classes)."""
        return np.frombuffer(self._crcs, np.uint8).reshape(-1, self._bytes_of_crcs)[lines]

    def chain(self, row: int) -> Iterator[int]:
        """Yield the lines of a row's sample, the last one first."""
        line = self.latest[row]
        while line != _NONE:
            yield line
            line = self.before[line]

    def _append(
        self,
        row: int,
        place: int,
        crcs: bytes,
        digest: bytes,
        source: bytes,
        take: int,
        saturated: int,
        stored: int,
    ) -> None:
        self._takes.append(take)
        self._saturated.append(saturated)
        self._stored.append(stored)
        self._placed.append(place)
        self._crcs += crcs
        self._digests += digest
        self._sources += source
        self._ends.append(len(self._sources))
        self.before.append(self.latest[row])
        self.latest[row] = len(self.rows)
        self.rows.append(row)

    def _place(self, laid: bytes) -> int:
        """Read an image's size and its box."""
        both = json.loads(b'{"image_size":%b}' % laid)
        placement = Placement(self._spec.grid, Box(*both["box"]), tuple(both["image_size"]))
        self._written[laid] = self._number(placement)
        return self._written[laid]

    def _number(self, placement: Placement) -> int:
        number = self._numbers.setdefault(placement, len(self._placements))
        if number == len(self._placements):
            self._placements.append(placement)
        return number


class Records(Mapping[str, Record]):
    """The line that counts of every committed sample, by its id, in the order of the declaration.

    Parameters
    ----------
    spec, lines : the store's description, and its manifest's lines.
    """

    def __init__(self, spec: StoreSpec, lines: Lines) -> None:
        self._spec, self._lines = spec, lines
        self.current = array("q", [_NONE]) * len(spec.samples)
        """By row, the line that counts, -1 where nothing is committed."""

    def __getitem__(self, sample: str) -> Record:
        return self._lines.record(self._line(sample))

    def __iter__(self) -> Iterator[str]:
        return (sample for sample, line in zip(self._spec.samples, self.current, strict=True) if line != _NONE)

    def __len__(self) -> int:
        return int(np.count_nonzero(np.frombuffer(self.current, np.int64) != _NONE))

    def __contains__(self, sample: object) -> bool:
        row = self._spec.rows.get(sample)  # type: ignore[call-overload]
        return row is not None and self.current[row] != _NONE

    def placement(self, sample: str) -> Placement:
        """Return where a committed sample's image lies, and how large it is."""
        return self._lines.placement(self._line(sample))

    def saturated(self, sample: str) -> int:
        """Return how many values of a committed sample were cut."""
        return self._lines.saturated(self._line(sample))

    def source(self, sample: str) -> str:
        """Return the digest of the file that a committed sample was made from; "" where none was recorded."""
        return self._lines.source(self._line(sample))

    def missing(self) -> list[str]:
        """Return the declared samples that are not committed, in order."""
        return [sample for sample, line in zip(self._spec.samples, self.current, strict=True) if line == _NONE]

    def chunks(self, plain: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of committed samples and the bytes of their chunks, `plain` where the layout tells them."""
        sizes = self._lines.stored()[self._counting()]
        return self._rows(), np.where(sizes == 0, plain, sizes)

    def twins(self) -> list[tuple[str, ...]]:
        """Name the samples whose checksums are equal, in order: those whose last ones are, and then all."""
        lines = self._counting()
        last = np.ascontiguousarray(self._lines.crcs(lines)[:, -4:]).view(np.uint32).reshape(-1)
        _, index, counts = np.unique(last, return_inverse=True, return_counts=True)
        groups: dict[bytes, list[str]] = {}
        for line in lines[counts[index] > 1].tolist():
            groups.setdefault(self._lines.crcs_of(line), []).append(self._spec.samples[self._lines.rows[line]])
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def same_crcs(self, other: Records) -> bool:
        """Tell whether another store has the same samples committed with the same checksums."""
        if self._spec.samples != other._spec.samples:
            ours, theirs = set(self), set(other)
            return ours == theirs and all(self[sample].crcs == other[sample].crcs for sample in ours)
        return np.array_equal(self._rows(), other._rows()) and all(
            np.array_equal(self._lines.crcs(a), other._lines.crcs(b))
            for a, b in zip(_blocks(self._counting()), _blocks(other._counting()), strict=True)
        )

    def digests(self) -> Iterator[tuple[str, Placement, str]]:
        """Yield id, placement and digest of every committed sample, sorted by id."""
        samples, lines = self._spec.samples, self._lines
        for row in sorted(self._rows().tolist(), key=samples.__getitem__):
            line = self.current[row]
            yield samples[row], lines.placement(line), lines.digest(line)

    def _line(self, sample: str) -> int:
        line = self.current[self._spec.rows[sample]]
        if line == _NONE:
            raise KeyError(sample)
        return line

    def _rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.frombuffer(self.current, np.int64) != _NONE)

    def _counting(self) -> NDArray[np.int64]:
        return np.frombuffer(self.current, np.int64)[self._rows()]


def _blocks(lines: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut lines into blocks, so that their checksums are compared some at a time."""
    return (lines[k : k + 4096] for k in range(0, lines.size, 4096))
