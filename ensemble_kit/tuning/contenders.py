"""Statistics of factors: the pixels whose winner factors can change, and how the others were decided.

One pass over scores and truth gathers them; factors, folds and bootstrap then look at these alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.execution import parts
from ensemble_kit.kernels.arguments import Contenders, Room, Scale
from ensemble_kit.once import once
from ensemble_kit.spec.factors import ONE
from ensemble_kit.tuning import archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.factor-statistics/2"
RATIOS = (5, 9, 14)
"""Logarithms to base 2 of the ratios of factors that contenders are gathered for, and how they widen: 32 … 16384."""


@dataclass(frozen=True)
class ContenderTable:
    """Contenders of every undecided pixel of an ensemble, against the truth; exact at full image resolution.

    Memory is about 40 bytes an undecided pixel: 8 MB for an image of 1024 × 2048 with a tenth of them.

    Parameters
    ----------
    samples, classes : names.
    background : a class that wins pixels and is not scored, since its mask is not written; None: all are.
    source : what they were gathered from; two tables of one source and background are interchangeable.
    adds : whether factors add (mean="logit") instead of multiplying.
    ratio : logarithm to base 2 of the ratio of factors within which no other class can win a pixel.
    contenders : of all samples; sample s has the pixels `begins[s]:begins[s+1]`.
    begins : int64 (samples + 1,).
    decided : int64 (samples, C + 1, C), the other pixels by class of the truth (last: none) and winner.
    far, doubt : int32 (samples, ratios - 1, C, C, 2) and (samples, ratios - 1, C, C), what larger ratios change; see
        `kernels.factors.gather`.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    background: str | None
    source: str
    adds: bool
    ratio: int
    contenders: Contenders
    begins: NDArray[np.int64]
    decided: NDArray[np.int64]
    far: NDArray[np.int32]
    doubt: NDArray[np.int32]

    @property
    def silent(self) -> int:
        """Number of the background, -1 if there is none."""
        return -1 if self.background is None else self.classes.index(self.background)

    @property
    def scored(self) -> list[int]:
        """Numbers of the classes that are scored."""
        return [c for c in range(len(self.classes)) if c != self.silent]

    @property
    def free(self) -> list[int]:
        """Numbers of the classes whose factors mean something: one is 1, the background's or else the first."""
        return [c for c in range(len(self.classes)) if c != max(self.silent, 0)]

    @property
    def room(self) -> Room:
        """The ratio, as kernels take it."""
        return room_of(self.ratio, self.adds)

    @once
    def index(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The pixels of each class, and where those of each sample begin."""
        from ensemble_kit.kernels import factors as kernels

        pixels, begins = kernels.index(self.contenders, self.begins, len(self.classes), self.room)
        return pixels, begins

    @once
    def areas(self) -> NDArray[np.int64]:
        """Pixels of the truth, int64 (samples, C)."""
        C, n = len(self.classes), len(self.samples)
        cells = np.repeat(np.arange(n), np.diff(self.begins)) * (C + 1) + self.contenders.truth
        undecided = np.bincount(cells, minlength=n * (C + 1)).reshape(n, C + 1)
        return np.ascontiguousarray((self.decided.sum(2) + undecided)[:, :C])

    def of_sample(self, s: int) -> Contenders:
        """Return the contenders of sample number `s`."""
        pixels, p = slice(self.begins[s], self.begins[s + 1]), self.contenders
        offsets = p.offsets[self.begins[s] : self.begins[s + 1] + 1]
        own = slice(offsets[0], offsets[-1])
        return Contenders(p.truth[pixels], offsets - offsets[0], p.classes[own], p.values[own])

    def scale(self, factors: Sequence[int]) -> Scale:
        """How factors act, as kernels take it."""
        from ensemble_kit.kernels import tables

        given = np.array(factors, np.int64)
        if self.adds:
            return Scale(np.ones_like(given), tables.offsets(given), True)
        return Scale(given, np.zeros_like(given), False)

    def counts(
        self, factors: Sequence[int], samples: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return hits, and pixels by winner, of some samples (default: all): int64 (samples, C) each.

        The factors may not be further apart than the table's ratio.
        """
        from ensemble_kit.kernels import factors as kernels

        use = np.arange(len(self.samples)) if samples is None else samples
        decided = self.decided[use]
        tp = np.ascontiguousarray(np.diagonal(decided, axis1=1, axis2=2))
        pred = decided.sum(1)
        kernels.count(self.contenders, self.begins, use, np.arange(use.size), self.scale(factors), tp, pred)
        return tp, pred

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; complete, or nothing."""
        archive.save(Path(path), *self.unpacked())

    def unpacked(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a file holds: a head of JSON values, and arrays by name."""
        head = {"format": FORMAT, **{name: getattr(self, name) for name in _HEAD}}
        return head, {**{name: getattr(self, name) for name in _ARRAYS}, **self.contenders._asdict()}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ContenderTable:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It holds something else.
        """
        return archive.load(Path(path), cls.packed)

    @classmethod
    def packed(cls, head: Mapping[str, Any], read: archive.Arrays) -> ContenderTable:
        """Make a table of what a file holds; ValueError where kernels, which check nothing, could not use it."""
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        values: dict[str, Any] = {name: read(name) for name in _ARRAYS} | {name: head[name] for name in _HEAD}
        values |= {name: tuple(head[name]) for name in ("samples", "classes")}
        table = cls(contenders=Contenders(*(read(name) for name in Contenders._fields)), **values)
        if not _is_sound(table):
            raise ValueError("its arrays do not fit each other")
        return table


def room_of(ratio: int, adds: bool) -> Room:
    """Return the ratio 2^`ratio`, and larger ones up to the largest, as kernels take them."""
    from ensemble_kit.kernels import tables

    ratios = [r for r in (ratio, ratio + 1, ratio + 2, ratio + 4) if r < RATIOS[-1]] + [RATIOS[-1]]
    if not adds:
        return Room(np.array(ratios), np.zeros(len(ratios), np.int64), 1)
    gaps = tables.offsets(np.array([ONE << r for r in ratios])) + 1  # of two rounded offsets, at most
    return Room(np.zeros(len(ratios), np.int64), gaps, -(1 << 62))


def concatenated(several: Sequence[Contenders]) -> Contenders:
    """Put the pixels of several one after the other."""
    shifts = np.cumsum([0, *(p.classes.size for p in several)])
    offsets = [p.offsets[:-1] + shift for p, shift in zip(several, shifts, strict=False)]
    arrays: list[Any] = [np.concatenate([getattr(p, name) for p in several]) for name in ("truth", "classes", "values")]
    return Contenders(arrays[0], np.concatenate([*offsets, shifts[-1:]]), arrays[1], arrays[2])


def joined(tables: Sequence[ContenderTable]) -> ContenderTable:
    """Put the samples of several tables of one ratio, of all shares in their order, back into their order."""
    order = parts.joined([[(t, s) for s in range(len(t.samples))] for t in tables])
    rows = [t.of_sample(s) for t, s in order]
    arrays: dict[str, Any] = {n: np.stack([getattr(t, n)[s] for t, s in order]) for n in ("decided", "far", "doubt")}
    begins = np.cumsum([0, *(row.truth.size for row in rows)])
    samples = tuple(t.samples[s] for t, s in order)
    return replace(tables[0], samples=samples, contenders=concatenated(rows), begins=begins, **arrays)


_HEAD = ("samples", "classes", "background", "source", "adds", "ratio")
_ARRAYS = {"begins": np.int64, "decided": np.int64, "far": np.int32, "doubt": np.int32}


def _is_sound(t: ContenderTable) -> bool:
    n, C, p = len(t.samples), len(t.classes), t.contenders
    kinds = [getattr(t, name).dtype == kind for name, kind in _ARRAYS.items()]
    kinds += [p.truth.dtype == p.classes.dtype == np.uint16, p.offsets.dtype == np.int64, p.values.dtype == np.uint32]
    return bool(
        all(kinds)
        and t.ratio in RATIOS
        and (t.background is None or t.background in t.classes)
        and t.decided.shape == (n, C + 1, C)
        and t.far.shape == (*t.doubt.shape, 2) == (n, t.room.shifts.size - 1, C, C, 2)
        and _ascends(t.begins, n, p.truth.size)
        and _ascends(p.offsets, p.truth.size, p.classes.size)
        and p.truth.ndim == p.classes.ndim == 1
        and p.classes.shape == p.values.shape
        and (np.diff(p.offsets) > 1).all()
        and (p.truth <= C).all()
        and (p.classes < C).all()
        and (t.adds or (p.values > 0).all())
    )


def _ascends(offsets: NDArray[np.int64], parts: int, last: int) -> bool:
    """Tell whether offsets cut `last` items into parts."""
    ends = offsets.shape == (parts + 1,) and int(offsets[0]) == 0 and int(offsets[-1]) == last
    return bool(ends and (np.diff(offsets) >= 0).all())
