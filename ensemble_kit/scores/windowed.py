"""`WindowedSample`: members that all saw one window of the image, which is decided as an image of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.windows import cut, inside, placed
from ensemble_kit.once import once
from ensemble_kit.scores import space
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.scores.reframed import Reframed
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Upsample

_NONE = np.zeros(0, np.int64)


class WindowedSample(FusedSample):
    """One sample of members that saw the same window: whatever is fast for an image of its size decides it.

    Parameters
    ----------
    opened : opens the window as a sample.
    """

    def __init__(
        self, inputs: Inputs, sample: str, upsample: Upsample | None, opened: Callable[..., FusedSample]
    ) -> None:
        super().__init__(inputs, sample, upsample)
        self._window = self._own[0].covered
        members = tuple(Reframed(m) for m in self.inputs.members)
        self._inside = opened(replace(self.inputs, members=members), sample, upsample)

    @once
    def _background(self) -> int | None:
        """The number of the class that has all pixels outside the window; None where no class has them."""
        values = space.outside(self.inputs)
        return int(values.argmax()) if values.max() > 0 else None

    @once
    def _around(self) -> Runs:
        """The pixels outside the window."""
        return ~inside(self._window, self.image)

    def _placed(self, found: ManyRuns, classes: Sequence[int], reached: bool = True) -> ManyRuns:
        """Move masks of some classes to the image; the background's gets what lies outside, where it is reached."""
        moved = placed(found, self._window, self.image)
        if self._background not in classes or not reached:
            return moved
        masks, k = moved.masks(self.image), list(classes).index(cast("int", self._background))
        masks[k] = masks[k] | self._around
        return ManyRuns.of(masks)

    def winners(self, factors: Sequence[int], least: int | None = None) -> ManyRuns:
        """Give each pixel to the class of the largest `F_c · w_c`, ties to the first one (rule 10)."""
        return self._placed(self._inside.winners(factors, least), range(len(factors)), (least or 0) < LEVELS)

    def claims(self, levels: Sequence[int]) -> ManyRuns:
        """Give each pixel to the class of the largest value among those that reach their levels, if any (rule 10)."""
        reached = self._background is not None and levels[self._background] < LEVELS
        return self._placed(self._inside.claims(levels), range(len(levels)), reached)

    def _decide(self, levels: Mapping[int, int]) -> ManyRuns:
        reached = self._background in levels and levels[cast("int", self._background)] < LEVELS
        return self._placed(self._inside.decide(levels), list(levels), reached)

    def counts(self, bands: Mapping[int, tuple[int, int]], truth: Sequence[Runs] | None = None) -> LevelCounts:
        """Count pixels by effective level, those outside the window as the background's, at the last level."""
        given = [Runs.trusted((_NONE, _NONE), self.image)] * len(bands) if truth is None else truth
        own = cut(ManyRuns.of(given), self._window, self.image).masks(self._window.shape)
        counted = self._inside.counts(bands, own)
        if self._background not in bands:
            return counted
        k = list(bands).index(cast("int", self._background))
        low, high = bands[cast("int", self._background)]
        around = self._around.area, self._around.overlap(given[k])
        each = [counted.of(i) for i in range(len(bands))]
        each[k] = _with_last(each[k], low, high, *around)
        return LevelCounts.joined(each)

    def open_values(
        self, truth: ManyRuns, void: Runs, ratio: int, decided: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """Evaluate the pixels of the window that factors can change; those around it are the background's."""
        if self._background is None:
            yield from super().open_values(truth, void, ratio, decided)
            return
        kept, hidden = (cut(m, self._window, self.image) for m in (truth, ManyRuns.of([void])))
        around = self._around - void
        own = [mask.overlap(around) for mask in truth.masks(self.image)]
        decided[:, self._background] += [*own, around.area - sum(own)]
        yield from self._inside.open_values(kept, hidden.mask(0, self._window.shape), ratio, decided)


def _with_last(
    counted: tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64], int, int],
    low: int,
    high: int,
    pixels: int,
    hits: int,
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64], int, int]:
    """Add pixels at the last level to the counts of one class."""
    levels, pred, tp, above, above_tp = counted
    pred, tp = pred.astype(np.int64) + pixels, tp.astype(np.int64) + hits
    if high < LEVELS:
        return levels, pred, tp, above + pixels, above_tp + hits
    if low < LEVELS and (not levels.size or levels[-1] != LEVELS - 1):
        levels = np.append(levels, np.uint16(LEVELS - 1))
        pred, tp = np.append(pred, above + pixels), np.append(tp, above_tp + hits)
    return levels, pred, tp, above, above_tp
