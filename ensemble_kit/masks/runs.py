"""`Runs`: a mask as sorted intervals, and the algebra of masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, MismatchError, UsageError, check_kind
from ensemble_kit.masks.rle import Order, check_options, parse_counts, parse_text
from ensemble_kit.once import once
from ensemble_kit.spec.geometry import Shape, as_text, check_image_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_AND, _OR, _XOR, _WITHOUT = 8, 14, 6, 2  # truth tables of `kernels.runs.combine`


class Runs:
    """A mask of an image or a volume as half-open intervals `[start, end)` over its row-major flattening.

    Parameters
    ----------
    starts, ends : int64 (n,), sorted and disjoint, each run at least one pixel long. Adjacent runs become one, so
        that equal masks are equal values.
    shape : size of the image, (H, W), or of the volume, (D, H, W).

    Raises
    ------
    DamagedError
        Runs that are unsorted, overlap, are empty, or leave the image.
    UsageError
        A shape of another number of axes.

    Examples
    --------
    >>> a = Runs([0, 6], [2, 8], (2, 4))
    >>> a.area, a.text()
    (4, '1 2 7 2')
    >>> (a | ~a).area
    8
    """

    __slots__ = ("__dict__", "ends", "shape", "starts")

    def __init__(self, starts: ArrayLike, ends: ArrayLike, shape: Shape) -> None:
        self.shape: Shape = check_image_size(shape, None)
        s, e = _positions(starts), _positions(ends)
        sound = s.size == e.size and bool(np.all(s < e)) and bool(np.all(e[:-1] <= s[1:]))
        if not sound or (s.size and (s[0] < 0 or e[-1] > math.prod(self.shape))):
            raise DamagedError(
                "runs-invalid",
                "cannot make a mask of runs",
                item=f"{s.size} starts and {e.size} ends on an image of {as_text(shape)}",
                fix="pass sorted, disjoint, half-open runs of at least one pixel that lie inside the image",
            )
        apart = np.append(True, s[1:] != e[:-1]) if s.size else np.zeros(0, bool)
        self.starts, self.ends = s[apart], e[np.append(apart[1:], True)] if s.size else e

    @classmethod
    def trusted(cls, edges: tuple[NDArray[np.int64], NDArray[np.int64]], shape: Shape) -> Runs:
        """Wrap starts and ends that a kernel made: sorted, disjoint, not adjacent, inside. Nothing is checked."""
        self = cls.__new__(cls)
        (self.starts, self.ends), self.shape = edges, shape
        return self

    @classmethod
    def empty(cls, shape: Shape) -> Runs:
        """Make the mask without a pixel."""
        return cls.trusted((np.zeros(0, np.int64), np.zeros(0, np.int64)), check_image_size(shape, None))

    @once
    def area(self) -> int:
        """Number of pixels that are on."""
        return int((self.ends - self.starts).sum())

    def decode(self) -> NDArray[np.bool_]:
        """Draw the mask: bool, of the image's size."""
        out = np.zeros(math.prod(self.shape), np.bool_)
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            out[start:end] = True
        return out.reshape(self.shape)

    def transposed(self) -> Runs:
        """Return the mask of the transposed image, W × H: its row-major runs are this one's column-major runs.

        Raises
        ------
        UsageError
            A mask of a volume.
        """
        from ensemble_kit.kernels import runs as kernels

        H, W = check_flat(self.shape, "cannot number pixels column by column")
        kept: Runs | None = self.__dict__.get("_transposed")  # of a mask that came column by column
        return kept if kept is not None else Runs.trusted(kernels.transpose(self.starts, self.ends, H, W), (W, H))

    def overlap(self, other: Runs) -> int:
        """Count the pixels that are on in both."""
        from ensemble_kit.kernels import runs as kernels

        check_kind("the other mask", other, Runs)
        self.check_same_size(other)
        return int(kernels.overlap(self.starts, self.ends, other.starts, other.ends))

    def __and__(self, other: Runs) -> Runs:
        return self._combine(other, _AND)

    def __or__(self, other: Runs) -> Runs:
        return self._combine(other, _OR)

    def __xor__(self, other: Runs) -> Runs:
        return self._combine(other, _XOR)

    def __sub__(self, other: Runs) -> Runs:
        return self._combine(other, _WITHOUT)

    def __invert__(self) -> Runs:
        return Runs.trusted((np.zeros(1, np.int64), np.full(1, math.prod(self.shape), np.int64)), self.shape) - self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.ends, other.ends)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.starts.tobytes(), self.ends.tobytes()))

    def __len__(self) -> int:
        return int(self.starts.size)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __repr__(self) -> str:
        return f"Runs({len(self)} runs, {self.area} of {as_text(self.shape)} pixels)"

    def _combine(self, other: Runs, table: int) -> Runs:
        from ensemble_kit.kernels import runs as kernels

        if not isinstance(other, Runs):
            return NotImplemented
        self.check_same_size(other)
        made = kernels.combine(self.starts, self.ends, other.starts, other.ends, table)
        return Runs.trusted(made, self.shape)

    def check_same_size(self, other: Runs) -> None:
        """Refuse a mask of another image's size."""
        if self.shape != other.shape:
            item = f"{as_text(self.shape)} and {as_text(other.shape)}"
            fix = "give both masks the size of the same image"
            raise MismatchError("plane-differs", "cannot combine masks of two sizes", item=item, fix=fix)

    def text(self, order: Order = "C", base: int = 1, relative: bool = False) -> str:
        """Write the mask as `start length start length …`; empty for an empty mask.

        Parameters
        ----------
        order : "C" counts pixels along rows, slice by slice; "F" down columns, of an image only.
        base : number of the first pixel, 0 or 1.
        relative : count each start from the end of the run before it; only the first start then has the base.

        Raises
        ------
        UsageError
            A volume with order="F".
        """
        from ensemble_kit.kernels import rle as kernels

        check_options(order, base)
        laid = self if order == "C" else self.transposed()
        return str(kernels.format_text(laid.starts, laid.ends, base, relative).data, "ascii")

    @classmethod
    def parse(cls, text: str, shape: Shape, order: Order = "C", base: int = 1, relative: bool = False) -> Runs:
        """Read `start length start length …` as `text` writes it.

        The grammar is strict: blank, or ASCII numbers with one space between, no leading zeros, lengths of at least
        1, sorted, disjoint, inside the image. Adjacent runs become one.

        Raises
        ------
        DamagedError
            Anything else, naming the number at fault.
        UsageError
            A volume with order="F".
        """
        check_options(order, base)
        shape = check_image_size(shape, None)
        if order == "F":
            check_flat(shape, "cannot number pixels column by column")
        edges = parse_text(text, shape, base, relative)
        return cls.trusted(edges, shape) if order == "C" else cls.trusted(edges, shape[::-1]).transposed()

    def coco(self) -> dict[str, Any]:
        """Return the mask as pycocotools has it: `{"size": [H, W], "counts": bytes}`, compressed, column-major.

        Raises
        ------
        UsageError
            A mask of a volume.
        """
        from ensemble_kit.kernels import rle as kernels

        return {"size": list(self.shape), "counts": kernels.counts_to_coco(self.coco_counts()).tobytes()}

    def coco_counts(self) -> NDArray[np.int64]:
        """Return COCO's uncompressed counts, int64: column-major lengths of off, on, off, … from the first pixel."""
        from ensemble_kit.kernels import rle as kernels

        check_flat(self.shape, "cannot write a COCO RLE")
        laid = self.transposed()
        return kernels.coco_counts(laid.starts, laid.ends, math.prod(self.shape))

    @classmethod
    def from_coco(cls, rle: Mapping[str, Any]) -> Runs:
        """Read COCO's RLE: `{"size": [H, W], "counts": bytes, text or list of int}`.

        Raises
        ------
        DamagedError
            Counts that are malformed, negative, or do not add up to H × W.
        """
        (starts, ends), shape = parse_counts(rle)
        return cls(starts, ends, shape[::-1]).transposed()


