"""STAPLE beside SimpleITK's in one process, and what majority, STAPLE and SIMPLE make of networks and of annotators.

    python tests/benchmarks/label_fusion.py [--page docs/performance.md]

Networks are the demo's three on its validation and test images. Annotators are simulated on the same images: each
draws the true outline of the nerve with smooth errors of so many pixels, and some of them larger, or smaller, throughout.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
import tables
from measure import duration
from numpy.typing import NDArray
from scipy import ndimage

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA
from ensemble_kit.errors import EnskWarning

GOLDEN = Path(__file__).parent.parent / "golden"
FUSIONS = ("majority", "staple", "staple:pooled", "staple:pooled,region=disagreement", "simple", "simple:pooled")
TEAMS = {
    "3 annotators of one care (4 px)": [(4, 0)] * 3,
    "5 annotators of one care (4 px)": [(4, 0)] * 5,
    "5: one of 2 px, two of 4, two of 20 who draw 10 larger": [(2, 0), (4, 0), (4, 0), (20, 10), (20, 10)],
    "5: four of 3 px, one of 25 who draws 10 smaller": [*[(3, 0)] * 4, (25, -10)],
    "9: seven of 3 px, two of 25 who draw 10 smaller": [*[(3, 0)] * 7, *[(25, -10)] * 2],
}
"""Of each annotator the standard deviation of the outline's error, and how much larger everything is drawn; pixels."""
Mask = NDArray[np.bool_]


def drawn(rng: np.random.Generator, truth: Mask, error: float, larger: float, smooth: float = 12) -> Mask:
    """Draw a mask as an annotator does."""
    noise = ndimage.gaussian_filter(rng.normal(size=truth.shape), smooth)
    inside = ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)
    return np.asarray(inside + noise / noise.std() * error + larger > 0)


def seconds(job: Callable[[], Any], times: int) -> float:
    """Time a job: the fastest of some runs, since what else runs here only ever adds to them."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        job()
        found.append(time.perf_counter() - begin)
    return min(found)


def row(name: str, jobs: Sequence[Callable[[], Any]], runs: int, differ: int, pixels: int, bar: float) -> str:
    """Measure SimpleITK's job and ours, with the masks as runs and as bitmaps that are encoded first."""
    itk, ours, own = (seconds(job, times) for job, times in zip(jobs, (2, 20, 10), strict=True))
    assert itk / ours >= bar, f"{name}: {itk / ours:.0f} x"
    return (
        f"| {name} | {runs:,} | {duration(ours)} (**{tables.figure(itk / ours)} ×**) | {duration(own)} "
        f"(**{tables.figure(itk / own)} ×**) | {duration(itk)} | {differ} of {pixels:,} |"
    )


def length(sets: Sequence[ek.MaskSet]) -> int:
    """Count the runs of all members."""
    return sum(len(runs) for own in sets for runs in own.values())


def binary() -> str:
    """Fuse five binary masks of 1024 × 1024."""
    y, x = np.mgrid[:1024, :1024] / 1024
    truth, rng = (y - 0.5) ** 2 + (x - 0.4) ** 2 < 0.05, np.random.default_rng(0)
    masks = [drawn(rng, truth, e, b, 26) for e, b in ((8, 0), (12, 4), (15, -5), (20, 10), (30, 0))]
    images = [sitk.GetImageFromArray(m.astype(np.uint8)) for m in masks]

    def itk() -> Mask:
        one = sitk.STAPLEImageFilter()
        one.SetForegroundValue(1)
        return np.asarray(sitk.GetArrayFromImage(one.Execute(images)) >= 0.5)

    def own() -> ek.MaskSet:
        return ek.hard_vote([ek.MaskSet({("s", "x"): ek.encode(m)}) for m in masks], fusion="staple")

    sets = [ek.MaskSet({("s", "x"): ek.encode(m)}) for m in masks]
    differ = int((own()["s", "x"].decode() != itk()).sum())
    jobs = (itk, lambda: ek.hard_vote(sets, fusion="staple"), own)
    return row("binary, 5 raters, 1024 × 1024", jobs, length(sets), differ, truth.size, 50)


