"""The chunks of a store: found, verified, and read, mapped or decoded."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, ResourceError, UnsafeError, some
from ensemble_kit.logits import chunkfile, shards
from ensemble_kit.logits.body import Body, HeldBody
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.places import Place
from ensemble_kit.logits.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.manifest import Manifest

_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay", "bcachefs"}

_SEAL = 16


class SampleDamagedError(DamagedError):
    """A damaged sample; `reason` says what is wrong with its chunk."""

    reason = ""


class Chunks:
    """The chunks of a store, wherever it is: found, verified, mapped or read."""

    def __init__(self, place: Place, spec: StoreSpec, how: Layout) -> None:
        self._place, self._root, self._spec, self._layout = place, place.name, spec, how
        self._verified = np.zeros((len(spec.samples), _SEAL), np.uint8)
        """By row, what tells the file that was verified; no memory is taken for rows that were not read."""
        self._mapped: bool | None = None
        self._now: Manifest | None = None

    def key(self, record: Record) -> str:
        """Return a sample's path inside the store."""
        return f"{ARRAY}/{self._layout.key(record.row)}"

    def whole(self, record: Record) -> bool:
        """Tell whether a sample is stored as its record says."""
        try:
            self._reporting(record, lambda: self._own(record, None, True))
        except (DamagedError, UnsafeError):
            return False
        return True

    def read(
        self, record: Record, out: NDArray[np.float16] | None = None, *, trust: bool = True
    ) -> NDArray[np.float16]:
        """Read a sample and verify it, unless the same file was verified before and `trust` is on.

        Raises
        ------
        DamagedError
            The sample is damaged; or the store was replaced or moved since it was opened, which is no damage.
        """
        return self._asking(record, lambda: self._own(record, out, trust)).view("<f2").reshape(self._spec.shape)

    def stored(self, record: Record) -> NDArray[np.uint8]:
        """Read a chunk as it is stored, verified: what it decodes to is what was written."""
        return self._asking(record, lambda: self._stored(record))

    def _own(self, record: Record, out: NDArray[np.float16] | None, trust: bool) -> NDArray[np.uint8]:
        read = self._decode if self._layout.ours else self._read_zarr
        return read(record, out, trust)

    def _asking(self, record: Record, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Read; where a sample is not what was committed, look whether this is still the store that was opened."""
        try:
            return self._reporting(record, read)
        except SampleDamagedError:
            if self._is_another(record):
                raise chunkfile.changed(self._root) from None
            raise

    def _is_another(self, record: Record) -> bool:
        """Tell whether the store was moved, replaced, or has this sample anew."""
        try:
            spec, _ = self._place.describe()
            if self._now is None:
                self._now = self._place.manifest(spec)
            self._now.refresh()
        except (FileNotFoundError, IncompleteError):
            return True
        except (EnskError, OSError):
            return False  # it is damaged here too: say what is known of the sample
        found = self._now.records.get(record.sample)
        return spec.store != self._spec.store or found is None or found.digest != record.digest

    def _reporting(self, record: Record, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Read; turn errors into ours, which name the sample."""
        try:
            return _twice(read)
        except (FileNotFoundError, NotADirectoryError):
            raise self._broken(record, "the chunk is gone") from None
        except SampleDamagedError:
            raise
        except DamagedError as error:
            if error.code != "store-foreign":  # the packed store itself was replaced or damaged: it says so
                raise
            raise self._broken(record, "the chunk is not a regular file") from None
        except UnsafeError as error:
            item = f"sample {record.sample!r} of {self._root}, {self.key(record)}"
            raise UnsafeError(error.code, error.what, item=item, fix=error.fix) from None
        except OSError as error:
            if isinstance(error, EnskError):
                raise
            item = f"sample {record.sample!r}, {self._root}/{self.key(record)}: {error.strerror or error}"
            fix = "check the disk (dmesg) or the limit that is named, then run again"
            raise ResourceError("io", "cannot read a sample", item=item, fix=fix) from None

    def unknown(self) -> tuple[str, ...]:
        """List the entries of the array's folder that belong to no sample."""
        known = {self._layout.key(row).split("/")[0] for row in range(len(self._spec.samples))} | {META, MANIFEST}
        return tuple(sorted(name for name in self._place.entries() if name not in known))

    def _decode(self, record: Record, out: NDArray[np.float16] | None, trust: bool) -> NDArray[np.uint8]:
        """Read a chunk of a layout that is ours."""
        body = self._place.open(self.key(record))
        try:
            self._check_size(record, body)
            seal = _seal(body.stamp, record.digest)
            known = trust and body.stamp is not None and self._verified[record.row].tobytes() == seal
            if self._layout.codec == "lossless":
                payload = self._decode_shard(record, body, out)
            else:
                payload = self._read_raw(record, body, out, known)
            self._verified[record.row] = np.frombuffer(seal, np.uint8)
        finally:
            body.close()
        if out is None:
            payload.flags.writeable = False
        return payload

    def _stored(self, record: Record) -> NDArray[np.uint8]:
        body = self._place.open(self.key(record))
        try:
            self._check_size(record, body)
            content = np.empty(body.size, np.uint8)
            body.read_into(content, 0)
        finally:
            body.close()
        held = HeldBody(content)
        if self._layout.codec == "lossless":
            self._decode_shard(record, held, None)
        else:
            self._read_raw(record, held, None, known=False)
        return content

    def _check_size(self, record: Record, body: Body) -> None:
        plain = self._layout.codec == "none"
        wanted = record.stored or (self._spec.payload + chunkfile.TRAILER if plain else body.size)
        if body.size != wanted:
            cut = "; probably a power cut" if body.size == 0 else ""
            raise self._broken(record, f"the chunk has {body.size} bytes instead of {wanted}{cut}")

    def _read_raw(self, record: Record, body: Body, out: NDArray[np.float16] | None, known: bool) -> NDArray[np.uint8]:
        # what may come from the disk for the first time is read by calls, which report a bad one; a mapping would be
        # a SIGBUS. What is in memory already is mapped and verified there: 32 GB/s against 17 by calls
        mapped = body.map(self._spec.payload, cached=not known) if out is None and self._fits() else None
        if mapped is not None and known:
            return mapped
        if mapped is None:
            payload = self._room(out)
            found, trailer = chunkfile.read_payload(body, payload, check=not known)
        else:
            payload, found = mapped, chunkfile.crc(mapped)
            trailer = chunkfile.read_trailer(body, payload.size)
        if not known and (found != record.checksum or trailer != found):
            raise self._differs(record, payload, found, trailer)
        return payload

    def _decode_shard(self, record: Record, body: Body, out: NDArray[np.float16] | None) -> NDArray[np.uint8]:
        payload, names = self._room(out), self._spec.classes
        try:
            running = shards.decode(body, payload, len(names))
        except shards.ShardError as error:
            where = "the shard" if error.number is None else f"class {names[error.number]!r}"
            raise self._broken(record, f"{where}: {error.reason}") from None
        if running[-1] != record.checksum:  # every class is intact, but they are not those that were written
            raise self._differs(record, payload, running[-1], running[-1])
        return payload

    def _room(self, out: NDArray[np.float16] | None) -> NDArray[np.uint8]:
        return np.empty(self._spec.payload, np.uint8) if out is None else out.reshape(-1).view(np.uint8)

    def _fits(self) -> bool:
        """Map only where the whole store fits free memory, and never over a network, where a mapping can fault."""
        if self._mapped is None:
            total = self._spec.payload * len(self._spec.samples)
            here = self._place.folder
            self._mapped = here is not None and total < available_memory() and file_system(here) in _LOCAL
        return self._mapped

    def _read_zarr(self, record: Record, out: NDArray[np.float16] | None, _: bool) -> NDArray[np.uint8]:
        """Read a layout that is not ours through zarr's reader, and verify what it decoded."""
        self._place.open(self.key(record)).close()
        try:
            array = self._place.zarr()
            got = np.ascontiguousarray(array[record.row], "<f2")
        except MemoryError:
            raise
        except Exception as error:  # a damaged description makes zarr raise whatever its arithmetic does
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a decoder
                raise
            raise self._broken(record, f"zarr cannot decode it ({type(error).__name__}: {error})") from None
        payload = got.reshape(-1).view(np.uint8)
        found = chunkfile.crc(payload)
        if found != record.checksum:
            raise self._differs(record, payload, found, 0)
        if out is None:
            payload.flags.writeable = False
            return payload
        out[:] = got
        return out.reshape(-1).view(np.uint8)

    def _differs(self, record: Record, payload: NDArray[np.uint8], found: int, trailer: int) -> SampleDamagedError:
        if found == trailer and found != record.checksum:
            return self._broken(record, "the chunk is intact but is another's: it was swapped or copied")
        bad = [self._spec.classes[k] for k in chunkfile.damaged_classes(payload, record.running)]
        why = f"bytes were changed in class {some(bad, 3)}" if bad else "its checksum was changed"
        return self._broken(record, why)

    def _broken(self, record: Record, reason: str) -> SampleDamagedError:
        key = self.key(record)
        item, fix = f"sample {record.sample!r} of {self._root}, {key}: {reason}", self._place.mend([key])
        error = SampleDamagedError("sample-damaged", "cannot read a damaged sample", item=item, fix=fix)
        error.reason = reason
        return error


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


def available_memory() -> int:
    """Return the machine's free memory in bytes; 0 where it is not known."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def file_system(root: Path) -> str:
    """Name the file system of a path; empty where it is not known."""
    best, kind = "", ""
    try:
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, name, *_ = line.split(" ")
            inside = root.is_relative_to(point.replace("\\040", " "))
            if inside and len(point) >= len(best):
                best, kind = point, name
    except (OSError, ValueError):
        return ""
    return kind
