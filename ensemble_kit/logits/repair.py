"""Repair of a damaged store: what is intact is kept, what is not is moved aside, and nothing is ever deleted.

What a store needs to be read at all is its description (two `zarr.json` files, of which the manifest keeps a copy)
and its manifest. A line of a manifest is trusted where its own checksum is right and its sample is on the disk as it
says. So from a manifest that is damaged anywhere, every sample is kept that can be proved; the others are missing
afterwards, and the dump that made the store makes them again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, UnsafeError, UsageError, some
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.files import sync_folder
from ensemble_kit.logits import chunkfile, description, records, segments, spare
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, MAX_META, META, Layout, StoreSpec
from ensemble_kit.logits.lines import Lines
from ensemble_kit.logits.manifest import Manifest
from ensemble_kit.logits.open import PathLike, resolve
from ensemble_kit.logits.places import Folder
from ensemble_kit.logits.records import Record
from ensemble_kit.remote.copies import here

QUARANTINE = "quarantine"
"""Folder beside the manifest's segments: neither zarr nor a reader of ours looks into it."""


@dataclass(frozen=True)
class Step:
    """One step of a repair: done, or with `dry_run` only planned.

    Parameters
    ----------
    what : in words.
    path : the file of the store that it is about, relative.
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
    steps : in order; empty where nothing was wrong.
    kept : samples that are whole.
    missing : samples to dump again: those that were never committed, and those that are not whole.
    lost : of these, the ones that were committed.
    """

    path: str
    steps: tuple[Step, ...]
    kept: int
    missing: tuple[str, ...]
    lost: tuple[str, ...]


