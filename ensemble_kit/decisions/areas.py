"""Rules that compare a number of pixels with a least one: `AreaRule`, and `LeastArea` of whole masks."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, prod
from typing import Any

from ensemble_kit.decisions.rule import MaskRule, invalid
from ensemble_kit.decisions.ruletext import decimal, plain, whole
from ensemble_kit.masks.runs import Runs


@dataclass(frozen=True)
class AreaRule(MaskRule):
    """A rule with a least area, as a number of pixels or as a share of the image.

    Parameters
    ----------
    min_area : pixels, at least 1.
    min_share : share of the image's pixels, in (0, 1]; exactly one of the two is given.
    """

    min_area: int | None = None
    min_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.min_area is None) == (self.min_share is None):
            raise invalid(
                f"{self.kind} with min_area={self.min_area!r}, min_share={self.min_share!r}", "pass exactly one of them"
            )
        if self.min_area is not None:
            self._set_whole("min_area")
        else:
            self._set_number("min_share")
            if self.min_share == 0:
                raise invalid(f"{self.kind} with min_share=0", "pass a share above 0, or leave the rule out")

    def least(self, shape: tuple[int, ...]) -> int:
        """Return the least area in an image of this shape; a share counts as the decimal it is shown as."""
        if self.min_area is not None:
            return self.min_area
        return ceil(Fraction(str(self.min_share)) * prod(shape))

    def _arguments(self) -> tuple[str, ...]:
        if self.min_area is not None:
            return (str(self.min_area),)
        return (f"{plain(Decimal(str(self.min_share)).scaleb(2))}%",)

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        (area,) = arguments
        if area.endswith("%"):
            return {"min_share": float(decimal(area[:-1]).scaleb(-2))}
        return {"min_area": whole(area)}


@dataclass(frozen=True)
class LeastArea(AreaRule):
    """Empty a mask that has fewer pixels than a number, or than a share of the image.

    Parameters
    ----------
    min_area : pixels that the mask needs to stay, at least 1.
    min_share : the same as a share of the image's pixels, in (0, 1]; exactly one of the two is given.

    Examples
    --------
    >>> LeastArea(4).apply(Runs([0, 5], [3, 6], (2, 6))).area, LeastArea(5).apply(Runs([0, 5], [3, 6], (2, 6))).area
    (4, 0)
    >>> str(LeastArea(min_share=0.0005))
    'least-area:0.05%'
    """

    kind = "least-area"
    form = "least-area:120 (pixels) or least-area:0.05% (of the image)"
    monotone = True

    def apply(self, runs: Runs) -> Runs:
        """Return the mask, or an empty one where it has too few pixels."""
        return runs if runs.area >= self.least(runs.shape) else Runs.empty(runs.shape)
