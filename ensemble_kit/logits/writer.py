"""`LogitWriter`: the logits of one member, written so that they survive.

The order is what makes it hold. A sample: chunk under a temporary name → its final name → its line in the manifest.
A group of 16: chunks synced → folder synced → lines synced → a mark.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ensemble_kit.errors import EnskError, LockedError, MismatchError, UsageError, some
from ensemble_kit.logits import chunkfile, creation, ingest, manifest, remote, shards
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, Codec, StoreSpec
from ensemble_kit.logits.manifest import Manifest, Record
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Placement, Shape, as_text

GROUP = 16
"""Samples between two syncs: enough to keep the disk busy, few enough to verify after a crash."""

Sizes = Sequence[int]


class LogitWriter:
    """Write a member's logits; a context manager.

    Opening a store of the same description goes on with it. Many processes may open the same path at once, each
    writing its own samples. `write` returns when the sample survives a kill of the process; after `flush`, a full
    group of 16, or at the end of the context it survives a power cut.

    Parameters
    ----------
    path : the store's folder; made where it does not exist. Or a URL, such as `s3://bucket/unet.zarr`.
    classes, samples : all names, in order. Samples may be written in any order.
    grid : (h, w), the raster that the network puts out.
    activation : "sigmoid" for independent classes, "softmax" for exclusive ones.
    member : name of the network; the path's stem by default.
    domain : "logits", or "probabilities", which are converted: logit(p) or log p.
    overwrite : replace a store that is there; refused while another process writes to it. With many processes, let
        one replace it before the others open it.
    provenance : JSON-able; model, weights, preprocessing and tta must agree when a store is resumed.
    codec : "none", or "lossless": lz4 with byte shuffle, about half the size, read at about a sixth of the speed.
    clamp : limit logits to ± this, which compresses far background well; recorded, and not to be undone.

    Raises
    ------
    MismatchError
        The store that is there was begun as something else.
    LockedError
        With `overwrite`: another process writes to it.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> path = tempfile.mkdtemp() + "/unet.zarr"
    >>> with LogitWriter(path, ["bone"], ["a.png", "b.png"], grid=(2, 2)) as out:
    ...     out.write("a.png", np.full((1, 2, 2), -3.0), image_size=(8, 8))
    ...     print(out.missing)
    ['b.png']
    """

    def __init__(
        self,
        path: creation.PathLike,
        classes: Sequence[str],
        samples: Sequence[str],
        grid: Sizes,
        activation: Activation = "sigmoid",
        member: str | None = None,
        domain: ingest.Domain = "logits",
        overwrite: bool = False,
        *,
        provenance: Mapping[str, Any] | None = None,
        codec: Codec = "none",
        clamp: float | None = None,
    ) -> None:
        if domain not in {"logits", "probabilities"}:
            raise UsageError(
                "domain",
                "cannot tell what the arrays hold",
                item=f"domain={domain!r}",
                fix='pass domain="logits" or domain="probabilities"',
            )
        url = remote.url_of(path)
        self.path: Path | str = url if url is not None else creation.resolve(path)
        self._domain, self._clamp = domain, ingest.clamp_code(clamp, activation)
        clamp = None if self._clamp is None else ingest.value_of(self._clamp)
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "domain": domain,
            **(provenance or {}),
        }
        if clamp is not None:
            about["clamp"] = clamp
        wanted = StoreSpec(
            member if member is not None else remote.stem(url) if url is not None else Path(self.path).stem,
            _several("classes", classes),
            _several("samples", samples),
            _whole(grid),
            activation,
            about,
            codec=codec,
            clamp=clamp,
        )
        self._closed, self._pid, self._lock = False, os.getpid(), threading.RLock()
        self._part: manifest.PartWriter | None = None
        self._group: list[int] = []
        self._failed: EnskError | None = None
        self._sink = remote.Sink(url, wanted, overwrite) if url is not None else None
        if self._sink is not None:
            self._spec = self._sink.spec
            self._rows = {sample: row for row, sample in enumerate(self._spec.samples)}
            self._seen = self._has_seen(len(self._sink.missing()) < len(self._rows))
            return
        root = self._root = Path(self.path)
        self._spec = creation.join_or_create(root, wanted, overwrite)
        self._folder = root / ARRAY
        self._rows = {sample: row for row, sample in enumerate(self._spec.samples)}
        self._chunks = Chunks(root, self._spec, self._spec.layout)
        self._manifest = Manifest(self._folder / MANIFEST, self._spec)
        self._manifest.refresh(self._chunks.whole)
        self._lost = self._chunks.lost(self._manifest.records.values())
        self._seen = self._has_seen(bool(self._manifest.records))
        creation.sweep(self._folder)

    def _has_seen(self, committed: bool) -> bool:
        """Tell whether a value outside [0, 1] was seen: what was committed as logits has passed that check."""
        return committed and self._spec.provenance.get("domain", self._domain) == self._domain

    @property
    def missing(self) -> list[str]:
        """Samples that are still to be written, in order: not committed by anyone, or their file is gone."""
        with self._lock:
            if self._sink is not None:
                return self._sink.missing()
            self._manifest.refresh(skip=self._part.name if self._part else None)
            done = self._manifest.records
            return [s for s in self._spec.samples if s not in done or s in self._lost]

    def write(
        self,
        ids: str | Sequence[str],
        array: object,
        image_size: Sizes | Sequence[Sizes],
        box: Sizes | Sequence[Sizes] | None = None,
    ) -> None:
        """Write one sample, (C, h, w) with its id, or a batch, (B, C, h, w) with a list of ids.

        Parameters
        ----------
        ids : a sample's id, or one for each of the batch.
        array : floats of NumPy, torch on any device, or anything with DLPack or `__array__`.
        image_size : (H, W) in pixels, for all or one for each.
        box : the cells (y0, x0, y1, x1) of the grid that cover the image; the whole grid by default.

        Names, shape, sizes and boxes of a whole batch are checked before its first byte is written; its values
        sample by sample, so that a NaN in the third leaves the first two committed.

        Raises
        ------
        UsageError
            One id twice, or a size or a box that cannot be.
        MismatchError
            A sample that the store does not have, or an array of another shape.
        DamagedError
            NaN; probabilities outside [0, 1], or of exclusive classes that do not add up to 1; "logits" where this
            writer has seen nothing but values in [0, 1].
        LockedError
            The sample is committed already, with other bytes. Equal bytes are no error.
        """
        with self._lock:
            self._check_usable()
            names = (ids,) if isinstance(ids, str) else _several("samples", ids)
            self._check_ids(names)
            source = ingest.source(array)
            wanted = self._spec.shape if isinstance(ids, str) else (len(names), *self._spec.shape)
            if source.shape != wanted:
                raise MismatchError(
                    "logits-shape",
                    "cannot store logits of another shape",
                    item=f"{some(names, 3)}: {source.shape}, wanted is {wanted} (classes, rows, columns)",
                    fix="pass the array as (C, h, w) with one id or (B, C, h, w) with a list of ids; "
                    "a store has one grid",
                )
            rank = len(self._spec.grid)
            sizes = _each(image_size, len(names), rank)
            boxes = _each(box if box is not None else (*[0] * rank, *self._spec.grid), len(names), 2 * rank)
            places = [Placement.of(self._spec.grid, s, b) for s, b in zip(sizes, boxes, strict=True)]
            batch = [source] if isinstance(ids, str) else [source.sample(i) for i in range(len(names))]
            if not self._seen and len(batch) > 1 and self._domain == "logits":
                self._seen = not all(ingest.within_unit(one, len(self._spec.classes)) for one in batch)
            for name, one, place in zip(names, batch, places, strict=True):
                self._write(name, one, place)

    def _check_ids(self, names: Sequence[str]) -> None:
        odd = [n for n in names if not isinstance(n, str)]
        if odd:
            raise UsageError(
                "name-invalid", "cannot write samples", item=some(odd), fix="pass ids as text, one for each sample"
            )
        if len(set(names)) != len(names):
            raise UsageError(
                "name-doubled",
                "cannot write a sample twice in one batch",
                item=some(sorted({n for n in names if names.count(n) > 1})),
                fix="pass every id once",
            )
        unknown = [n for n in names if n not in self._rows]
        if unknown:
            raise MismatchError(
                "sample-unknown",
                "cannot write a sample that the store was not declared with",
                item=f"{some(unknown)} to {self.path} ({len(self._rows)} samples: {some(self._spec.samples, 3)})",
                fix="give all ids as `samples` when the store is made",
            )

    def flush(self) -> None:
        """Sync everything written so far: it then survives a power cut."""
        with self._lock:
            self._check_usable()
            self._sync()

    def close(self) -> None:
        """Sync and let go; a second time does nothing. That samples are missing is no error: see `missing`."""
        with self._lock:
            if self._closed:
                return
            try:
                if self._sink is not None and os.getpid() == self._pid:
                    self._sink.finish()
                elif self._failed is None and os.getpid() == self._pid:
                    self._sync()
                    if self._part is not None:
                        os.fsync(self._part.fd)  # the last mark
            finally:
                self._closed = True
                self._release()

    def __enter__(self) -> LogitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except (EnskError, OSError):
            if kind is None:
                raise

    def _write(self, sample: str, source: ingest.Source, place: Placement) -> None:
        row, spec = self._rows[sample], self._spec
        classes = spec.classes
        codes, saturated = ingest.logits(
            source, sample, classes, self._domain, spec.activation, self._clamp, seen=self._seen
        )
        self._seen = True
        payload = codes.reshape(-1).view(np.uint8)
        record = Record(sample, row, place, chunkfile.running_crcs(payload, len(classes)).hex(), saturated)
        checksum = record.checksum
        if self._spec.codec == "lossless":
            payload, checksum = shards.encode(payload, len(classes))
            record = replace(record, stored=payload.size + chunkfile.TRAILER)
        if self._sink is not None:
            self._sink.commit(record, payload, checksum)
            return
        with self._reporting(f"sample {sample!r}"):
            if self._part is None:
                self._check_there()
            if self._take(record) is None:
                return
            part = self._own_part()
            temporary = self._folder / f".{row}.{part.token}.tmp"
            fd = chunkfile.write(temporary, payload, checksum)
            self._group.append(fd)
            try:
                with manifest.committing(self._folder / MANIFEST):
                    self._commit(record, temporary, part)
            finally:
                temporary.unlink(missing_ok=True)
        if len(self._group) >= GROUP:
            self._sync()

    def _commit(self, record: Record, temporary: Path, part: manifest.PartWriter) -> None:
        take = self._take(record)  # once more: nobody else commits while the lock is held
        if take is None:
            return
        taken = replace(record, take=take)
        temporary.replace(self._folder / self._spec.layout.key(record.row))
        part.append(taken)
        self._manifest.add(taken, part.name, part.lines)
        self._lost.discard(record.sample)

    def _take(self, record: Record) -> int | None:
        """Tell which take of a sample this is; None if it is there already with these bytes."""
        self._manifest.refresh(skip=self._part.name if self._part else None)
        there = self._manifest.records.get(record.sample)
        if there is None:
            return 1
        same = there.digest == record.digest and there.placement == record.placement
        if not self._chunks.whole(there):
            return there.take if same and there.stored == record.stored else there.take + 1
        if same:
            return None
        raise LockedError(
            "sample-committed",
            "cannot write a sample a second time with other content",
            item=f"{record.sample!r} in {self.path}: {_tell(there)} there, {_tell(record)} here",
            fix="write every sample once, in one process; replace the store with overwrite=True (--force) to dump it "
            "anew",
        )

    def _own_part(self) -> manifest.PartWriter:
        """Make this writer's part at its first write, so that opening a finished store leaves nothing behind."""
        if self._part is None:
            folder = self._folder / MANIFEST
            with manifest.committing(folder):
                self._check_there()
                self._part = manifest.PartWriter(folder, self._spec.store)
            creation.fsync_folder(folder)
            self._adopt(self._part)
        return self._part

    def _check_there(self) -> None:
        """Refuse to write into a store that took the place of ours; once this writer has a part, none can."""
        if creation.describe(self._root)[0].store != self._spec.store:
            raise manifest.replaced(self._folder / MANIFEST)

    def _adopt(self, part: manifest.PartWriter) -> None:
        """Take over what dead writers committed and never synced, so that it is synced with the next groups."""
        alive = manifest.live_parts(self._folder / MANIFEST)
        for entry in self._manifest.unmarked():
            if entry.part.partition(".")[0] not in alive and self._chunks.whole(entry.record):
                self._group.append(chunkfile.open_file(self._folder / self._spec.layout.key(entry.record.row))[0])
                part.append(entry.record)
                self._manifest.add(entry.record, part.name, part.lines)
                if len(self._group) >= GROUP:
                    self._sync()

    def _sync(self) -> None:
        """Chunks → folder → lines → mark. A failed sync is never tried again: the kernel reports it once."""
        if self._part is None or not self._group:
            return
        with self._reporting("a group of samples", final=True):
            for fd in self._group:
                os.fsync(fd)
            creation.fsync_folder(self._folder)
            os.fsync(self._part.fd)
            self._part.mark()
        self._drop_group()

    def _drop_group(self) -> None:
        while self._group:
            os.close(self._group.pop())

    def _release(self) -> None:
        self._drop_group()
        if self._part is not None:
            self._part.close()
            self._part = None

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._closed or os.getpid() != self._pid:
            raise UsageError(
                "writer-closed",
                "cannot write",
                item=f"{self.path}: " + ("the writer is closed" if self._closed else "it was opened before a fork"),
                fix="open a LogitWriter in the process that writes, and write before it is closed",
            )

    def _reporting(self, item: str, final: bool = False) -> _Reporting:
        return _Reporting(self, item, final)


