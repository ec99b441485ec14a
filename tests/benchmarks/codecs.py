"""What codecs and clamps cost: size, speed, and Dice; the tables of docs/storage.md.

    ensk demo --out DEMO
    python tests/benchmarks/codecs.py --demo DEMO [--masks MASKS STORE...] [--big STORE] [--write docs/storage.md]

`--masks` is a folder of indexed PNGs (1 nerve, 2 vessel) and the stores of networks on their images; `--big` a store
of larger grids, for sizes and speeds only. Speeds are GB/s of raw logits, one thread, medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from inputs import indexed_truth

import ensemble_kit as ek
from ensemble_kit.logits import shards
from ensemble_kit.logits.body import HeldBody
from ensemble_kit.logits.chunkfile import crc

CLAMPS = (None, 16.0, 12.0, 10.0, 8.0, 6.0, 4.0)
BEGIN, END = "<!-- codecs.py: begin -->\n", "<!-- codecs.py: end -->\n"


def bones(noise: float, samples: int = 4, classes: int = 29, size: int = 512) -> list[np.ndarray]:
    """Make logits of bone-like ellipses: steep at their edges, far background between -9 and -16; fp16."""
    rng, out = np.random.default_rng(29), []
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    for _ in range(samples):
        sample = np.empty((classes, size, size), np.float16)
        for plane in sample:
            (cy, cx), (a, b) = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.02, 0.09, 2) * size
            turn = rng.uniform(0, np.pi)
            u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
            depth = (1 - np.sqrt((u / a) ** 2 + (v / b) ** 2)) * min(a, b)
            coarse = rng.normal(size=(size // 32 + 2, size // 32 + 2))
            grid = np.linspace(0, size // 32, size)
            i, f = grid.astype(int), (grid % 1)[:, None].astype(np.float32)
            rows = coarse[i] * (1 - f) + coarse[i + 1] * f
            slow = rows[:, i] * (1 - f.T) + rows[:, i + 1] * f.T
            plane[:] = np.clip(depth, -12, 9) + slow + noise * rng.normal(size=plane.shape)
        out.append(sample)
    return out


def logits_of(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read all samples of stores."""
    return [store.read(s).copy() for store in map(ek.LogitStore, paths) for s in store.samples]


def median_rate(work: Callable[[], object], size: int, repeats: int = 7) -> float:
    """Median GB/s of CPU time."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return size / 1e9 / statistics.median(seconds)


def speed(name: str, arrays: list[np.ndarray], folder: Path) -> Iterator[str]:
    """One row for each codec and clamp: ratio, coding in memory, and a store written and read."""
    C, h, w = arrays[0].shape
    arrays = (arrays * max(1, int(8e6 // sum(a.nbytes for a in arrays))))[: max(1, int(2.5e8 // arrays[0].nbytes))]
    raw = sum(a.nbytes for a in arrays)
    ids = [str(k) for k in range(len(arrays))]
    for codec, clamp in (("none", None), ("lossless", None), ("lossless", 12.0), ("lossless", 8.0)):
        values = arrays if clamp is None else [np.clip(a, -clamp, clamp).astype(np.float16) for a in arrays]
        encode = decode = "–"
        if codec == "lossless":
            coded = [shards.encode(v.reshape(-1).view(np.uint8), C) for v in values]
            out = np.empty(values[0].nbytes, np.uint8)
            bodies = [HeldBody(np.concatenate([b, np.frombuffer(c.to_bytes(4, "little"), np.uint8)])) for b, c in coded]
            encode = f"{median_rate(lambda: [shards.encode(v.reshape(-1).view(np.uint8), C) for v in values], raw):.2f}"  # noqa: B023
            decode = f"{median_rate(lambda: [shards.decode(b, out, C) for b in bodies], raw):.2f}"  # noqa: B023
        path, start = folder / f"{codec}-{clamp}.zarr", time.perf_counter()
        with ek.LogitWriter(
            path, [str(k) for k in range(C)], ids, (h, w), overwrite=True, codec=codec, clamp=clamp
        ) as to:  # type: ignore[arg-type]
            for k, a in zip(ids, arrays, strict=True):
                to.write(k, a, (h, w))
        written = raw / 1e9 / (time.perf_counter() - start)
        store, into = ek.LogitStore(path), np.empty((C, h, w), np.float16)
        first = median_rate(lambda: [store.read(k, into) for k in ids], raw, 1)  # noqa: B023
        again = median_rate(lambda: [crc(store.read(k).reshape(-1).view(np.uint8)) for k in ids], raw)  # noqa: B023
        label = codec if clamp is None else f"{codec}, ±{clamp:g}"
        yield (f"| {name} ({C} x {h} x {w}) | {label} | {raw / store.stored_bytes:.2f} | {encode} | {decode} | "
               f"{written:.2f} | {first:.2f} | {again:.2f} |")  # fmt: skip


CODECS = {
    "none": None,
    "lz4, byte shuffle": ("lz4", 5, 1),
    "lz4, bit shuffle": ("lz4", 5, 2),
    "lz4, no shuffle": ("lz4", 5, 0),
    "zstd 1, byte shuffle": ("zstd", 1, 1),
    "zstd 3, byte shuffle": ("zstd", 3, 1),
    "zstd 1, bit shuffle": ("zstd", 1, 2),
}
"""What could stand inside a shard: blosc's codec, level and shuffle (0 none, 1 bytes, 2 bits)."""


