"""Writing into a folder so that samples survive.

The order is what makes it hold. A sample: chunk under a temporary name → its final name → its line in the manifest.
One that takes another's place: chunk and line, both synced → its final name, so that the former line counts until then.
A group of 16: chunks synced → folder synced → lines synced → a mark.
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
from ensemble_kit.logits import chunkfile, creation, description, segments
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, StoreSpec
from ensemble_kit.logits.manifest import Manifest
from ensemble_kit.logits.places import Folder
from ensemble_kit.logits.records import Record, committed_otherwise
from ensemble_kit.logits.segments import SegmentWriter

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

    def commit(self, record: Record, content: NDArray[np.uint8], checksum: int, again: bool = False) -> None:
        """Write a sample's chunk and then its line."""
        self._check_usable()
        with self._reporting(f"sample {record.sample!r}"):
            if self._segment is None:
                self._check_there()
            if self._next_take(record, again) is None:
                return
            segment = self._own_segment()
            temporary = self._folder / f".{record.row}.{segment.token}.tmp"
            self._group.append(chunkfile.write(temporary, content, checksum))
            try:
                with segments.committing(self._folder / MANIFEST):
                    self._rename(record, temporary, segment, again)
            finally:
                temporary.unlink(missing_ok=True)
        if len(self._group) >= GROUP:
            self._sync()

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

    def _rename(self, record: Record, temporary: Path, segment: SegmentWriter, again: bool) -> None:
        take = self._next_take(record, again)  # once more: nobody else commits while the lock is held
        if take is None:
            return
        taken, final = replace(record, take=take), self._folder / self.spec.layout.key(record.row)
        if record.sample in self._manifest.records:
            self._take_place(taken, temporary, final, segment)
        else:
            temporary.replace(final)
            segment.append(taken)
        self._manifest.add(taken, segment.name, segment.lines)
        self._lost.discard(record.sample)

    def _take_place(self, record: Record, temporary: Path, final: Path, segment: SegmentWriter) -> None:
        """Replace a committed sample. A line without a mark, whose sample is not whole, is dropped on opening.

        So this one must get no mark if it is left without its chunk: whatever stops it ends the sink.
        """
        try:
            os.fsync(self._group[-1])
            segment.append(record)
            os.fsync(segment.fd)
            temporary.replace(final)
        except BaseException as error:
            stopped = error if isinstance(error, OSError) else OSError(errno.EINTR, "interrupted")
            self._failed = creation.no_resource(stopped, self._root, f"sample {record.sample!r}")
            raise

    def _next_take(self, record: Record, again: bool) -> int | None:
        """Tell which take of a sample this is; None if it is there already with these bytes, of the same source."""
        self._refresh()
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
        out, key, samples = set[str](), self.spec.layout.key, self.spec.samples
        chunks = self._manifest.records.chunks(self.spec.payload + chunkfile.TRAILER)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for row, size in zip(*(values.tolist() for values in chunks), strict=True):
                try:
                    found = os.stat(key(row), dir_fd=folder, follow_symlinks=False).st_size
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
                path = self._folder / self.spec.layout.key(entry.record.row)
                self._group.append(chunkfile.open_file(path)[0])
                segment.append(entry.record)
                self._manifest.add(entry.record, segment.name, segment.lines)
                if len(self._group) >= GROUP:
                    self._sync()

    def _sync(self) -> None:
        """Chunks → folder → lines → mark. A failed sync is never tried again: the kernel reports it once."""
        if self._segment is None or not self._group:
            return
        with self._reporting("a group of samples", final=True):
            for fd in self._group:
                os.fsync(fd)
            sync_folder(self._folder)
            os.fsync(self._segment.fd)
            self._segment.mark()
        self._drop_group()

    def _drop_group(self) -> None:
        failed: OSError | None = None
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
