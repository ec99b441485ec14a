"""Components and rules of volumes that are runs already, beside cc3d and scipy on their arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jobs
import numpy as np
import rivals
from measure import Bar
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.decisions.connected import DropSmall, FillHoles, KeepLargest
from ensemble_kit.kernels import components

Mask = NDArray[np.bool_]
SHAPE, QUICK = (300, 512, 512), (20, 64, 64)
LIMIT = "every run is compared with those of four rows before it"


def rows(scale: jobs.Scale) -> jobs.Rows:
    """Measure components over 6 and 26 neighbours, and the rules, on organs and on specks."""
    shape = SHAPE if scale.plane >= jobs.Scale().plane else QUICK
    for name, mask, times in (("organs", organs(shape), 10), ("specks", specks(shape), 4)):
        yield from _of(scale, f"{name} in {' × '.join(map(str, shape))}", mask, times)


def organs(shape: tuple[int, ...]) -> Mask:
    """Draw fifteen ellipsoids with a rough surface."""
    rng, out = np.random.default_rng(1), np.zeros(shape, bool)
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    rough = 1 + 0.15 * np.sin(x / 9) * np.sin(y / 7)
    for _ in range(15):
        centre, radius = rng.uniform(0.15, 0.85, 3) * shape, rng.uniform(0.05, 0.14, 3) * shape
        far = [((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radius, strict=True)]
        for k in range(shape[0]):
            out[k] |= far[0][k] + far[1][0] + far[2][0] < rough[0]
    return out


def specks(shape: tuple[int, ...]) -> Mask:
    """Draw cubes of eight voxels, 100,000 in a volume of 300 × 512 × 512."""
    rng, out = np.random.default_rng(2), np.zeros(shape, bool)
    corners = rng.integers(0, np.array(shape) - 1, (int(np.prod(shape)) // 786, 3)).T
    for step in np.ndindex(2, 2, 2):
        out[tuple(c + s for c, s in zip(corners, step, strict=True))] = True
    return out


def _of(scale: jobs.Scale, name: str, mask: Mask, times: float) -> Iterator[Any]:
    runs, (_, H, W) = ek.encode(mask), mask.shape
    cc3d, ndimage = rivals.optional("cc3d"), rivals.optional("scipy.ndimage")
    bar = [Bar("times", times, "cc3d")]

    def row(what: str, ours: Callable[[], Any], others: dict[str, Callable[[], Any]]) -> Any:
        known = {rival: job for rival, job in others.items() if {"cc3d": cc3d, "scipy": ndimage}[rival] is not None}
        return jobs.measured(scale, f"{what} of {name}", ours, known, "a volume", bar if "cc3d" in known else (), LIMIT)

    for neighbours, reach in ((6, 1), (26, 3)):
        yield row(
            f"components over {neighbours} neighbours",
            lambda n=neighbours: components.components(runs.starts, runs.ends, H, W, n),
            {"cc3d": lambda n=neighbours: cc3d.connected_components(mask, connectivity=n),
             "scipy": lambda r=reach: ndimage.label(mask, ndimage.generate_binary_structure(3, r))},
        )  # fmt: skip
    largest, small, holes = KeepLargest(), DropSmall(100), FillHoles()
    yield row(str(largest), lambda: largest.apply(runs), {"cc3d": lambda: cc3d.largest_k(mask, 1, connectivity=26)})
    yield row(str(small), lambda: small.apply(runs), {"cc3d": lambda: cc3d.dust(mask, 100, connectivity=26)})
    few = max(1, mask.shape[0] // 15)  # of scipy, a fifteenth of the slices
    part = mask[:few]
    job = rivals.scaled(lambda: ndimage.binary_fill_holes(part), mask.shape[0] / few)
    yield row(str(holes), lambda: holes.apply(runs), {"scipy": job})
