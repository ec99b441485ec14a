"""`LogitStore`: the logits of one member, verified on reading.

A sample is one chunk file of an ordinary zarr v3 array (`layout.py`, `chunkfile.py`), and is committed by a line of
the manifest (`manifest.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ensemble_kit.access import reading
from ensemble_kit.errors import (
    DamagedError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
    check_kind,
    some,
)
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.logits import chunkfile, packed, records
from ensemble_kit.logits.chunks import Chunks, SampleDamagedError
from ensemble_kit.logits.open import OPENING, PathLike, find
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.verification import Damage, Verification
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Box, Placement, Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


class LogitStore:
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
            self._spec, self._layout = self._place.describe()
            self._stamp = self._place.stamp
            self._chunks = Chunks(self._place, self._spec, self._layout)
            manifest = self._place.manifest(self._spec)
            manifest.refresh(self._chunks.whole)
        self.path: Path | str = self._place.name if "://" in self._place.name else Path(self._place.name)
        self._records = manifest.records

    @property
    def member(self) -> str:
        """Name of the network."""
        return self._spec.member

    @property
    def uuid(self) -> str:
        """The store's own id, made when it was begun; a copy of it has the same, and so has its `.zip`."""
        return self._spec.store

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the array's axis."""
        return self._spec.classes

    @property
    def samples(self) -> tuple[str, ...]:
        """All declared samples, in order, committed or not."""
        return self._spec.samples

    @property
    def grid(self) -> Shape:
        """(h, w) of the raster that the network put out."""
        return self._spec.grid

    @property
    def activation(self) -> Activation:
        """What turns these logits into probabilities: "sigmoid" or "softmax"."""
        return self._spec.activation

    @property
    def codec(self) -> str:
        """How samples are stored: "none", "lossless", or "other", which zarr's reader reads."""
        return self._layout.codec

    @property
    def clamp(self) -> float | None:
        """The bound that logits were limited to when they were written, if any."""
        return self._spec.clamp

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the logits come from, as the writer recorded it."""
        return self._spec.provenance

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what the store says and holds; equal content gives equal fingerprints."""
        return records.fingerprint(self._spec, self._records.digests())

    @property
    def missing(self) -> list[str]:
        """Declared samples that are not committed, in order."""
        return self._records.missing()

    @property
    def complete(self) -> bool:
        """Every declared sample is committed."""
        return len(self._records) == len(self._spec.samples)

    @property
    def bytes_per_sample(self) -> int:
        """Size of a sample's logits."""
        return self._spec.payload

    @property
    def stored_bytes(self) -> int:
        """Size of the committed samples as they are stored."""
        return int(self._records.chunks(self._spec.payload + chunkfile.TRAILER)[1].sum())

    def read(self, sample: str, out: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
        """Read a sample, verified: float16 (C, h, w).

        Without `out` the result is read-only, and maps the file where the store fits the machine's free memory.
        With `out`, a contiguous float16 (C, h, w), it is read into that and no memory is made.

        Raises
        ------
        IncompleteError
            The sample is not committed, or not of this store.
        DamagedError
            Its chunk is gone, cut, changed, or another's; names the key and, where it is known, the class.
        """
        record = self._asked(self._records.__getitem__, sample)
        if out is not None and (
            out.shape != self._spec.shape
            or out.dtype != np.dtype("<f2")
            or not out.flags.c_contiguous
            or not out.flags.writeable
        ):
            item = f"{out.dtype} of shape {out.shape} instead of a writeable contiguous float16 {self._spec.shape}"
            fix = "pass np.empty(shape, np.float16), or no `out`"
            raise UsageError("out-invalid", "cannot read a sample into an array", item=item, fix=fix)
        return self._chunks.read(record, out)

    def placement(self, sample: str) -> Placement:
        """Return where a sample's image lies on the grid, and how large it is."""
        return self._asked(self._records.placement, sample)

    def image_size(self, sample: str) -> Shape:
        """Return (H, W) of a sample's image in pixels."""
        return self.placement(sample).image

    def box(self, sample: str) -> Box:
        """Return the cells of the grid that cover a sample's image."""
        return self.placement(sample).box

    def saturated(self, sample: str) -> int:
        """Count the values that were cut to ±65504."""
        return self._asked(self._records.saturated, sample)

    def source(self, sample: str) -> str:
        """Return the digest of the file that a sample's logits were made from; "" where none was recorded."""
        return self._asked(self._records.source, sample)

    @property
    def twins(self) -> list[tuple[str, ...]]:
        """Samples whose logits are equal to the last bit: the same image under two names, or two blank ones."""
        return self._records.twins()

    def same_logits(self, other: LogitStore) -> bool:
        """Tell whether another store holds the same samples with logits that are equal to the last bit."""
        return bool(self._records) and self.classes == other.classes and self._records.same_crcs(other._records)

    def verify(self, listener: Listener = nobody) -> Verification:
        """Read every committed sample again and compare it with its digest; nothing is raised for damage."""
        damaged, done, total = [], 0, len(self._records)
        listener(Progress("verifying", 0, total))
        buffer = np.empty(self._spec.shape, "<f2")
        for sample in self._spec.samples:
            record = self._records.get(sample)
            if record is None:
                continue
            try:
                self._chunks.read(record, buffer, trust=False)
            except (DamagedError, UnsafeError) as error:
                if error.code in {"store-changed", "zip-changed"}:
                    raise
                why = error.reason if isinstance(error, SampleDamagedError) else f"{error.what}: {error.item}"
                damaged.append(Damage(sample, self._chunks.key(record), why))
            done += 1
            listener(Progress("verifying", done, total, done, sample, done * self._spec.payload))
        with reading(self.path, OPENING):
            unknown = self._chunks.unknown()
        return Verification(
            str(self.path),
            len(self.samples),
            done,
            tuple(damaged),
            tuple(self.missing),
            unknown,
            done * self._spec.payload,
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
            raise IncompleteError("store-incomplete", what, item=item, fix=self._dump_again())
        if not self._layout.ours:
            fix = "zip it with `zip -0 -r`; zarr's reader opens that"
            raise MismatchError("store-layout", "cannot pack a store of another layout", item=str(self.path), fix=fix)
        return packed.pack(self._spec, self._stored(listen), out, force)

    def _stored(self, listen: Listener) -> Iterator[tuple[Record, NDArray[np.uint8]]]:
        total = len(self.samples)
        for done, sample in enumerate(self.samples, 1):
            record = self._records[sample]
            yield record, self._chunks.stored(record)
            listen(Progress("packing", done, total, done, sample))

    def _asked(self, known: Callable[[str], T], sample: str) -> T:
        """Ask what is known of a sample; say why nothing is."""
        check_kind("a sample", sample, str, "pass the id of one sample")
        try:
            return known(sample)
        except KeyError:
            raise self._not_there(sample) from None

    def _not_there(self, sample: str) -> IncompleteError:
        if sample not in self._spec.rows:
            what, known = "cannot read a sample that a store does not have", some(self.samples, 3)
            item = f"{sample!r} in {self.path} ({len(self.samples)} samples: {known})"
            return IncompleteError("sample-unknown", what, item=item, fix="check the id, or dump the store with it")
        what, counts = "cannot read a sample that is not dumped yet", f"{len(self._records)} of {len(self.samples)}"
        item = f"{sample!r} in {self.path}, which holds {counts}"
        return IncompleteError("sample-missing", what, item=item, fix=self._dump_again())

    def _dump_again(self) -> str:
        return f"run the same `ensk dump-logits … --out {self.path}` again; it dumps what is missing"

    def __reduce__(self) -> tuple[Callable[..., LogitStore], tuple[object, ...]]:
        return _reopen, (str(self.path), self.fingerprint, self._stamp)

    def __repr__(self) -> str:
        return (
            f"LogitStore({self.member!r}, {len(self._records)} of {len(self.samples)} samples x "
            f"{len(self.classes)} classes on {as_text(self.grid)}, {self.activation})"
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
