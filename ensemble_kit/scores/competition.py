"""Where a class is beaten: the pixels at which another class has a higher score, and how high it is.

Confident networks leave few of them. A class can only be beaten where two classes reach a common floor, or where it
lies below that floor itself, so all classes are decided at one floor in one pass, and only pixels of those zones are
evaluated. The floor is free: it changes what the work costs and never what is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.mean import levels_of_probability

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 1 << 22
"""Scores that are evaluated at a time: what they take is bounded where every pixel is contested."""


class Beaten(NamedTuple):
    """Pixels of one class at which another class has a higher score.

    Parameters
    ----------
    positions : int64 (n,), ascending.
    levels : uint16 (n,), the class's own effective levels, on the mean's scale.
    own, tops : uint16 (n,), the class's probability and the highest one of all that compete, as levels of
        probabilities; own < tops.
    image : shape of the image.
    """

    positions: NDArray[np.int64]
    levels: NDArray[np.uint16]
    own: NDArray[np.uint16]
    tops: NDArray[np.uint16]
    image: Shape

    def is_below(self, ratio: int) -> NDArray[np.bool_]:
        """Tell for each pixel whether its probability is below a ratio, 65536 for 1, of the highest: bool (n,)."""
        return self.own.astype(np.int64) << 16 < self.tops.astype(np.int64) * ratio

    def below(self, ratio: int) -> Runs:
        """Return the pixels below a ratio of the highest probability as a mask."""
        from ensemble_kit.kernels import competition as kernels

        return Runs.trusted(kernels.runs_of_positions(self.positions[self.is_below(ratio)]), self.image)


def beaten(scores: FusedSample, rivals: Sequence[int], masks: Mapping[int, Runs]) -> list[Beaten]:
    """Find the pixels of some masks at which their class is beaten by a rival, whatever the ratio will be.

    Parameters
    ----------
    rivals : numbers of the classes that compete.
    masks : by the number of a class, one of the rivals: the pixels that are asked about. To know them all from a level
        on, for tuning: `scores.runs(c, level)`, or of several classes one call of `scores.decide`. Every other pixel of
        a mask has the highest score itself, and stays at any ratio.

    Returns
    -------
    list of Beaten
        One for each mask, in their order.
    """
    from ensemble_kit.kernels import competition as kernels

    if not masks:
        return []
    chances = levels_of_probability(scores.inputs.fusion.mean)
    tops, asked = np.zeros(math.prod(scores.image), np.uint16), _asked(scores, rivals, masks)
    parts: dict[int, list[tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16]]]] = {c: [] for c in masks}
    for band in _bands(scores.image, sum(mask.area for mask in asked)):
        found = scores.pixels_of(rivals, asked if band is None else [mask & band for mask in asked])
        for pixels in found:
            kernels.put_tops(*pixels, chances, tops)
        for c, mask in masks.items():
            parts[c].append(kernels.beaten(*found[rivals.index(c)], chances, tops, mask.starts, mask.ends))
    return [_joined(of_class, chances, scores.image) for of_class in parts.values()]


def _asked(scores: FusedSample, rivals: Sequence[int], masks: Mapping[int, Runs]) -> list[Runs]:
    """Find the pixels of each rival that have to be evaluated: where two classes reach a floor, or a mask is below it.

    The floor is the lowest level at which a class was decided: then no mask is below it, unless it was filled since.
    """
    from ensemble_kit.kernels import competition as kernels

    image, known = scores.image, scores.decided
    levels = [known[c][0] for c in masks if c in known]
    floor = min(levels) if len(levels) == len(masks) else _guessed(scores, masks)
    reached = {c: known[c][1] for c in rivals if c in known and known[c][0] == floor}
    missing = [c for c in rivals if c not in reached]
    reached |= zip(missing, scores.decide(dict.fromkeys(missing, floor)).masks(image), strict=True)
    own, marks = ManyRuns.of(list(masks.values())), np.zeros(math.prod(image), np.uint8)
    cut = ManyRuns(*kernels.contested(*ManyRuns.of([reached[c] for c in rivals]), own.starts, own.ends, marks))
    low = Runs.empty(image)
    for c, mask in masks.items():
        if below := mask - reached[c]:
            low |= below
    return [mask | low if low else mask for mask in cut.masks(image)]


def _guessed(scores: FusedSample, masks: Mapping[int, Runs]) -> int:
    """Guess the lowest level in some masks: at the first pixels of their runs scores are lowest, but for a few."""
    firsts = [Runs.trusted((mask.starts, mask.starts + 1), scores.image) for mask in masks.values()]
    levels = np.concatenate([levels for _, levels in scores.pixels_of(list(masks), firsts)])
    return int(np.partition(levels, levels.size // 100)[levels.size // 100]) if levels.size else 65535


def _bands(image: Shape, pixels: int) -> Iterator[Runs | None]:
    """Cut an image into bands of rows, a volume into bands of slices.

    One holds about as many of the `pixels` as are evaluated at a time.

    None is the whole image.
    """
    count = min(-(-pixels // AT_ONCE), image[0])
    if count < 2:
        yield None
        return
    cuts = np.linspace(0, image[0], count + 1).astype(np.int64) * math.prod(image[1:])
    for first, last in pairwise(cuts):
        yield Runs.trusted((first[None], last[None]), image)


def _joined(parts: Sequence[tuple[NDArray, ...]], chances: NDArray[np.uint16], image: Shape) -> Beaten:  # type: ignore[type-arg]
    positions, levels, tops = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Beaten(positions, levels, chances[levels], tops, image)
