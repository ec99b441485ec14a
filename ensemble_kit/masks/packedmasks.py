"""`PackedMasks`: where the masks of samples and classes lie: the runs of all in three arrays, and whose is whose."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ensemble_kit.errors import IncompleteError, some
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Box, Placement, Shape
from ensemble_kit.spec.georeference import WorldGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[str, str]
"""Names of a sample and a class."""


class PackedMasks(Mapping[Key, Runs]):
    """Runs by (sample, class) in three arrays, so that a vote or a file takes one call of a kernel.

    `masks[key]` is a view. Nothing here looks into the runs.
    """

    def _fill(
        self,
        sizes: Mapping[str, Shape],
        classes: tuple[str, ...],
        runs: ManyRuns,
        indices: NDArray[np.int64],
        rule: str | None,
        void: Mapping[str, Runs] | None,
    ) -> None:
        self.samples, self.classes, self.rule = tuple(sizes), classes, rule
        self.quality: Any = None
        """How well each member votes, of a fusion by STAPLE or SIMPLE (`hard_vote`); None of other masks."""
        self._void = {sample: runs for sample, runs in (void or {}).items() if runs.area}
        self._sizes, self._runs, self._indices = sizes, runs, indices
        self._exclusive: bool | None = None
        self._geometry: Mapping[str, WorldGeometry] = {}
        self._windows: Mapping[str, tuple[Box, ...]] = {}
        self._rows = {sample: k for k, sample in enumerate(self.samples)}
        self._columns = {name: k for k, name in enumerate(classes)}

    @classmethod
    def trusted(
        cls,
        sizes: Mapping[str, Shape],
        classes: tuple[str, ...],
        runs: ManyRuns,
        indices: NDArray[np.int64],
        rule: str | None = None,
        void: Mapping[str, Runs] | None = None,
        exclusive: bool | None = None,
    ) -> Self:
        """Wrap runs that are known to be sound. Nothing is checked or copied.

        Parameters
        ----------
        sizes : size of each sample's image, in the samples' order.
        runs : of all masks, in any order.
        indices : int64 (samples, classes), which mask of `runs` is that of each sample and class.
        exclusive : whether no pixel lies in two classes of its sample; None: not known.
        """
        self = cls.__new__(cls)
        self._fill(sizes, classes, runs, indices, rule, void)
        self._exclusive = exclusive
        return self

    @classmethod
    def empty(cls, extent: Extent) -> Self:
        """Make the masks without a pixel of these samples and classes."""
        none, shape = np.zeros(0, np.int64), (len(extent.sizes), len(extent.classes))
        runs = ManyRuns(none, none, np.zeros(2, np.int64))
        return cls.trusted(extent.sizes, extent.classes, runs, np.zeros(shape, np.int64)).with_geometry(extent.geometry)

    def image_size(self, sample: str) -> Shape:
        """Return the size of a sample's image, (H, W)."""
        try:
            return self._sizes[sample]
        except (KeyError, TypeError):
            item = f"{sample!r} is not among {some(self.samples, 3)}"
            raise IncompleteError(
                "sample-unknown", "cannot find a sample in a mask set", item=item, fix="pass one of .samples"
            ) from None

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a sample's volume lies in the world, or its scene on the Earth; None where nothing says it."""
        self.image_size(sample)
        return self._geometry.get(sample)

    def with_geometry(self, geometry: Mapping[str, WorldGeometry]) -> Self:
        """Return the same masks with another geometry of each sample, or with none of those that are left out."""
        return self.within(self.extent._replace(geometry=geometry))

    def with_windows(self, windows: Mapping[str, Sequence[Sequence[int]]]) -> Self:
        """Return the same masks, of members that saw only some boxes of some samples' images.

        Outside of them nothing was seen, and in a hard vote the masks do not count there. Masks that an ensemble of
        windows voted say it themselves (`.extent.windows`).

        Parameters
        ----------
        windows : boxes (y0, x0, y1, x1), or (z0, y0, x0, z1, y1, x1), by sample.

        Raises
        ------
        UsageError
            A box that is not inside the sample's image.
        """
        found = {sample: tuple(Box(*map(int, edges)) for edges in boxes) for sample, boxes in windows.items()}
        for sample, boxes in found.items():
            size = self.image_size(sample)
            for box in boxes:
                Placement.of(size, size, window=box)
        return self.within(self.extent._replace(windows=found))

    def within(self, extent: Extent) -> Self:
        """Return the same masks, with the geometries and windows that an extent says."""
        out = copy.copy(self)
        out._geometry = {s: extent.geometry[s] for s in self.samples if s in extent.geometry}
        out._windows = {s: extent.windows[s] for s in self.samples if s in extent.windows}
        return out

    def void(self, sample: str) -> Runs:
        """Return the pixels of a sample that count neither as prediction nor as truth."""
        size = self.image_size(sample)
        return self._void.get(sample) or Runs.empty(size)

    @property
    def has_void(self) -> bool:
        """Whether any sample has void pixels."""
        return bool(self._void)

    @property
    def extent(self) -> Extent:
        """The classes, and the samples with the sizes of their images, where they lie, and what was seen of them."""
        return Extent(self.classes, self._sizes, self._geometry, self._windows)

    def arranged(self, samples: Sequence[str], classes: Sequence[str]) -> Self:
        """Return the masks of these samples and classes, in this order; no run is copied."""
        sizes = {sample: self._sizes[sample] for sample in samples}
        void = {sample: self._void[sample] for sample in samples if sample in self._void}
        indices = self.indices(samples, classes)
        return self.trusted(sizes, tuple(classes), self._runs, indices, self.rule, void).within(self.extent)

    def indices(self, samples: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
        """Return which mask of `packed` is that of each sample and class, int64 (samples, classes)."""
        if (samples, classes) == (self.samples, self.classes):
            return self._indices
        rows, columns = [self._rows[s] for s in samples], [self._columns[c] for c in classes]
        return self._indices[np.ix_(np.array(rows, np.intp), np.array(columns, np.intp))]

    def indices_of(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Return which mask of `packed` is that of each key, int64 (n,)."""
        return self._indices[[self._rows[s] for s, _ in keys], [self._columns[c] for _, c in keys]]

    @property
    def packed(self) -> ManyRuns:
        """The runs of all masks, and perhaps of others, for kernels; `indices` tells which mask is whose."""
        return self._runs

    def __getitem__(self, key: Key) -> Runs:
        if not isinstance(key, tuple):
            raise KeyError(key)
        try:
            sample, name = key
            index = self._indices[self._rows[sample], self._columns[name]]
        except (KeyError, TypeError, ValueError):
            raise KeyError(key) from None
        return self._runs.mask(index, self._sizes[sample])

    def __iter__(self) -> Iterator[Key]:
        return product(self.samples, self.classes)

    def __len__(self) -> int:
        return self._indices.size
