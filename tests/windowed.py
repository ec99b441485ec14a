"""Stores of images and volumes whose members saw windows of them, and what the oracle in plain NumPy says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ensemble_kit as ek
from ensemble_kit.kernels import reference_volumes as oracle
from ensemble_kit.spec.affine import Geometry
from volumes import OBLIQUE

CLASSES = ("background", "a", "b")
IMAGES = {2: (9, 12), 3: (5, 9, 12)}
GRIDS = {2: ((4, 6), (9, 5)), 3: ((3, 4, 6), (5, 9, 5))}
WINDOWS: dict[str, dict[int, tuple[Any, Any]]] = {
    "whole": {2: (None, None), 3: (None, None)},
    "one window": {2: ((1, 2, 8, 11),) * 2, 3: ((1, 1, 2, 4, 8, 11),) * 2},
    "a crop": {2: (None, (1, 2, 8, 11)), 3: (None, (1, 1, 2, 4, 8, 11))},
    "two crops": {2: ((0, 0, 5, 9), (3, 4, 8, 12)), 3: ((0, 0, 0, 3, 5, 9), (1, 3, 4, 5, 8, 12))},
}
WEIGHTS = (1.0, 2.0)


def made(folder: Path, rank: int, activation: Any, windows: Any, grids: Any = None, seed: int = 0) -> list[Path]:
    """Two stores of the samples "s" and "t"; a volume's grid has a box that leaves its last cells out."""
    paths = []
    for k, (window, grid) in enumerate(zip(windows, grids or GRIDS[rank], strict=True)):
        paths.append(folder / f"m{k}.zarr")
        own = {"geometry": Geometry.of(OBLIQUE)} if rank == 3 else {}
        with ek.LogitWriter(paths[k], CLASSES, ["s", "t"], activation=activation, member=f"m{k}") as out:
            for j, sample in enumerate(("s", "t")):
                box = (*(0,) * rank, *grid[:-1], grid[-1] - 1)
                logits = np.random.default_rng((seed, k, j)).normal(0, 3, (3, *grid)).astype(np.float16)
                out.write(sample, logits, IMAGES[rank], box, window, **own)
    return paths


def evaluated(ens: ek.Ensemble, sample: str, image: tuple[int, ...], shift: Any = None, order: Any = None) -> Any:
    """The oracle at every pixel of an image: the members' own, or one that each saw whole, or a part of theirs."""
    seen = []
    for member, weight in zip(ens.members, WEIGHTS, strict=True):
        place = member.placement(sample)
        window = tuple((0, n) for n in image)
        if shift is not None:
            ends = zip(place.covered.start, place.covered.stop, shift, strict=True)
            window = tuple((a - s, b - s) for a, b, s in ends)
        cells = member.read(sample)[:, *place.box.slices]
        nearest = (False,) * len(image)
        seen.append(oracle.Seen(cells, int(np.prod(place.grid)), window, nearest, 1.0, (weight,) * 3, member.member))
    return oracle.fused(seen, image, ens.activation == "softmax", order or ens.fusion.upsample)


def evaluated_alone(ens: ek.Ensemble, m: int, sample: str, of_logits: bool = False) -> oracle.Values:
    """The oracle of one member by itself, at every pixel."""
    member = ens.members[m]
    place = member.placement(sample)
    image = place.image
    window = tuple(zip(place.covered.start, place.covered.stop, strict=True))
    cells = member.read(sample)[:, *place.box.slices]
    one = oracle.Seen(cells, int(np.prod(place.grid)), window, (False,) * len(image), 1.0, (1.0,) * 3, member.member)
    return oracle.fused([one], image, ens.activation == "softmax", ens.fusion.upsample, of_logits)
