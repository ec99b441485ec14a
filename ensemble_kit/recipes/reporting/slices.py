"""Which pixels of a sample are pictured: all of an image, of a volume three slices through the worst component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.sampling import axes_within, centres, sampled
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = ("z", "y", "x")


@dataclass(frozen=True)
class Slice:
    """Rows and columns of a picture, as indices of each axis of the image or the volume.

    Parameters
    ----------
    axes : indices of each axis; of a volume one of them is one index alone.
    across : the axis that is cut, of a volume; None of an image.
    seen : width and height of the picture in pixels; of a volume as its millimetres are, where they are known.
    told : which slice, in words.
    """

    axes: tuple[NDArray[np.int64], ...]
    across: int | None
    seen: tuple[int, int]
    told: str = ""

    def of(self, runs: Runs) -> NDArray[np.bool_]:
        """Take a mask at these pixels: bool (h, w)."""
        found = sampled(runs, self.axes)
        return found if self.across is None else found.squeeze(self.across)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the picture."""
        h, w = (axis.size for k, axis in enumerate(self.axes) if k != self.across)
        return h, w

    def as_seen(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repeat the pixels of a picture (h, w, 3) until it has the width and the height that are seen."""
        (h, w), (width, height) = self.size, self.seen
        return drawn[np.arange(height) * h // height][:, np.arange(width) * w // width]


def slices_of(m: Material, sample: str, longest: int) -> list[Slice]:
    """Return what is pictured of a sample."""
    assert m.masks is not None
    shape = m.masks.image_size(sample)
    if len(shape) == 2:
        axes = tuple(axes_within(shape, longest))
        return [Slice(axes, None, (axes[1].size, axes[0].size))]
    geometry, found = m.masks.geometry(sample), []
    spacing: Sequence[float] = tuple(getattr(geometry, "spacing", (1.0,) * 3))
    point = _worst_voxel(m, sample)
    for across in range(3):
        voxel = [spacing[k] for k in range(3) if k != across]
        plane = [shape[k] * spacing[k] / min(voxel) for k in range(3) if k != across]
        height, width = (max(1, round(n * min(1, longest / max(plane)))) for n in plane)
        own = iter((height, width))
        axes = tuple(np.array([point[k]]) if k == across else centres(shape[k], next(own)) for k in range(3))
        found.append(Slice(axes, across, (width, height), f"{_NAMES[across]} = {point[across]}"))
    return found


def _worst_voxel(m: Material, sample: str) -> Shape:
    """Return a voxel in the middle of the largest component that is wrong, or that is disputed; else of the answer."""
    assert m.masks is not None
    masks = m.masks
    own = [masks[sample, c] for c in masks.classes]
    if m.truth is not None:
        void = m.truth.void(sample)
        regions = [(mask ^ m.truth[sample, c]) - void for c, mask in zip(masks.classes, own, strict=True)]
    elif len(m.members) > 1:
        first, *others = m.members.values()
        regions = [first[sample, c] ^ other[sample, c] for other in others for c in masks.classes]
    else:
        regions = own
    regions = regions if any(r.area for r in regions) else own
    return middle_of_largest(max(regions, key=lambda r: r.area))


def middle_of_largest(runs: Runs) -> Shape:
    """Return a voxel of the largest component that lies in the middle of its slices; of no component, of the volume.

    Examples
    --------
    >>> middle_of_largest(Runs([0, 5], [1, 8], (2, 2, 2)))
    (1, 0, 1)
    """
    from ensemble_kit.kernels import components as kernels

    if not runs.area:
        return tuple(n // 2 for n in runs.shape)
    starts, ends, labels, areas = kernels.components(runs.starts, runs.ends, *runs.shape[-2:], 26)
    own = labels == int(np.argmax(areas))
    before = np.cumsum(ends[own] - starts[own])
    k = int(np.searchsorted(before, before[-1] / 2))
    middle = (int(starts[own][k]) + int(ends[own][k]) - 1) // 2
    return tuple(int(v) for v in np.unravel_index(middle, runs.shape))
