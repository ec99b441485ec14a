"""Logits as a DataArray of xarray: labelled, lazy, and verified on reading, which zarr's own reader is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.geometry import AXES, Shape

try:
    from xarray import DataArray, Variable
    from xarray.backends import BackendArray
    from xarray.core import indexing
except ImportError as error:
    raise UsageError(
        "extra-missing",
        "cannot label logits for xarray",
        item=str(error),
        fix="pip install 'ensemble_kit[xarray]'",
    ) from None

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Store(Protocol):
    """What is asked of a store."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def read(self, sample: str) -> NDArray[np.float16]:
        """Read (C, h, w), verified."""

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Read (C, stop - first, h, w) of a volume, verified."""


def labelled(store: Store, samples: Sequence[str], grid: Shape, about: Mapping[str, Any]) -> DataArray:
    """Return (sample, class, y, x) or (sample, class, z, y, x); nothing is read before it is asked for."""
    dims = ("sample", "class", *(name for name, _ in AXES[-len(grid) :]))
    lazy: Any = indexing.LazilyIndexedArray(_Logits(store, samples, grid))  # Any: not as xarray's own types have it
    values = indexing.CopyOnWriteArray(lazy)
    names = {"sample": np.array(samples, object), "class": np.array(store.classes, object)}
    return DataArray(Variable(dims, values), names, name="logits", attrs=dict(about))


class _Logits(BackendArray):
    """Samples of one grid as one array."""

    def __init__(self, store: Store, samples: Sequence[str], grid: Shape) -> None:
        self.store, self.samples = store, samples
        self.dtype, self.shape = np.dtype("<f2"), (len(samples), len(store.classes), *grid)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float16]:
        orthogonal = indexing.IndexingSupport.OUTER
        out: NDArray[np.float16] = indexing.explicit_indexing_adapter(key, self.shape, orthogonal, self._values)
        return out

    def _values(self, key: tuple[Any, ...]) -> NDArray[np.float16]:
        rows, inside = key[0], key[1:]
        if isinstance(rows, int | np.integer):
            return self._sample(self.samples[int(rows)], inside)
        wanted = np.arange(len(self.samples))[rows]
        one = _orthogonal(np.broadcast_to(np.float16(0), self.shape[1:]), inside)
        out = np.empty((wanted.size, *one.shape), self.dtype)
        for k, row in enumerate(wanted if one.size else ()):
            out[k] = self._sample(self.samples[row], inside)
        return out

    def _sample(self, sample: str, key: tuple[Any, ...]) -> NDArray[np.float16]:
        if len(self.shape) == 4:
            return _orthogonal(self.store.read(sample), key)
        slices: NDArray[np.int64] = np.arange(self.shape[2])[key[1]]
        if not slices.size:
            return _orthogonal(np.broadcast_to(np.float16(0), self.shape[1:]), key)
        first = int(slices.min())
        slab = self.store.read_slab(sample, first, int(slices.max()) + 1)
        return _orthogonal(slab, (key[0], slices - first, *key[2:]))


def _orthogonal(values: NDArray[np.float16], key: tuple[Any, ...]) -> NDArray[np.float16]:
    """Take an integer, a slice or integers along each axis, independently of the others."""
    for axis in reversed(range(values.ndim)):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values
