"""`LogitWriter`: the logits of one member, checked, encoded and handed to a sink that makes them survive."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ensemble_kit.errors import EnskError, MismatchError, UsageError, check_choice, check_kind, some
from ensemble_kit.logits import chunkfile, ingest, shards
from ensemble_kit.logits.floats import Floats, recognise
from ensemble_kit.logits.layout import Codec, StoreSpec
from ensemble_kit.logits.open import PathLike, locate
from ensemble_kit.logits.plausible import Domain, check_overlapping, settle_activation
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.sinks import open_sink
from ensemble_kit.remote.urls import stem
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Placement

Sizes = Sequence[int]


class LogitWriter:
    """Write a member's logits; a context manager.

    Opening a store of the same description resumes it. Many processes may open the same path at once, each writing
    its own samples. `write` returns when the sample survives a kill of the process; after `flush`, a full group of
    16, or at the end of the context it survives a power cut.

    Parameters
    ----------
    path : the store's folder, which is made where it does not exist; or a URL, such as `s3://bucket/unet.zarr`.
    classes, samples : all names, in order. Samples may be written in any order.
    grid : (h, w), the raster that the network puts out.
    activation : "sigmoid" for independent classes, "softmax" for exclusive ones. None: "sigmoid", unless one of the
        classes is the background.
    member : name of the network; the path's stem by default.
    domain : "logits", or "probabilities", which are converted: logit(p) or log p.
    overwrite : replace a store that is there; refused while another process writes to it. With many processes, let
        one replace it before the others open it.
    provenance : JSON-able; model, weights, preprocessing and tta must agree when a store is resumed.
    codec : "none", or "lossless": lz4 with byte shuffle, about half the size, read at about a sixth of the speed.
    clamp : limit logits to ± this number, so that far background compresses well; recorded, cannot be undone.
    checked : whether the caller knows that these are logits of this activation, as of stores that were fused: then what
        they look like is not doubted. NaN is refused all the same.

    Raises
    ------
    MismatchError
        The existing store was begun as something else.
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
        path: PathLike,
        classes: Sequence[str],
        samples: Sequence[str],
        grid: Sizes,
        activation: Activation | None = None,
        member: str | None = None,
        domain: Domain = "logits",
        overwrite: bool = False,
        *,
        provenance: Mapping[str, Any] | None = None,
        codec: Codec = "none",
        clamp: float | None = None,
        checked: bool = False,
    ) -> None:
        check_choice("domain", domain, ("logits", "probabilities"), "cannot tell what the arrays hold", "domain")
        if provenance is not None:
            check_kind("the provenance", provenance, Mapping, "pass a dict")
        self.path: Path | str = locate(path)
        names = _several("classes", classes), _several("samples", samples)
        self._judged = checked  # whether a first sample was found to be what it is said to be
        self._given, activation = activation is not None, settle_activation(activation, names[0])
        self._domain, self._clamp = domain, ingest.clamp_code(clamp, activation)
        clamp = None if self._clamp is None else ingest.value_of(self._clamp)
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "domain": domain,
            **(provenance or {}),
        }
        if clamp is not None:
            about["clamp"] = clamp
        if member is None:
            member = self.path.stem if isinstance(self.path, Path) else stem(self.path)
        wanted = StoreSpec(member, *names, _whole(grid), activation, about, codec=codec, clamp=clamp)
        self._closed, self._pid, self._lock = False, os.getpid(), threading.RLock()
        self.sink = open_sink(self.path, wanted, overwrite)
        self._spec = self.sink.spec
        self._rows = self._spec.rows
        # whether a value outside [0, 1] was seen: what was committed as logits has passed that check
        self._seen = checked or (self.sink.begun and self._spec.provenance.get("domain", domain) == domain)

    @property
    def missing(self) -> list[str]:
        """Samples that are still to be written, in order: not committed by any writer, or their file is gone."""
        with self._lock:
            return self.sink.missing()

    def write(
        self,
        ids: str | Sequence[str],
        array: object,
        image_size: Sizes | Sequence[Sizes],
        box: Sizes | Sequence[Sizes] | None = None,
        *,
        source: str = "",
        again: bool = False,
    ) -> None:
        """Write one sample, (C, h, w) with its id, or a batch, (B, C, h, w) with a list of ids.

        Parameters
        ----------
        ids : a sample's id, or one for each of the batch.
        array : floats of NumPy, torch on any device, or anything with DLPack or `__array__`.
        image_size : (H, W) in pixels, for all or one for each.
        box : the cells (y0, x0, y1, x1) of the grid that cover the image; the whole grid by default.
        source : digest of the file that the logits were made from, which the store keeps.
        again : replace what is committed of these samples.

        Names, shape, sizes and boxes of a whole batch are checked before its first byte is written; its values are
        checked sample by sample, so that a NaN in the third leaves the first two committed.

        Raises
        ------
        UsageError
            One id twice, or an impossible size or box.
        MismatchError
            A sample that the store does not have, or an array of another shape.
        DamagedError
            NaN; what a softmax made, for overlapping classes, in the first sample; probabilities outside [0, 1], or of
            exclusive classes that do not add up to 1; "logits" where this writer has seen nothing but values in [0, 1].
        LockedError
            The sample is committed already, with other bytes, and not `again`. Equal bytes are not an error.
        """
        with self._lock:
            self._check_usable()
            names = (ids,) if isinstance(ids, str) else _several("samples", ids)
            self._check_ids(names)
            found = recognise(array)
            wanted = self._spec.shape if isinstance(ids, str) else (len(names), *self._spec.shape)
            if found.shape != wanted:
                item = f"{some(names, 3)}: {found.shape} instead of {wanted} (classes, rows, columns)"
                fix = "pass (C, h, w) with one id or (B, C, h, w) with a list of ids; a store has one grid"
                if found.shape == (*wanted[:-3], *wanted[-2:], wanted[-3]):
                    fix = "pass it transposed, classes first: np.moveaxis(array, -1, -3)"
                elif len(found.shape) == len(wanted) + 1:
                    fix += "; one axis more may be a volume's Z: volumes come with a later version, write its slices"
                raise MismatchError("logits-shape", "cannot store logits of another shape", item=item, fix=fix)
            rank = len(self._spec.grid)
            sizes = _each(image_size, len(names), rank)
            boxes = _each(box if box is not None else (*[0] * rank, *self._spec.grid), len(names), 2 * rank)
            placements = [Placement.of(self._spec.grid, s, b) for s, b in zip(sizes, boxes, strict=True)]
            batch = [found] if isinstance(ids, str) else [found.sample(i) for i in range(len(names))]
            if not self._seen and len(batch) > 1 and self._domain == "logits":
                self._seen = not all(ingest.within_unit(one, len(self._spec.classes)) for one in batch)
            for name, one, placement in zip(names, batch, placements, strict=True):
                self._write(name, one, placement, source, again)

    def _check_ids(self, names: Sequence[str]) -> None:
        odd = [n for n in names if not isinstance(n, str)]
        if odd:
            fix = "pass ids as text, one for each sample"
            raise UsageError("name-invalid", "cannot write samples", item=some(odd), fix=fix)
        if len(set(names)) != len(names):
            item = some(sorted({n for n in names if names.count(n) > 1}))
            raise UsageError(
                "name-doubled", "cannot write a sample twice in one batch", item=item, fix="pass each id once"
            )
        unknown = [n for n in names if n not in self._rows]
        if unknown:
            what = "cannot write a sample that the store was not declared with"
            item = f"{some(unknown)} to {self.path} ({len(self._rows)} samples: {some(self._spec.samples, 3)})"
            raise MismatchError(
                "sample-unknown", what, item=item, fix="give all ids as `samples` when the store is made"
            )

    def flush(self) -> None:
        """Sync everything written so far: it then survives a power cut."""
        with self._lock:
            self._check_usable()
            self.sink.flush()

    def close(self) -> None:
        """Sync and release; a second time does nothing. Missing samples are not an error: see `missing`."""
        with self._lock:
            if self._closed:
                return
            try:
                if os.getpid() == self._pid:
                    self.sink.finish()
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Close without syncing, as a kill does: what was written since the last flush may not survive a power cut."""
        with self._lock:
            self._closed = True
            self.sink.release()

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

    def _write(self, sample: str, array: Floats, placement: Placement, source: str, again: bool) -> None:
        spec = self._spec
        classes = spec.classes
        if not self._judged and spec.activation == "sigmoid":
            check_overlapping(array, sample, classes, self._domain, self._given)
        self._judged = True
        codes, saturated = ingest.logits(
            array, sample, classes, self._domain, spec.activation, self._clamp, seen=self._seen
        )
        self._seen = True
        payload = codes.reshape(-1).view(np.uint8)
        crcs = chunkfile.running_crcs(payload, len(classes)).hex()
        record = Record(sample, self._rows[sample], placement, crcs, saturated, source=source)
        checksum = record.checksum
        if spec.codec == "lossless":
            payload, checksum = shards.encode(payload, len(classes))
            record = replace(record, stored=payload.size + chunkfile.TRAILER)
        commit = partial(self.sink.commit, again=True) if again else self.sink.commit
        commit(record, payload, checksum)

    def _check_usable(self) -> None:
        if self._closed or os.getpid() != self._pid:
            item = f"{self.path}: " + ("the writer is closed" if self._closed else "it was opened before a fork")
            fix = "open a LogitWriter in the process that writes, and write before it is closed"
            raise UsageError("writer-closed", "cannot write", item=item, fix=fix)


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
        what, item = "cannot tell which size or box belongs to which sample", f"{value!r} for {count} samples"
        fix = f"pass one tuple of {length} whole numbers for all, or a list with one for each id"
        raise UsageError("batch-invalid", what, item=item, fix=fix)
    return whole


def _several(kind: str, names: object) -> tuple[str, ...]:
    """Take names in their order; one text, whose letters would pass for names, is refused, and so is a set."""
    if isinstance(names, str | bytes | Set) or not isinstance(names, Iterable):
        fix = f"pass {kind} as a list, one text for each"
        raise UsageError("name-invalid", f"cannot use the names of {kind}", item=f"{kind}={names!r}", fix=fix)
    return tuple(names)


def _whole(grid: Any) -> Any:
    """Turn whole numbers of any kind into int; what is not whole is left for `StoreSpec` to refuse."""
    try:
        values = tuple(int(v) for v in grid)
        return values if values == tuple(grid) else grid
    except (TypeError, ValueError, OverflowError):
        return grid
