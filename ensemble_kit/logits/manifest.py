"""The manifest: which samples are committed, as append-only parts, one a writer.

A part is a file of JSON lines, each with its own checksum: a head that names the store, then one line a sample, and
after every group that is safe on the disk a mark with the number of samples so far. So a reader can tell what a
crash leaves (lines after the last mark: true where the sample they speak of is whole) from damage (a line before a
mark that does not hold: an error). A part is locked by its writer for as long as that lives, and never shared.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ensemble_kit.errors import DamagedError, LockedError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.spec.geometry import Box, Placement, Shape

FORMAT = "ensk.manifest/1"
LOCK = "lock"
COPY = "description.json"
"""A copy of the two `zarr.json` files, from which they can be made again."""
SUFFIX = ".jsonl"
_CHECK = len(',"check":"01234567"}')
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True)
class Record:
    """What is known of a committed sample.

    Parameters
    ----------
    sample, row : its id and its place on the array's first axis.
    placement : where its image lies on the grid, and how large it is.
    crcs : running CRC-32C of the payload after each class, as 8 hex digits each.
    saturated : values that were cut to ±65504.
    take : 1, or more where a lost or damaged sample was dumped again; the highest counts.
    stored : bytes of its chunk where the layout does not tell them (a shard), else 0.
    """

    sample: str
    row: int
    placement: Placement
    crcs: str
    saturated: int = 0
    take: int = 1
    stored: int = 0

    @cached_property
    def digest(self) -> str:
        """Digest of the payload, bound to id, row and shape; a file in another's place does not match."""
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
        return out if self.take == 1 else {**out, "take": self.take}

    @classmethod
    def from_json(cls, line: Mapping[str, Any], grid: Shape) -> Record:
        """Read a line; raises ValueError, KeyError or TypeError where it cannot be one."""
        crcs, stored = line["crcs"], line.get("stored", 0)
        numbers = (line["row"], line["saturated"], line.get("take", 1), stored)
        whole = (*numbers, *line["image_size"], *line["box"])
        if any(type(v) is not int for v in whole) or not isinstance(line["sample"], str):
            raise ValueError("a field of another type")
        if not isinstance(crcs, str) or len(crcs) % 8 or not crcs or bytes.fromhex(crcs).hex() != crcs:
            raise ValueError("its checksums are no hex digits")
        placement = Placement(grid, Box(*line["box"]), tuple(line["image_size"]))
        record = cls(line["sample"], numbers[0], placement, crcs, *numbers[1:])
        if record.digest != line["digest"]:
            raise ValueError("its digest does not fit the line")
        return record


class Entry(NamedTuple):
    """A record and where it stands; `marked` says that a mark follows it."""

    record: Record
    part: str
    line: int
    marked: bool

    @property
    def place(self) -> str:
        """Name the file and the line."""
        return f"{self.part} line {self.line}"


def to_line(body: Mapping[str, Any]) -> bytes:
    """Write a line with its checksum."""
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
    return text[:-1] + b',"check":"%08x"}\n' % chunkfile.crc(text)


def to_copy(group: bytes, array: bytes) -> bytes:
    """Write the copy of a store's description."""
    return to_line({"group": group.decode(), "array": array.decode()})


def from_line(raw: bytes) -> dict[str, Any] | None:
    """Read a line; None if its checksum does not hold."""
    body, check = raw[:-_CHECK] + b"}", raw[-_CHECK:]
    if check != b',"check":"%08x"}' % chunkfile.crc(body):
        return None
    try:
        value = json.loads(body)  # what carries its own checksum need not be read as strictly as what may not
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass
class _Part:
    """How far a part has been read."""

    name: str
    offset: int = 0
    lines: int = 0
    samples: int = 0
    headed: bool = False
    size: int = -1
    torn: list[int] = field(default_factory=list)
    open: list[Entry] = field(default_factory=list)