def repair(path: PathLike, *, dry_run: bool = False, listener: Listener = nobody) -> Repaired:
    """Repair a store in a local folder.

    Parameters
    ----------
    dry_run : change nothing, only return the steps.

    Raises
    ------
    IncompleteError
        There is nothing at this path.
    DamagedError
        The store's description is lost, and so is its copy.
    LockedError
        A process writes to the store.

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
    root = resolve(here(path, "cannot repair a store"))
    if not root.is_dir():
        fix = "pass the folder of a store; a packed one is made again by packing"
        if root.exists():
            raise UsageError("store-no-folder", "cannot repair a store", item=f"{root}: there is a file", fix=fix)
        raise IncompleteError("store-missing", "cannot repair a store", item=f"{root} does not exist", fix=fix)
    manifest = root / ARRAY / MANIFEST
    for folder in (root / ARRAY, manifest):
        if folder.is_symlink():
            raise chunkfile.link(folder)
    if segments.living(manifest):
        raise segments.busy(manifest)
    work = _Work(root, manifest, dry_run, [])
    with work.locked():
        spec, how = _description(work)
        kept, lost = _records(work, spec, Chunks(Folder(root), spec, how), how, listener)
    missing = tuple(s for s in spec.samples if s not in kept)
    return Repaired(str(root), tuple(work.steps), len(kept), missing, lost)


@dataclass
class _Work:
    """The store, and the steps so far; each is taken as it is noted, unless this is a dry run."""

    root: Path
    manifest: Path
    dry: bool
    steps: list[Step]
    _aside: Path | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep writers out; the lock's own file is made where it is gone."""
        lock = self.manifest / segments.LOCK
        if not lock.is_file():
            self.note("made anew: writers wait for each other with it", lock)
            if self.dry:
                yield
                return
            self.manifest.mkdir(parents=True, exist_ok=True)
            lock.touch()
        with segments.committing(self.manifest, wait=False):
            yield

    def note(self, what: str, path: Path, to: str = "") -> None:
        """Note a step."""
        self.steps.append(Step(what, path.relative_to(self.root).as_posix(), to))

    def move_aside(self, path: Path, why: str) -> None:
        """Move a file, a folder or a link into quarantine under a name of its own."""
        if self._aside is None:
            self._aside = self.manifest / QUARANTINE / secrets.token_hex(4)
            if not self.dry:
                self._aside.mkdir(parents=True)
        inside = path.relative_to(self.root).as_posix()
        target = self._aside / inside.replace("/", "~")
        if not self.dry:
            path.rename(target)
            sync_folder(path.parent)
            sync_folder(target.parent)
        self.note(f"moved aside: {why}", path, target.relative_to(self.root).as_posix())

    def write(self, path: Path, content: Iterable[bytes], what: str) -> None:
        """Make a file of the store, durable before it has its name."""
        if not self.dry:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with temporary.open("xb") as file:
                file.writelines(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        self.note(what, path)


def _description(work: _Work) -> tuple[StoreSpec, Layout]:
    """Read the store's description; where that is damaged, restore it from the copy."""
    files = (work.root / META, work.root / ARRAY / META)
    try:
        found = description.describe(work.root)
    except (DamagedError, UnsafeError) as error:
        copies = spare.read_copy(work.root)
        if copies is None:
            item = f"{error.item}; and there is no intact copy, {ARRAY}/{MANIFEST}/{spare.COPY}"
            fix = "restore zarr.json from a copy of your own, or make the store again with `ensk dump-logits`"
            raise DamagedError("store-unrepairable", "cannot tell what a store was", item=item, fix=fix) from None
        why = error.item.partition(": ")[2] or error.item
    else:
        _restore_copy(work, files)
        return found
    found = description.parse(*copies, work.root)
    for file, content in zip(files, copies, strict=True):
        if not _is_intact(file, content):
            if os.path.lexists(file):
                work.move_aside(file, why)
            work.write(file, [content], "made from the copy beside the manifest")
    return found


def _restore_copy(work: _Work, files: tuple[Path, Path]) -> None:
    """Write the copy anew where it is damaged."""
    fault = spare.copy_fault(work.root)
    if fault:
        copy = work.manifest / spare.COPY
        if os.path.lexists(copy):
            work.move_aside(copy, fault)
        content = spare.to_copy(*(chunkfile.read_small(f, MAX_META) for f in files))
        work.write(copy, [content], "made from the description")


def _is_intact(file: Path, content: bytes) -> bool:
    try:
        return chunkfile.read_small(file, MAX_META) == content
    except (OSError, EnskError):
        return False


def _records(
    work: _Work, spec: StoreSpec, chunks: Chunks, how: Layout, listener: Listener
) -> tuple[Set[str], tuple[str, ...]]:
    """Find the samples that are whole, and those that were lost; write the manifest anew where it says otherwise."""
    folder = work.manifest
    names = sorted(p.name for p in folder.glob(f"*{records.SUFFIX}")) if folder.is_dir() else []
    trouble = _trouble(folder, spec)
    claims = _claims(folder, names, spec)
    claimed = [row for row, line in enumerate(claims.latest) if line >= 0]
    kept: dict[str, int] = {}
    reasons: dict[str, str] = {}
    listener(Progress("checking", 0, len(claimed)))
    for k, row in enumerate(claimed, 1):
        sample = spec.samples[row]
        found, why = _proved(chunks, claims, row)
        if found is not None:
            kept[sample] = found
        else:
            reasons[sample] = why
        listener(Progress("checking", k, len(claimed), k, sample, k * spec.payload))
    if not trouble and not reasons:
        return kept.keys(), ()
    for sample, why in reasons.items():
        file = work.root / ARRAY / how.key(spec.rows[sample])
        if os.path.lexists(file):
            work.move_aside(file, f"sample {sample!r}: {why}")
    if names:
        path = folder / f"{secrets.token_hex(8)}{records.SUFFIX}"
        content = records.segment_lines(spec.store, map(claims.record, kept.values()))
        work.write(path, content, f"made anew: {len(kept)} samples are whole")
        for name in names:
            lost = (
                f"it also named {len(reasons)} samples that are not whole" if reasons else "its intact lines are kept"
            )
            work.move_aside(folder / name, trouble.get(name, lost))
    return kept.keys(), tuple(s for s in spec.samples if s in reasons)


def _trouble(folder: Path, spec: StoreSpec) -> dict[str, str]:
    """Say of each segment that cannot be trusted why."""
    try:
        Manifest(folder, spec).refresh()
    except (DamagedError, UnsafeError) as error:
        return {name: error.item for name in sorted(os.listdir(folder)) if name in error.item} or {"": error.item}  # noqa: PTH208
    return {}


def _claims(folder: Path, names: list[str], spec: StoreSpec) -> Lines:
    """Collect every intact line of this store."""
    found = Lines(spec)
    for name in names:
        try:
            fd, _ = chunkfile.open_file(folder / name)
        except (OSError, UnsafeError, DamagedError):
            continue
        with os.fdopen(fd, "rb") as file:
            for line in file:
                if found.read(line) or (body := records.from_line(line.removesuffix(b"\n"))) is None:
                    continue
                if body.get("format") == records.FORMAT and body.get("store") != spec.store:
                    break  # another store's segment
                try:
                    record = Record.from_json(body, spec.grid)
                except (KeyError, TypeError, ValueError):
                    continue
                if record.belongs_to(spec):
                    found.add(record)
    return found


def _proved(chunks: Chunks, claims: Lines, row: int) -> tuple[int | None, str]:
    """Take a sample's latest line that fits its bytes; two that both fit them must say the same."""
    why, lines = "", sorted(claims.chain(row), key=lambda line: (-claims.take(line), line))
    for line in lines:
        record = claims.record(line)
        try:
            chunks.read(record, trust=False)
        except (DamagedError, UnsafeError) as error:
            why = why or getattr(error, "reason", "") or error.item
            continue
        others = set()
        if len(lines) > 1:
            same = [r for r in map(claims.record, lines) if (r.digest, r.take) == (record.digest, record.take)]
            others = {(r.placement, r.saturated) for r in same}
        if len(others) > 1:
            images = some(sorted(str(p.image) for p, _ in others))
            return None, f"two lines give it different images: {images}"
        return line, ""
    return None, why
