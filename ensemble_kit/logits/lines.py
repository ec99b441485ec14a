"""Lines of a manifest as columns, and what counts of them by sample.

A million lines of 29 classes take 0.3 GB so; as objects they took 1.5 GB. A line that stands as this kit writes it is
read by one regular expression: 5 µs, where JSON and a `Record` take 20. Any other goes through `Record.from_json`,
which says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from array import array
from binascii import hexlify, unhexlify
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.logits import chunkfile, records
from ensemble_kit.logits.layout import Layout, StoreSpec
from ensemble_kit.logits.records import CHECK, DIGEST, Record
from ensemble_kit.logits.samplearray import Keys, SampleArray, from_fields
from ensemble_kit.spec.geometry import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBER = rb"(0|[1-9]\d{0,17})"
_NUMBERS = rb"\[[\d,]+\]"
_NONE = -1
_KEYS: tuple[Keys, Keys] = ("default", "v2")
_BEFORE_CHECK = -len(CHECK) - 1


class Lines:
    """Every line about a sample, in the order in which they were read; lines of one sample are a chain.

    Parameters
    ----------
    spec : the store's description.
    """

    def __init__(self, spec: StoreSpec) -> None:
        self._spec, self._bytes_of_crcs = spec, 4 * len(spec.classes)
        laid = rb'"grid":[^\x00-\x1f\x80-\xff]+?' if spec.own else rb'"image_size":%b,"box":%b' % (_NUMBERS, _NUMBERS)
        self._form = re.compile(
            rb'\{"sample":"([^"\x00-\x1f\x80-\xff]*)","row":%b,(%b),"digest":"([0-9a-f]{32})",'
            rb'"saturated":%b,"crcs":"((?:.{%d})%b)"(?:,"stored":(\d{1,18}|%b))?(?:,"source":"([^"\\\x00-\x1f\x80-\xff]*)")?'
            rb'(?:,"keys":"(v2)")?(?:,"spacing":\[[^\]]+\])?(?:,"take":%b)?,"check":"(.{8})"\}\n'
            % (_NUMBER, laid, _NUMBER, 2 * self._bytes_of_crcs, b"+" if spec.own else b"", _NUMBERS, _NUMBER)
        )
        self.arrays: list[SampleArray] = []
        """Every array once; `placed` numbers that of each line."""
        self._numbers: dict[SampleArray, int] = {}
        self._written: dict[bytes, int] = {}
        self.rows, self._takes, self._saturated, self._stored, self.placed, self._ends = (array("q") for _ in range(6))
        self._chunks, self._keys = array("q"), bytearray()
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
        sample, row_text, laid, digest, saturated, crcs, stored, source, keys, take, check = found.groups()
        row = int(row_text)
        try:
            name = sample.decode("ascii")
            if b"\\" in sample:
                name = json.loads(f'"{name}"')
                sample = name.encode()
            packed, place = unhexlify(crcs), self._written.get(laid)
            if place is None:
                place = self._place(laid)
            sizes = json.loads(stored) if stored else 0
        except records.NO_RECORD:
            return False
        own = self.arrays[place]
        sound = (
            row < len(self._spec.samples)
            and self._spec.samples[row] == name
            and len(packed) == self._bytes_of_crcs * own.count
            and (not stored or (len(sizes) == own.count if isinstance(sizes, list) else not own.has_slabs))
            and b"%08x" % chunkfile.crc(raw[:_BEFORE_CHECK] + b"}") == check
            and hexlify(bound := records.digest(sample, row, own, crcs)) == digest
            and hexlify(packed) == crcs
        )
        if sound:
            held = [sizes] * own.count if not isinstance(sizes, list) else sizes
            numbers = int(take or 1), int(saturated), keys is not None
            self._append(row, place, packed, bound, source or b"", held, *numbers)
        return sound

    def add(self, record: Record) -> None:
        """Take a record."""
        place, source = self._number(record.array), record.source.encode("utf-8", "surrogatepass")
        stored = record.stored or [0] * record.array.count
        numbers = record.take, record.saturated, record.keys != "default"
        self._append(
            record.row, place, bytes.fromhex(record.crcs), bytes.fromhex(record.digest), source, stored, *numbers
        )

    def record(self, line: int) -> Record:
        """Return a line as a record."""
        row, own = self.rows[line], self.array(line)
        sizes = self._stored[self._first(line) : self._chunks[line]]
        stored = tuple(sizes) if sizes[0] else ()
        crcs, keys = self.crcs_of(line).hex(), _KEYS[self._keys[line]]
        numbers = self._saturated[line], self._takes[line]
        return Record(self._spec.samples[row], row, own, crcs, *numbers, stored, self.source(line), keys)

    def source(self, line: int) -> str:
        """Return the digest of the file that a line's logits were made from; "" where none was recorded."""
        begin = self._ends[line - 1] if line else 0
        return self._sources[begin : self._ends[line]].decode("utf-8", "surrogatepass")

    def array(self, line: int) -> SampleArray:
        """Return the array of a line's sample."""
        return self.arrays[self.placed[line]]

    def saturated(self, line: int) -> int:
        """Return how many values of a line's sample were cut."""
        return self._saturated[line]

    def digest(self, line: int) -> str:
        """Return the digest of a line."""
        return self._digests[line * DIGEST : (line + 1) * DIGEST].hex()

    def content(self, line: int) -> tuple[str, int]:
        """Return what tells the files of a line's sample: its digest, and how they are named."""
        return self.digest(line), self._keys[line]

    def take(self, line: int) -> int:
        """Return which take of its sample a line is."""
        return self._takes[line]

    def crcs_of(self, line: int) -> bytes:
        """Return the checksums of one line as bytes."""
        return bytes(self._crcs[self._first(line) * self._bytes_of_crcs : self._chunks[line] * self._bytes_of_crcs])

    def last_crcs(self, lines: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the last checksum of some lines: uint32 (lines)."""
        chunks = np.array(self._chunks, np.int64)[lines] - 1
        return np.ascontiguousarray(self._table()[chunks, -4:]).view(np.uint32).reshape(-1)

    def same_crcs(self, lines: NDArray[np.int64], other: Lines, theirs: NDArray[np.int64]) -> bool:
        """Tell whether some lines have the checksums of as many others."""
        if self._of_one_chunk and other._of_one_chunk:
            return np.array_equal(self._table()[lines], other._table()[theirs])
        pairs = zip(lines.tolist(), theirs.tolist(), strict=True)
        return all(self.crcs_of(one) == other.crcs_of(two) for one, two in pairs)

    @property
    def _of_one_chunk(self) -> bool:
        return len(self._stored) == len(self)

    def _table(self) -> NDArray[np.uint8]:
        """Return the checksums of every chunk as bytes: uint8 (chunks, 4 × classes)."""
        return np.frombuffer(self._crcs, np.uint8).reshape(-1, self._bytes_of_crcs)

    def _first(self, line: int) -> int:
        """Return where the chunks of a line begin."""
        return self._chunks[line - 1] if line else 0

    def chunks(self, lines: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the chunks of some lines: int64 rows of line, number in its sample and bytes of its file."""
        ends, plain = np.array(self._chunks, np.int64), [a.payload + chunkfile.TRAILER for a in self.arrays]
        counts = np.diff(ends, prepend=0)[lines]
        owners, number = (
            np.repeat(lines, counts),
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts),
        )
        sizes = np.array(self._stored, np.int64)[np.repeat(ends[lines] - counts, counts) + number]
        missing = np.array(plain, np.int64)[np.array(self.placed, np.int64)[owners]] if plain else sizes
        return np.stack([owners, number, np.where(sizes == 0, missing, sizes)], axis=1)

    def key(self, line: int, number: int, how: Layout) -> str:
        """Return the path of a chunk inside the folder of `logits`."""
        own, array = how.key(self.rows[line]), self.array(line)
        return f"{own}/{array.key(number, _KEYS[self._keys[line]])}" if array.own else own

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
        stored: Iterable[int],
        take: int,
        saturated: int,
        other_keys: bool,
    ) -> None:
        self._takes.append(take)
        self._saturated.append(saturated)
        self._stored.extend(stored)
        self._chunks.append(len(self._stored))
        self._keys.append(other_keys)
        self.placed.append(place)
        self._crcs += crcs
        self._digests += digest
        self._sources += source
        self._ends.append(len(self._sources))
        self.before.append(self.latest[row])
        self.latest[row] = len(self.rows)
        self.rows.append(row)

    def _place(self, laid: bytes) -> int:
        """Read how a sample lies; what is not spelled as it is written is not taken."""
        fields, spec = json.loads(b"{%b}" % laid), self._spec
        own = from_fields(fields, len(spec.classes), spec.grid, spec.own)
        if own.laid != laid:
            raise ValueError(laid)
        self._written[laid] = self._number(own)
        return self._written[laid]

    def _number(self, own: SampleArray) -> int:
        number = self._numbers.setdefault(own, len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(own)
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

    def array(self, sample: str) -> SampleArray:
        """Return how a committed sample's logits are cut, and where its image lies."""
        return self._lines.array(self._line(sample))

    def arrays(self) -> Mapping[SampleArray, int]:
        """Return the different arrays of committed samples, and how many samples have each."""
        placed = np.array(self._lines.placed, np.int64)[self._counting()]
        numbers, counts = np.unique(placed, return_counts=True)
        return Counter({self._lines.arrays[k]: n for k, n in zip(numbers.tolist(), counts.tolist(), strict=True)})

    @property
    def rank(self) -> int:
        """Axes of the samples' grids; 0 while nothing is known of any."""
        return len(self._lines.arrays[0].grid) if self._lines.arrays else 0

    def stored_bytes(self) -> int:
        """Return the bytes of committed samples as they are stored."""
        return int(self._lines.chunks(self._counting())[:, 2].sum())

    def chunks(self, how: Layout) -> Iterator[tuple[int, str, int]]:
        """Yield row, path inside the folder of `logits` and bytes of every chunk of committed samples."""
        lines = self._lines
        for line, number, size in lines.chunks(self._counting()).tolist():
            yield lines.rows[line], lines.key(line, number, how), size

    def saturated(self, sample: str) -> int:
        """Return how many values of a committed sample were cut."""
        return self._lines.saturated(self._line(sample))

    def source(self, sample: str) -> str:
        """Return the digest of the file that a committed sample was made from; "" where none was recorded."""
        return self._lines.source(self._line(sample))

    def missing(self) -> list[str]:
        """Return the declared samples that are not committed, in order."""
        return [sample for sample, line in zip(self._spec.samples, self.current, strict=True) if line == _NONE]

    def twins(self) -> list[tuple[str, ...]]:
        """Name the samples whose checksums are equal, in order: those whose last ones are, and then all."""
        lines = self._counting()
        _, index, counts = np.unique(self._lines.last_crcs(lines), return_inverse=True, return_counts=True)
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
            self._lines.same_crcs(a, other._lines, b)
            for a, b in zip(_blocks(self._counting()), _blocks(other._counting()), strict=True)
        )

    def digests(self) -> Iterator[tuple[str, Placement, str]]:
        """Yield id, placement and digest of every committed sample, sorted by id."""
        samples, lines = self._spec.samples, self._lines
        for row in sorted(self._rows().tolist(), key=samples.__getitem__):
            line = self.current[row]
            yield samples[row], lines.array(line).placement, lines.digest(line)

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
