"""Label maps, one class a pixel: their stretches, the runs of their classes, and label maps of runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_kind, check_number, check_several
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.spec.geometry import Shape, check_image_size
from ensemble_kit.spec.label_table import VALUES, LabelTable, by_order, counted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ensemble_kit.masks.runs import Runs


class LabelMap(NamedTuple):
    """A label map as stretches of one value, along its rows."""

    edges: NDArray[np.int64]
    """Where each stretch begins, int64 (n,)."""
    values: NDArray[np.integer]
    """The value of each, uint8 or uint16 (n,)."""
    shape: Shape

    @classmethod
    def of(cls, labels: ArrayLike, where: str) -> LabelMap:
        """Cut a label map, bool or integer (H, W) or (D, H, W), into stretches.

        Raises
        ------
        UsageError
            An array of floats or of another rank, or values outside 0 … 65535.
        """
        from ensemble_kit.kernels import labels as kernels

        array = np.asarray(labels)
        if array.ndim not in {2, 3} or 0 in array.shape or array.dtype.kind not in "bui":
            item = f"{where} is an array of shape {array.shape}, {array.dtype}"
            raise _invalid(item, "pass integers of shape (H, W), or (D, H, W) of a volume: the label of every pixel")
        if array.dtype.kind == "b":
            array = array.view(np.uint8)
        elif array.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
            low, high = int(array.min()), int(array.max())
            if low < 0 or high >= VALUES:
                outside = array[(array < 0) | (array >= VALUES)]
                found = dict(zip(*(a.tolist() for a in np.unique(outside, return_counts=True)), strict=True))
                item = f"{where} has values outside 0 … {VALUES - 1}: {counted(found)}"
                raise _invalid(item, "give the classes values from 0 to 65535, and void 255")
            array = array.astype(np.uint8 if high < 256 else np.uint16)
        flat = np.ascontiguousarray(array).reshape(-1)
        edges = kernels.stretches(flat)
        return cls(edges, flat[edges], check_image_size(array.shape, array.ndim))

    @classmethod
    def of_slices(cls, slices: Iterable[ArrayLike], shape: Shape, where: str) -> LabelMap:
        """Cut a volume's slices, or bands of an image's rows, one after the other; raise as `of` does."""
        return cls.joined([cls.of(one, where) for one in slices], shape)

    @classmethod
    def joined(cls, slices: Sequence[LabelMap], shape: Shape) -> LabelMap:
        """Make the label map of a volume of those of its slices, or of an image of those of bands of its rows."""
        firsts = np.cumsum([0, *(math.prod(own.shape) for own in slices[:-1])])
        edges = np.concatenate([own.edges + first for first, own in zip(firsts, slices, strict=True)])
        values = np.concatenate([own.values for own in slices])
        begins = np.diff(values.astype(np.int32), prepend=-1) != 0  # a stretch goes on over the end of a slice
        return cls(edges[begins], values[begins], check_image_size(shape, len(shape)))

    def counts(self) -> Counter[int]:
        """Count the pixels of each value."""
        lengths = np.diff(self.edges, append=math.prod(self.shape))
        found = np.zeros(int(self.values.max()) + 1, np.int64)
        np.add.at(found, self.values, lengths)
        return Counter({value: n for value, n in enumerate(found.tolist()) if n})


def table_of(
    classes: Sequence[str] | Mapping[int, str], counts: Counter[int], first_value: int | None, void: list[int]
) -> LabelTable:
    """Return what each value means: of classes by value, or of a list of them by the values that occur.

    Raises
    ------
    UsageError
        A list of classes that has two readings.
    """
    ignored = [] if len(classes) >= 255 and void == [255] else void
    if isinstance(classes, Mapping):
        table = LabelTable(tuple(dict.fromkeys(classes.values())), dict(classes), source="classes by value")
        return table.with_void(ignored)
    return by_order(classes, counts, "the label maps", first_value, ignored)


def check_arguments(labels: object, classes: object, void: int | Sequence[int] | None) -> list[int]:
    """Refuse label maps, names of classes or void values of another type; return the void values.

    Raises
    ------
    UsageError
        It names the argument.
    """
    check_kind("label maps", labels, Mapping, "pass {sample: array}")
    check_several("the classes", classes, "pass their names, or a mapping of value to name")
    for name in classes.values() if isinstance(classes, Mapping) else cast("Sequence[object]", classes):
        check_kind("the name of a class", name, str, "pass text")
    values = [] if void is None else list(void) if isinstance(void, Sequence) else [void]
    for value in values:
        check_number("void", value, "pass values of a label map, whole numbers", whole=True)
    return values


def classes_of(
    maps: Mapping[str, LabelMap], table: LabelTable
) -> tuple[dict[str, Shape], tuple[str, ...], ManyRuns, NDArray[np.int64], str, dict[str, Runs]]:
    """Find the runs of every class and of void: what `MaskSet.trusted` takes, in its order.

    Parameters
    ----------
    table : names all values that occur.
    """
    from ensemble_kit.kernels import labels as kernels

    count = len(table.classes) + 1  # void is the last
    owners, each = ([table.owners()], count) if not table.regions else (table.owners_apart(), 1)
    runs = ManyRuns.joined(
        [
            ManyRuns(*kernels.runs_of(m.edges, own[m.values], math.prod(m.shape), each))
            for m in maps.values()
            for own in owners
        ]
    )
    indices = np.arange(len(maps) * count).reshape(len(maps), count)
    void = {s: runs.mask(indices[row, -1], m.shape) for row, (s, m) in enumerate(maps.items())}
    return {s: m.shape for s, m in maps.items()}, table.classes, runs, indices[:, :-1], str(table), void


def overlap_of(runs: ManyRuns, indices: NDArray[np.int64]) -> tuple[int, int, int] | None:
    """Find two masks of one sample that share a pixel: the sample's row and both columns; None where none do.

    Parameters
    ----------
    indices : int64 (samples, classes), which mask of `runs` is whose.
    """
    from ensemble_kit.kernels import runs as kernels

    rows, columns = indices.shape
    if columns < 2:
        return None
    own = np.ascontiguousarray(indices.T)
    members = np.empty((columns, 4), np.int64)
    for member, column in zip(members, own, strict=True):
        kernels.locate(*runs, column, member)
    starts, _, offsets = kernels.weighted_votes(members, rows, np.ones(columns, np.int64), 2, 0, False)
    if not starts.size:
        return None
    row = int(np.searchsorted(offsets, 0, side="right")) - 1
    first, pair = starts[0], []
    for column, index in enumerate(indices[row]):
        begin, end = runs.offsets[index], runs.offsets[index + 1]
        k = begin + int(np.searchsorted(runs.ends[begin:end], first, side="right"))
        if k < end and runs.starts[k] <= first:
            pair.append(column)
    return row, pair[0], pair[1]


def check_apart(runs: ManyRuns, indices: NDArray[np.int64], sample: str, classes: Sequence[str]) -> None:
    """Refuse masks of a sample that share a pixel.

    Parameters
    ----------
    indices : int64 (1, classes), which mask of `runs` is whose.

    Raises
    ------
    MismatchError
        It names two classes.
    """
    if (found := overlap_of(runs, indices)) is not None:
        raise MismatchError(
            "classes-overlap",
            "cannot make a label map: it has one class a pixel",
            item=f"sample {sample!r}: classes {classes[found[1]]!r} and {classes[found[2]]!r} overlap",
            fix="pass --paint CLASS=VALUE,… (paint=…), which draws later classes over earlier ones (of LabelMe, "
            "CVAT and Label Studio --paint shapes, in the order of their shapes); write a file a class, of volumes by "
            "--format class-volumes, of scenes by class-geotiffs; or vote with --decide argmax",
        )


def kind_of(values: tuple[list[int], int, int]) -> np.dtype[Any]:
    """Return the dtype of a label map that is drawn with these values, as `draw` takes them."""
    own, _, ignored = values
    return np.dtype(np.uint8 if max(*own, ignored) < 256 else np.uint16)


def draw(runs: ManyRuns, indices: NDArray[np.int64], void: Runs, values: tuple[list[int], int, int]) -> NDArray[Any]:
    """Draw masks into a label map of the size of `void`, later ones over earlier ones: uint8, or uint16 if need be.

    Parameters
    ----------
    values : of each mask, of a pixel without one, and of void, which is drawn last.
    """
    return draw_rows(runs, indices, void, values, (0, void.shape[0]))


def draw_rows(
    runs: ManyRuns,
    indices: NDArray[np.int64],
    void: Runs,
    values: tuple[list[int], int, int],
    rows: tuple[int, int],
) -> NDArray[Any]:
    """Draw the rows from `rows[0]` to before `rows[1]` of what `draw` draws (of a volume its slices)."""
    from ensemble_kit.kernels import labels as kernels

    own, empty, ignored = values
    kind = kind_of(values)
    shape = (rows[1] - rows[0], *void.shape[1:])
    begin = rows[0] * math.prod(void.shape[1:])
    out = np.full(math.prod(shape), empty, kind)
    each = runs.offsets[indices], runs.offsets[indices + 1]
    kernels.paint(runs.starts, runs.ends, *each, np.array(own, kind), begin, out)
    whole = np.array([[0], [len(void)]])
    kernels.paint(void.starts, void.ends, *whole, np.array([ignored], kind), begin, out)
    return out.reshape(shape)


def draw_slices(
    runs: ManyRuns, indices: NDArray[np.int64], void: Runs, values: tuple[list[int], int, int]
) -> Iterator[NDArray[Any]]:
    """Draw masks of a volume as `draw` does, one slice (H, W) at a time."""
    return (band[0] for band in draw_bands(runs, indices, void, values, 1))


def draw_bands(
    runs: ManyRuns, indices: NDArray[np.int64], void: Runs, values: tuple[list[int], int, int], height: int
) -> Iterator[NDArray[Any]]:
    """Draw masks as `draw` does, `height` rows at a time, of a volume slices; the last band may be lower."""
    for first in range(0, void.shape[0], height):
        yield draw_rows(runs, indices, void, values, (first, min(first + height, void.shape[0])))


def _invalid(item: str, fix: str) -> UsageError:
    return UsageError("label-map-invalid", "cannot use a label map", item=item, fix=fix)