def multi_label(noise: bool) -> str:
    """Fuse five label maps of four labels, 768 × 768, drawn, or with noise at every pixel.

    No pixel's majority ties: SimpleITK 2.5 counts such pixels for another label.
    """
    y, x = np.mgrid[:768, :768]
    rng = np.random.default_rng(1)
    centres = rng.uniform(0, 768, (12, 2))
    regions = np.argmin([np.hypot(y - a, x - b) for a, b in centres], axis=0) % 4
    maps = []
    for error in (8, 12, 15, 20, 30):
        shift = [ndimage.gaussian_filter(rng.normal(size=y.shape), 20) for _ in range(2)]
        dy, dx = (np.rint(s / s.std() * error).astype(int) for s in shift)
        own_map = regions[np.clip(y + dy, 0, 767), np.clip(x + dx, 0, 767)]
        wrong = noise & (rng.random(y.shape) < error / 100)
        maps.append(np.where(wrong, rng.integers(0, 4, y.shape), own_map))
    votes = np.stack([np.sum([m == k for m in maps], axis=0) for k in range(4)])
    tied = (votes == votes.max(0)).sum(0) > 1
    maps = [np.where(tied, regions, m).astype(np.uint8) for m in maps]
    images = [sitk.GetImageFromArray(m) for m in maps]

    def itk() -> NDArray[np.uint8]:
        one = sitk.MultiLabelSTAPLEImageFilter()
        one.SetLabelForUndecidedPixels(255)
        return np.asarray(sitk.GetArrayFromImage(one.Execute(images)))

    def sets_of() -> list[ek.MaskSet]:
        return [ek.MaskSet.from_labels({"s": m}, ["background", "a", "b", "c"]) for m in maps]

    def own() -> ek.MaskSet:
        return ek.hard_vote(sets_of(), fusion="staple", by="label")

    sets = sets_of()
    differ = int((own().labels("s") != itk()).sum())
    jobs = (itk, lambda: ek.hard_vote(sets, fusion="staple", by="label"), own)
    name = f"4 labels, 5 raters, 768 × 768{', noise at every pixel' if noise else ''}"
    return row(name, jobs, length(sets), differ, regions.size, 0 if noise else 50)


def dice_row(name: str, members: Sequence[ek.MaskSet], truth: ek.MaskSet) -> str:
    """Fuse members in every way: mean Dice of the best member and of each fusion, in per cent."""
    alone = max(ek.dice(m, truth).mean for m in members)
    found = [ek.dice(ek.hard_vote(members, fusion=fusion), truth).mean for fusion in FUSIONS]
    best = max(found)
    cells = [f"**{100 * v:.2f}**" if v == best else f"{100 * v:.2f}" for v in found]
    return f"| {name} | {100 * alone:.2f} | {' | '.join(cells)} |"


def dice() -> list[str]:
    """Score every fusion on the networks and on each team."""
    lines = [f"| members | best member | {' | '.join(FUSIONS)} |", f"|---|{'---:|' * (len(FUSIONS) + 1)}"]
    nerves: dict[tuple[str, str], ek.Runs] = {}
    for split in ("val", "test"):
        paths = [GOLDEN / f"{name}_{split}.zip" for name in ("unet", "fpn", "dilated")]
        ensemble = ek.Ensemble(paths)
        truth = ek.read_masks(DATA / split / "masks", classes=ensemble.classes)
        members = [ek.Ensemble([p]).vote() for p in paths]
        soft = ek.dice(ensemble.vote(), truth).mean
        title = f"the demo's 3 networks, {len(truth.samples)} {split} images (soft vote {100 * soft:.2f})"
        lines.append(dice_row(title, members, truth))
        print(lines[-1], flush=True)
        nerves |= {(f"{split} {s}", "nerve"): truth[s, "nerve"] for s in truth.samples}
    truth = ek.MaskSet(nerves)
    for k, (title, team) in enumerate(TEAMS.items()):
        rng = np.random.default_rng(k)
        members = [
            ek.MaskSet({key: ek.encode(drawn(rng, m.decode(), *own)) for key, m in truth.items()}) for own in team
        ]
        lines.append(dice_row(title, members, truth))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="its tables between the marks are replaced")
    options = parser.parse_args()
    warnings.simplefilter("ignore", EnskWarning)
    head = "| masks | runs | from runs | from bitmaps | SimpleITK | decisions that differ |"
    lines = [head, "|---|---:|---:|---:|---:|---:|"]
    for job in (binary, lambda: multi_label(noise=False), lambda: multi_label(noise=True)):
        lines.append(job())
        print(lines[-1], flush=True)
    tables.put(options.page, "fusion", "\n".join(lines) + "\n")
    tables.put(options.page, "fusion-dice", "\n".join(dice()) + "\n")


if __name__ == "__main__":
    main()
