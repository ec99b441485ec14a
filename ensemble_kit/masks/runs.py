"""`Runs`: a mask as sorted intervals, and the algebra of masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError, MismatchError, UsageError, check_kind
from ensemble_kit.spec.geometry import check_image_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Order = Literal["C", "F"]
_AND, _OR, _XOR, _WITHOUT = 8, 14, 6, 2  # truth tables of `kernels.runs.combine`


class Runs:
    """A mask of an H × W plane as half-open intervals `[start, end)` over its row-major flattening.

    Parameters
    ----------
    starts, ends : int64 (n,), sorted and disjoint, each run at least one pixel long. Adjacent runs become one, so
        that equal masks are equal values.
    shape : (H, W).

    Raises
    ------
    DamagedError
        Runs that are unsorted, overlap, are empty, or leave the plane.

    Examples
    --------
    >>> a = Runs([0, 6], [2, 8], (2, 4))
    >>> a.area, a.text()
    (4, '1 2 7 2')
    >>> (a | ~a).area
    8
    """

    __slots__ = ("__dict__", "_ends", "_starts", "shape")

    def __init__(self, starts: ArrayLike, ends: ArrayLike, shape: tuple[int, int]) -> None:
        self.shape = check_image_size(shape)
        s, e = _positions(starts), _positions(ends)
        sound = s.size == e.size and bool(np.all(s < e)) and bool(np.all(e[:-1] <= s[1:]))
        if not sound or (s.size and (s[0] < 0 or e[-1] > self.shape[0] * self.shape[1])):
            raise DamagedError(
                "runs-invalid",
                "cannot make a mask of runs",
                item=f"{s.size} starts and {e.size} ends on a plane of {shape[0]} x {shape[1]}",
                fix="pass sorted, disjoint, half-open runs of at least one pixel that lie inside the plane",
            )
        apart = np.append(True, s[1:] != e[:-1]) if s.size else np.zeros(0, bool)
        self._starts, self._ends = s[apart], e[np.append(apart[1:], True)] if s.size else e

    @classmethod
    def trusted(cls, edges: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int]) -> Runs:
        """Wrap starts and ends that a kernel made: sorted, disjoint, not adjacent, inside. Nothing is checked."""
        self = cls.__new__(cls)
        (self._starts, self._ends), self.shape = edges, shape
        return self

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Runs:
        """Make the mask without a pixel."""
        return cls.trusted((np.zeros(0, np.int64), np.zeros(0, np.int64)), check_image_size(shape))

    @property
    def starts(self) -> NDArray[np.int64]:
        """First position of each run, int64 (n,)."""
        return self._starts

    @property
    def ends(self) -> NDArray[np.int64]:
        """Position behind each run, int64 (n,)."""
        return self._ends

    @cached_property
    def area(self) -> int:
        """Number of pixels that are on."""
        return int((self._ends - self._starts).sum())

    def decode(self) -> NDArray[np.bool_]:
        """Draw the mask: bool (H, W)."""
        out = np.zeros(self.shape[0] * self.shape[1], np.bool_)
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            out[start:end] = True
        return out.reshape(self.shape)

    def transposed(self) -> Runs:
        """Return the mask of the transposed plane, W × H: its row-major runs are this one's column-major runs."""
        from ensemble_kit.kernels import runs as kernels

        H, W = self.shape
        kept: Runs | None = self.__dict__.get("_transposed")  # of a mask that came column by column
        return kept if kept is not None else Runs.trusted(kernels.transpose(self._starts, self._ends, H, W), (W, H))

    def overlap(self, other: Runs) -> int:
        """Count the pixels that are on in both."""
        from ensemble_kit.kernels import runs as kernels

        self._check_plane(other)
        return int(kernels.overlap(self._starts, self._ends, other._starts, other._ends))

    def __and__(self, other: Runs) -> Runs:
        return self._combine(other, _AND)

    def __or__(self, other: Runs) -> Runs:
        return self._combine(other, _OR)

    def __xor__(self, other: Runs) -> Runs:
        return self._combine(other, _XOR)

    def __sub__(self, other: Runs) -> Runs:
        return self._combine(other, _WITHOUT)

    def __invert__(self) -> Runs:
        H, W = self.shape
        return Runs.trusted((np.zeros(1, np.int64), np.full(1, H * W, np.int64)), self.shape) - self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self._starts, other._starts)
            and np.array_equal(self._ends, other._ends)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self._starts.tobytes(), self._ends.tobytes()))

    def __len__(self) -> int:
        return int(self._starts.size)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __repr__(self) -> str:
        H, W = self.shape
        return f"Runs({len(self)} runs, {self.area} of {H} x {W} pixels)"

    def _combine(self, other: Runs, table: int) -> Runs:
        from ensemble_kit.kernels import runs as kernels

        if not isinstance(other, Runs):
            return NotImplemented
        self._check_plane(other)
        made = kernels.combine(self._starts, self._ends, other._starts, other._ends, table)
        return Runs.trusted(made, self.shape)

    def _check_plane(self, other: Runs) -> None:
        if self.shape != other.shape:
            (a, b), (c, d) = self.shape, other.shape
            raise MismatchError(
                "plane-differs",
                "cannot combine masks of two sizes",
                item=f"{a} x {b} and {c} x {d}",
                fix="give both masks the size of the same image",
            )

    def text(self, order: Order = "C", base: int = 1, relative: bool = False) -> str:
        """Write the mask as `start length start length …`; empty for an empty mask.

        Parameters
        ----------
        order : "C" counts pixels along rows, "F" down columns.
        base : number of the first pixel, 0 or 1.
        relative : count each start from the end of the run before it; only the first start then has the base.
        """
        from ensemble_kit.kernels import rle as kernels

        _check_text_options(order, base)
        laid = self if order == "C" else self.transposed()
        return str(kernels.format_text(laid._starts, laid._ends, base, relative).data, "ascii")

    @classmethod
    def parse(
        cls, text: str, shape: tuple[int, int], order: Order = "C", base: int = 1, relative: bool = False
    ) -> Runs:
        """Read `start length start length …` as `text` writes it.

        The grammar is strict: blank, or ASCII numbers with one space between, no leading zeros, lengths of at least
        1, sorted, disjoint, inside the image. Adjacent runs become one.

        Raises
        ------
        DamagedError
            Anything else, naming the number at fault.
        """
        from ensemble_kit.kernels import rle as kernels

        check_kind("an RLE text", text, str)
        _check_text_options(order, base)
        H, W = check_image_size(shape)
        raw = _bytes(text)
        padded = np.frombuffer(raw + bytes(kernels.PAD), np.uint8)
        starts, ends, sound = kernels.parse_text(padded, len(raw), H * W, base, relative)
        if not sound:
            item, fix = _fault(raw, (H, W), base, relative)
            raise DamagedError("rle-invalid", "cannot read an RLE text", item=item, fix=fix)
        laid = cls.trusted((starts, ends), (H, W) if order == "C" else (W, H))
        return laid if order == "C" else laid.transposed()

    def coco(self) -> dict[str, Any]:
        """Return the mask as pycocotools has it: `{"size": [H, W], "counts": bytes}`, compressed, column-major."""
        from ensemble_kit.kernels import rle as kernels

        return {"size": list(self.shape), "counts": kernels.counts_to_coco(self.coco_counts()).tobytes()}

    def coco_counts(self) -> NDArray[np.int64]:
        """Return COCO's uncompressed counts, int64: column-major lengths of off, on, off, … from the first pixel."""
        from ensemble_kit.kernels import rle as kernels

        laid = self.transposed()
        return kernels.coco_counts(laid._starts, laid._ends, self.shape[0] * self.shape[1])

    @classmethod
    def from_coco(cls, rle: Mapping[str, Any]) -> Runs:
        """Read COCO's RLE: `{"size": [H, W], "counts": bytes, text or list of int}`.

        Raises
        ------
        DamagedError
            Counts that are malformed, negative, or do not add up to H × W.
        """
        from ensemble_kit.kernels import rle as kernels

        def refuse(item: str) -> DamagedError:
            return DamagedError(
                "coco-invalid",
                "cannot read a COCO RLE",
                item=item,
                fix="pass {'size': [H, W], 'counts': …} as pycocotools.mask.encode returns it",
            )

        try:
            size, counts = rle["size"], rle["counts"]
            H, W = check_image_size([_exact_int(v) for v in size])
        except (KeyError, TypeError, UsageError) as error:
            raise refuse(f"its size or counts are missing or invalid ({error})") from None
        if isinstance(counts, (bytes, str)):
            raw = np.frombuffer(_bytes(counts) if isinstance(counts, str) else counts, np.uint8)
            lengths, sound = kernels.coco_to_counts(raw)
            if not sound:
                raise refuse("its compressed counts are cut or hold a foreign character")
        else:
            try:
                lengths = np.array([_exact_int(v) for v in counts], np.int64)
            except (TypeError, OverflowError):
                raise refuse("its counts are not whole numbers") from None
        if (lengths < 0).any() or sum(lengths.tolist()) != H * W:
            raise refuse(f"its counts add up to {sum(lengths.tolist())}, the plane of {H} x {W} has {H * W} pixels")
        edges = np.cumsum(lengths)
        if edges.size % 2:
            edges = edges[:-1]
        starts, ends = edges[::2], edges[1::2]
        some = starts < ends
        return cls(starts[some], ends[some], (W, H)).transposed()


