"""Rules that compare a number of pixels with a least one: `AreaRule`, and `LeastArea` of whole masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, prod
from typing import Any

from ensemble_kit.decisions.rule import MaskRule, invalid
from ensemble_kit.decisions.ruletext import MM3, cubic, decimal, plain, whole
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape


@dataclass(frozen=True)
class AreaRule(MaskRule):
    """A rule with a least area, as a number of pixels (voxels), a share of the image, or a volume in mm³.

    Parameters
    ----------
    min_area : pixels, at least 1.
    min_share : share of the image's pixels, in (0, 1].
    min_mm3 : mm³, above 0: of a volume with a geometry, so many voxels as have this volume. Exactly one is given.
    """

    min_area: int | None = None
    min_share: float | None = None
    min_mm3: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if [self.min_area, self.min_share, self.min_mm3].count(None) != 2:
            given = f"min_area={self.min_area!r}, min_share={self.min_share!r}, min_mm3={self.min_mm3!r}"
            raise invalid(f"{self.kind} with {given}", "pass exactly one of them")
        if self.min_area is not None:
            self._set_whole("min_area")
        elif self.min_mm3 is not None:
            self._set_mm3("min_mm3")
        else:
            self._set_number("min_share")
            if self.min_share == 0:
                raise invalid(f"{self.kind} with min_share=0", "pass a share above 0, or leave the rule out")

    def least(self, shape: Shape, geometry: Geometry | None = None) -> int:
        """Return the least area in an image of this shape; a share counts as the decimal it is shown as.

        Raises
        ------
        UsageError
            It is in mm³, and there is no geometry.
        """
        if self.min_area is not None:
            return self.min_area
        if (voxels := self.in_voxels(geometry)) is not None:
            return voxels
        return ceil(Fraction(str(self.min_share)) * prod(shape))

    @property
    def mm3(self) -> float | None:
        """The least area, where it is in mm³."""
        return self.min_mm3

    def _arguments(self) -> tuple[str, ...]:
        if self.min_area is not None:
            return (str(self.min_area),)
        if self.min_mm3 is not None:
            return (f"{plain(Decimal(str(self.min_mm3)))}{MM3}",)
        return (f"{plain(Decimal(str(self.min_share)).scaleb(2))}%",)

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        (area,) = arguments
        if (volume := cubic(area)) is not None:
            return {"min_mm3": volume}
        if area.endswith("%"):
            return {"min_share": float(decimal(area[:-1]).scaleb(-2))}
        return {"min_area": whole(area)}


@dataclass(frozen=True)
class LeastArea(AreaRule):
    """Empty a mask that has fewer pixels than a number, than a share of the image, or than a volume in mm³.

    Parameters
    ----------
    min_area : pixels (voxels) that the mask needs to stay, at least 1.
    min_share : the same as a share of the image's pixels, in (0, 1].
    min_mm3 : the same in mm³, of a volume with a geometry. Exactly one of the three is given.

    Examples
    --------
    >>> LeastArea(4).apply(Runs([0, 5], [3, 6], (2, 6))).area, LeastArea(5).apply(Runs([0, 5], [3, 6], (2, 6))).area
    (4, 0)
    >>> str(LeastArea(min_share=0.0005))
    'least-area:0.05%'
    """

    kind = "least-area"
    form = "least-area:120 (pixels), least-area:0.05% (of the image) or least-area:100mm3 (of volumes)"
    monotone = True

    def apply(self, runs: Runs, geometry: Geometry | None = None) -> Runs:
        """Return the mask, or an empty one where it has too few pixels."""
        return runs if runs.area >= self.least(runs.shape, geometry) else Runs.empty(runs.shape)
