"""In what sizes of components are told: in pixels, or in mm³, of which a set means the same at every spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.connected import DropSmall
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.affine import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rule_of(size: float, in_mm3: bool = False) -> DropSmall:
    """Return the rule that a size stands for: pixels, or mm³ to three digits.

    Examples
    --------
    >>> str(rule_of(12)), str(rule_of(12.3456, in_mm3=True))
    ('drop-small:12', 'drop-small:12.3mm3')
    """
    return DropSmall(min_mm3=float(f"{size:.3g}")) if in_mm3 else DropSmall(int(size))


def volume_of(inputs: Inputs, sample: str) -> Geometry | None:
    """Return where a sample's volume lies in the world; None where nothing says it, and of images."""
    place = inputs.geometry(sample)
    return place if isinstance(place, Geometry) else None


def least_of(rules: Sequence[DropSmall], inputs: Inputs, sample: str) -> NDArray[np.int64]:
    """Return how many pixels each rule asks of a sample's components, int64."""
    image, place = inputs.members[0].placement(sample).image, volume_of(inputs, sample)
    return np.array([rule.least(image, place) for rule in rules], np.int64)


@dataclass(frozen=True)
class Sizes:
    """Sizes of components of some samples.

    Parameters
    ----------
    geometries : of each sample's volume; () where sizes are in pixels.
    """

    geometries: tuple[Geometry, ...] = ()

    @classmethod
    def of(cls, ensemble: Ensemble) -> Sizes:
        """Tell them in mm³ where each sample is a volume whose affine is known."""
        geometries = [volume_of(ensemble.inputs, sample) for sample in ensemble.samples]
        return cls(tuple(p for p in geometries if p is not None) if None not in geometries else ())

    @property
    def in_mm3(self) -> bool:
        """Whether they are in mm³."""
        return bool(self.geometries)

    def rule(self, size: float) -> DropSmall:
        """Return the rule that drops components below a size."""
        return rule_of(size, self.in_mm3)

    def least(self, size: float) -> NDArray[np.int64]:
        """Return the pixels that components need to stay: int64 (samples,), of sizes in pixels (1,) for all."""
        rule = self.rule(size)
        return np.array([rule.least((), place) for place in self.geometries or (None,)], np.int64)

    def spread(self, areas: NDArray[np.int64], count: int) -> list[float]:
        """Choose sizes to try, from that of one pixel, below which nothing is, to the median of the truth's masks.

        Parameters
        ----------
        areas : int64 (classes, samples), pixels of the truth.
        """
        each = np.array([place.voxel_volume for place in self.geometries] or [1.0])
        own = (areas * each)[areas > 0]
        least = float(each.min())
        most = max(2 * least, float(np.median(own)) if own.size else 0.0)
        if not self.in_mm3:
            return [int(v) for v in np.unique(np.rint(np.geomspace(1, int(most), count)))]
        first, *others = np.geomspace(least, most, count).tolist()
        return sorted({_rounded_down(first), *(float(f"{v:.3g}") for v in others)})


def _rounded_down(value: float) -> float:
    """Round to three digits, never up: no voxel is smaller."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.floor(value / step) * step:.3g}")