class _Reporting:
    """Turn the system's errors into ours; a failed sync ends the writer."""

    def __init__(self, writer: LogitWriter, item: str, final: bool) -> None:
        self._writer, self._item, self._final = writer, item, final

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError) or isinstance(error, EnskError):
            return
        ours = creation.no_resource(error, self._writer._root, self._item)
        if self._final:
            self._writer._failed = ours
        raise ours from None


def _tell(record: Record) -> str:
    return f"digest {record.digest[:8]} of {as_text(record.placement.image)}"


def _each(value: Any, count: int, length: int) -> list[tuple[int, ...]]:
    """Repeat one tuple for all of a batch, or take one for each."""
    try:
        rows = list(value) if hasattr(value[0], "__len__") else [value] * count
        whole = [tuple(int(v) for v in row) for row in rows]
        sound = len(rows) == count and all(
            len(new) == length and new == tuple(old) for new, old in zip(whole, rows, strict=True)
        )
    except (TypeError, ValueError, IndexError, KeyError):
        sound, whole = False, []
    if not sound:
        raise UsageError(
            "batch-invalid",
            "cannot tell which size or box belongs to which sample",
            item=f"{value!r} for {count} samples",
            fix=f"pass one tuple of {length} whole numbers for all, or a list with one for each id",
        )
    return whole


def _several(kind: str, names: object) -> tuple[str, ...]:
    """Take names in their order; one text, whose letters would pass for names, is refused, and so is a set."""
    if isinstance(names, str | bytes | Set) or not isinstance(names, Iterable):
        raise UsageError(
            "name-invalid",
            f"cannot use the names of {kind}",
            item=f"{kind}={names!r}",
            fix=f"pass {kind} as a list, one text for each",
        )
    return tuple(names)


def _whole(grid: Sizes) -> Shape:
    try:
        values = tuple(int(v) for v in grid)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if not values or values != tuple(grid):
        raise UsageError(
            "grid-invalid",
            "cannot store logits on this grid",
            item=f"grid={grid!r}",
            fix="pass grid=(h, w), the height and width that the network puts out",
        )
    return values
