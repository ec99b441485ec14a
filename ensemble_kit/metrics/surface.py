"""Distances between the surfaces of masks and of their truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.masks.labelmaps import draw_rows
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def hausdorff95(mask: Runs, truth: Runs, spacing: Sequence[float] | None = None) -> float:
    """Return the 95th percentile of the distances between the surfaces of two masks, the larger of both directions.

    A surface is the pixels of a mask that have a neighbour along an axis outside it, those at the image's border too.
    Of each pixel of one surface the distance to the nearest of the other is taken, exactly (Huttenlocher et al.,
    "Comparing images using the Hausdorff distance", 1993; MONAI's `compute_hausdorff_distance(percentile=95)`).

    Parameters
    ----------
    mask, truth : of one shape, (H, W) or (D, H, W).
    spacing : of pixels along the axes; default: 1. The distance has its unit.

    Returns
    -------
    NaN where one of them is empty, or both.

    Examples
    --------
    >>> hausdorff95(Runs([0], [2], (4, 4)), Runs([12], [14], (4, 4)), (2.0, 1.0))
    6.0
    """
    from scipy.spatial import cKDTree

    if not (mask.area and truth.area):
        return float("nan")
    steps = np.ones(len(mask.shape)) if spacing is None else np.asarray(spacing, np.float64)
    ours, theirs = (points * steps for points in _surfaces(mask, truth))
    there, back = (cKDTree(b).query(a)[0] for a, b in ((ours, theirs), (theirs, ours)))
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_distances(
    masks: MaskSet,
    truth: MaskSet,
    spacings: Sequence[Sequence[float] | None],
    done: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float64]:
    """Return `hausdorff95` of each sample and class, float64 (N, C), without pixels that are void in the truth.

    Parameters
    ----------
    spacings : of each sample.
    done : is told how many samples are done.
    """
    out = np.full((len(masks.samples), len(masks.classes)), np.nan)
    for k, sample in enumerate(masks.samples):
        void = truth.void(sample)
        for c, name in enumerate(masks.classes):
            out[k, c] = hausdorff95(masks[sample, name] - void, truth[sample, name] - void, spacings[k])
        done(k + 1)
    return out


def _surfaces(*several: Runs) -> list[NDArray[np.int64]]:
    """Return the indices of the pixels at each mask's surface, (n, axes), from a corner that they share."""
    from scipy.ndimage import binary_erosion

    shape = several[0].shape
    size = int(np.prod(shape[1:]))
    first = min(int(runs.starts[0]) for runs in several) // size
    last = max(int(runs.ends[-1]) - 1 for runs in several) // size + 1
    nothing = Runs.empty(shape)
    out = []
    for runs in several:
        slab: NDArray[Any] = draw_rows(
            ManyRuns.of([runs]), np.zeros(1, np.int64), nothing, ([1], 0, 255), (first, last)
        )
        corner, solid = _cropped(slab.view(np.bool_))
        out.append(np.argwhere(solid & ~binary_erosion(solid)) + corner)
    return out


def _cropped(solid: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Cut a mask to what it covers; return the first corner of that, too."""
    axes = range(solid.ndim)
    held = [np.flatnonzero(solid.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    inside = tuple(slice(int(at[0]), int(at[-1]) + 1) for at in held)
    return np.array([s.start for s in inside], np.int64), solid[inside]
