"""Where the samples of an `.npz` lie, as plain arrays beside its masks.

Volumes: `affine` float64 (N, 4, 4), NaN where it is not known, and `world` (N,), RAS or LPS. Scenes: `transform`
float64 (N, 6) and `crs` (N,), as WKT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.formats.stacks import damaged
from ensemble_kit.masks.stream import Masks
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.georeference import GeoReference, WorldGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = {"affine": ("world", (4, 4)), "transform": ("crs", (6,))}
NAMES = frozenset({"affine", "world", "transform", "crs"})
"""What the arrays are called, beside one of `samples`."""


def arrays_of(masks: Masks) -> dict[str, NDArray[Any]]:
    """Return the geometries of masks as arrays; none where no place is known."""
    geometries = [masks.geometry(sample) for sample in masks.samples]
    out: dict[str, NDArray[Any]] = {}
    if any(isinstance(own, Geometry) for own in geometries):
        known = [own if isinstance(own, Geometry) else None for own in geometries]
        out["affine"] = np.array([np.full((4, 4), np.nan) if own is None else own.matrix for own in known])
        out["world"] = np.array(["" if own is None else own.world for own in known], np.str_)
    if any(isinstance(own, GeoReference) for own in geometries):
        scenes = [own if isinstance(own, GeoReference) else None for own in geometries]
        out["transform"] = np.array([(np.nan,) * 6 if own is None else own.transform for own in scenes])
        out["crs"] = np.array(["" if own is None else own.crs for own in scenes], np.str_)
    return out


def geometries_of(
    arrays: Mapping[str, NDArray[Any]], samples: Sequence[str], where: object
) -> dict[str, WorldGeometry]:
    """Read what `arrays_of` wrote.

    Raises
    ------
    DamagedError
        An array is of another kind or shape, or has no partner.
    """
    out: dict[str, WorldGeometry] = {}
    for name, (partner, shape) in _KINDS.items():
        numbers, words = arrays.get(name), arrays.get(partner)
        if numbers is None and words is None:
            continue
        if numbers is None or numbers.dtype != np.float64 or numbers.shape != (len(samples), *shape):
            found = "is missing" if numbers is None else f"is {numbers.dtype} of shape {numbers.shape}"
            raise damaged(
                where, f"its {name!r} {found}; float64 {(len(samples), *shape)} is wanted, beside {partner!r}"
            )
        if words is None or words.dtype.kind != "U" or words.shape != (len(samples),):
            raise damaged(where, f"its {partner!r} is not a text for each of {len(samples)} samples, beside {name!r}")
        for sample, row, word in zip(samples, numbers, words.tolist(), strict=True):
            if not np.isnan(row).all():
                out[sample] = Geometry.of(row, word) if name == "affine" else GeoReference(word, tuple(row.tolist()))
    return out