def _positions(values: ArrayLike) -> NDArray[np.int64]:
    """Copy positions as int64; nothing is rounded."""
    array = _array(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(
            "runs-not-integers",
            "cannot make a mask of runs",
            item=f"starts or ends of shape {array.shape}, {array.dtype}",
            fix="pass integers, one start and one end for each run",
        )
    return array.astype(np.int64)


def _array(values: ArrayLike) -> NDArray[Any]:
    """Return values as an array, of objects where they are not numbers or rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.asarray(None)


def encode(mask: ArrayLike) -> Runs:
    """Encode a mask, bool or integer (H, W) or (D, H, W); what is not zero is on.

    Raises
    ------
    UsageError
        An array of floats (threshold it first), of another rank, or without pixels.

    Examples
    --------
    >>> encode([[0, 1, 1], [1, 0, 0]]).text()
    '2 3'
    """
    from ensemble_kit.kernels import runs as kernels

    array = _array(mask)
    if array.ndim not in {2, 3} or 0 in array.shape or array.dtype.kind not in "bui":
        raise UsageError(
            "mask-invalid",
            "cannot encode a mask",
            item=f"array of shape {array.shape}, {array.dtype}",
            fix="pass bool or integers of shape (H, W), or (D, H, W) of a volume; for scores pass "
            "`scores >= threshold`",
        )
    if array.ndim == 3 and not array.flags.c_contiguous:
        return of_slices(array, array.shape)
    if array.itemsize != 1:
        array = array != 0
    if array.flags.f_contiguous and not array.flags.c_contiguous:  # copying it to rows took 14 of 15 ms
        H, W = array.shape
        laid = Runs.trusted(kernels.encode_bytes(array.T.reshape(-1).view(np.uint8)), (W, H))
        runs = laid.transposed()
        runs.__dict__["_transposed"] = laid
        return runs
    flat = np.ascontiguousarray(array).reshape(-1)
    return Runs.trusted(kernels.encode_bytes(flat.view(np.uint8)), array.shape)


def of_slices(slices: Iterable[NDArray[Any]], shape: Shape) -> Runs:
    """Encode a volume (D, H, W) whose slices, bool or integer (H, W), come one after the other."""
    from ensemble_kit.kernels import runs as kernels

    found, size = [kernels.encode_bytes(np.ravel(one != 0).view(np.uint8)) for one in slices], math.prod(shape[1:])
    starts, ends = (np.concatenate([one[k] + z * size for z, one in enumerate(found)]) for k in (0, 1))
    return Runs(starts, ends, shape)


def check_flat(shape: Shape, what: str) -> Shape:
    """Refuse a volume where only images have a meaning.

    Raises
    ------
    UsageError
        It names the kinds of files that hold volumes.
    """
    if len(shape) != 2:
        fix = "take rows of slices (order='C'), or write .npz, .npy, NIfTI or NRRD, which hold volumes; or take a slice"
        raise UsageError("volume-unfit", f"{what} of a volume", item=f"its size is {as_text(shape)}", fix=fix)
    return shape
