"""The manifest: which samples are committed, as append-only segments, one a writer.

A segment is a file of JSON lines (`records.py`): a head that names the store, then one line a sample, and after every
group that is safe on the disk a mark with the number of samples so far. So a reader can tell what a crash leaves
(lines after the last mark: true where their sample is whole) from damage (a line before a mark whose checksum is
wrong: an error).
"""

from __future__ import annotations

import io
import os
import shlex
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.lines import Lines, Records
from ensemble_kit.logits.records import FORMAT, NO_RECORD, SUFFIX, Record, from_line


@dataclass(slots=True)
class _Segment:
    """How far a segment has been read."""

    name: str
    offset: int = 0
    lines: int = 0
    samples: int = 0
    headed: bool = False
    size: int = -1
    torn: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    """Its lines since the last mark, as `Lines` numbers them."""


class Entry(NamedTuple):
    """A record and the segment in which it stands."""

    record: Record
    segment: str


_UNMARKED, _MARKED, _DROPPED = range(3)
"""What is known of a line: no mark follows yet, one does, its sample was not whole when that was asked."""


class Manifest:
    """All segments of a store's manifest, read as far as they go.

    Parameters
    ----------
    folder : where the segments are.
    spec : the store's description.
    """

    def __init__(self, folder: Path, spec: StoreSpec) -> None:
        self._folder, self._spec = folder, spec
        self._segments: dict[str, _Segment] = {}
        self._known: dict[str, int] = {}
        self._lines = Lines(spec)
        self._segment_of, self._number_of, self._states = array("q"), array("q"), bytearray()
        self.records = Records(spec, self._lines)

    def refresh(self, whole: Callable[[Record], bool] | None = None, skip: str | None = None) -> None:
        """Read what was appended since the last time.

        Parameters
        ----------
        whole : asked of every sample whose line no mark follows yet; what is not whole is dropped. Without it the
            lines are trusted, as they may be while their writers live.
        skip : name of a segment not to read.

        Raises
        ------
        DamagedError
            A line before a mark is damaged; a segment of another store; two lines that contradict each other.
        """
        self._read_all([name for name in self._names() if name != skip], whole)

    def add(self, record: Record, segment: str, line: int) -> None:
        """Add a record that this process has just appended itself."""
        self._lines.add(record)
        self._keep(self._known.setdefault(segment, len(self._known)), line)
        self._settle(record.row, None)

    def next_take(self, sample: str) -> int:
        """Number a sample's next take: above those of lines that were dropped, which are still there."""
        return max(map(self._lines.take, self._lines.chain(self._spec.rows[sample])), default=0) + 1

    def unmarked(self) -> Iterator[Entry]:
        """Yield a line of every committed sample that no mark covers in any segment."""
        current = np.frombuffer(self.records.current, np.int64)
        states = np.array(self._states, np.uint8)
        rows = np.flatnonzero((current != -1) & (states[current] != _MARKED)) if states.size else current[:0]
        for row in rows.tolist():
            lines = self._entries(row)
            if not any(self._states[line] == _MARKED for line in lines):
                yield Entry(self._lines.record(lines[-1]), self._found_in(lines[-1]))

    def _names(self) -> list[str]:
        try:
            return sorted(n for n in os.listdir(self._folder) if n.endswith(SUFFIX))  # noqa: PTH208 - names are wanted
        except FileNotFoundError:
            return []

    def _read_all(self, names: Iterable[str], whole: Callable[[Record], bool] | None) -> None:
        first, marked = len(self._lines), list[int]()
        for name in names:
            self._read(self._segments.setdefault(name, _Segment(name)), first, marked)
        if touched := {*self._lines.rows[first:], *(self._lines.rows[line] for line in marked)}:
            self._settle_all(touched, whole)

    def _read(self, segment: _Segment, first: int, marked: list[int]) -> None:
        """Read a segment's new lines; collect the lines before `first` that marks cover."""
        read, known = self._lines.read, self._known.setdefault(segment.name, len(self._known))
        with self._new_lines(segment) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                segment.offset += len(line)
                segment.lines += 1
                if segment.headed and read(line):
                    self._keep_in(segment, known)
                else:
                    self._take(segment, line[:-1], first, marked)

    def _where(self, name: str = "") -> str:
        return str(self._folder / name)

    def _mend(self) -> str:
        return f"run `ensk repair {shlex.quote(str(self._folder.parent.parent))}`"

    @contextmanager
    def _new_lines(self, segment: _Segment) -> Iterator[Iterable[bytes]]:
        """Open what a segment holds beyond where it has been read."""
        path = self._folder / segment.name
        try:
            fd, stamp = (-1, None) if os.lstat(path).st_size == segment.size else chunkfile.open_file(path)
        except FileNotFoundError:
            fd, stamp = -1, None
        if stamp is None:
            yield ()
            return
        with os.fdopen(fd, "rb") as file:
            segment.size = stamp.size
            file.seek(segment.offset)
            yield file

    def _take(self, segment: _Segment, raw: bytes, first: int, marked: list[int]) -> None:
        body = from_line(raw)
        if body is None:
            segment.torn.append(segment.lines)
        elif "sync" in body:
            self._mark(segment, body, first, marked)
        elif not segment.headed and not segment.torn:
            self._head(segment, body)
        elif not segment.headed:
            segment.torn.append(segment.lines)  # a segment whose head is torn may be any store's
        else:
            self._lines.add(self._record(segment, body))
            self._keep_in(segment, self._known[segment.name])

    def _keep_in(self, segment: _Segment, known: int) -> None:
        """Keep where the line that was taken last stands."""
        segment.samples += 1
        segment.open.append(len(self._states))
        self._keep(known, segment.lines)

    def _keep(self, known: int, number: int) -> None:
        self._segment_of.append(known)
        self._number_of.append(number)
        self._states.append(_UNMARKED)

    def _found_in(self, line: int) -> str:
        return next(islice(self._known, self._segment_of[line], None))

    def _head(self, segment: _Segment, body: Mapping[str, Any]) -> None:
        if body.get("format") != FORMAT:
            raise self._damaged(segment, segment.lines, f"it does not begin with a head of {FORMAT!r}")
        if body.get("store") != self._spec.store:
            raise DamagedError(
                "manifest-foreign",
                "cannot read the manifest of another store beside this one",
                item=f"{self._where(segment.name)}: store {body.get('store')!r}, here {self._spec.store!r}",
                fix=f"put back the segment that belongs here, or {self._mend()}",
            )
        segment.headed = True

    def _mark(self, segment: _Segment, body: Mapping[str, Any], first: int, marked: list[int]) -> None:
        if segment.torn:
            raise self._damaged(segment, segment.torn[0], "its checksum is wrong")
        if not segment.headed or body["sync"] != segment.samples:
            counts = f"it counts {body['sync']} samples, the segment has {segment.samples}"
            raise self._damaged(segment, segment.lines, counts)
        for line in segment.open:
            self._states[line] = _MARKED
            if line < first:
                marked.append(line)
        segment.open = []

    def _record(self, segment: _Segment, body: Mapping[str, Any]) -> Record:
        try:
            record = Record.from_json(body, self._spec)
        except NO_RECORD as error:
            raise self._damaged(segment, segment.lines, f"it is not a record of a sample ({error})") from None
        if not record.belongs_to(self._spec):
            about = f"sample {record.sample!r} in row {record.row} with {len(record.crcs) // 8} classes"
            raise self._damaged(segment, segment.lines, f"{about} does not belong to this store")
        return record

    def _damaged(self, segment: _Segment, line: int, why: str) -> DamagedError:
        item = f"{self._where(segment.name)} line {line}: {why}"
        fix = f"{self._mend()}: it keeps what can be proved; then run the same dump again"
        return DamagedError("manifest-damaged", "cannot trust a manifest", item=item, fix=fix)

    def _settle_all(self, touched: set[int], whole: Callable[[Record], bool] | None) -> None:
        """Settle rows: those of one line that needs no look at its sample at once, the others one by one."""
        rows = np.fromiter(touched, np.int64, len(touched))
        lines = np.array(self._lines.latest, np.int64)[rows] if rows.size > 64 else rows[:0]
        if lines.size:
            states = np.array(self._states, np.uint8)[lines]
            sure = states == _MARKED if whole is not None else states != _DROPPED
            sure &= np.array(self._lines.before, np.int64)[lines] == -1
            np.frombuffer(self.records.current, np.int64)[rows[sure]] = lines[sure]
            rows = rows[~sure]
        for row in rows.tolist():
            self._settle(row, whole)

    def _entries(self, row: int) -> list[int]:
        """Return the lines of a row's sample that were not dropped, the first one first."""
        return [line for line in self._lines.chain(row) if self._states[line] != _DROPPED][::-1]

    def _settle(self, row: int, whole: Callable[[Record], bool] | None) -> None:
        """Decide which of a sample's lines counts."""
        lines, digest = self._entries(row), self._lines.digest
        if whole is not None:
            content = self._lines.content
            marked = {content(line) for line in lines if self._states[line] == _MARKED}
            for line in lines:
                if content(line) not in marked and not whole(self._lines.record(line)):
                    self._states[line] = _DROPPED
            lines = self._entries(row)
        if not lines:
            self.records.current[row] = -1
            return
        take = max(map(self._lines.take, lines))
        last = [line for line in lines if self._lines.take(line) == take]
        for line in last[1:]:
            if digest(line) != digest(last[0]):
                one, other = (f"{self._found_in(k)} line {self._number_of[k]}" for k in (last[0], line))
                raise DamagedError(
                    "manifest-conflict",
                    "cannot tell which of two contradicting lines is true",
                    item=f"sample {self._spec.samples[row]!r}: {one} and {other} in {self._where()}",
                    fix=f"{self._mend()}: it keeps the one that fits the stored bytes",
                )
        self.records.current[row] = last[0]


class HeldManifest(Manifest):
    """A manifest whose segments are in memory: those of a packed store, or of one behind a URL.

    Parameters
    ----------
    folder : how messages name the folder of the segments.
    spec : the store's description.
    segments : their bytes, by name.
    """

    def __init__(self, folder: str, spec: StoreSpec, segments: dict[str, bytes]) -> None:
        super().__init__(Path(folder), spec)
        self._name, self.segments = folder, segments

    def hold(self, name: str, content: bytes, whole: Callable[[Record], bool] | None = None) -> None:
        """Read one more segment, as `refresh` does, and no other: there may be one a sample."""
        self.segments[name] = content
        self._read_all([name], whole)

    def _where(self, name: str = "") -> str:
        return f"{self._name}/{name}" if name else self._name

    def _mend(self) -> str:
        return "copy the store to a folder and run `ensk repair` there"

    def _names(self) -> list[str]:
        return sorted(self.segments)

    @contextmanager
    def _new_lines(self, segment: _Segment) -> Iterator[Iterable[bytes]]:
        file = io.BytesIO(self.segments[segment.name])
        file.seek(segment.offset)
        yield file
