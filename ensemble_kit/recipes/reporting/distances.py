"""How far the surfaces of the answer lie from those of the truth, where a page is asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.surface import surface_distances
from ensemble_kit.spec.affine import Geometry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Distances:
    """HD95 of each sample and class.

    Parameters
    ----------
    values : float64 (samples, classes), NaN where mask or truth is empty.
    unit : "mm", or "pixels" where a sample does not say its spacing.
    """

    values: NDArray[np.float64]
    unit: str


def distances_of(masks: MaskSet, truth: MaskSet, listener: Listener = nobody) -> Distances:
    """Measure every sample and class, in millimetres where all samples say how far their voxels are apart."""
    found = [masks.geometry(s) or truth.geometry(s) for s in masks.samples]
    known = [geometry.spacing for geometry in found if isinstance(geometry, Geometry)]
    in_mm = len(known) == len(masks.samples)
    spacings: Sequence[Sequence[float] | None] = known if in_mm else [None] * len(masks.samples)

    def done(count: int) -> None:
        listener(Progress("measuring surfaces", count, len(masks.samples)))

    return Distances(surface_distances(masks, truth, spacings, done), "mm" if in_mm else "pixels")