class Manifest:
    """All parts of a store's manifest, read as far as they go.

    Parameters
    ----------
    folder : where the parts lie.
    spec : the store's description.
    """

    def __init__(self, folder: Path, spec: StoreSpec) -> None:
        self._folder, self._spec = folder, spec
        self._rows = {sample: row for row, sample in enumerate(spec.samples)}
        self._parts: dict[str, _Part] = {}
        self._entries: dict[str, list[Entry]] = {}
        self.records: dict[str, Record] = {}

    def refresh(self, whole: Callable[[Record], bool] | None = None, skip: str | None = None) -> None:
        """Read what was appended since the last time.

        Parameters
        ----------
        whole : asked of every sample whose line no mark follows yet; what is not whole is dropped. Without it the
            lines are believed, as they may be while their writers live.
        skip : name of a part not to read.

        Raises
        ------
        DamagedError
            A line that a mark covers does not hold; a part of another store; two lines that contradict each other.
        """
        touched: set[str] = set()
        for name in self._names():
            if name != skip:
                part = self._parts.setdefault(name, _Part(name))
                touched |= self._read(part)
        for sample in touched:
            self._settle(sample, whole)

    def add(self, record: Record, part: str, line: int) -> None:
        """Take in a record that this process has just appended itself."""
        self._entries.setdefault(record.sample, []).append(Entry(record, part, line, marked=False))
        self._settle(record.sample, None)

    def unmarked(self) -> list[Entry]:
        """Return a line of every committed sample that no mark covers in any part."""
        return [lines[-1] for lines in self._entries.values() if lines and not any(e.marked for e in lines)]

    def _names(self) -> list[str]:
        try:
            return sorted(n for n in os.listdir(self._folder) if n.endswith(SUFFIX))  # noqa: PTH208 - names are wanted
        except FileNotFoundError:
            return []

    def _read(self, part: _Part) -> set[str]:
        raw, touched = self._new_bytes(part), set[str]()
        if not raw:
            return touched
        *lines, tail = raw.split(b"\n")
        part.offset += len(raw) - len(tail)
        for line in lines:
            part.lines += 1
            self._take(part, line, touched)
        return touched

    def _where(self, name: str = "") -> str:
        return str(self._folder / name)

    def _mend(self) -> str:
        return f"run `ensk repair {self._folder.parent.parent}`"

    def _new_bytes(self, part: _Part) -> bytes:
        """Return what a part holds beyond where it has been read."""
        path = self._folder / part.name
        try:
            if os.lstat(path).st_size == part.size:
                return b""
            fd, stamp = chunkfile.open_file(path)
        except FileNotFoundError:
            return b""
        with os.fdopen(fd, "rb") as file:
            part.size = stamp.size
            file.seek(part.offset)
            return file.read()

    def _take(self, part: _Part, raw: bytes, touched: set[str]) -> None:
        body = from_line(raw)
        if body is None:
            part.torn.append(part.lines)
        elif "sync" in body:
            self._mark(part, body, touched)
        elif not part.headed and not part.torn:
            self._head(part, body)
        elif not part.headed:
            part.torn.append(part.lines)  # a part whose head is torn may be anyone's
        else:
            entry = Entry(self._record(part, body), part.name, part.lines, marked=False)
            part.samples += 1
            part.open.append(entry)
            self._entries.setdefault(entry.record.sample, []).append(entry)
            touched.add(entry.record.sample)

    def _head(self, part: _Part, body: Mapping[str, Any]) -> None:
        if body.get("format") != FORMAT:
            raise self._damaged(part, part.lines, f"it begins with no head of {FORMAT!r}")
        if body.get("store") != self._spec.store:
            raise DamagedError(
                "manifest-foreign",
                "cannot read the manifest of another store beside this one",
                item=f"{self._where(part.name)}: store {body.get('store')!r}, here {self._spec.store!r}",
                fix=f"put back the part that belongs here, or {self._mend()}",
            )
        part.headed = True

    def _mark(self, part: _Part, body: Mapping[str, Any], touched: set[str]) -> None:
        if part.torn:
            raise self._damaged(part, part.torn[0], "its checksum does not hold")
        if not part.headed or body["sync"] != part.samples:
            raise self._damaged(part, part.lines, f"it counts {body['sync']} samples, the part has {part.samples}")
        for entry in part.open:
            others = [e for e in self._entries[entry.record.sample] if e != entry]
            self._entries[entry.record.sample] = [*others, entry._replace(marked=True)]
            touched.add(entry.record.sample)
        part.open = []

    def _record(self, part: _Part, body: Mapping[str, Any]) -> Record:
        try:
            record = Record.from_json(body, self._spec.grid)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(part, part.lines, f"it is no record of a sample ({error})") from None
        if self._rows.get(record.sample) != record.row or len(record.crcs) != 8 * len(self._spec.classes):
            raise self._damaged(
                part,
                part.lines,
                f"sample {record.sample!r} in row {record.row} with "
                f"{len(record.crcs) // 8} classes does not belong to this store",
            )
        return record

    def _damaged(self, part: _Part, line: int, item: str) -> DamagedError:
        return DamagedError(
            "manifest-damaged",
            "cannot trust a manifest",
            item=f"{self._where(part.name)} line {line}: {item}",
            fix=f"{self._mend()}: it keeps what can be proved; then the same dump again",
        )

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
                    item=f"sample {sample!r}: {last[0].place} and {entry.place} in {self._where()}",
                    fix=f"{self._mend()}: it keeps the one that the bytes bear out",
                )
        self._entries[sample] = entries
        self.records[sample] = last[0].record