def alternatives(name: str, arrays: list[np.ndarray]) -> Iterator[str]:
    """One row for each codec and each shape of inner chunks: ratio, and coding in memory by one thread."""
    from numcodecs import blosc

    blosc.use_threads = False
    C, h, w = arrays[0].shape
    shapes = {"a class": (1, h, w), "a sample": (C, h, w), "64 x 64 of all classes": (C, 64, 64)}
    arrays = (arrays * max(1, int(8e6 // sum(a.nbytes for a in arrays))))[: max(1, int(6e7 // arrays[0].nbytes))]
    raw = sum(a.nbytes for a in arrays)
    for label, codec in CODECS.items():
        for chunk, shape in shapes.items():
            if chunk != "a class" and label != "lz4, byte shuffle":
                continue  # shapes are compared with the codec that was chosen
            pieces = [p for a in arrays for p in cut(a, shape)]
            if codec is None:
                coded, encode = pieces, "–"
                decode = f"{median_rate(lambda: [p.copy() for p in pieces], raw):.2f}"  # noqa: B023
            else:
                kind, level, shuffle = codec
                compress = lambda p: blosc.compress(p, kind.encode(), level, shuffle)  # noqa: B023, E731
                coded = [compress(p) for p in pieces]
                encode = f"{median_rate(lambda: [compress(p) for p in pieces], raw, 3):.2f}"  # noqa: B023
                decode = f"{median_rate(lambda: [blosc.decompress(c) for c in coded], raw):.2f}"  # noqa: B023
            ratio = raw / sum(len(c) if isinstance(c, bytes) else c.nbytes for c in coded)
            yield f"| {name} ({C} x {h} x {w}) | {label} | {chunk} | {ratio:.2f} | {encode} | {decode} |"


def cut(array: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Cut an array (C, h, w) into contiguous chunks of a shape; those at the edges are smaller."""
    corners = itertools.product(*(range(0, n, step) for n, step in zip(array.shape, shape, strict=True)))
    return [
        np.ascontiguousarray(array[tuple(slice(at, at + step) for at, step in zip(corner, shape, strict=True))])
        for corner in corners
    ]


def clamped(store: ek.LogitStore, clamp: float | None, path: Path) -> ek.LogitStore:
    """Copy a store with a clamp."""
    with ek.LogitWriter(path, store.classes, store.samples, store.grid, member=store.member, clamp=clamp,
                        codec="lossless") as out:  # fmt: skip
        for s in store.samples:
            out.write(s, store.read(s), store.image_size(s), store.box(s))
    return ek.LogitStore(path)


def effect(name: str, stores: Sequence[Path], truth: ek.MaskSet, folder: Path) -> Iterator[str]:
    """One row for each clamp: Dice of the soft vote at 0.5 and at its own best thresholds, and pixels that differ."""
    exact: dict[str, ek.MaskSet] = {}
    for clamp in CLAMPS:
        members = [clamped(ek.LogitStore(p), clamp, folder / f"{p.stem}-{clamp}.zarr") for p in stores]
        cells = []
        for mean in ("probability", "logit"):
            ensemble = ek.Ensemble(members, mean=mean)  # type: ignore[arg-type]
            masks, tuned = ensemble.vote(0.5), ek.tune_thresholds(ensemble, truth)
            exact.setdefault(mean, masks)
            pixels = sum(r.shape[0] * r.shape[1] for r in masks.values())
            flips = sum((masks[key] ^ exact[mean][key]).area for key in masks) / pixels
            cells += [f"{ek.dice(masks, truth).mean:.5f}", f"{flips:.1e}", f"{tuned.score:.5f}"]
        yield f"| {name} | {'exact' if clamp is None else f'±{clamp:g}'} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, print, and with --write put the tables into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--masks", type=Path, nargs="+", default=[], metavar="PATH")
    parser.add_argument("--big", type=Path)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    lines = ["| logits | codec | ratio | encode | decode | store written | read, verified | read again |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        data = {"demo, U-Net": logits_of(sorted(given.demo.glob("unet_*.zarr")))}
        if given.big:
            data["U-Net at 512"] = logits_of([given.big])
        data |= {"bones, smooth": bones(0.0), "bones, noisy": bones(0.1)}
        for name, arrays in data.items():
            (folder / "speed").mkdir(exist_ok=True)
            lines += speed(name, arrays, folder / "speed")
        lines += ["", "| logits | codec | inner chunk | ratio | encode | decode |", "|---|---|---|---:|---:|---:|"]
        for name, arrays in data.items():
            if name != "bones, smooth":  # smoother than any network's
                lines += alternatives(name, arrays)
        lines += [
            "",
            "| ensemble of three | clamp | Dice at 0.5 | pixels off | tuned | logit mean: at 0.5 | pixels off | tuned |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        tests = sorted(given.demo.glob("*_test.zarr"))
        truth = ek.read_masks(given.demo / "data" / "test" / "masks")
        lines += effect(f"demo, {len(truth.samples)} images", tests, truth, folder)
        if given.masks:
            truth = indexed_truth(given.masks[0], ek.LogitStore(given.masks[1]).samples)
            lines += effect(f"USGRA test, {len(truth.samples)} images", given.masks[1:], truth, folder)
    text = "\n".join(lines) + "\n"
    print(text)
    if given.write:
        page = given.write.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        given.write.write_text(before + BEGIN + text + END + after)


if __name__ == "__main__":
    main()
