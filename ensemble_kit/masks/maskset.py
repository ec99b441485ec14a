"""`MaskSet`: (sample, class) → Runs, the one shape in which masks travel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.checks import check_item, checked_void, no_mask
from ensemble_kit.masks.idforms import IdForm, names_in
from ensemble_kit.masks.labelmaps import LabelMap, check_arguments, classes_of, draw, overlap_of, table_of
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.label_table import drawn_values

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

Key = tuple[str, str]
"""Names of a sample and a class."""


class MaskSet(Mapping[Key, Runs]):
    """Masks by (sample, class); joined by these names, never by position.

    Every sample holds every class (an empty mask is an entry too), and all masks of a sample have one size. The runs
    of all masks lie in three arrays, so that a vote or a file takes one call of a kernel; `masks[key]` is a view.

    Parameters
    ----------
    masks : mapping of (sample, class) to Runs. Samples and classes keep the order in which they first appear.
    rule : how the masks were made, in words: by a vote, or by reading values of label maps.
    void : the pixels of a sample that count neither as prediction nor as truth; other samples have none.

    Raises
    ------
    IncompleteError
        A sample lacks a class that another sample has.
    MismatchError
        Two masks of one sample differ in size, or its void does.

    Examples
    --------
    >>> one = Runs([0], [2], (2, 2))
    >>> masks = MaskSet({("a", "bone"): one})
    >>> masks.samples, masks.classes, masks["a", "bone"].area
    (('a',), ('bone',), 2)
    """

    def __init__(
        self, masks: Mapping[Key, Runs], rule: str | None = None, void: Mapping[str, Runs] | None = None
    ) -> None:
        if not isinstance(masks, Mapping):
            raise no_mask(f"{type(masks).__name__} is not a mapping")
        for key, runs in masks.items():
            check_item(key, runs)
        samples, classes = tuple(dict.fromkeys(s for s, _ in masks)), tuple(dict.fromkeys(c for _, c in masks))
        if len(masks) != len(samples) * len(classes):
            missing = [(s, c) for s in samples for c in classes if (s, c) not in masks]
            item = f"{len(missing)} of {len(missing) + len(masks)} (sample, class) pairs: {some(missing)}"
            fix = "give every sample every class; an empty mask is Runs.empty((H, W))"
            raise IncompleteError("masks-missing", "cannot make a mask set with holes", item=item, fix=fix)
        sizes: dict[str, Shape] = {}
        for (sample, name), runs in masks.items():
            size = sizes.setdefault(sample, runs.shape)
            if size != runs.shape:
                what, which = "cannot hold masks of two sizes for one sample", f"sample {sample!r}, class {name!r}"
                fix = "give every class of a sample the size of its image"
                raise differ(what, which, as_text(runs.shape), as_text(size), fix, "mask-size-differs")
        runs_of_all = ManyRuns.of([masks[s, c] for s in samples for c in classes])
        indices = np.arange(len(masks)).reshape(len(samples), len(classes))
        self._fill(sizes, classes, runs_of_all, indices, rule, checked_void(void, sizes))

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
    ) -> MaskSet:
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
    def empty(cls, extent: Extent) -> MaskSet:
        """Make the masks without a pixel of these samples and classes."""
        none, shape = np.zeros(0, np.int64), (len(extent.sizes), len(extent.classes))
        return cls.trusted(
            extent.sizes, extent.classes, ManyRuns(none, none, np.zeros(2, np.int64)), np.zeros(shape, np.int64)
        )

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
        self._rows = {sample: k for k, sample in enumerate(self.samples)}
        self._columns = {name: k for k, name in enumerate(classes)}

    def image_size(self, sample: str) -> Shape:
        """Return the size of a sample's image, (H, W)."""
        try:
            return self._sizes[sample]
        except (KeyError, TypeError):
            item = f"{sample!r} is not among {some(self.samples, 3)}"
            raise IncompleteError(
                "sample-unknown", "cannot find a sample in a mask set", item=item, fix="pass one of .samples"
            ) from None

    def void(self, sample: str) -> Runs:
        """Return the pixels of a sample that count neither as prediction nor as truth."""
        size = self.image_size(sample)
        return self._void.get(sample) or Runs.empty(size)

    @property
    def has_void(self) -> bool:
        """Whether any sample has void pixels."""
        return bool(self._void)

    @property
    def exclusive(self) -> bool:
        """Whether no pixel of a sample lies in two classes."""
        if self._exclusive is None:
            self._exclusive = overlap_of(self._runs, self._indices) is None
        return self._exclusive

    def labels(
        self, sample: str, values: Mapping[str, int] | Sequence[int] | None = None, paint: bool = False
    ) -> NDArray[np.unsignedinteger]:
        """Return the label map of a sample: uint8 (H, W), or uint16 where a value is above 255.

        Parameters
        ----------
        values : of the classes, by name or in their order. Default: from 0 where background is among the classes,
            else from 1. A pixel without a class is void where background is a class or a class has the value 0,
            else it is 0; void is 255, and 65535 from 255 classes on.
        paint : whether classes may overlap: later ones are drawn over earlier ones, in the order of `values`.

        Raises
        ------
        MismatchError
            Two classes overlap.
        UsageError
            Values that are not one for each class.

        Examples
        --------
        >>> masks = MaskSet({("a", "road"): Runs([0], [2], (2, 2)), ("a", "sky"): Runs([3], [4], (2, 2))})
        >>> masks.labels("a").tolist()
        [[1, 1], [0, 2]]
        """
        void = self.void(sample)
        order = tuple(values) if isinstance(values, Mapping) and set(values) == set(self.classes) else self.classes
        drawn = drawn_values(order, values)
        indices = self.indices((sample,), order)
        if not paint and self._exclusive is not True and (found := overlap_of(self._runs, indices)) is not None:
            pair = f"{order[found[1]]!r} and {order[found[2]]!r}"
            raise MismatchError(
                "classes-overlap",
                "cannot make a label map: it has one class a pixel",
                item=f"sample {sample!r}: classes {pair} overlap",
                fix="pass --paint CLASS=VALUE,… (paint=…), which draws later classes over earlier ones (of LabelMe, "
                "CVAT and Label Studio --paint shapes, in the order of their shapes); or vote with --decide argmax",
            )
        return draw(self._runs, indices[0], void, drawn)

    @classmethod
    def from_labels(
        cls,
        labels: Mapping[str, ArrayLike],
        classes: Sequence[str] | Mapping[int, str],
        void: int | Sequence[int] | None = 255,
        first_value: int | None = None,
    ) -> MaskSet:
        """Read label maps, one a sample.

        Parameters
        ----------
        labels : integers (H, W) by sample.
        classes : names by value; or a list, whose first class has the value 0 if it is background, and 1 (0 being no
            class) if none is and the value of the last class occurs.
        void : values that count neither as prediction nor as truth; 255 names a class where there are 255 or more.
        first_value : 0 or 1, the value of the first class of a list, where the list and the values leave it open.

        Raises
        ------
        UsageError
            A list of classes that has two readings, or an array that is not a label map.
        MismatchError
            Values that nobody named: they are listed with their pixels.

        Examples
        --------
        >>> masks = MaskSet.from_labels({"a": [[0, 1], [255, 2]]}, ["background", "road", "sky"])
        >>> masks["a", "road"].area, masks.void("a").area
        (1, 1)
        """
        ignored = check_arguments(labels, classes, void)
        maps = {sample: LabelMap.of(array, f"sample {sample!r}") for sample, array in labels.items()}
        counts = sum((m.counts() for m in maps.values()), Counter[int]())
        table = table_of(classes, counts, first_value, ignored)
        table.check(counts, "the set of label maps", "pass classes as a mapping of value to name, or name void values")
        return cls.trusted(*classes_of(maps, table), exclusive=True)

    @property
    def extent(self) -> Extent:
        """The classes, and the samples with the sizes of their images."""
        return Extent(self.classes, self._sizes)

    def arranged(self, samples: Sequence[str], classes: Sequence[str]) -> MaskSet:
        """Return the masks of these samples and classes, in this order; no run is copied."""
        sizes = {sample: self._sizes[sample] for sample in samples}
        void = {sample: self._void[sample] for sample in samples if sample in self._void}
        return MaskSet.trusted(sizes, tuple(classes), self._runs, self.indices(samples, classes), self.rule, void)

    def renamed(self, form: IdForm, like: Sequence[str] | None = None) -> MaskSet:
        """Return the same masks under the ids that `ensemble_kit.masks.idforms.names_in` gives.

        Parameters
        ----------
        form : name (the last part of a path), stem (without its extension) or path.
        like : ids to take where one has this form in common, such as those of an ensemble.
        """
        return self.called(names_in(self.samples, form, like))

    def called(self, names: Mapping[str, str]) -> MaskSet:
        """Return the same masks under new names of samples, by the old ones."""
        sizes = {names[sample]: size for sample, size in self._sizes.items()}
        void = {names[sample]: runs for sample, runs in self._void.items()}
        return MaskSet.trusted(sizes, self.classes, self._runs, self._indices, self.rule, void, self._exclusive)

    def pieces(self) -> Iterator[MaskSet]:
        """Return all masks as one piece, as a format takes them (`MaskStream.pieces`)."""
        return iter([self])

    def whole(self) -> MaskSet:
        """Return these masks, which are held already (`MaskStream.whole`)."""
        return self

    def watched(self, *looks: Callable[[MaskSet], object]) -> MaskSet:
        """Show these masks to each, as one piece (`MaskStream.watched`)."""
        for look in looks:
            look(self)
        return self

    def without_void(self) -> MaskSet:
        """Return the same masks, with every pixel counting."""
        return MaskSet.trusted(self._sizes, self.classes, self._runs, self._indices, self.rule)

    def with_runs(self, runs: ManyRuns, rule: str | None) -> MaskSet:
        """Return other masks of the same samples and classes, in the order of this set's keys."""
        indices = np.arange(len(self)).reshape(len(self.samples), len(self.classes))
        return MaskSet.trusted(self._sizes, self.classes, runs, indices, rule, self._void)

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

    def __repr__(self) -> str:
        return f"MaskSet({len(self.samples)} samples x {len(self.classes)} classes)"

    def write(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002 - the contract's name
        like: str | os.PathLike[str] | None = None,
        force: bool = True,
        labels: str | os.PathLike[str] | Mapping[int, str] | None = None,
        paint: Mapping[str, int] | None = None,
        csv: Mapping[str, Any] | str | None = None,
    ) -> None:
        """Write the masks to a file or a folder, as `ensemble_kit.formats.writing.write_masks` does.

        Parameters
        ----------
        path : where to write. A failure leaves there what was there before.
        format : name of the format (`handbone`, `png`, `label-map`, `coco`, …); default: told by the path's name.
        like : a sample submission, whose header and order of rows are kept. It must name the same (sample, class)
            pairs.
        force : whether to replace what is there.
        labels : of label maps, a table of values and colours: a file, a preset such as `voc`, or names by value.
        paint : of label maps, the value of each class; where classes overlap the one that is named later is drawn over.
        csv : of a CSV, what differs from the preset, or the whole dialect, as for `read_masks`.
        """
        from ensemble_kit.formats.writing import write_masks

        write_masks(self, path, format=format, like=like, force=force, labels=labels, paint=paint, csv=csv)
