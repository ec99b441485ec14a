"""The chunk files of a store: found, verified, and read or mapped."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, ResourceError, UnsafeError, some
from ensemble_kit.storage import chunkfile
from ensemble_kit.storage.layout import ARRAY, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.storage.manifest import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay", "bcachefs"}


class SampleDamagedError(DamagedError):
    """A damaged sample; `reason` is the part of the message that tells it from its neighbours."""

    reason = ""


class Chunks:
    """The chunk files of a store: found, verified, mapped or read."""

    def __init__(self, root: Path, spec: StoreSpec, how: Layout) -> None:
        self._root, self._spec, self._layout = root, spec, how
        self._verified: dict[int, tuple[chunkfile.Stamp, str]] = {}
        self._mapped: bool | None = None

    def key(self, record: Record) -> str:
        """Return a sample's path inside the store."""
        return f"{ARRAY}/{self._layout.key(record.row)}"

    def whole(self, record: Record) -> bool:
        """Tell whether a sample is on disk as its record says."""
        try:
            self.read(record)
        except (DamagedError, UnsafeError):
            return False
        return True

    def lost(self, records: Iterable[Record]) -> set[str]:
        """Name the samples whose file is gone or has another length, without reading any (2 µs each)."""
        out, size = set(), self._spec.payload + chunkfile.TRAILER
        folder = os.open(self._root / ARRAY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for record in records:
                try:
                    found = os.stat(self._layout.key(record.row), dir_fd=folder, follow_symlinks=False).st_size
                except OSError:
                    found = -1
                if found != size:
                    out.add(record.sample)
        finally:
            os.close(folder)
        return out

    def read(
        self, record: Record, out: NDArray[np.float16] | None = None, *, trust: bool = True
    ) -> NDArray[np.float16]:
        """Read a sample and verify it, unless the same file was verified before and `trust` is on."""
        for attempt in (0, 1):
            try:
                payload = self._read_raw(record, out, trust) if self._layout.ours else self._read_zarr(record, out)
                break
            except FileNotFoundError:
                raise self._broken(record, "the chunk is gone") from None
            except SampleDamagedError:
                raise
            except DamagedError:
                raise self._broken(record, "the chunk is no regular file") from None
            except UnsafeError as error:
                item = f"sample {record.sample!r} of {self._root}, {self.key(record)}"
                raise UnsafeError(error.code, error.what, item=item, fix=error.fix) from None
            except OSError as error:
                if isinstance(error, EnskError):
                    raise
                if attempt or error.errno != errno.EIO:
                    raise ResourceError(
                        "io",
                        "cannot read a sample",
                        item=f"sample {record.sample!r}, {self._root / self.key(record)}: {error.strerror or error}",
                        fix="check the disk (dmesg) or the limit that is named, then run again",
                    ) from None
        return payload.view("<f2").reshape(self._spec.shape)

    def unknown(self) -> tuple[str, ...]:
        """List the entries of the array's folder that belong to no sample."""
        known = {self._layout.key(row).split("/")[0] for row in range(len(self._spec.samples))} | {META, MANIFEST}
        with os.scandir(self._root / ARRAY) as entries:
            return tuple(sorted(e.name for e in entries if e.name not in known))

    def _read_raw(self, record: Record, out: NDArray[np.float16] | None, trust: bool) -> NDArray[np.uint8]:
        fd, stamp = chunkfile.open_file(self._root / self.key(record))
        try:
            size = self._spec.payload
            if stamp.size != size + chunkfile.TRAILER:
                wanted = f"wanted are {size + chunkfile.TRAILER}" + (
                    "; probably a power cut" if stamp.size == 0 else ""
                )
                raise self._broken(record, f"the chunk has {stamp.size} bytes, {wanted}")
            known = trust and self._verified.get(record.row) == (stamp, record.digest)
            if known and out is None and self._fits():
                try:
                    return chunkfile.map_payload(fd, size)
                except OSError:
                    pass  # too many open files or mappings: memory of our own does as well
            # what is read for the first time is read by calls, which report a bad disk; a mapping would be a SIGBUS.
            # It is the faster way to verify, too: 11.8 against 10.2 GB/s
            payload = np.empty(size, np.uint8) if out is None else out.reshape(-1).view(np.uint8)
            found, trailer = chunkfile.read_payload(fd, payload, check=not known)
        finally:
            os.close(fd)
        if not known:
            if found != record.checksum or trailer != found:
                raise self._differs(record, payload, found, trailer)
            self._verified[record.row] = stamp, record.digest
        if out is None:
            payload.flags.writeable = False
        return payload

    def _fits(self) -> bool:
        """Map only where the whole store fits free memory, and never over a network, where a mapping can fault."""
        if self._mapped is None:
            total = self._spec.payload * len(self._spec.samples)
            self._mapped = total < _available_memory() and _file_system(self._root) in _LOCAL
        return self._mapped

    def _read_zarr(self, record: Record, out: NDArray[np.float16] | None) -> NDArray[np.uint8]:
        """Read through zarr's reader, for every layout that is not ours, and verify what it decoded."""
        import zarr

        fd, _ = chunkfile.open_file(self._root / self.key(record))
        os.close(fd)
        try:
            array: Any = zarr.open_array(self._root / ARRAY, mode="r")
            got = np.ascontiguousarray(array[record.row], "<f2")
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            raise self._broken(record, f"zarr cannot decode it ({error})") from None
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
            return self._broken(record, "the chunk is sound but is another's: it was swapped or copied")
        bad = [self._spec.classes[k] for k in chunkfile.damaged_classes(payload, record.running)]
        return self._broken(
            record, f"bytes were changed in class {some(bad, 3)}" if bad else "its checksum was changed"
        )

    def _broken(self, record: Record, reason: str) -> SampleDamagedError:
        key = self.key(record)
        error = SampleDamagedError(
            "sample-damaged",
            "cannot read a damaged sample",
            item=f"sample {record.sample!r} of {self._root}, {key}: {reason}",
            fix=f"rm -rf '{self._root / key}' and run the same dump again; it dumps what is missing",
        )
        error.reason = reason
        return error


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _file_system(root: Path) -> str:
    """Name the file system of a path; empty where it cannot be told."""
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
