"""`LogitStore`: the logits of one member, verified on reading.

A sample is one chunk file of an ordinary zarr v3 array (`layout.py`, `chunkfile.py`), and is committed by a line of
the manifest (`manifest.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.access import reading
from ensemble_kit.errors import (
    IncompleteError,
    MismatchError,
    ResourceError,
    UsageError,
    some,
)
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.logits import packed, tiles
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.described import DescribedStore
from ensemble_kit.logits.open import OPENING, PathLike, find
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.verification import Damage, Verification
from ensemble_kit.spec.geometry import as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from xarray import DataArray


class LogitStore(DescribedStore):
    """The logits of one member, read and verified.

    What is committed is looked up once, when the store is opened. Reading is safe from many threads and after a fork.
    A pickled store is its path, not its logits; a process that unpickles it many times opens it once.

    Parameters
    ----------
    path : a store's folder, a finished one packed as `.zip`, or a URL (`s3://…`, by the extra `remote`).

    Raises
    ------
    IncompleteError
        There is nothing at this path.
    DamagedError
        What is there is not a store, or its description or manifest is damaged.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from ensemble_kit import LogitWriter
    >>> path = tempfile.mkdtemp() + "/unet.zarr"
    >>> with LogitWriter(path, ["bone"], ["a.png"], grid=(2, 2)) as out:
    ...     out.write("a.png", np.float32([[[-4, 4], [4, -4]]]), image_size=(8, 8))
    >>> store = LogitStore(path)
    >>> store.member, store.complete, store.read("a.png").tolist()
    ('unet', True, [[[-4.0, 4.0], [4.0, -4.0]]])
    """

    def __init__(self, path: PathLike) -> None:
        with reading(path, OPENING):
            self._place = find(path)
            spec, how = self._place.describe()
            self._stamp = self._place.stamp
            self._chunks = Chunks(self._place, spec, how)
            manifest = self._place.manifest(spec)
            manifest.refresh(self._chunks.whole)
        name = self._place.name
        super().__init__(name if "://" in name else Path(name), spec, how, manifest.records)
        self._chunks.reader.bytes = self.total_bytes

    def read(self, sample: str, out: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
        """Read a sample, verified: float16 (C, h, w), or (C, d, h, w) of a volume.

        Without `out` the result is read-only, and maps the file where the store fits the machine's free memory.
        With `out`, a contiguous float16 of that shape, it is read into that and no memory is made.

        Raises
        ------
        IncompleteError
            The sample is not committed, or not of this store.
        DamagedError
            Its chunk is gone, cut, changed, or another's; names the key and, where it is known, the class.
        """
        record = self._asked(self._records.__getitem__, sample)
        tiles.check_whole(record)
        if out is not None and (
            out.shape != record.array.shape
            or out.dtype != np.dtype("<f2")
            or not out.flags.c_contiguous
            or not out.flags.writeable
        ):
            item = f"{out.dtype} of shape {out.shape} instead of a writeable contiguous float16 {record.array.shape}"
            fix = "pass np.empty(shape, np.float16), or no `out`"
            raise UsageError("out-invalid", "cannot read a sample into an array", item=item, fix=fix)
        return self._chunks.read(record, out)

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Read some slices of a volume, verified: float16 (C, stop - first, h, w), read-only.

        Only their chunks are read, of at most 16 MiB unless a slice has more; one of which slices are still held is not
        read again. Each class of the result is contiguous.

        Raises
        ------
        UsageError
            The sample is an image, or does not have these slices.
        IncompleteError, DamagedError
            As `read` does; damage of other slices is not noticed.
        """
        record = self._asked(self._records.__getitem__, sample)
        array = record.array
        whole = all(isinstance(v, int | np.integer) for v in (first, stop))
        if not whole or len(array.grid) != 3 or not 0 <= first < stop <= array.grid[0]:
            item = f"slices {first} to {stop} of sample {sample!r}, whose grid is {as_text(array.grid)}"
            fix = f"pass 0 <= first < stop <= {array.grid[0]}" if len(array.grid) == 3 else "read the image with `read`"
            raise UsageError("slices-invalid", "cannot read slices of a volume", item=item, fix=fix)
        return self._chunks.read_slices(record, first, stop)

    def read_tile(self, sample: str, number: int) -> NDArray[np.float16]:
        """Read a tile of a scene, verified: float16 (C, h, w) of its box; raise as `read_slab` does."""
        record = self._asked(self._records.__getitem__, sample)
        tiles.check_tile(record, number)
        return tiles.cut(record, number, self._chunks.read_slices(record, number, number + 1))

    def to_xarray(self, sample: str | None = None) -> DataArray:
        """Return all logits as a lazy DataArray (sample, class, y, x), or of one sample (class, y, x); z before y.

        A sample is read, and verified, when values of it are asked for; `.chunk(sample=1)` makes Dask's chunks of them.

        Raises
        ------
        UsageError
            Each sample has its own grid, and none is named; or xarray is not installed.
        IncompleteError, DamagedError
            Where values are asked for: as `read`.
        """
        from ensemble_kit.logits.dataarray import labelled

        about = {"member": self.member, "activation": self.activation}
        if sample is not None:
            record = self._asked(self._records.__getitem__, sample)
            tiles.check_whole(record)
            about["image_size"] = as_text(self.image_size(sample))
            return labelled(self, (sample,), record.array.grid, about).isel(sample=0)
        if self.grid is None:
            item, fix = f"{self.path}: each sample has a grid of its own", "pass the id of one: to_xarray(sample)"
            raise UsageError("sample-needed", "cannot make one array of a store", item=item, fix=fix)
        return labelled(self, self.samples, self.grid, about)

    def verify(self, listener: Listener = nobody) -> Verification:
        """Read every committed sample again and compare it with its digest; nothing is raised for damage."""
        damaged, done, total, read = list[Damage](), 0, len(self._records), 0
        listener(Progress("verifying", 0, total))
        scratch = np.empty(max((array.payload for array in self._records.arrays()), default=0), np.uint8)
        for sample in self._spec.samples:
            record = self._records.get(sample)
            if record is None:
                continue
            damaged += self._chunks.faults(record, scratch)
            done, read = done + 1, read + record.array.size
            listener(Progress("verifying", done, total, done, sample, read))
        with reading(self.path, OPENING):
            unknown = self._chunks.unknown()
        return Verification(
            str(self.path),
            len(self.samples),
            done,
            tuple(damaged),
            tuple(self.missing),
            unknown,
            read,
        )

    def mending(self, keys: Sequence[str]) -> str:
        """Say what to do about damaged keys."""
        return self._place.mend(keys)

    def pack(self, out: PathLike, force: bool = False, listen: Listener = nobody) -> int:
        """Pack this store into one uncompressed `.zip` for carrying; return its size in bytes.

        `LogitStore("x.zip")` reads it without unpacking. Every sample is verified on the way; the file appears whole
        or not at all, and equal stores give equal bytes.

        Raises
        ------
        IncompleteError
            Samples are missing.
        DamagedError
            A sample is damaged.
        UsageError
            `out` exists and `force` is false.
        """
        if not self.complete:
            what, counts = "cannot pack an unfinished store", f"{len(self.missing)} of {len(self.samples)}"
            item = f"{self.path}: {counts} samples are missing: {some(self.missing)}"
            raise IncompleteError("store-incomplete", what, item=item, fix=self.again)
        if not self._layout.ours:
            fix = "zip it with `zip -0 -r`; zarr's reader opens that"
            raise MismatchError("store-layout", "cannot pack a store of another layout", item=str(self.path), fix=fix)
        return packed.pack(self._spec, self._stored(listen), out, force)

    def _stored(self, listen: Listener) -> Iterator[tuple[Record, Iterator[tuple[str, bytes | NDArray[np.uint8]]]]]:
        total = len(self.samples)
        for done, sample in enumerate(self.samples, 1):
            record = self._records[sample]
            yield record, self._chunks.stored(record)
            listen(Progress("packing", done, total, done, sample))

    def __reduce__(self) -> tuple[Callable[..., LogitStore], tuple[object, ...]]:
        return _reopen, (str(self.path), self.fingerprint, self._stamp)

    def __repr__(self) -> str:
        return (
            f"LogitStore({self.member!r}, {len(self._records)} of {len(self.samples)} samples x "
            f"{len(self.classes)} classes on {as_text(self.grid) if self.grid else 'a grid each'}, {self.activation})"
        )


def _reopen(path: str, fingerprint: str, stamp: object) -> LogitStore:
    """Unpickle a store."""
    return _opened(path, fingerprint, stamp, os.getpid())


@lru_cache(maxsize=64)
def _opened(path: str, fingerprint: str, *_: object) -> LogitStore:
    """Open a store once a process: workers unpickle one with all work. What is not the same store is refused."""
    what = "cannot open a store where the work runs"
    everywhere = "let its path lead to the same files on every machine, or pass its URL"
    try:
        store = LogitStore(path)
    except IncompleteError as error:
        item = f"{error.item} does not exist there"
        raise ResourceError("store-elsewhere", what, item=item, fix=everywhere) from None
    if store.fingerprint != fingerprint:
        item = (
            f"{path} has the fingerprint {store.fingerprint[:16]} there, {fingerprint[:16]} where it was first opened"
        )
        fix = f"{everywhere}; if it was written again since, open it again"
        raise MismatchError("store-elsewhere-differs", what, item=item, fix=fix)
    return store
