"""Peak memory and time of a scene of remote sensing: logits of 7,500² cells and 3 classes vote to a GeoTIFF of 30,000².

    python tests/benchmarks/scene.py --at FOLDER

Writes a store of one scene, whose logits are smooth fields, and a reference scene that says where it lies; then votes in a
process of its own, whose peak memory is the system's own figure, once the kernels are compiled, or with --first while it
compiles them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import commands
import numpy as np

CLASSES = ("water", "forest", "field")
MEMORY = 2**30
"""What a scene may take."""


def fields(cells: int, seed: int) -> np.ndarray:
    """Draw smooth fields of each class, float16 (C, cells, cells): waves of some lengths, and patches of noise."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(cells, dtype=np.float32)[:, None], np.arange(cells, dtype=np.float32)[None]
    out = np.empty((len(CLASSES), cells, cells), np.float16)
    coarse = -(-cells // 16)
    for k in range(len(CLASSES)):
        noise = rng.standard_normal((coarse, coarse)).astype(np.float32)
        for first in range(0, cells, 256):
            rows = y[first : first + 256]
            wave = np.sin(x / 211 + 3 * k) * np.cos(rows / 173 - k) + np.sin((x + rows) / 97 + k)
            patch = np.repeat(noise[first // 16 : -(-(first + len(rows)) // 16)], 16, 0)[: len(rows)]
            out[k, first : first + len(rows)] = 2.5 * wave + np.repeat(patch, 16, 1)[:, :cells]
    return out


def write_store(path: Path, cells: int, pixels: int, activation: str, tile: int, seed: int = 0) -> None:
    """Write a store of one scene: as one array, or as tiles of so many cells that overlap by a quarter."""
    import ensemble_kit as ek

    grid, values = (cells, cells), fields(cells, seed)
    with ek.LogitWriter(path, CLASSES, ["scene"], None if tile else grid, activation=activation) as out:
        if not tile:
            out.write("scene", values, image_size=(pixels, pixels))
            return
        starts = [min(first, cells - tile) for first in range(0, cells - tile // 4, tile * 3 // 4)]
        boxes = [(y, x, y + tile, x + tile) for y in starts for x in starts]
        tiles = (values[:, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes)
        out.write_tiles("scene", tiles, boxes, grid, image_size=(pixels, pixels))


def write_reference(path: Path, pixels: int) -> None:
    """Write a sparse GeoTIFF of the scene's size: no block of it is stored."""
    import rasterio
    from rasterio.transform import Affine

    profile = {"driver": "GTiff", "height": pixels, "width": pixels, "count": 1, "dtype": "uint8", "sparse_ok": True}
    profile |= {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500000, 0, -0.5, 4600000), "tiled": True}
    with rasterio.open(path, "w", **profile):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", type=Path, help="a folder for 400 MB of files; default: a temporary one")
    parser.add_argument("--cells", type=int, default=7500)
    parser.add_argument("--scale", type=int, default=4, help="pixels of the image by those of the grid")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--tile", type=int, default=0, help="cells of a tile; default: the scene is one array")
    parser.add_argument("--activation", default="softmax")
    parser.add_argument("--first", action="store_true", help="the vote compiles its kernels, as a first one does")
    options = parser.parse_args()
    sys.path[:0] = [str(commands.ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        at = options.at or Path(folder)
        at.mkdir(exist_ok=True)
        if not options.first:
            measure(at / "compiled", 64, options)  # kernels are compiled and kept
        found = measure(at, options.cells, options, {"XDG_CACHE_HOME": str(at / "cache")} if options.first else {})
        print(json.dumps(found))
        if found["peak_mib"] * 2**20 > MEMORY:
            raise SystemExit(f"the peak of {found['peak_mib']} MiB is above {MEMORY >> 20}")


def measure(
    at: Path, cells: int, options: argparse.Namespace, env: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    """Write what is missing in a folder, vote, and return what was measured."""
    at.mkdir(exist_ok=True)
    pixels, tile = cells * options.scale, min(options.tile, cells // 2)
    kind = f"{options.activation}-{tile}"
    stores = [at / f"{kind}-{m}.zarr" for m in range(options.members)]
    for m, store in enumerate(stores):
        if not store.exists():
            write_store(store, cells, pixels, options.activation, tile, m)
    write_reference(at / "reference.tif", pixels)
    decide = [] if options.activation == "softmax" else ["--paint", "water=1,forest=2,field=3"]
    words = ["--out", str(at / "answer.tif"), "--like-image", str(at / "reference.tif"), "--force", *decide]
    taken = commands.run(["vote", *map(str, stores), *words], env=os.environ | dict(env))
    return {
        "cells": cells,
        "pixels": pixels,
        "members": options.members,
        "tile": tile,
        "seconds": round(taken.seconds, 1),
        "peak_mib": round(taken.peak / 2**20),
        "answer_mib": round((at / "answer.tif").stat().st_size / 2**20, 1),
    }


if __name__ == "__main__":
    main()
