"""One chunk of a sample: opened, verified, and read, mapped or decoded; what is wrong with it is told by its name."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, ResourceError, UnsafeError, some
from ensemble_kit.logits import chunkfile, shards
from ensemble_kit.logits.body import Body, HeldBody, available_memory, is_local
from ensemble_kit.logits.layout import ARRAY, META, Layout, StoreSpec
from ensemble_kit.logits.places import Place
from ensemble_kit.logits.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEAL = 16


class SampleDamagedError(DamagedError):
    """A damaged sample; `reason` says what is wrong with its chunk."""

    reason = ""


class ChunkReader:
    """Read the chunks of a store, wherever it is, one at a time."""

    def __init__(self, place: Place, spec: StoreSpec, how: Layout) -> None:
        self._place, self._root, self._spec, self._layout = place, place.name, spec, how
        self.bytes = 0
        """Bytes of all logits, where the store knows them: what exceeds free memory is not mapped."""
        self._verified = np.zeros((len(spec.samples), _SEAL), np.uint8)
        """By row, what tells the file that was verified; no memory is taken for rows that were not read."""
        self._verified_slabs: dict[tuple[int, int], bytes] = {}
        """The same of a volume's slabs but for the first, by row and number."""
        self._mapped: bool | None = None

    def key(self, record: Record, number: int | None) -> str:
        """Return the path of a chunk inside the store; None: of the description of an array of its own."""
        own = f"{self._layout.key(record.row)}/{META}" if number is None else record.key(self._layout, number)
        return f"{ARRAY}/{own}"

    def read(
        self, record: Record, number: int, out: NDArray[np.uint8] | None = None, trust: bool = True
    ) -> NDArray[np.uint8]:
        """Read a chunk's values and verify them, unless the same file was verified before and `trust` is on.

        Raises
        ------
        SampleDamagedError
            It is gone, cut, changed, or another's.
        """
        read = self._decode if self._layout.ours else self._read_zarr
        return self._reporting(record, number, lambda: read(record, number, out, trust))

    def stored(self, record: Record, number: int) -> NDArray[np.uint8]:
        """Read a chunk as it is stored, verified: what it decodes to is what was written."""
        return self._reporting(record, number, lambda: self._stored(record, number))

    def check_description(self, record: Record) -> None:
        """Compare the description of a sample that is an array of its own, by which zarr reads it."""
        if record.array.own:
            self._reporting(record, None, lambda: self._described(record))

    def _reporting(
        self, record: Record, number: int | None, read: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Read; turn errors into ours, which name the sample."""
        what = "its description" if number is None else "the chunk"
        try:
            return _twice(read)
        except (FileNotFoundError, NotADirectoryError):
            raise self._broken(record, number, f"{what} is gone") from None
        except SampleDamagedError:
            raise
        except DamagedError as error:
            if error.code != "store-foreign":  # the packed store itself was replaced or damaged: it says so
                raise
            raise self._broken(record, number, f"{what} is not a regular file") from None
        except UnsafeError as error:
            item = f"sample {record.sample!r} of {self._root}, {self.key(record, number)}"
            raise UnsafeError(error.code, error.what, item=item, fix=error.fix) from None
        except OSError as error:
            if isinstance(error, EnskError):
                raise
            item = f"sample {record.sample!r}, {self._root}/{self.key(record, number)}: {error.strerror or error}"
            fix = "check the disk (dmesg) or the limit that is named, then run again"
            raise ResourceError("io", "cannot read a sample", item=item, fix=fix) from None

    def _decode(self, record: Record, number: int, out: NDArray[np.uint8] | None, trust: bool) -> NDArray[np.uint8]:
        """Read a chunk of a layout that is ours."""
        body = self._place.open(self.key(record, number))
        try:
            self._check_size(record, number, body)
            seal = _seal(body.stamp, record.digest)
            known = trust and body.stamp is not None and self._seal_of(record.row, number) == seal
            if self._layout.codec == "lossless":
                payload = self._decode_shard(record, number, body, out)
            else:
                payload = self._read_raw(record, number, body, out, known)
            if number:
                self._verified_slabs[record.row, number] = seal
            else:
                self._verified[record.row] = np.frombuffer(seal, np.uint8)
        finally:
            body.close()
        if out is None:
            payload.flags.writeable = False
        return payload

    def _seal_of(self, row: int, number: int) -> bytes | None:
        return self._verified_slabs.get((row, number)) if number else self._verified[row].tobytes()

    def _stored(self, record: Record, number: int) -> NDArray[np.uint8]:
        body = self._place.open(self.key(record, number))
        try:
            self._check_size(record, number, body)
            content = np.empty(body.size, np.uint8)
            body.read_into(content, 0)
        finally:
            body.close()
        held = HeldBody(content)
        if self._layout.codec == "lossless":
            self._decode_shard(record, number, held, None)
        else:
            self._read_raw(record, number, held, None, known=False)
        return content

    def description(self, record: Record) -> bytes:
        """Return what the description of an array of its own must say."""
        return self._spec.sample_json(record.sample, record.array, record.keys)

    def _described(self, record: Record) -> NDArray[np.uint8]:
        wanted = np.frombuffer(self.description(record), np.uint8)
        body = self._place.open(self.key(record, None))
        try:
            found = np.empty(min(body.size, wanted.size), np.uint8)
            body.read_into(found, 0)
        finally:
            body.close()
        if body.size != wanted.size or not np.array_equal(found, wanted):
            raise self._broken(record, None, "its description was changed")
        return found

    def _check_size(self, record: Record, number: int, body: Body) -> None:
        wanted = record.bytes_of(number) if record.stored or self._layout.codec == "none" else body.size
        if body.size != wanted:
            cut = "; probably a power cut" if body.size == 0 else ""
            raise self._broken(record, number, f"the chunk has {body.size} bytes instead of {wanted}{cut}")

    def _read_raw(
        self, record: Record, number: int, body: Body, out: NDArray[np.uint8] | None, known: bool
    ) -> NDArray[np.uint8]:
        # what may come from the disk for the first time is read by calls, which report a bad one; a mapping would be
        # a SIGBUS. What is in memory already is mapped and verified there: 32 GB/s against 17 by calls
        mapped = body.map(record.array.payload, cached=not known) if out is None and self._fits() else None
        if mapped is not None and known:
            return mapped
        if mapped is None:
            payload = _room(record, out)
            found, trailer = chunkfile.read_payload(body, payload, check=not known)
        else:
            payload, found = mapped, chunkfile.crc(mapped)
            trailer = chunkfile.read_trailer(body, payload.size)
        if not known and (found != record.checksum(number) or trailer != found):
            raise self._differs(record, number, payload, found, trailer)
        return payload

    def _decode_shard(
        self, record: Record, number: int, body: Body, out: NDArray[np.uint8] | None
    ) -> NDArray[np.uint8]:
        payload, names = _room(record, out), self._spec.classes
        try:
            running = shards.decode(body, payload, len(names))
        except shards.ShardError as error:
            where = "the shard" if error.number is None else f"class {names[error.number]!r}"
            raise self._broken(record, number, f"{where}: {error.reason}") from None
        if running[-1] != record.checksum(number):  # every class is intact, but they are not those that were written
            raise self._differs(record, number, payload, running[-1], running[-1])
        return payload

    def _fits(self) -> bool:
        """Map only where the whole store fits free memory, and never over a network, where a mapping can fault."""
        if self._mapped is None:
            here = self._place.folder
            self._mapped = here is not None and self.bytes < available_memory() and is_local(here)
        return self._mapped

    def _read_zarr(
        self,
        record: Record,
        number: int,
        out: NDArray[np.uint8] | None,
        _: bool,
    ) -> NDArray[np.uint8]:
        """Read a layout that is not ours through zarr's reader, and verify what it decoded."""
        self._place.open(self.key(record, number)).close()
        try:
            array = self._place.zarr()
            got = np.ascontiguousarray(array[record.row], "<f2")
        except MemoryError:
            raise
        except Exception as error:  # a damaged description makes zarr raise whatever its arithmetic does
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a decoder
                raise
            why = f"zarr cannot decode it ({type(error).__name__}: {error})"
            raise self._broken(record, number, why) from None
        payload = got.reshape(-1).view(np.uint8)
        found = chunkfile.crc(payload)
        if found != record.checksum(number):
            raise self._differs(record, number, payload, found, 0)
        if out is None:
            payload.flags.writeable = False
            return payload
        out[:] = payload
        return out

    def _differs(
        self, record: Record, number: int, payload: NDArray[np.uint8], found: int, trailer: int
    ) -> SampleDamagedError:
        if found == trailer and found != record.checksum(number):
            return self._broken(record, number, "the chunk is intact but is another's: it was swapped or copied")
        bad = [self._spec.classes[k] for k in chunkfile.damaged_classes(payload, record.running(number))]
        why = f"bytes were changed in class {some(bad, 3)}" if bad else "its checksum was changed"
        return self._broken(record, number, why)

    def _broken(self, record: Record, number: int | None, reason: str) -> SampleDamagedError:
        key = self.key(record, number)
        if number is not None and record.array.has_slabs:
            reason = f"{record.array.named(number)}: {reason}"
        item, fix = f"sample {record.sample!r} of {self._root}, {key}: {reason}", self._place.mend([key])
        error = SampleDamagedError("sample-damaged", "cannot read a damaged sample", item=item, fix=fix)
        error.reason = reason
        return error


def _room(record: Record, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    return np.empty(record.array.payload, np.uint8) if out is None else out


def _seal(stamp: Hashable, digest: str) -> bytes:
    """Digest what tells a file and its content: of a million files, their stamps themselves would take 0.5 GB."""
    return hashlib.blake2b(repr((stamp, digest)).encode(), digest_size=_SEAL).digest()


def _twice(read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Read, and once more where the disk reports an error."""
    try:
        return read()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return read()
