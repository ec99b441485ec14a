"""Repair of a damaged store: what is sound is kept, what is not is moved aside, and nothing is ever deleted.

What a store needs to be read at all is its description (two `zarr.json` files, of which the manifest keeps a copy)
and its manifest. A line of a manifest is believed where its own checksum holds and its sample lies on the disk as it
says. So from a manifest that is damaged anywhere, every sample is kept that can be proved; the others are missing
afterwards, and the dump that made the store makes them again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, UnsafeError, UsageError, some
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.logits import chunkfile, creation, layout, manifest
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.manifest import Manifest, Record

QUARANTINE = "quarantine"
"""Folder beside the manifest's parts: neither zarr nor a reader of ours looks into it."""


@dataclass(frozen=True)
class Step:
    """Something that was done, or with `dry_run` would be.

    Parameters
    ----------
    what : in words.
    path : which file of the store it is about, relative.
    to : where that file was moved, relative; "" where it was made.
    """

    what: str
    path: str
    to: str = ""


@dataclass(frozen=True)
class Repaired:
    """What a repair found and did.

    Parameters
    ----------
    path : the store.
    steps : in order; none where nothing was wrong.
    kept : samples that are whole.
    missing : samples to dump again: those that were never committed, and those that are not whole.
    lost : of these, the ones that were committed.
    """

    path: str
    steps: tuple[Step, ...]
    kept: int
    missing: tuple[str, ...]
    lost: tuple[str, ...]


def repair(path: creation.PathLike, *, dry_run: bool = False, listener: Listener = nobody) -> Repaired:
    """Repair a store in a local folder.

    Parameters
    ----------
    dry_run : only say what would be done.

    Raises
    ------
    IncompleteError
        There is nothing at this path.
    DamagedError
        It cannot be told what the store was: its description is lost, and so is the copy.
    LockedError
        A writer is at work.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from ensemble_kit import LogitWriter
    >>> path = tempfile.mkdtemp() + "/unet.zarr"
    >>> with LogitWriter(path, ["bone"], ["a.png"], grid=(2, 2)) as out:
    ...     out.write("a.png", np.float32([[[-4, 4], [4, -4]]]), image_size=(8, 8))
    >>> open(path + "/zarr.json", "w").close()  # as a power cut may leave it
    >>> [step.what for step in repair(path).steps]
    ['moved aside: empty, probably by a power cut', 'made from the copy beside the manifest']
    """
    root = creation.resolve(path)
    if not root.exists():
        raise IncompleteError(
            "store-missing",
            "cannot repair a store",
            item=f"{root}: there is nothing",
            fix="pass the folder of a store; a packed one is made again by packing",
        )
    if not root.is_dir():
        raise UsageError(
            "store-no-folder",
            "cannot repair a store",
            item=f"{root} is a file",
            fix="pass the folder of a store; a packed one is made again by packing",
        )
    parts = root / ARRAY / MANIFEST
    for folder in (root / ARRAY, parts):
        if folder.is_symlink():
            raise UnsafeError(
                "store-link",
                "refuse to follow a link out of a store",
                item=str(folder),
                fix="put the folder itself in its place",
            )
    if manifest.live_parts(parts):
        raise manifest.busy(parts)
    work = _Work(root, dry_run, [])
    with work.locked(parts):
        spec, how = _description(work)
        wanted = _records(work, parts, spec, Chunks(root, spec, how), how, listener)
    missing = tuple(s for s in spec.samples if s not in wanted.kept)
    return Repaired(str(root), tuple(work.steps), len(wanted.kept), missing, wanted.lost)