class ManyRuns(NamedTuple):
    """Runs of many masks one after the other, as kernels take and give them: one call for all, no object a mask."""

    starts: NDArray[np.int64]
    """First position of each run, int64 (n,)."""
    ends: NDArray[np.int64]
    """Position behind each run, int64 (n,)."""
    offsets: NDArray[np.int64]
    """Where each mask's runs begin, and the end of the last one's, int64 (masks + 1,)."""

    @classmethod
    def of(cls, masks: Sequence[Runs]) -> ManyRuns:
        """Copy the runs of many masks into one."""
        offsets = np.zeros(len(masks) + 1, np.int64)
        np.cumsum([m._starts.size for m in masks], out=offsets[1:])
        none = np.zeros(0, np.int64)
        starts, ends = [m._starts for m in masks] or [none], [m._ends for m in masks] or [none]
        return cls(np.concatenate(starts), np.concatenate(ends), offsets)

    @classmethod
    def joined(cls, parts: Sequence[ManyRuns]) -> ManyRuns:
        """Put the masks of all parts one after the other."""
        if not parts:
            return cls.of([])
        starts, ends, counts = zip(*((p.starts, p.ends, np.diff(p.offsets)) for p in parts), strict=True)
        return cls(np.concatenate(starts), np.concatenate(ends), np.cumsum(np.concatenate([[0], *counts])))

    def masks(self, shape: tuple[int, int]) -> list[Runs]:
        """View every mask, all of one size."""
        return [self.mask(place, shape) for place in range(self.offsets.size - 1)]

    def mask(self, place: int, shape: tuple[int, int]) -> Runs:
        """View one mask."""
        begin, end = self.offsets[place : place + 2].tolist()
        return Runs.trusted((self.starts[begin:end], self.ends[begin:end]), shape)


