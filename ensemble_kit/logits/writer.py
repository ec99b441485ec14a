"""`LogitWriter`: the logits of one member, checked, encoded and handed to a sink that makes them survive."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ensemble_kit.errors import EnskError, LockedError, MismatchError, UsageError, check_choice, check_kind, some
from ensemble_kit.logits import copies, ingest
from ensemble_kit.logits.arguments import arrays_of, grid_of, several, volume_of, whole_numbers
from ensemble_kit.logits.encoding import Encoder
from ensemble_kit.logits.floats import Floats, recognise
from ensemble_kit.logits.layout import Codec, StoreSpec
from ensemble_kit.logits.open import PathLike, locate
from ensemble_kit.logits.plausible import Domain, settle_activation
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.logits.sinks import open_sink
from ensemble_kit.logits.tiles import array_of, slabs_of
from ensemble_kit.remote.urls import stem
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import AxisKind
from ensemble_kit.spec.georeference import GeoReference, WorldGeometry
from ensemble_kit.spec.void import Intervals

Sizes = Sequence[int]
Duplicates = Literal["refuse", "first"]


class LogitWriter:
    """Write a member's logits; a context manager.

    Opening a store of the same description resumes it. Many processes may open the same path at once, each writing
    its own samples. `write` returns when the sample survives a kill of the process; after `flush`, a full group of
    16, or at the end of the context it survives a power cut.

    Parameters
    ----------
    path : the store's folder, which is made where it does not exist; or a URL, such as `s3://bucket/unet.zarr`.
    classes, samples : all names, in order. Samples may be written in any order.
    grid : (h, w) or (d, h, w), the raster that the network puts out; None: each sample has its own, which its array
        tells. A store holds images or volumes, not both.
    activation : "sigmoid" for independent classes, "softmax" for exclusive ones. None: "sigmoid", unless one of the
        classes is the background.
    member : name of the network; the path's stem by default.
    domain : "logits", or "probabilities", which are converted: logit(p) or log p.
    overwrite : replace a store that is there; refused while another process writes to it. With many processes, let
        one replace it before the others open it.
    duplicates : what becomes of a sample that any process has committed already. "refuse" it where its bytes differ, or
        keep the "first" and count the others in `skipped`: distributed samplers pad a share with repeated samples. A
        copy on another grid, or of an image of another size or place, is refused; images whose copy has clearly other
        logits, of the first 16 copies, are named in `differing`.
    provenance : JSON-able; model, weights, preprocessing and tta must agree when a store is resumed.
    codec : "none", or "lossless": lz4 with byte shuffle, about half the size, read at about a sixth of the speed.
    clamp : limit logits to ± this number, so that far background compresses well; recorded, cannot be undone.
    checked : whether the caller knows what the arrays hold, as of stores that were fused: then what they look like is
        not doubted, a margin of zeros neither. NaN is refused all the same.

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
        grid: Sizes | None = None,
        activation: Activation | None = None,
        member: str | None = None,
        domain: Domain = "logits",
        overwrite: bool = False,
        duplicates: Duplicates = "refuse",
        *,
        provenance: Mapping[str, Any] | None = None,
        codec: Codec = "none",
        clamp: float | None = None,
        checked: bool = False,
    ) -> None:
        check_choice("domain", domain, ("logits", "probabilities"), "cannot tell what the arrays hold", "domain")
        check_choice("duplicates", duplicates, ("refuse", "first"))
        if provenance is not None:
            check_kind("the provenance", provenance, Mapping, "pass a dict")
        self.path: Path | str = locate(path)
        names = several("classes", classes), several("samples", samples)
        given, activation = activation is not None, settle_activation(activation, names[0])
        code = ingest.clamp_code(clamp, activation)
        clamp = None if code is None else ingest.value_of(code)
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "domain": domain,
            **(provenance or {}),
        }
        if clamp is not None:
            about["clamp"] = clamp
        if member is None:
            member = self.path.stem if isinstance(self.path, Path) else stem(self.path)
        wanted = StoreSpec(member, *names, whole_numbers(grid), activation, about, codec=codec, clamp=clamp)
        self.domain: Domain = domain
        self.activation: Activation = activation
        self.skipped, self._first = 0, duplicates == "first"
        self.differing: list[str] = []
        self._closed, self._pid, self._lock = False, os.getpid(), threading.RLock()
        self.sink = open_sink(self.path, wanted, overwrite)
        self._spec = self.sink.spec
        self._rows = self._spec.rows
        # whether a value outside [0, 1] was seen: what was committed as logits has passed that check
        seen = checked or (self.sink.begun and self._spec.provenance.get("domain", domain) == domain)
        self._encoder = Encoder(self._spec, domain, code, given, checked, seen)

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
        window: Sizes | Sequence[Sizes] | None = None,
        axes: Sequence[AxisKind] | None = None,
        geometry: WorldGeometry | None = None,
        *,
        void: Intervals | None = None,
        source: str = "",
        again: bool = False,
    ) -> None:
        """Write one sample, (C, h, w) or (C, d, h, w) with its id, or a batch, (B, C, …) with a list of ids.

        Parameters
        ----------
        ids : a sample's id, or one for each of the batch.
        array : floats of NumPy, torch on any device, or anything with DLPack or `__array__`.
        image_size : (H, W) in pixels, or (D, H, W), for all or one for each.
        box : the cells (y0, x0, y1, x1), or (z0, y0, x0, z1, y1, x1), of the grid that cover the image; by default all.
        window : the pixels of the image that the network saw, which the box covers; by default the whole image.
        axes : "linear" or "nearest" for each axis, as the network's own pipeline resamples it; by default linear.
        geometry : where a volume lies in the world (`Geometry`), or a scene on the Earth (`GeoReference`). Window, axes
            and geometry need grid=None, or a grid of volumes.
        void : the pixels at which a scene's image holds no data (`Runs`): void in every answer. Needs grid=None.
        source : digest of the file that the logits were made from, which the store keeps.
        again : replace what is committed of these samples.

        Names, shape, sizes and boxes of a whole batch are checked before its first byte is written; its values are
        checked sample by sample, so that a NaN in the third leaves the first two committed.

        Raises
        ------
        UsageError
            One id twice, an impossible size, box or window, or a window in a store of one grid.
        MismatchError
            A sample that the store does not have, or an array of another shape; with duplicates="first", a copy of a
            sample that lies on another grid, or is of another image.
        DamagedError
            NaN; what a softmax made, for overlapping classes, in the first sample; probabilities outside [0, 1], or of
            exclusive classes that do not add up to 1; "logits" where this writer has seen nothing but values in [0, 1];
            a margin of zeros in all classes, as a crop has that was padded (`logits-padded`).
        LockedError
            The sample is committed already, with other bytes, and not `again`. Equal bytes are not an error; neither is
            it with duplicates="first", where the sample is skipped, also the second time in one batch.
        """
        with self._lock:
            self._check_usable()
            names = (ids,) if isinstance(ids, str) else several("samples", ids)
            self._check_ids(names, again)
            found = recognise(array)
            grid = grid_of(self._spec, names, found.shape, batch=not isinstance(ids, str))
            arrays = arrays_of(self._spec, names, grid, image_size, box, window, axes, geometry, void)
            batch = [found] if isinstance(ids, str) else [found.sample(i) for i in range(len(names))]
            self._encoder.look(batch)
            for name, one, own in zip(names, batch, arrays, strict=True):
                slabs = (one.slices(*own.span(k)) for k in range(own.count)) if own.has_slabs else [one]
                self._write(name, slabs, own, source, again)

    def write_slabs(
        self,
        sample: str,
        slabs: Iterable[object],
        grid: Sizes,
        image_size: Sizes,
        box: Sizes | None = None,
        window: Sizes | None = None,
        axes: Sequence[AxisKind] | None = None,
        geometry: WorldGeometry | None = None,
        *,
        source: str = "",
        again: bool = False,
    ) -> None:
        """Write one volume slab by slab, so that it is never whole in memory.

        Parameters
        ----------
        slabs : arrays (C, n, h, w), consecutive slices of the grid's first axis, of any number each.
        grid : (d, h, w), of all slabs together.

        The others, and what is raised, as of `write`; an exception of `slabs` leaves the sample as it was.
        """
        with self._lock:
            self._check_usable()
            self._check_ids((sample,))
            whole = volume_of(self._spec, sample, grid)
            (own,) = arrays_of(self._spec, (sample,), whole, image_size, box, window, axes, geometry)
            self._write(sample, map(recognise, slabs), own, source, again)

    def write_tiles(
        self,
        sample: str,
        tiles: Iterable[object],
        boxes: Sequence[Sizes],
        grid: Sizes,
        image_size: Sizes,
        box: Sizes | None = None,
        geometry: GeoReference | None = None,
        *,
        void: Intervals | None = None,
        source: str = "",
        again: bool = False,
    ) -> None:
        """Write one scene tile by tile (docs/concepts.md#rule-16-tiles-of-a-scene); the store is made with grid=None.

        Parameters
        ----------
        tiles : arrays (C, h, w), in the order of `boxes`; each is written before the next one is taken.
        boxes : the cells (y0, x0, y1, x1) of the scene's grid that each tile covers. They may overlap, in any order;
            what reaches beyond the grid is left out. Together they cover the grid, but for what is void.
        grid : (h, w), the cells of the whole scene.
        image_size : (H, W), of the scene in pixels.
        geometry : where the scene lies on the Earth.
        void : the pixels at which its image holds no data (`Runs`): they are void in every answer, and cells of them
            need no tile.

        The others, and what is raised, as of `write`. The scene is committed when all its tiles are there: an exception
        of `tiles` leaves the sample as it was.
        """
        with self._lock:
            self._check_usable()
            self._check_ids((sample,))
            own = array_of(self._spec, sample, boxes, grid, image_size, box, geometry, void)
            self._write(sample, slabs_of(tiles, boxes, own, sample), own, source, again)

    def _check_ids(self, names: Sequence[str], again: bool = False) -> None:
        odd = [n for n in names if not isinstance(n, str)]
        if odd:
            fix = "pass ids as text, one for each sample"
            raise UsageError("name-invalid", "cannot write samples", item=some(odd), fix=fix)
        if len(set(names)) != len(names) and (again or not self._first):
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

    def _write(self, sample: str, slabs: Iterable[Floats], array: SampleArray, source: str, again: bool) -> None:
        first = self._first and not again
        if first and (there := self.sink.committed(sample)) is not None:
            self._skip(there, array, slabs)
            return
        with closing(self.sink.stage(sample, array)) as stage:
            record = replace(self._encoder.encode(sample, slabs, array, stage), source=source)
            try:
                new = self.sink.commit(record, stage, again)
            except LockedError as error:
                if not first or error.code != "sample-committed":
                    raise
                new = False
        if first and not new:
            self._skip(self.sink.committed(sample), array)

    def _skip(self, there: Record | None, array: SampleArray, slabs: Iterable[Floats] = ()) -> None:
        """Count a copy of what is committed; refuse what is of another image, and note other logits."""
        if there is not None:
            copies.check(there, array, self.path)
            if not array.has_slabs and self.skipped < copies.COMPARED:
                codes = [self._encoder.codes(there.sample, one) for one in slabs]
                if any(copies.differ(own, self.sink.read(there)) for own in codes):
                    self.differing.append(there.sample)
        self.skipped += 1

    def _check_usable(self) -> None:
        if self._closed or os.getpid() != self._pid:
            item = f"{self.path}: " + ("the writer is closed" if self._closed else "it was opened before a fork")
            fix = "open a LogitWriter in the process that writes, and write before it is closed"
            raise UsageError("writer-closed", "cannot write", item=item, fix=fix)