@dataclass
class _Work:
    """The store, and the steps so far; each is taken as it is noted, unless this is a dry run."""

    root: Path
    dry: bool
    steps: list[Step]
    _aside: Path | None = None

    @contextmanager
    def locked(self, parts: Path) -> Iterator[None]:
        """Keep writers out; the lock's own file is made where it is gone."""
        if not (parts / manifest.LOCK).is_file():
            self.note("made anew: writers wait for each other with it", parts / manifest.LOCK)
            if self.dry:
                yield
                return
            parts.mkdir(parents=True, exist_ok=True)
            (parts / manifest.LOCK).touch()
        with manifest.committing(parts, wait=False):
            yield

    def note(self, what: str, path: Path, to: str = "") -> None:
        """Note a step."""
        self.steps.append(Step(what, path.relative_to(self.root).as_posix(), to))

    def move_aside(self, path: Path, why: str) -> None:
        """Move a file, a folder or a link into quarantine under a name of its own."""
        if self._aside is None:
            self._aside = self.root / ARRAY / MANIFEST / QUARANTINE / secrets.token_hex(4)
            if not self.dry:
                self._aside.mkdir(parents=True)
        inside = path.relative_to(self.root).as_posix()
        target = self._aside / inside.replace("/", "~")
        if not self.dry:
            path.rename(target)
            creation.fsync_folder(path.parent)
            creation.fsync_folder(target.parent)
        self.note(f"moved aside: {why}", path, target.relative_to(self.root).as_posix())

    def write(self, path: Path, content: bytes, what: str) -> None:
        """Make a file of the store, durable before it has its name."""
        if not self.dry:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            creation.fsync_folder(path.parent)
        self.note(what, path)


def _description(work: _Work) -> tuple[StoreSpec, Layout]:
    """Read what the store says about itself; where it says nothing sound, take the copy."""
    files = (work.root / META, work.root / ARRAY / META)
    try:
        found = creation.describe(work.root)
        if copy_fault(work.root):
            copy = work.root / ARRAY / MANIFEST / manifest.COPY
            if os.path.lexists(copy):
                work.move_aside(copy, copy_fault(work.root) or "")
            content = manifest.to_copy(*(chunkfile.read_small(f, layout.MAX_META) for f in files))
            work.write(copy, content, "made from the description")
        return found
    except (DamagedError, UnsafeError) as error:
        spare = _copy(work.root)
        if spare is None:
            raise DamagedError(
                "store-unrepairable",
                "cannot tell what a store was",
                item=f"{error.item}; and there is no sound copy, {ARRAY}/{MANIFEST}/{manifest.COPY}",
                fix="restore zarr.json from a copy of your own, or make the store again with `ensk dump-logits`",
            ) from None
        why = error.item.partition(": ")[2] or error.item
    found = layout.parse(spare[0], spare[1], work.root)
    for file, content in zip(files, spare, strict=True):
        if not _is_sound(file, content):
            if os.path.lexists(file):
                work.move_aside(file, why)
            work.write(file, content, "made from the copy beside the manifest")
    return found


def _copy(root: Path) -> tuple[bytes, bytes] | None:
    """Read the copy of the two descriptions; None where there is none that holds."""
    try:
        raw = chunkfile.read_small(root / ARRAY / MANIFEST / manifest.COPY, layout.MAX_META)
        body = manifest.from_line(raw.rstrip(b"\n")) or {}
        copy = str(body["group"]).encode(), str(body["array"]).encode()
        layout.parse(*copy, root)
    except (OSError, KeyError, EnskError):
        return None
    return copy


def copy_fault(root: Path) -> str:
    """Say what is wrong with the copy of a store's description; "" where nothing is, or the store never had one."""
    try:
        group = json.loads(chunkfile.read_small(root / META, layout.MAX_META))
        array = json.loads(chunkfile.read_small(root / ARRAY / META, layout.MAX_META))
        if "check" not in group["attributes"]["ensemble_kit"]:
            return ""
    except (OSError, EnskError, ValueError, KeyError, TypeError):
        return ""  # the description itself is at fault
    copy = _copy(root)
    if copy is None:
        return "it is gone or damaged"
    same = json.loads(copy[0])["attributes"]["ensemble_kit"] == group["attributes"]["ensemble_kit"]
    return "" if same and json.loads(copy[1])["shape"] == array["shape"] else "it describes another store"