def _positions(values: ArrayLike) -> NDArray[np.int64]:
    """Copy positions as int64; nothing is rounded."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(
            "runs-not-integers",
            "cannot make a mask of runs",
            item=f"starts or ends of shape {array.shape}, {array.dtype}",
            fix="pass integers, one start and one end for each run",
        )
    return array.astype(np.int64)


def encode(mask: ArrayLike) -> Runs:
    """Encode a mask, bool or integer (H, W); what is not zero is on.

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

    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "bui":
        raise UsageError(
            "mask-invalid",
            "cannot encode a mask",
            item=f"array of shape {array.shape}, {array.dtype}",
            fix="pass bool or integers of shape (H, W); for scores pass `scores >= threshold`",
        )
    H, W = array.shape
    if array.itemsize != 1:
        array = array != 0
    if array.flags.f_contiguous and not array.flags.c_contiguous:  # copying it to rows took 14 of 15 ms
        laid = Runs.trusted(kernels.encode_bytes(array.T.reshape(-1).view(np.uint8)), (W, H))
        runs = laid.transposed()
        runs.__dict__["_transposed"] = laid
        return runs
    flat = np.ascontiguousarray(array).reshape(-1)
    return Runs.trusted(kernels.encode_bytes(flat.view(np.uint8)), (H, W))


