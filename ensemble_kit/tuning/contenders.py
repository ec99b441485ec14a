"""Statistics of factors: the pixels whose winner factors can change, and how the others were decided.

One pass over scores and truth gathers them; factors, folds and bootstrap then look at these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.kernels.arguments import Contenders, Room, Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONE, LEAST, MOST = 65536, 512, 8388608
"""Integers of the factors 1, 1/128 and 128."""
RATIOS = (6, 10, 14)
"""Logarithms to base 2 of the ratios of factors that contenders are gathered for, and how they widen: 64 … 16384."""


@dataclass(frozen=True)
class ContenderTable:
    """Contenders of every undecided pixel of an ensemble, against the truth; exact at full image resolution.

    Memory is about 40 bytes an undecided pixel: 8 MB for an image of 1024 × 2048 with a tenth of them.

    Parameters
    ----------
    samples, classes : names.
    source : what they were gathered from; two tables of one source are interchangeable.
    adds : whether factors add (mean="logit") instead of multiplying.
    ratio : logarithm to base 2 of the ratio of factors within which no other class can win a pixel.
    contenders : of all samples; sample s has the pixels `offsets[s]:offsets[s+1]`.
    decided : int64 (samples, C + 1, C), the other pixels by class of the truth (last: none) and winner.
    hit, miss, both : int32 (samples, C, C), bounds for larger ratios; see `kernels.factors.gather`.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    adds: bool
    ratio: int
    contenders: Contenders
    offsets: NDArray[np.int64]
    decided: NDArray[np.int64]
    hit: NDArray[np.int32]
    miss: NDArray[np.int32]
    both: NDArray[np.int32]

    @property
    def room(self) -> Room:
        """The ratio, as kernels take it."""
        return room_of(self.ratio, self.adds)

    @cached_property
    def index(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The pixels of each class, and where those of each sample begin."""
        from ensemble_kit.kernels import factors as kernels

        pixels, begins = kernels.index(self.contenders, self.offsets, len(self.classes))
        return pixels, begins

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of the truth, int64 (samples, C)."""
        C, n = len(self.classes), len(self.samples)
        cells = np.repeat(np.arange(n), np.diff(self.offsets)) * (C + 1) + self.contenders.truth
        undecided = np.bincount(cells, minlength=n * (C + 1)).reshape(n, C + 1)
        return np.ascontiguousarray((self.decided.sum(2) + undecided)[:, :C])

    def scale(self, factors: Sequence[int]) -> Scale:
        """How factors act, as kernels take it."""
        from ensemble_kit.kernels import tables

        given = np.array(factors, np.int64)
        return (
            Scale(np.ones_like(given), tables.offsets(given), True)
            if self.adds
            else Scale(given, np.zeros_like(given), False)
        )

    def counts(
        self, factors: Sequence[int], samples: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return hits, and pixels by winner, of some samples (default: all): int64 (samples, C) each.

        The factors may not be further apart than the table's ratio.
        """
        from ensemble_kit.kernels import factors as kernels

        use = np.arange(len(self.samples)) if samples is None else samples
        decided = self.decided[use]
        tp = np.ascontiguousarray(np.diagonal(decided, axis1=1, axis2=2)).astype(np.int64)
        pred = decided.sum(1)
        kernels.count(self.contenders, self.offsets, use, np.arange(use.size), self.scale(factors), tp, pred)
        return tp, pred


def room_of(ratio: int, adds: bool) -> Room:
    """Return the ratio 2^`ratio` as kernels take it."""
    from ensemble_kit.kernels import tables

    if not adds:
        return Room(ratio, 0, RATIOS[-1], 0, 1)
    near, far = (int(tables.offsets(ONE << k)) + 1 for k in (ratio, RATIOS[-1]))  # of two rounded offsets, at most
    return Room(0, near, 0, far, -(1 << 62))


def concatenated(parts: Sequence[Contenders]) -> Contenders:
    """Put the pixels of several one after the other."""
    shifts = np.cumsum([0, *(p.classes.size for p in parts)])
    offsets = [p.offsets[:-1] + shift for p, shift in zip(parts, shifts, strict=False)]
    arrays: list[Any] = [np.concatenate([getattr(p, name) for p in parts]) for name in ("truth", "classes", "values")]
    return Contenders(arrays[0], np.concatenate([*offsets, shifts[-1:]]), arrays[1], arrays[2])
