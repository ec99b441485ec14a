"""`ClassStatistics`: how many pixels, and how many of the truth, lie at or above every level, of one class."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import ResourceError
from ensemble_kit.execution import parts
from ensemble_kit.once import once
from ensemble_kit.tuning.count_file import Mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

Band = tuple[int, int]
"""Levels `low … high-1`."""
_ALIGNED, _ENTRY = 64, 10
LOOKED_AT = 16_000_000
"""Bytes of arrays in a file that memory holds at a time."""
_SMALL = 4_000_000
"""Bytes of arrays in a file that memory holds until `release`: looking at them again would bring each page back."""


@dataclass(frozen=True)
class ClassStatistics:
    """Counts of one class in a band of levels, for every sample; exact at full image resolution.

    Parameters
    ----------
    low, high : the band is `low … high-1`.
    offsets : int64 (samples + 1,); sample s has the entries `offsets[s]:offsets[s+1]` of the next three.
    levels : uint16 (n,), the levels of the band that occur, ascending within a sample.
    pred, tp : (n,), pixels that are not void, and truth pixels, at that level and above; uint32, int64 for images of
        2^32 pixels or more.
    above, above_tp : int64 (samples,), those at `high` and above.
    truth : int64 (samples,), pixels of the truth that are not void.
    area, above_area : as `pred` and `above`, with void pixels; None: not counted, or the same, since no pixel is void.
    mapped : where a temporary file holds the arrays by level, if it does.
    solved : best levels that were found, by what was asked (see `Curve`).
    """

    low: int
    high: int
    offsets: NDArray[np.int64]
    levels: NDArray[np.uint16]
    pred: NDArray[Any]
    tp: NDArray[Any]
    above: NDArray[np.int64]
    above_tp: NDArray[np.int64]
    truth: NDArray[np.int64]
    area: NDArray[Any] | None = None
    above_area: NDArray[np.int64] | None = None
    mapped: Mapped | None = field(default=None, compare=False, repr=False)
    solved: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def at(self, level: int, release: bool = True) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return truth pixels and pixels at or above `level`, int64 (samples,) each.

        `level` lies in the band or is its upper edge; it may lie above where no pixel does. Who asks for many levels
        in turn does so without `release`, and calls that at the end.
        """
        from ensemble_kit.kernels import counts

        tp, pred = np.empty_like(self.above), np.empty_like(self.above)
        for first, last in self._stretches(np.arange(self.truth.size)):
            own, to = slice(first, last), self.offsets[first : last + 1]
            above = self.above[own], self.above_tp[own]
            counts.counts_at(level, to, self.levels, self.pred, self.tp, *above, tp[own], pred[own])
            self.let_go()
        if release:
            self.release()
        return tp, pred

    def at_each(
        self, samples: NDArray[np.int64], levels: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return truth pixels and pixels of some samples, each at or above a level of its own.

        Parameters
        ----------
        samples : int64 (n,), by number.
        levels : int64 (rows, n), of the band or its upper edge.

        Returns
        -------
        tuple of int64 arrays (rows, n)
            The arrays by level are held until `release`.
        """
        from ensemble_kit.kernels import counts

        tp, pred = np.empty_like(levels), np.empty_like(levels)
        own = self.offsets, self.levels, self.pred, self.tp, self.above, self.above_tp
        for first, last in self._stretches(samples):
            counts.counts_at_each(samples, levels, first, last, *own, tp, pred)
            self.let_go()
        return tp, pred

    def in_turn(self, samples: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Give samples, by number; of arrays in a file some at a time, so that memory does not hold those of all."""
        for first, last in self._stretches(samples):
            yield samples[first:last]
            self.let_go()

    def _stretches(self, samples: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Share samples, by ascending number, out by where they end in a file; in memory they are one share.

        Also what lies between two of them counts: a system that reads a page brings those around it.
        """
        share = np.zeros(samples.size, np.int64)
        if self.mapped is not None:
            share = self.offsets[samples] * _ENTRY // LOOKED_AT
        cuts = np.flatnonzero(np.diff(share)) + 1
        return list(pairwise([0, *cuts.tolist(), samples.size])) if samples.size else []

    def let_go(self) -> None:
        """Give back the memory of what was looked at where that is much, and keep what is known."""
        if self.mapped is not None and _ENTRY * self.levels.size > _SMALL:
            self.mapped.release()

    def spilled(self) -> ClassStatistics:
        """Return the same counts with the arrays by level in a temporary file, which vanishes with them.

        Memory holds what is looked at, until `release`.

        Raises
        ------
        ResourceError
            The temporary file cannot be written.
        """
        names = [name for name in _KINDS if getattr(self, name) is not None]
        if not self.levels.size or self.mapped is not None:
            return self
        places, size = dict[str, int](), 0
        try:
            with tempfile.TemporaryFile() as file:
                for name in names:
                    array = np.ascontiguousarray(getattr(self, name))
                    places[name] = size
                    file.seek(size)
                    file.write(array.data)
                    size += -(-array.nbytes // _ALIGNED) * _ALIGNED
                file.truncate(size)
                file.flush()
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)  # kernels take no read-only arrays
        except OSError as error:
            item = f"{tempfile.tempdir or 'no folder can be written'}: {error.strerror or error}"
            fix = "set TMPDIR to a folder with more room, or pass a larger --memory"
            raise ResourceError("write-failed", "cannot keep counts in a temporary file", item=item, fix=fix) from error
        arrays: dict[str, Any] = {
            name: np.frombuffer(mapped, getattr(self, name).dtype, getattr(self, name).size, place)
            for name, place in places.items()
        }
        return replace(self, mapped=Mapped(mapped, 0, size), **arrays)

    def release(self) -> None:
        """Give back the memory of what was looked at, where the arrays are in a file."""
        if self.mapped is not None:
            self.__dict__.pop("breaks", None)
            self.mapped.release()

    def emptied(self, least: NDArray[np.int64]) -> ClassStatistics:
        """Return the counts of masks that are empty where they have fewer pixels, void ones among them, than `least`.

        Parameters
        ----------
        least : int64 (samples,).
        """
        area, above_area = self.areas
        stays, above_stays = area >= np.repeat(least, np.diff(self.offsets)), above_area >= least
        return replace(
            self,
            pred=self.pred * stays,
            tp=self.tp * stays,
            above=self.above * above_stays,
            above_tp=self.above_tp * above_stays,
        )

    @property
    def areas(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """All pixels at each level and above, and at `high` and above, as `pred` and `above` without void ones."""
        if self.area is None or self.above_area is None:
            return self.pred, self.above
        return self.area, self.above_area

    def segment(self, level: int) -> tuple[int, int]:
        """Return the levels with the masks that `level` gives, both ends included, as far as the band tells."""
        after = int(np.searchsorted(self.breaks, level))
        first = int(self.breaks[after - 1]) + 1 if after > 0 else self.low
        if after < self.breaks.size:
            return first, int(self.breaks[after])
        return first, (65536 if not self.above.any() else self.high) - 1

    def of_sample(self, s: int) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
        """Return levels, pixels and truth pixels at or above them, of sample number `s`."""
        own = slice(self.offsets[s], self.offsets[s + 1])
        return self.levels[own], self.pred[own].astype(np.int64), self.tp[own].astype(np.int64)

    @once
    def breaks(self) -> NDArray[np.int64]:
        """Levels that occur in any sample, ascending; between two of them no mask changes."""
        from ensemble_kit.kernels import counts

        seen = np.zeros(65536, np.bool_)
        for first, last in self._stretches(np.arange(self.truth.size)):
            counts.mark_levels(self.levels[self.offsets[first] : self.offsets[last]], seen)
            self.let_go()
        return np.flatnonzero(seen)

    def narrowed(self, low: int, high: int) -> ClassStatistics:
        """Return the counts of a narrower band, as counting in it returns them."""
        inside = (self.levels >= low) & (self.levels < high)
        ends = np.concatenate([[0], np.cumsum(inside)])[self.offsets]
        above_tp, above = self.at(high)
        narrow = replace(
            self,
            low=low,
            high=high,
            offsets=ends,
            levels=self.levels[inside],
            pred=self.pred[inside],
            tp=self.tp[inside],
            above=above,
            above_tp=above_tp,
        )
        if self.area is None or self.above_area is None:
            return narrow
        whole = replace(self, pred=self.area, above=self.above_area)
        return replace(narrow, area=self.area[inside], above_area=whole.at(high)[1])

    def in_band(self, low: int, high: int) -> ClassStatistics:
        """Return the counts of a band that lies in this one; these, where it is the same."""
        return self if (low, high) == (self.low, self.high) else self.narrowed(low, high)

    def placed(
        self, levels: NDArray[Any], pred: NDArray[Any], tp: NDArray[Any], mapped: Mapped | None
    ) -> ClassStatistics:
        """Return the same counts with their arrays by level elsewhere."""
        return replace(self, levels=levels, pred=pred, tp=tp, mapped=mapped)

    def of_samples(self, samples: NDArray[np.int64]) -> ClassStatistics:
        """Return the counts of some samples, by number, in this order; these, where it is all of them."""
        if np.array_equal(samples, np.arange(self.truth.size)):
            return self
        cuts = [slice(self.offsets[s], self.offsets[s + 1]) for s in samples.tolist()]
        arrays: dict[str, Any] = {"offsets": np.cumsum([0, *(cut.stop - cut.start for cut in cuts)])}
        for name in (*ARRAYS[1:], *(AREAS if self.area is not None else ())):
            own = getattr(self, name)
            arrays[name] = np.concatenate([own[cut] for cut in cuts]) if name in _KINDS else own[samples]
        return replace(self, mapped=None, **arrays)


def joined(tables: Sequence[ClassStatistics]) -> ClassStatistics:
    """Put the samples of several tables of one class and band, of all shares in their order, back into their order."""
    order = parts.joined([[(t, s) for s in range(t.truth.size)] for t in tables])
    cuts = [(t, slice(t.offsets[s], t.offsets[s + 1])) for t, s in order]
    arrays: dict[str, Any] = {"offsets": np.cumsum([0, *(cut.stop - cut.start for _, cut in cuts)])}
    for name in (*ARRAYS[1:], *(AREAS if tables[0].area is not None else ())):
        if name in _KINDS:
            arrays[name] = np.concatenate([getattr(t, name)[cut] for t, cut in cuts])
        else:
            arrays[name] = np.array([getattr(t, name)[s] for t, s in order])
    return replace(tables[0], **arrays)


_KINDS = {"levels": (np.uint16,), **dict.fromkeys(("pred", "tp", "area"), (np.uint32, np.int64))}
ARRAYS = ("offsets", "levels", "pred", "tp", "above", "above_tp", "truth")
AREAS = ("area", "above_area")


def is_sound(t: ClassStatistics, samples: int) -> bool:
    """Tell whether a table's arrays can be handed to a kernel, which checks nothing."""
    names = (*ARRAYS, *(AREAS if t.area is not None else ()))
    kinds = [getattr(t, name).dtype in _KINDS.get(name, (np.int64,)) for name in names]
    n, (area, above_area) = t.levels.shape, t.areas
    return bool(
        all(kinds)
        and t.offsets.shape == (samples + 1,)
        and t.above.shape == t.above_tp.shape == above_area.shape == t.truth.shape == (samples,)
        and t.pred.shape == t.tp.shape == area.shape == n
        and (np.diff(t.offsets) >= 0).all()
        and (int(t.offsets[0]), int(t.offsets[-1])) == (0, n[0])
        and 0 <= t.low < t.high <= 65536
        and bool(((t.levels >= t.low) & (t.levels < t.high)).all())
    )