class HeldManifest(Manifest):
    """A manifest whose parts are in memory: those of a packed store, or of one behind a URL.

    Parameters
    ----------
    folder : what messages call the place of the parts.
    spec : the store's description.
    parts : their bytes, by name; may be added to before a refresh.
    """

    def __init__(self, folder: str, spec: StoreSpec, parts: dict[str, bytes]) -> None:
        super().__init__(Path(folder), spec)
        self._name, self.parts = folder, parts

    def _where(self, name: str = "") -> str:
        return f"{self._name}/{name}" if name else self._name

    def _mend(self) -> str:
        return "copy the store to a folder and run `ensk repair` there"

    def _names(self) -> list[str]:
        return sorted(self.parts)

    def _new_bytes(self, part: _Part) -> bytes:
        return self.parts[part.name][part.offset :]


def to_part(store: str, records: Iterable[Record]) -> bytes:
    """Write a finished part: its head, a line for each record, and a mark."""
    bodies = [record.to_json() for record in records]
    return b"".join(map(to_line, [{"format": FORMAT, "store": store}, *bodies, {"sync": len(bodies)}]))


class PartWriter:
    """One writer's own part: created, locked, appended to."""

    def __init__(self, folder: Path, store: str) -> None:
        self.token = secrets.token_hex(8)
        self.name = f"{self.token}{SUFFIX}"
        self.lines = self._samples = 0
        self._path = folder / self.name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        self.fd = os.open(self._path, flags, 0o666)
        lock(self.fd, wait=True)  # one who asks whether we live may hold it for a moment
        self._append({"format": FORMAT, "store": store, "host": socket.gethostname(), "pid": os.getpid()})

    def append(self, record: Record) -> None:
        """Append a sample's line."""
        self._append(record.to_json())
        self._samples += 1

    def mark(self) -> None:
        """Say that everything so far is on the disk; to be called when it is."""
        self._append({"sync": self._samples})

    def close(self) -> None:
        """Give up the lock."""
        os.close(self.fd)

    def _append(self, body: Mapping[str, Any]) -> None:
        raw, size = to_line(body), os.fstat(self.fd).st_size
        try:
            done = os.write(self.fd, raw)
            if done != len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError:
            os.ftruncate(self.fd, size)  # half a line must not stand before the next one
            raise
        self.lines += 1


def lock(fd: int, *, wait: bool) -> bool:
    """Lock a file for this process; False if another holds it. Where there are no locks, True."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextmanager
def committing(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the store's lock for as long as a commit takes (tens of microseconds, no data is written under it).

    A writer that is stopped while it holds the lock stops the others until it goes on; with a dead one it vanishes.
    """
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise replaced(folder) from None
    try:
        if not lock(fd, wait=wait):
            raise busy(folder)
        if not _still_there(fd, folder / LOCK):
            raise replaced(folder)
        yield
    finally:
        os.close(fd)


def _still_there(fd: int, path: Path) -> bool:
    try:
        there, held = path.stat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (held.st_ino, held.st_dev)


def busy(folder: Path) -> LockedError:
    """Say that a store has a living writer."""
    return LockedError(
        "store-locked",
        "cannot replace a store that another process writes to",
        item=str(folder.parent.parent),
        fix="wait until it ends, or end it; with many processes let one replace the store before the others open it",
    )


def replaced(folder: Path) -> LockedError:
    """Say that a store was taken away under its writer."""
    return LockedError(
        "store-replaced",
        "cannot go on writing: another process has replaced or removed the store",
        item=str(folder.parent.parent),
        fix="let one process replace the store before the others open it, then run again",
    )


def live_parts(folder: Path) -> set[str]:
    """Return the tokens of the parts whose writers live."""
    out = set()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue
        try:
            if _lives(fd):
                out.add(path.name.removesuffix(SUFFIX))
        finally:
            os.close(fd)
    return out


def _lives(fd: int) -> bool:
    """Ask for a part's lock, shared, so that two who ask never take each other for a writer.

    Where the file system has no locks, ask the process table; of another host's writer, expect that it lives.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        head = from_line(os.pread(fd, 4096, 0).split(b"\n")[0]) or {}
    if head.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(head.get("pid", 0)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def fingerprint(spec: StoreSpec, records: Mapping[str, Record]) -> str:
    """Digest what a store says and holds: the same for equal content, whatever the order of commits."""
    lines: Sequence[object] = [[s, *r.placement.image, *r.placement.box, r.digest] for s, r in sorted(records.items())]
    about = [spec.member, spec.classes, spec.grid, spec.activation, spec.samples]
    return hashlib.sha256(json.dumps([about, lines]).encode()).hexdigest()
