"""Rules about connected components: small ones are dropped, the largest are kept, holes are filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, reduce
from operator import or_
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ensemble_kit.decisions.areas import AreaRule
from ensemble_kit.decisions.rule import Connectivity, Decided, MaskRule, invalid
from ensemble_kit.decisions.ruletext import MM3, cubic, plain, whole
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import MAX_PIXELS, Shape
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@cache
def _kernels() -> ModuleType:
    """Import the kernels when they are first used: an import in each call took a tenth of it."""
    from ensemble_kit.kernels import components

    return components


def _changed(runs: Runs, edges: NDArray[np.int64] | None) -> Runs:
    """Return the mask that a kernel made of another, starts and ends; None: it left all as it was."""
    return runs if edges is None else Runs.trusted((edges[0], edges[1]), runs.shape)


@dataclass(frozen=True)
class DropSmall(AreaRule):
    """Drop the components that are smaller than a number of pixels, a share of the image, or a volume in mm³.

    Parameters
    ----------
    min_area : pixels (voxels) that a component needs to stay, at least 1.
    min_share : the same as a share of the image's pixels, in (0, 1].
    min_mm3 : the same in mm³, of a volume with a geometry. Exactly one of the three is given.
    connectivity : 8 joins pixels that touch by a corner, 4 does not; of volumes 26, 18 or 6. None: 8 or 26.

    Examples
    --------
    >>> DropSmall(2).apply(Runs([0, 5], [3, 6], (2, 6))).text()
    '1 3'
    >>> str(DropSmall(min_share=0.0005, classes=("Radius",)))
    'drop-small:0.05%@Radius'
    """

    kind = "drop-small"
    form = "drop-small:200 (pixels), drop-small:0.05% (of the image) or drop-small:100mm3 (of volumes)"
    monotone = True
    connectivity: Connectivity | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_connectivity()

    def apply(self, runs: Runs, geometry: Geometry | None = None) -> Runs:
        """Return the mask without its small components."""
        H, W = runs.shape[-2:]
        least = self.least(runs.shape, geometry)
        left = _kernels().drop_small(runs.starts, runs.ends, H, W, self.neighbours(runs.shape), least)
        return _changed(runs, left)


@dataclass(frozen=True)
class KeepLargest(MaskRule):
    """Keep the k largest components; of equal ones the one whose first pixel (row by row) comes first.

    Parameters
    ----------
    k : how many stay, at least 1.
    connectivity : 8 joins pixels that touch by a corner, 4 does not; of volumes 26, 18 or 6. None: 8 or 26.
    together : whether components are those of all classes as one mask, the background left out unless it is named. So
        nnU-Net cleans its foreground (Isensee et al., Nature Methods 2021); it keeps all where several are the largest.

    Examples
    --------
    >>> KeepLargest().apply(Runs([0, 4], [2, 7], (2, 8))).text()
    '5 3'
    >>> decided = Decided(("a", "b"), [Runs([0, 4], [2, 5], (1, 8)), Runs([2], [3], (1, 8))])
    >>> [{k: mask.text() for k, mask in new.items()} for new in KeepLargest(together=True).changed(decided)]
    [{0: '1 2', 1: '3 1'}]
    """

    kind = "keep-largest"
    form = "keep-largest, keep-largest:2 or keep-largest:together (of all classes as one mask)"
    k: int = 1
    connectivity: Connectivity | None = None
    together: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_whole("k")
        self._check_connectivity()
        if not isinstance(self.together, bool):
            raise self._invalid("together", "pass True or False")

    def apply(self, runs: Runs, geometry: Geometry | None = None) -> Runs:
        """Return the mask with its k largest components only."""
        del geometry
        H, W = runs.shape[-2:]
        left = _kernels().keep_largest(runs.starts, runs.ends, H, W, self.neighbours(runs.shape), self.k)
        return _changed(runs, left)

    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield each mask as `apply` returns it, or all without what lies outside their largest components together."""
        if not self.together:
            yield from super().changed(decided)
            return
        covered = {k: name for k, name in enumerate(decided.names) if self.covers(name)}
        own = [k for k, name in covered.items() if self.classes is not None or not is_background(name)]
        if own:
            kept = self.apply(reduce(or_, (decided.masks[k] for k in own)))
            yield {k: decided.masks[k] & kept for k in own}

    def _arguments(self) -> tuple[str, ...]:
        return (*([str(self.k)] if self.k > 1 else []), *(["together"] if self.together else []))

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        *first, last = arguments or ("1",)
        together = last == "together"
        (k,) = (first or ["1"]) if together else (*first, last)
        return {"k": whole(k), **({"together": True} if together else {})}


