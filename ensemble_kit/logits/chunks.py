"""The samples of a store: found whole, read by chunks, and what of them is damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, UnsafeError
from ensemble_kit.logits import chunkfile
from ensemble_kit.logits.chunkreader import ChunkReader, SampleDamagedError
from ensemble_kit.logits.heldchunks import HeldChunks
from ensemble_kit.logits.layout import MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.places import Place
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.verification import Damage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.manifest import Manifest

T = TypeVar("T")
_LOOKING = threading.Lock()
"""Held by the thread that reads a manifest anew: samples are read in several, and more than one may be damaged."""


class Chunks:
    """The chunks of a store, wherever it is: found, verified, mapped or read."""

    def __init__(self, place: Place, spec: StoreSpec, how: Layout) -> None:
        self._place, self._spec, self._layout = place, spec, how
        self.reader = ChunkReader(place, spec, how)
        self._held = HeldChunks()
        self._now: Manifest | None = None

    def key(self, record: Record, number: int | None = 0) -> str:
        """Return the path of a sample's chunk inside the store."""
        return self.reader.key(record, number)

    def whole(self, record: Record) -> bool:
        """Tell whether a sample is stored as its record says."""
        try:
            for number in range(record.array.count):
                self.reader.read(record, number)
            self.reader.check_description(record)
        except (DamagedError, UnsafeError):
            return False
        return True

    def faults(self, record: Record, scratch: NDArray[np.uint8] | None = None) -> Iterator[Damage]:
        """Read every chunk of a sample again, into `scratch` where it is given, and yield what is damaged.

        Raises
        ------
        DamagedError
            The store was replaced or moved since it was opened, which is no damage.
        """
        for number in (*range(record.array.count), None):
            try:
                if number is None:
                    self._asking(record, lambda: self.reader.check_description(record))
                else:
                    room = None if scratch is None else scratch[: record.array.payload]
                    self._asking(record, partial(self.reader.read, record, number, room, trust=False))
            except (DamagedError, UnsafeError) as error:
                if error.code in {"store-changed", "zip-changed"}:
                    raise
                why = error.reason if isinstance(error, SampleDamagedError) else f"{error.what}: {error.item}"
                yield Damage(record.sample, self.key(record, number), why)

    def read(
        self, record: Record, out: NDArray[np.float16] | None = None, *, trust: bool = True
    ) -> NDArray[np.float16]:
        """Read a sample and verify it, unless the same file was verified before and `trust` is on.

        Raises
        ------
        DamagedError
            The sample is damaged; or the store was replaced or moved since it was opened, which is no damage.
        """
        if record.array.count > 1:
            return self._slices(record, 0, record.array.stack[0], out, trust)
        flat = None if out is None else out.reshape(-1).view(np.uint8)
        return self._chunk(record, 0, flat, trust).reshape(record.array.shape)

    def read_slices(self, record: Record, first: int, stop: int) -> NDArray[np.float16]:
        """Read some slices of a volume, and what else is in their chunks, verified: (C, stop - first, h, w)."""
        array = record.array
        number = first // array.depth
        begin, end = array.span(number)
        if stop > end:
            return self._slices(record, first, stop, None, trust=True)
        chunk = self._held.get((record.row, number), lambda: self._chunk(record, number, None, trust=True))
        return chunk.reshape(array.chunk_shape)[:, first - begin : stop - begin]

    def stored(self, record: Record) -> Iterator[tuple[str, bytes | NDArray[np.uint8]]]:
        """Yield key and content of a sample's files as they are stored, verified: what they decode to was written."""
        for number in range(record.array.count):
            yield self.key(record, number), self._asking(record, partial(self.reader.stored, record, number))
        if record.array.own:
            yield self.key(record, None), self.reader.description(record)

    def _chunk(self, record: Record, number: int, out: NDArray[np.uint8] | None, trust: bool) -> NDArray[np.float16]:
        return self._asking(record, lambda: self.reader.read(record, number, out, trust)).view("<f2")

    def _slices(
        self, record: Record, first: int, stop: int, out: NDArray[np.float16] | None, trust: bool
    ) -> NDArray[np.float16]:
        """Read slices of several chunks, one chunk at a time."""
        array, given = record.array, out is not None
        if out is None:
            out = np.empty((array.classes, stop - first, *array.stack[1:]), "<f2")
        for number in range(first // array.depth, (stop - 1) // array.depth + 1):
            begin, end = array.span(number)
            a, b = max(begin, first), min(end, stop)
            values = self._chunk(record, number, None, trust).reshape(array.chunk_shape)
            out[:, a - first : b - first] = values[:, a - begin : b - begin]
        out.flags.writeable = given
        return out

    def _asking(self, record: Record, read: Callable[[], T]) -> T:
        """Read; where a sample is not what was committed, look whether this is still the store that was opened."""
        try:
            return read()
        except SampleDamagedError:
            if self._is_another(record):
                raise chunkfile.changed(self._place.name) from None
            raise

    def _is_another(self, record: Record) -> bool:
        """Tell whether the store was moved, replaced, or has this sample anew."""
        try:
            spec, _ = self._place.describe()
            with _LOOKING:
                self._now = self._now or self._place.manifest(spec)
                self._now.refresh(self.whole)  # a line that no mark follows yet counts where its sample is whole
                found = self._now.records.get(record.sample)
        except (FileNotFoundError, IncompleteError):
            return True
        except (EnskError, OSError):
            return False  # it is damaged here too: say what is known of the sample
        return (
            spec.store != self._spec.store
            or found is None
            or (found.digest, found.keys) != (record.digest, record.keys)
        )

    def unknown(self) -> tuple[str, ...]:
        """List the entries of the array's folder that belong to no sample."""
        known = {self._layout.key(row).split("/")[0] for row in range(len(self._spec.samples))} | {META, MANIFEST}
        return tuple(sorted(name for name in self._place.entries() if name not in known))