def _is_sound(file: Path, content: bytes) -> bool:
    try:
        return chunkfile.read_small(file, layout.MAX_META) == content
    except (OSError, EnskError):
        return False


@dataclass(frozen=True)
class _Kept:
    kept: dict[str, Record]
    lost: tuple[str, ...]


def _records(work: _Work, parts: Path, spec: StoreSpec, chunks: Chunks, how: Layout, listener: Listener) -> _Kept:
    """Find the samples that are whole; write the manifest anew where it says anything else."""
    names = sorted(p.name for p in parts.glob(f"*{manifest.SUFFIX}")) if parts.is_dir() else []
    trouble = _trouble(parts, spec)
    claims = _claims(parts, names, spec)
    kept: dict[str, Record] = {}
    reasons: dict[str, str] = {}
    listener(Progress("checking", 0, len(claims)))
    for k, (sample, lines) in enumerate(claims.items()):
        found, why = _proved(chunks, lines)
        if found is not None:
            kept[sample] = found
        else:
            reasons[sample] = why
        listener(Progress("checking", k + 1, len(claims), k + 1, sample, (k + 1) * spec.payload))
    if not trouble and not reasons:
        return _Kept(kept, ())
    for sample, why in reasons.items():
        file = work.root / ARRAY / how.key(claims[sample][0].row)
        if os.path.lexists(file):
            work.move_aside(file, f"sample {sample!r}: {why}")
    if names:
        content = manifest.to_part(spec.store, kept.values())
        work.write(
            parts / f"{secrets.token_hex(8)}{manifest.SUFFIX}", content, f"made anew: {len(kept)} samples are whole"
        )
        for name in names:
            lost = f"it also named {len(reasons)} samples that are not whole" if reasons else "its sound lines are kept"
            work.move_aside(parts / name, trouble.get(name, lost))
    return _Kept(kept, tuple(s for s in spec.samples if s in reasons))


def _trouble(parts: Path, spec: StoreSpec) -> dict[str, str]:
    """Say of each part that cannot be trusted why."""
    try:
        Manifest(parts, spec).refresh()
    except (DamagedError, UnsafeError) as error:
        return {name: error.item for name in sorted(os.listdir(parts)) if name in error.item} or {"": error.item}  # noqa: PTH208
    return {}


def _claims(parts: Path, names: list[str], spec: StoreSpec) -> dict[str, list[Record]]:
    """Collect every sound line of this store, the latest take first."""
    rows = {sample: row for row, sample in enumerate(spec.samples)}
    found: dict[str, list[Record]] = {}
    for name in names:
        try:
            raw = chunkfile.read_small(parts / name, layout.MAX_META)
        except (OSError, UnsafeError, DamagedError):
            continue
        for line in raw.split(b"\n"):
            body = manifest.from_line(line)
            if body is None:
                continue
            if body.get("format") == manifest.FORMAT and body.get("store") != spec.store:
                break  # another store's part
            try:
                record = Record.from_json(body, spec.grid)
            except (KeyError, TypeError, ValueError):
                continue
            if rows.get(record.sample) == record.row and len(record.crcs) == 8 * len(spec.classes):
                found.setdefault(record.sample, []).append(record)
    return {s: sorted(lines, key=lambda r: -r.take) for s, lines in found.items()}


def _proved(chunks: Chunks, lines: list[Record]) -> tuple[Record | None, str]:
    """Take the latest line that the sample's bytes bear out; two that both fit the bytes must say the same."""
    why = ""
    for record in lines:
        try:
            chunks.read(record, trust=False)
        except (DamagedError, UnsafeError) as error:
            why = why or getattr(error, "reason", "") or error.item
            continue
        others = {(r.placement, r.saturated) for r in lines if r.digest == record.digest and r.take == record.take}
        if len(others) > 1:
            return None, f"two lines give it different images: {some(sorted(str(p.image) for p, _ in others))}"
        return record, ""
    return None, why
