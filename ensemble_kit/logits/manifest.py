"""The manifest: which samples are committed, as append-only segments, one a writer.

A segment is a file of JSON lines (`records.py`): a head that names the store, then one line a sample, and after every
group that is safe on the disk a mark with the number of samples so far. So a reader can tell what a crash leaves
(lines after the last mark: true where their sample is whole) from damage (a line before a mark whose checksum is
wrong: an error).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble_kit.errors import DamagedError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import FORMAT, SUFFIX, Entry, Record, from_line


@dataclass
class _Segment:
    """How far a segment has been read."""

    name: str
    offset: int = 0
    lines: int = 0
    samples: int = 0
    headed: bool = False
    size: int = -1
    torn: list[int] = field(default_factory=list)
    open: list[Entry] = field(default_factory=list)


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
        self._entries: dict[str, list[Entry]] = {}
        self._takes: dict[str, int] = {}
        self.records: dict[str, Record] = {}

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
        touched: set[str] = set()
        for name in self._names():
            if name != skip:
                segment = self._segments.setdefault(name, _Segment(name))
                touched |= self._read(segment)
        for sample in touched:
            self._settle(sample, whole)

    def add(self, record: Record, segment: str, line: int) -> None:
        """Add a record that this process has just appended itself."""
        self._keep(Entry(record, segment, line, marked=False))
        self._settle(record.sample, None)

    def next_take(self, sample: str) -> int:
        """Number a sample's next take: above those of lines that were dropped, which are still there."""
        return self._takes.get(sample, 0) + 1

    def unmarked(self) -> list[Entry]:
        """Return a line of every committed sample that no mark covers in any segment."""
        return [lines[-1] for lines in self._entries.values() if lines and not any(e.marked for e in lines)]

    def _names(self) -> list[str]:
        try:
            return sorted(n for n in os.listdir(self._folder) if n.endswith(SUFFIX))  # noqa: PTH208 - names are wanted
        except FileNotFoundError:
            return []

    def _read(self, segment: _Segment) -> set[str]:
        raw, touched = self._new_bytes(segment), set[str]()
        if not raw:
            return touched
        *lines, tail = raw.split(b"\n")
        segment.offset += len(raw) - len(tail)
        for line in lines:
            segment.lines += 1
            self._take(segment, line, touched)
        return touched

    def _where(self, name: str = "") -> str:
        return str(self._folder / name)

    def _mend(self) -> str:
        return f"run `ensk repair {shlex.quote(str(self._folder.parent.parent))}`"

    def _new_bytes(self, segment: _Segment) -> bytes:
        """Return what a segment holds beyond where it has been read."""
        path = self._folder / segment.name
        try:
            if os.lstat(path).st_size == segment.size:
                return b""
            fd, stamp = chunkfile.open_file(path)
        except FileNotFoundError:
            return b""
        with os.fdopen(fd, "rb") as file:
            segment.size = stamp.size
            file.seek(segment.offset)
            return file.read()

    def _take(self, segment: _Segment, raw: bytes, touched: set[str]) -> None:
        body = from_line(raw)
        if body is None:
            segment.torn.append(segment.lines)
        elif "sync" in body:
            self._mark(segment, body, touched)
        elif not segment.headed and not segment.torn:
            self._head(segment, body)
        elif not segment.headed:
            segment.torn.append(segment.lines)  # a segment whose head is torn may be any store's
        else:
            entry = Entry(self._record(segment, body), segment.name, segment.lines, marked=False)
            segment.samples += 1
            segment.open.append(entry)
            self._keep(entry)
            touched.add(entry.record.sample)

    def _keep(self, entry: Entry) -> None:
        sample, take = entry.record.sample, entry.record.take
        self._entries.setdefault(sample, []).append(entry)
        self._takes[sample] = max(take, self._takes.get(sample, 0))

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

    def _mark(self, segment: _Segment, body: Mapping[str, Any], touched: set[str]) -> None:
        if segment.torn:
            raise self._damaged(segment, segment.torn[0], "its checksum is wrong")
        if not segment.headed or body["sync"] != segment.samples:
            counts = f"it counts {body['sync']} samples, the segment has {segment.samples}"
            raise self._damaged(segment, segment.lines, counts)
        for entry in segment.open:
            others = [e for e in self._entries[entry.record.sample] if e != entry]
            self._entries[entry.record.sample] = [*others, entry._replace(marked=True)]
            touched.add(entry.record.sample)
        segment.open = []

    def _record(self, segment: _Segment, body: Mapping[str, Any]) -> Record:
        try:
            record = Record.from_json(body, self._spec.grid)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(segment, segment.lines, f"it is not a record of a sample ({error})") from None
        if not record.belongs_to(self._spec):
            about = f"sample {record.sample!r} in row {record.row} with {len(record.crcs) // 8} classes"
            raise self._damaged(segment, segment.lines, f"{about} does not belong to this store")
        return record

    def _damaged(self, segment: _Segment, line: int, why: str) -> DamagedError:
        item = f"{self._where(segment.name)} line {line}: {why}"
        fix = f"{self._mend()}: it keeps what can be proved; then run the same dump again"
        return DamagedError("manifest-damaged", "cannot trust a manifest", item=item, fix=fix)

    def _settle(self, sample: str, whole: Callable[[Record], bool] | None) -> None:
        """Decide which of a sample's lines counts."""
        entries = self._entries[sample]
        marked = {e.record.digest for e in entries if e.marked}
        if whole is not None:
            entries = [e for e in entries if e.record.digest in marked or whole(e.record)]
        if not entries:
            self._entries[sample] = []
            self.records.pop(sample, None)
            return
        take = max(e.record.take for e in entries)
        last = [e for e in entries if e.record.take == take]
        for entry in last[1:]:
            if entry.record.digest != last[0].record.digest:
                raise DamagedError(
                    "manifest-conflict",
                    "cannot tell which of two contradicting lines is true",
                    item=f"sample {sample!r}: {last[0].where} and {entry.where} in {self._where()}",
                    fix=f"{self._mend()}: it keeps the one that fits the stored bytes",
                )
        self._entries[sample] = entries
        self.records[sample] = last[0].record


class HeldManifest(Manifest):
    """A manifest whose segments are in memory: those of a packed store, or of one behind a URL.

    Parameters
    ----------
    folder : how messages name the folder of the segments.
    spec : the store's description.
    segments : their bytes, by name; may be added to before a refresh.
    """

    def __init__(self, folder: str, spec: StoreSpec, segments: dict[str, bytes]) -> None:
        super().__init__(Path(folder), spec)
        self._name, self.segments = folder, segments

    def _where(self, name: str = "") -> str:
        return f"{self._name}/{name}" if name else self._name

    def _mend(self) -> str:
        return "copy the store to a folder and run `ensk repair` there"

    def _names(self) -> list[str]:
        return sorted(self.segments)

    def _new_bytes(self, segment: _Segment) -> bytes:
        return self.segments[segment.name][segment.offset :]
