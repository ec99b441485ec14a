"""Repair of a damaged store: what is intact is kept, what is not is moved aside, and nothing is ever deleted.

What a store needs to be read at all is its description (two `zarr.json` files, of which the manifest keeps a copy)
and its manifest. A line of a manifest is trusted where its own checksum is right and its sample is on the disk as it
says. So from a manifest that is damaged anywhere, every sample is kept that can be proved; the others are missing
afterwards, and the dump that made the store makes them again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, UnsafeError, UsageError, some
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.logits import chunkfile, coordinates, description, records, segments, spare
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, MANIFEST_JSON, MAX_META, META, Layout, StoreSpec
from ensemble_kit.logits.lines import Lines
from ensemble_kit.logits.manifest import Manifest
from ensemble_kit.logits.open import PathLike, resolve
from ensemble_kit.logits.places import Folder
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.repair_steps import Step, Work
from ensemble_kit.remote.copies import here


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
    work = Work(root, manifest, dry_run, [])
    with work.locked():
        spec, how = _description(work)
        kept, lost = _records(work, spec, Chunks(Folder(root), spec, how), how, listener)
    missing = tuple(s for s in spec.samples if s not in kept)
    return Repaired(str(root), tuple(work.steps), len(kept), missing, lost)


def _description(work: Work) -> tuple[StoreSpec, Layout]:
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
        _restore_node(work, found[0])
        _restore_coordinates(work, found[0])
        return found
    found = description.parse(*copies, work.root)
    for file, content in zip(files, copies, strict=True):
        if not _is_intact(file, content):
            if os.path.lexists(file):
                work.move_aside(file, why)
            work.write(file, [content], "made from the copy beside the manifest")
    _restore_node(work, found[0])
    _restore_coordinates(work, found[0])
    return found


def _restore_copy(work: Work, files: tuple[Path, Path]) -> None:
    """Write the copy anew where it is damaged."""
    fault = spare.copy_fault(work.root)
    if fault:
        copy = work.manifest / spare.COPY
        if os.path.lexists(copy):
            work.move_aside(copy, fault)
        content = spare.to_copy(*(chunkfile.read_small(f, MAX_META) for f in files))
        work.write(copy, [content], "made from the description")


def _restore_node(work: Work, spec: StoreSpec) -> None:
    """Write the description of the manifest's folder anew, by which zarr passes it over in a group."""
    file = work.manifest / META
    if spec.own and not _is_intact(file, MANIFEST_JSON):
        if os.path.lexists(file):
            work.move_aside(file, "it was changed")
        work.write(file, [MANIFEST_JSON], "made anew: zarr passes the manifest over by it")


def _restore_coordinates(work: Work, spec: StoreSpec) -> None:
    """Write the arrays of names anew where they are damaged: they follow from the description."""
    contents, fresh = coordinates.files(spec), set[Path]()
    for key in coordinates.damaged(work.root, spec):
        file = work.root / key
        folder = file.parent
        if folder.is_symlink() or not folder.is_dir():
            if folder not in fresh and os.path.lexists(folder):
                work.move_aside(folder, "it is not a folder")
            if not work.dry:
                folder.mkdir()
            fresh.add(folder)
        elif folder not in fresh and os.path.lexists(file):
            work.move_aside(file, "it was changed")
        work.write(file, [contents[key]], "made from the description")


def _is_intact(file: Path, content: bytes) -> bool:
    try:
        return chunkfile.read_small(file, MAX_META) == content
    except (OSError, EnskError):
        return False


def _records(
    work: Work, spec: StoreSpec, chunks: Chunks, how: Layout, listener: Listener
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
    read = 0
    for k, row in enumerate(claimed, 1):
        sample = spec.samples[row]
        found, why, lost = _proved(chunks, claims, row)
        if found is not None:
            kept[sample] = found
            read += claims.array(found).size
            if lost:
                _describe_again(work, spec, claims.record(found), lost)
        else:
            reasons[sample] = why
        listener(Progress("checking", k, len(claimed), k, sample, read))
    _clear(work, spec, how, claims)
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


def _clear(work: Work, spec: StoreSpec, how: Layout, claims: Lines) -> None:
    """Move aside what keeps a sample that is not there yet from being written: no writer leaves such."""
    for row, line in enumerate(claims.latest):
        path = work.root / ARRAY / how.key(row)
        if line < 0 and os.path.lexists(path) and _blocks(path, spec.own):
            work.move_aside(path, f"it stands where sample {spec.samples[row]!r} belongs")


def _blocks(path: Path, own: bool) -> bool:
    """Tell whether a sample's files cannot be renamed to where they belong."""
    if not own or path.is_symlink() or not path.is_dir():
        return own or path.is_dir()
    with os.scandir(path) as entries:
        return any(entry.is_dir(follow_symlinks=False) for entry in entries)


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
                    record = Record.from_json(body, spec)
                except records.NO_RECORD:
                    continue
                if record.belongs_to(spec):
                    found.add(record)
    return found


def _proved(chunks: Chunks, claims: Lines, row: int) -> tuple[int | None, str, str]:
    """Take a sample's latest line that fits its bytes; two that both fit them must say the same.

    Returns the line, why there is none, and what is wrong with the description of an array of its own.
    """
    why, lines = "", sorted(claims.chain(row), key=lambda line: (-claims.take(line), line))
    for line in lines:
        record = claims.record(line)
        try:
            faults = {d.key.endswith(f"/{META}"): d.reason for d in chunks.faults(record)}
        except DamagedError as error:  # a former line, whose sample was written again since
            faults = {False: error.item}
        if False in faults:
            why = why or faults[False]
            continue
        others = set()
        if len(lines) > 1:
            same = [r for r in map(claims.record, lines) if (r.digest, r.take) == (record.digest, record.take)]
            others = {(r.placement, r.saturated) for r in same}
        if len(others) > 1:
            images = some(sorted(str(p.image) for p, _ in others))
            return None, f"two lines give it different images: {images}", ""
        return line, "", faults.get(True, "")
    return None, why, ""


def _describe_again(work: Work, spec: StoreSpec, record: Record, why: str) -> None:
    """Write the description of a sample that is an array of its own anew: it follows from its line."""
    file = work.root / ARRAY / spec.layout.key(record.row) / META
    if os.path.lexists(file):
        work.move_aside(file, f"sample {record.sample!r}: {why}")
    work.write(file, [spec.sample_json(record.sample, record.array, record.keys)], "made from the manifest")
