"""The cells from which a second stage is fitted: drawn by strata from every sample and class, with their truth."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.windows import cut
from ensemble_kit.stacking.features import SampleFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.execution.executor import Item
    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.geometry import Placement, Shape

PER_STRATUM = 150
"""Most cells of a stratum of a sample; whichever are drawn stand for all of it."""
_CELLS = 4_000_000
"""About the most cells of a class: more samples give fewer each, so that memory is bounded."""
_EDGES = (-6.0, -3.0, -1.0, 1.0, 3.0)
"""Fused logits between the strata, each of which is parted again by the truth: undecided cells get the most rows."""

STRATA = 2 * len(_EDGES) + 2


def per_stratum(samples: int) -> int:
    """Return how many cells of a stratum are drawn of each of so many samples, at most."""
    return max(1, min(PER_STRATUM, _CELLS // (STRATA * samples)))


class Rows(NamedTuple):
    """Cells of one class: of one sample, or of several joined.

    Parameters
    ----------
    features : float32 (n, features).
    truth : float32 (n,), the share of the cell that the true mask covers.
    weight : float64 (n,), how many cells, without their void share, each stands for.
    """

    features: NDArray[np.float32]
    truth: NDArray[np.float32]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class DrawRows:
    """The work of drawing one sample's rows of some classes; its items carry the sample's `Truth` of all classes.

    Parameters
    ----------
    classes : class numbers.
    most : cells of a stratum, at most.
    """

    inputs: Inputs
    classes: tuple[int, ...]
    seed: int
    most: int = PER_STRATUM

    def __call__(self, item: Item) -> list[Rows]:
        """Draw the rows of each class."""
        seen = SampleFeatures(self.inputs, item.sample)
        place = seen.placement
        known = 1 - coverage(item.truth.void, seen.shape, place) if item.truth.void is not None else None
        out = []
        for c in self.classes:
            on = coverage(item.truth.masks[c], seen.shape, place)
            weight = np.ones(seen.shape) if known is None else known.astype(np.float64)
            if known is not None:
                on = np.divide(on, known, out=np.zeros_like(on), where=known > 0)
            key = f"{self.seed} {item.sample!r} {self.inputs.classes[c]!r}"
            which, share = draw(
                seen.fused(c).ravel(), on.ravel() >= 0.5, weight.ravel() > 0, _generator(key), self.most
            )
            columns = [np.broadcast_to(f, seen.shape).ravel()[which] for f in seen.of(c)]
            out.append(Rows(np.stack(columns, axis=1), on.ravel()[which], weight.ravel()[which] * share))
        return out


def draw(
    fused: NDArray[np.float32],
    on: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    rng: np.random.Generator,
    most: int = PER_STRATUM,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw cells by strata of the fused logit and the truth, without replacement.

    Returns
    -------
    int64 and float64 (n,)
        Their numbers, ascending, and how many cells each stands for.
    """
    stratum = 2 * np.searchsorted(np.array(_EDGES), fused) + on
    which, share = [], []
    for k in range(STRATA):
        cells = np.flatnonzero((stratum == k) & counts)
        taken = cells if cells.size <= most else rng.choice(cells, most, replace=False, shuffle=False)
        which.append(taken)
        share.append(np.full(taken.size, cells.size / max(taken.size, 1)))
    found = np.concatenate(which)
    order = np.argsort(found)
    return found[order], np.concatenate(share)[order]


def coverage(mask: Runs, shape: Shape, place: Placement | None = None) -> NDArray[np.float32]:
    """Return the share of each cell that a mask covers: float32 of `shape`, cells that cover the mask's image.

    Parameters
    ----------
    place : where the cells lie, if they cover a window of the image.
    """
    if place is not None and place.window is not None:
        mask = cut(ManyRuns.of([mask]), place.covered, place.image).mask(0, place.covered.shape)
    if mask.shape == tuple(shape):
        return mask.decode().astype(np.float32)
    if len(shape) == 3:
        return np.stack([_slice_coverage(mask, k, shape) for k in range(shape[0])])
    return _in_rows(mask.decode().astype(np.float64), shape)


def _slice_coverage(mask: Runs, k: int, shape: Shape) -> NDArray[np.float32]:
    """Cover one slice of cells: by each slice of a volume as much as lies in it."""
    depth, pixels, cells = mask.shape[0], math.prod(mask.shape[1:]), shape[0]
    first, stop = k * depth // cells, -(-(k + 1) * depth // cells)
    numbers = np.arange(first, stop)
    weights = np.minimum((numbers + 1) * cells, (k + 1) * depth) - np.maximum(numbers * cells, k * depth)
    own = ManyRuns.of([mask]).between(first * pixels, stop * pixels)
    part = Runs.trusted((own.starts - first * pixels, own.ends - first * pixels), (stop - first, *mask.shape[1:]))
    return _in_rows(np.einsum("z,zyx->yx", weights / depth, part.decode()), shape[1:])


def _in_rows(area: NDArray[np.float64], shape: Shape) -> NDArray[np.float32]:
    """Average an image over cells."""
    for axis, cells in enumerate(shape):
        area = _cut(area, axis, cells)
    return np.clip(area, 0, 1).astype(np.float32)


def _cut(values: NDArray[np.float64], axis: int, cells: int) -> NDArray[np.float64]:
    """Average along one axis over cells of equal width, whole pixels or not: by differences of the running sum."""
    n = values.shape[axis]
    moved = np.moveaxis(values, axis, 0)
    running = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved, axis=0)])
    edges = np.arange(cells + 1) * n
    whole, rest = np.minimum(edges // cells, n - 1), edges - np.minimum(edges // cells, n - 1) * cells
    share = (rest / cells).reshape(-1, *[1] * (moved.ndim - 1))
    at = running[whole] + share * moved[whole]
    return np.moveaxis(np.diff(at, axis=0) * (cells / n), 0, axis)


def joined(rows: Sequence[Rows]) -> Rows:
    """Join rows of several samples, in their order."""
    return Rows(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16]))
