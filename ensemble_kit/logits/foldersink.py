"""Writing into a folder so that samples survive.

The order is what makes it hold. A sample: its files under temporary names → their final names → its line in the
manifest. A group of 16: files synced → folders synced → lines synced → a mark.

A sample that takes another's place has its last file renamed at the very end, by which the others count: its only
one, or, of an array of its own, the description, which names the chunks' keys. So: files and line, all synced → the
last file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit.errors import EnskError
from ensemble_kit.files import sync_folder
from ensemble_kit.logits import chunkfile, creation, description, segments, staging
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, StoreSpec
from ensemble_kit.logits.manifest import Manifest
from ensemble_kit.logits.places import Folder
from ensemble_kit.logits.records import Record, check_rank, committed_otherwise
from ensemble_kit.logits.samplearray import SampleArray, other_keys
from ensemble_kit.logits.segments import SegmentWriter
from ensemble_kit.logits.staging import MANY, FolderStage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = 16
"""Samples between two syncs: enough to keep the disk busy, few enough to verify after a crash."""


class FolderSink:
    """A store's folder, written to; many processes may, each with its own segment of the manifest."""

    def __init__(self, root: Path, wanted: StoreSpec, overwrite: bool) -> None:
        self.spec = creation.join_or_create(root, wanted, overwrite)
        self._root, self._folder = root, root / ARRAY
        self._chunks = Chunks(Folder(root), self.spec, self.spec.layout)
        self._manifest = Manifest(self._folder / MANIFEST, self.spec)
        self._segment: SegmentWriter | None = None
        self._group: list[int] = []
        self._grouped, self._folders = 0, set[Path]()
        self._failed: EnskError | None = None
        with self._reporting("its manifest"):
            self._manifest.refresh(self._chunks.whole)
            self.begun = bool(self._manifest.records)
            self._lost = self._find_lost()
            creation.sweep(self._folder)

    def missing(self) -> list[str]:
        """Samples that nobody has committed, or whose file was gone when the sink was opened."""
        with self._reporting("its manifest"):
            self._refresh()
        done = self._manifest.records
        return [s for s in self.spec.samples if s not in done or s in self._lost]

    def committed(self, sample: str) -> Record | None:
        """Return what is known of a sample that any writer has committed, if its files are there."""
        with self._reporting("its manifest"):
            self._refresh()
            there = self._manifest.records.get(sample)
            return there if there is not None and self._chunks.whole(there) else None

    def read(self, record: Record) -> NDArray[np.float16]:
        """Return the logits of a committed sample, verified."""
        return self._chunks.read(record)

    def stage(self, sample: str, array: SampleArray) -> FolderStage:  # noqa: ARG002 - of the protocol
        """Begin a sample."""
        self._check_usable()
        return FolderStage(
            self._folder / MANIFEST,
            self.spec.rows[sample],
            lambda: self._own_segment().token,
            lambda: self._reporting(f"a chunk of sample {sample!r}"),
        )

    def commit(self, record: Record, stage: FolderStage, again: bool = False) -> bool:
        """Write what is left of a sample's chunks, and then its line; return False where it is there already."""
        self._check_usable()
        with self._reporting(f"sample {record.sample!r}"):
            if self._segment is None:
                self._check_there()
            if self._next_take(record, again) is None:
                return False
            segment = self._own_segment()
            stage.finish()
            self._group += stage.take()
            with segments.committing(self._folder / MANIFEST):
                new = self._rename(record, stage, segment, again)
        self._grouped += 1
        if self._grouped >= GROUP or len(self._group) >= MANY:
            self._sync()
        return new

    def flush(self) -> None:
        """Sync the group."""
        self._check_usable()
        self._sync()

    def finish(self) -> None:
        """Sync the group and the last mark."""
        if self._failed is None:
            self._sync()
            if self._segment is not None:
                with self._reporting("the last mark", final=True):
                    os.fsync(self._segment.fd)

    def release(self) -> None:
        """Close all files, which drops the locks; what one reports is raised when all are closed."""
        segment, self._segment = self._segment, None
        with self._reporting("a group of samples", final=True):
            try:
                self._drop_group()
            finally:
                if segment is not None:
                    segment.close()

    def _rename(self, record: Record, stage: FolderStage, segment: SegmentWriter, again: bool) -> bool:
        take = self._next_take(record, again)  # once more: nobody else commits while the lock is held
        if take is None:
            return False
        there = self._manifest.records.get(record.sample)
        anew = there is not None and there.digest != record.digest
        keys = there.keys if there is not None else "default"
        taken = replace(record, take=take, keys=other_keys(keys) if anew and record.array.own else keys)
        files = [self._folder / taken.key(self.spec.layout, k) for k in range(record.array.count)]
        if record.array.own:
            folder = files[0].parent
            chunkfile.check_inside(folder / META, self._folder)
            folder.mkdir(exist_ok=True)
            stage.write(self.spec.sample_json(record.sample, record.array, taken.keys))
            self._group += stage.take()
            self._folders.add(folder)
            files.append(folder / META)
        *before, last = zip(stage.files, files, strict=True)
        if there is not None:
            self._take_place(taken, before, last, segment)
        else:
            for temporary, final in (*before, last):
                temporary.replace(final)
            if before:
                staging.remove_others(last[1].parent, files)  # of a dead writer
            segment.append(taken)
        self._manifest.add(taken, segment.name, segment.lines)
        self._lost.discard(record.sample)
        return True

    def _take_place(
        self, record: Record, before: list[tuple[Path, Path]], last: tuple[Path, Path], segment: SegmentWriter
    ) -> None:
        """Replace a committed sample. A line without a mark, whose sample is not whole, is dropped on opening.

        So this one must get no mark if it is left without its files: whatever stops it ends the sink.
        """
        temporary, final = last
        try:
            for fd in self._group[-len(before) - 1 :]:
                os.fsync(fd)
            for one, other in before:
                one.replace(other)
            if before:
                sync_folder(final.parent)
            segment.append(record)
            os.fsync(segment.fd)
            temporary.replace(final)
            if before:
                sync_folder(final.parent)
                staging.remove_others(final.parent, [final, *(other for _, other in before)])
        except BaseException as error:
            stopped = error if isinstance(error, OSError) else OSError(errno.EINTR, "interrupted")
            self._failed = creation.no_resource(stopped, self._root, f"sample {record.sample!r}")
            raise

    def _next_take(self, record: Record, again: bool) -> int | None:
        """Tell which take of a sample this is; None if it is there already with these bytes, of the same source."""
        self._refresh()
        check_rank(self._manifest.records.rank, record, self._root)
        there, take = self._manifest.records.get(record.sample), self._manifest.next_take(record.sample)
        if there is None:
            return take
        same = there.same_content(record)
        if not self._chunks.whole(there):
            return there.take if same and there.stored == record.stored else take
        if again:
            return None if same and there.source == record.source else take
        if not same:
            raise committed_otherwise(there, record, self._root)
        return None

    def _refresh(self) -> None:
        self._manifest.refresh(skip=self._segment.name if self._segment else None)

    def _find_lost(self) -> set[str]:
        """Name the samples whose file is gone or has another length, without reading any (2 µs each)."""
        out, samples = set[str](), self.spec.samples
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for row, key, size in self._manifest.records.chunks(self.spec.layout):
                try:
                    found = os.stat(key, dir_fd=folder, follow_symlinks=False).st_size
                except OSError:
                    found = -1
                if found != size:
                    out.add(samples[row])
        finally:
            os.close(folder)
        return out

    def _own_segment(self) -> SegmentWriter:
        """Make this writer's segment at its first write, so that opening a finished store leaves nothing behind."""
        if self._segment is None:
            folder = self._folder / MANIFEST
            with segments.committing(folder):
                self._check_there()
                self._segment = SegmentWriter(folder, self.spec.store)
            sync_folder(folder)
            self._adopt(self._segment)
        return self._segment

    def _check_there(self) -> None:
        """Refuse to write into a store that replaced ours; once this writer has a segment, none can."""
        if description.describe(self._root)[0].store != self.spec.store:
            raise segments.replaced(self._folder / MANIFEST)

    def _adopt(self, segment: SegmentWriter) -> None:
        """Take over what dead writers committed and never synced, so that it is synced with the next groups."""
        alive = segments.living(self._folder / MANIFEST)
        for entry in self._manifest.unmarked():
            if entry.segment.partition(".")[0] not in alive and self._chunks.whole(entry.record):
                self._hold(entry.record)
                segment.append(entry.record)
                self._manifest.add(entry.record, segment.name, segment.lines)
                if len(self._group) >= GROUP:
                    self._sync()

    def _hold(self, record: Record) -> None:
        """Open the files of a committed sample, which are then synced with the group."""
        files = [self._folder / record.key(self.spec.layout, k) for k in range(record.array.count)]
        if record.array.own:
            files.append(files[0].parent / META)
            self._folders.add(files[0].parent)
        self._group += [chunkfile.open_file(path)[0] for path in files]

    def _sync(self) -> None:
        """Files → folders → lines → mark. A failed sync is never tried again: the kernel reports it once."""
        if self._segment is None or not self._group:
            return
        with self._reporting("a group of samples", final=True):
            for fd in self._group:
                os.fsync(fd)
            for folder in (*self._folders, self._folder):
                sync_folder(folder)
            os.fsync(self._segment.fd)
            self._segment.mark()
        self._drop_group()

    def _drop_group(self) -> None:
        failed: OSError | None = None
        self._grouped = 0
        self._folders.clear()
        while self._group:
            try:
                os.close(self._group.pop())
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed

    @contextmanager
    def _reporting(self, item: str, final: bool = False) -> Iterator[None]:
        """Turn the system's errors into ours; a failed sync ends the sink."""
        try:
            yield
        except OSError as error:
            if isinstance(error, EnskError):
                raise
            ours = creation.no_resource(error, self._root, item)
            if final:
                self._failed = ours
            raise ours from None
