"""How far the surfaces of the answer lie from those of the truth, where a page is asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def spacings_of(masks: MaskSet, truth: MaskSet) -> dict[str, Sequence[float]] | None:
    """Return how far the voxels of each sample are apart, in millimetres; None where a sample does not say it."""
    found = {s: masks.geometry(s) or truth.geometry(s) for s in masks.samples}
    known: dict[str, Sequence[float]] = {
        s: geometry.spacing for s, geometry in found.items() if isinstance(geometry, Geometry)
    }
    return known if len(known) == len(found) else None


def distances_of(
    masks: MaskSet, truth: MaskSet, known: Mapping[str, Sequence[float]] | None, listener: Listener = nobody
) -> Distances:
    """Measure every sample and class.

    Parameters
    ----------
    known : as `spacings_of` returns it, of all samples of a page, of which these may be a share.
    """
    spacings = [None if known is None else known[s] for s in masks.samples]

    def done(count: int) -> None:
        listener(Progress("measuring surfaces", count, len(masks.samples)))

    return Distances(surface_distances(masks, truth, spacings, done), "pixels" if known is None else "mm")
