"""A sample on its way to a store: floats become logits, logits become chunks with their checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import MismatchError
from ensemble_kit.logits import chunkfile, ingest, shards
from ensemble_kit.logits.floats import Floats
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.margins import Margins
from ensemble_kit.logits.plausible import Domain, check_overlapping, exclusive
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.logits.sinks import Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class _Taken:
    """What was found in a sample's slabs so far."""

    margins: Margins | None
    saturated: int = 0
    unit: bool = True
    adding_up: bool = True


class Encoder:
    """Turn the samples of one writer into chunks and records.

    Parameters
    ----------
    spec : the store's description.
    domain, clamp : what the arrays hold, and the fp16 code of the bound that logits are limited to.
    given : whether the user chose the activation.
    checked : whether the caller knows what the arrays hold, so that what they look like is not doubted.
    seen : whether a value outside [0, 1] was seen.
    """

    def __init__(
        self, spec: StoreSpec, domain: Domain, clamp: int | None, given: bool, checked: bool, seen: bool
    ) -> None:
        self._spec, self._domain, self._clamp, self._given = spec, domain, clamp, given
        self._checked, self._seen = checked, seen
        self._judged = checked  # whether a sample was found to be what it is said to be

    def look(self, batch: Sequence[Floats]) -> None:
        """Look at a batch before its first sample is written, one of which alone may lie in [0, 1]."""
        if not self._seen and len(batch) > 1 and self._domain == "logits":
            self._seen = not all(ingest.within_unit(one, len(self._spec.classes)) for one in batch)

    def codes(self, sample: str, array: Floats) -> NDArray[np.float16]:
        """Return what `encode` would store of an image, float16 (C, h, w)."""
        spec = self._spec
        return ingest.slab(array, sample, spec.classes, self._domain, spec.activation, self._clamp, seen=True).codes

    def encode(self, sample: str, slabs: Iterable[Floats], array: SampleArray, stage: Stage) -> Record:
        """Encode a sample, hand its chunks to `stage`, and return its record.

        Parameters
        ----------
        slabs : an image (C, h, w), or consecutive slices (C, n, h, w) of a volume.

        Raises
        ------
        MismatchError
            Slabs of another shape, or that are not the whole volume.
        DamagedError
            What cannot be logits, see `LogitWriter.write`.
        """
        spec, classes = self._spec, array.classes
        taken = _Taken(None if self._checked else Margins(array, spec.activation, self._domain))
        crcs, stored, number = bytearray(), list[int](), 0
        for codes in _chunks(self._codes(sample, slabs, array, taken), array, sample):
            payload = codes.reshape(-1).view(np.uint8)
            own = chunkfile.running_crcs(payload, classes)
            crcs += own
            checksum, last = int.from_bytes(own[-chunkfile.TRAILER :], "big"), number == array.count - 1
            if spec.codec == "lossless":
                payload, checksum = shards.encode(payload, classes)
                stored.append(payload.size + chunkfile.TRAILER)
            stage.add(payload, checksum, last)
            number += 1  # noqa: SIM113 - enumerate would keep the last chunk, too
            del codes, payload  # or the next chunk, of up to 16 MiB, would be filled beside this one
        if taken.unit and not self._seen:
            raise ingest.are_probabilities(sample, taken.adding_up)
        if taken.margins is not None:
            taken.margins.check(sample)
        self._seen = True
        row = spec.rows[sample]
        return Record(sample, row, array, crcs.hex(), taken.saturated, stored=tuple(stored))

    def _codes(
        self, sample: str, slabs: Iterable[Floats], array: SampleArray, taken: _Taken
    ) -> Iterator[NDArray[np.float16]]:
        spec = self._spec
        for slab in slabs:
            shape = slab.shape
            if array.has_slabs and (len(shape) != 4 or (shape[0], *shape[2:]) != (array.classes, *array.stack[1:])):
                wanted = f"({array.classes}, n, {array.stack[1]}, {array.stack[2]}) (classes, slices, rows, columns)"
                raise _shape(sample, f"a slab of {shape} instead of {wanted}")
            if not self._judged and spec.activation == "sigmoid":
                check_overlapping(slab, sample, spec.classes, self._domain, self._given)
            self._judged = True
            found = ingest.slab(
                slab, sample, spec.classes, self._domain, spec.activation, self._clamp, self._seen or not taken.unit
            )
            taken.saturated += found.saturated
            taken.unit &= found.unit
            taken.adding_up = taken.adding_up and found.unit and exclusive(slab, array.classes)
            if taken.margins is not None:
                taken.margins.add(found.codes)
            yield found.codes


def _chunks(slabs: Iterable[NDArray[np.float16]], array: SampleArray, sample: str) -> Iterator[NDArray[np.float16]]:
    """Cut slabs into chunks; each is used up before the next one is asked for, so that one is in memory.

    What a chunk holds is not the caller's memory, which may be filled anew meanwhile.
    """
    if not array.has_slabs:
        yield from slabs
        return
    depth, slices, seen, filled = array.depth, array.stack[0], 0, 0
    room: NDArray[np.float16] | None = None
    for codes in slabs:
        count, at = codes.shape[1], 0
        seen += count
        if seen > slices:
            break
        if not filled and count == depth and codes.flags.writeable:
            yield codes
            continue
        room = np.empty(array.chunk_shape, "<f2") if room is None else room
        while at < count:
            take = min(count - at, depth - filled)
            room[:, filled : filled + take] = codes[:, at : at + take]
            at, filled = at + take, filled + take
            if filled == depth:
                yield room
                filled = 0
    if seen != slices:
        told = f"{seen}{' or more' if seen > slices else ''}"
        raise _shape(sample, f"slabs of {told} slices together instead of {slices}")
    if room is not None and filled:
        room[:, filled:] = np.nan
        yield room


def _shape(sample: str, item: str) -> MismatchError:
    fix = "pass slabs (C, n, h, w), consecutive slices of the grid (d, h, w) that is given, d together"
    return MismatchError("logits-shape", "cannot store logits of another shape", item=f"{sample!r}: {item}", fix=fix)