@dataclass(frozen=True)
class FillHoles(MaskRule):
    """Fill holes: components of the background that do not touch the image's border.

    With the default connectivity this is `scipy.ndimage.binary_fill_holes`.

    Parameters
    ----------
    largest : pixels (voxels) of the largest hole that is filled; None fills all.
    connectivity : of the mask. 8 (default) makes the background 4-connected, 4 makes it 8-connected: background that
        touches the outside by a corner is then not a hole. Of volumes 26 (default) and 18 make it 6-connected, and 6
        makes it 26-connected.
    slices : whether a volume's slices are filled one by one, as images.
    largest_mm3 : `largest` in mm³, of a volume with a geometry; at most one of the two is given.

    Examples
    --------
    >>> FillHoles().apply(Runs([0, 5, 8], [4, 6, 12], (3, 4))).text()
    '1 4 6 1 9 4'
    >>> FillHoles().apply(Runs([0, 6], [5, 12], (3, 4))).text()
    '1 12'
    """

    kind = "fill-holes"
    form = "fill-holes, fill-holes:50, fill-holes:100mm3 or fill-holes:slices (of a volume, each by itself)"
    monotone = True
    largest: int | None = None
    connectivity: Connectivity | None = None
    slices: bool = False
    largest_mm3: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest is not None and self.largest_mm3 is not None:
            raise self._invalid("largest_mm3", "pass one of largest and largest_mm3")
        if self.largest is not None:
            self._set_whole("largest")
        if self.largest_mm3 is not None:
            self._set_mm3("largest_mm3")
        self._check_connectivity()
        if not isinstance(self.slices, bool):
            raise self._invalid("slices", "pass True or False")

    def apply(self, runs: Runs, geometry: Geometry | None = None) -> Runs:
        """Return the mask with its holes filled."""
        shape, largest = runs.shape, self.largest or MAX_PIXELS
        if self.largest_mm3 is not None:
            largest = self.in_voxels(geometry) or MAX_PIXELS
        filled = _kernels().fill_holes(runs.starts, runs.ends, *(1, *shape)[-3:], self.neighbours(shape), largest)
        return _changed(runs, filled)

    def neighbours(self, shape: Shape) -> int:
        """Return over how many neighbours the mask connects, of slices those in an image."""
        if not self.slices:
            return super().neighbours(shape)
        if len(shape) == 2:
            raise invalid(f"rule {str(self)!r} on an image, which is one slice", "leave slices out")
        return super().neighbours(shape[-2:])

    @property
    def mm3(self) -> float | None:
        """The size of the largest hole that is filled, where it is in mm³."""
        return self.largest_mm3

    def _arguments(self) -> tuple[str, ...]:
        size = [str(self.largest)] if self.largest is not None else []
        size += [f"{plain(Decimal(str(self.largest_mm3)))}{MM3}"] if self.largest_mm3 is not None else []
        return (*size, *(["slices"] if self.slices else []))

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {"slices": True} if arguments and arguments[-1] == "slices" else {}
        if not (sizes := arguments[: len(arguments) - len(values)]):
            return values
        (size,) = sizes
        volume = cubic(size)
        return values | ({"largest": whole(size)} if volume is None else {"largest_mm3": volume})
