"""`MaskSet`: (sample, class) → Runs, the one shape in which masks travel."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import IncompleteError, UsageError, some
from ensemble_kit.masks.checks import check_item, checked_void, no_mask, sizes_of
from ensemble_kit.masks.drawing import picture
from ensemble_kit.masks.idforms import IdForm, names_in
from ensemble_kit.masks.labelmaps import (
    LabelMap,
    check_apart,
    check_arguments,
    classes_of,
    draw,
    draw_bands,
    overlap_of,
    table_of,
)
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.packedmasks import Key, PackedMasks
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.label_table import drawn_values

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image


class MaskSet(PackedMasks):
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
        sizes = sizes_of(masks)
        runs_of_all = ManyRuns.of([masks[s, c] for s in samples for c in classes])
        indices = np.arange(len(masks)).reshape(len(samples), len(classes))
        self._fill(sizes, classes, runs_of_all, indices, rule, checked_void(void, sizes))

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
        return draw(self._runs, *self._layers(sample, values, paint))

    def label_bands(
        self, sample: str, values: Mapping[str, int] | Sequence[int] | None, paint: bool, height: int = 1
    ) -> Iterator[NDArray[np.unsignedinteger]]:
        """Return a label map in bands of `height` rows, of a volume slices, drawn one at a time; as `labels` does."""
        return draw_bands(self._runs, *self._layers(sample, values, paint), height)

    def _layers(
        self, sample: str, values: Mapping[str, int] | Sequence[int] | None, paint: bool
    ) -> tuple[NDArray[np.int64], Runs, tuple[list[int], int, int]]:
        """Return what `draw` takes: masks, in the order in which they are drawn, void and values."""
        void = self.void(sample)
        order = tuple(values) if isinstance(values, Mapping) and set(values) == set(self.classes) else self.classes
        drawn, indices = drawn_values(order, values), self.indices((sample,), order)
        if not paint and self._exclusive is not True:
            check_apart(self._runs, indices, sample, order)
        return indices[0], void, drawn

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
        labels : integers (H, W) or (D, H, W) by sample.
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
        extent, void = self.extent.called(names), {names[sample]: runs for sample, runs in self._void.items()}
        out = MaskSet.trusted(extent.sizes, self.classes, self._runs, self._indices, self.rule, void, self._exclusive)
        return out.within(extent)

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

    def with_void(self, void: Mapping[str, Runs]) -> MaskSet:
        """Return the same masks, with other void pixels of some samples."""
        out = copy.copy(self)
        out._void = {sample: runs for sample, runs in {**self._void, **void}.items() if runs.area}
        return out

    def without_void(self) -> MaskSet:
        """Return the same masks, with every pixel counting."""
        return MaskSet.trusted(self._sizes, self.classes, self._runs, self._indices, self.rule).within(self.extent)

    def with_runs(self, runs: ManyRuns, rule: str | None) -> MaskSet:
        """Return other masks of the same samples and classes, in the order of this set's keys."""
        indices = np.arange(len(self)).reshape(len(self.samples), len(self.classes))
        out = MaskSet.trusted(self._sizes, self.classes, runs, indices, rule, self._void)
        out._geometry, out._windows = self._geometry, self._windows
        return out

    def plot(
        self, sample: str, image: ArrayLike | None = None, classes: Sequence[str] | None = None, opacity: float = 0.35
    ) -> Image:
        """Draw the masks of a sample on its image, with the names of classes below: a picture that a notebook shows.

        Parameters
        ----------
        image : grey (H, W) or RGB (H, W, 3) of any type; None: on black.
        classes : which ones; default: those that have a pixel.
        opacity : of the colours, in [0, 1].

        Returns
        -------
        PIL.Image.Image
            `.save(path)` writes it. `ensemble_kit.overlay` gives the array without the names.

        Raises
        ------
        UsageError
            Masks of a volume, a sample or class that is not there.
        MismatchError
            The image is of another size.

        Examples
        --------
        >>> masks = MaskSet({("a", "bone"): Runs([0], [20], (40, 60))})
        >>> masks.plot("a").size
        (60, 64)
        """
        if sample not in self.samples:
            item, fix = f"no sample is called {sample!r}; there are {some(self.samples, 3)}", "pass one of .samples"
            raise UsageError("sample-unknown", "cannot draw masks on an image", item=item, fix=fix)
        if unknown := [name for name in classes or () if name not in self.classes]:
            item, fix = (
                f"no class is called {some(unknown)}; there are {some(self.classes, 40)}",
                "pass some of .classes",
            )
            raise UsageError("classes-unknown", "cannot draw masks on an image", item=item, fix=fix)
        names = [c for c in self.classes if self[sample, c].area] if classes is None else classes
        return picture({name: self[sample, name] for name in names}, image, self.image_size(sample), opacity)

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
        like_image: str | os.PathLike[str] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Write the masks to a file or a folder, as `ensemble_kit.formats.writing.write_masks` does.

        Parameters
        ----------
        path : where to write. A failure leaves there what was there before.
        format : name of the format (`handbone`, `png`, `label-map`, `nifti`, …); default: told by the path's name.
        like : a sample submission, whose header and order of rows are kept.
        labels, paint : of label maps, a table of values and colours; the value of each class, later ones drawn over.
        csv : of a CSV, what differs from the preset, or the whole dialect, as for `read_masks`.
        like_image, spacing : of volumes, the folder of images whose headers are kept; or millimetres along z, y, x.
        """
        from ensemble_kit.formats import writing

        writing.write_masks(self, path, format, like, force, None, labels, paint, csv, like_image, spacing)