def texts(masks: Sequence[Runs], order: Order = "C", base: int = 1, relative: bool = False) -> list[str]:
    """Write many masks as `Runs.text` writes each, in one call.

    Examples
    --------
    >>> texts([Runs([0], [2], (2, 2)), Runs.empty((2, 2))])
    ['1 2', '']
    """
    from ensemble_kit.kernels import rle as kernels

    _check_text_options(order, base)
    if not masks:
        return []
    many = ManyRuns.of(masks if order == "C" else [m.transposed() for m in masks])
    glue = np.full(len(masks) + kernels.PAD, ord("\n"), np.uint8)
    cuts = np.clip(np.arange(len(masks) + 2) - 1, 0, len(masks) - 1)
    written = kernels.format_texts(
        glue, cuts, many.starts, many.ends, many.offsets[:-1], many.offsets[1:], base, relative
    )
    return str(written.data, "ascii").split("\n")


def overlaps(a: Sequence[Runs], b: Sequence[Runs]) -> NDArray[np.int64]:
    """Count the pixels that are on in both masks of each pair, int64 (n,), in one call.

    Raises
    ------
    MismatchError
        The masks of a pair differ in size.

    Examples
    --------
    >>> overlaps([Runs([0], [3], (2, 2))], [Runs([2], [4], (2, 2))]).tolist()
    [1]
    """
    from ensemble_kit.kernels import runs as kernels

    for one, other in zip(a, b, strict=True):
        if one.shape != other.shape:
            one._check_plane(other)
    out = np.zeros(len(a), np.int64)
    if len(a):
        kernels.overlaps(*ManyRuns.of(a), *ManyRuns.of(b), out)
    return out


def _exact_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{value!r} is not a whole number")
    return int(value)


def _bytes(text: str) -> bytes:
    """Encode what may be no Unicode text: JSON can hold half a surrogate pair."""
    return text.encode(errors="surrogatepass")


def _check_text_options(order: str, base: int) -> None:
    if order not in {"C", "F"} or base not in {0, 1}:
        raise UsageError(
            "rle-options",
            "cannot number pixels",
            item=f"order={order!r}, base={base!r}",
            fix="pass order='C' or 'F' and base=0 or 1",
        )


def _fault(raw: bytes, shape: tuple[int, int], base: int, relative: bool) -> tuple[str, str]:
    """Tell what is wrong with an RLE text that the kernel refused, and how to mend it."""
    H, W = shape
    last = H * W - 1 + base
    start = behind = 0
    found = re.match(rb"[0-9]++(?: [0-9]++)*+", raw)
    numbers, end = (found[0].split(b" "), found.end()) if found else ([], 0)
    for k, digits in enumerate(numbers):
        number = digits.decode() if len(digits) <= 24 else f"{digits[:20].decode()}… ({len(digits)} digits)"
        named = f"number {k + 1} is {number}, "
        if digits.startswith(b"0") and len(digits) > 1:
            return f"{named}which has a leading zero", _GRAMMAR_FIX
        value = int(digits[:20])  # more digits only make it larger, and this is beyond any plane
        if k % 2:
            if value == 0:
                return f"{named}a length of zero", _GRAMMAR_FIX
            if value > H * W - start:
                return f"{named}and its run ends beyond the last pixel {last} of {H} x {W}", _SIZE_FIX
            behind = start + value
        else:
            start = behind + value if relative and k else value - base
            if start < 0:
                return f"{named}a start below the first pixel, {base}", "pass base=0, or write starts that count from 1"
            if start < behind:
                return f"{named}a start inside or before the run before it", _GRAMMAR_FIX
            if start >= H * W:
                return f"{named}beyond the last pixel {last} of {H} x {W}", _SIZE_FIX
    if end < len(raw):
        where = min(end + (raw[end : end + 1] == b" " and end > 0), len(raw) - 1)
        around = raw[max(0, where - 8) : where + 8].decode(errors="replace")
        return f"unexpected character at byte {where} of {len(raw)}, around {around!r}", _GRAMMAR_FIX
    return f"{len(numbers)} numbers, which is odd: the last start has no length", _GRAMMAR_FIX


_GRAMMAR_FIX = "write `start length` pairs with one space between numbers"
_SIZE_FIX = "check the image's height and width, the order (C or F), and the base (0 or 1)"
