"""Exclusive classes: members' softmax logits to one label a pixel, beside torch and OpenCV.

Synthetic logits are smooth fields that members see a little differently; `--softmax STORE …` takes genuine ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import rivals
from measure import Bar
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.kernels import argmax as kernels
from ensemble_kit.scores import argmax
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean

Logits = NDArray[np.float16]
LIMIT = "pixels that members do not agree upon are evaluated one by one"
CASES: tuple[tuple[int, tuple[int, int], int, dict[int, tuple[Bar, ...]]], ...] = (
    (19, (256, 512), 4, {
        1: (Bar("reads", 12), Bar("times", 200, "torch")),
        3: (),
        5: (Bar("reads", 30), Bar("times", 40, "torch")),
    }),
    (19, (512, 1024), 2, {1: (Bar("reads", 8),), 3: (), 5: (Bar("reads", 15),)}),
    (150, (128, 128), 4, {1: (Bar("times", 100, "torch"),), 3: (), 5: (Bar("times", 20, "torch"),)}),
    (4, (512, 512), 1, {1: (), 3: (Bar("times", 20, "torch"),), 5: ()}),
)  # fmt: skip
"""Classes, grid, how many times larger the image is, and the bars by number of members."""


def rows(scale: jobs.Scale, stores: Sequence[Path] = ()) -> jobs.Rows:
    """Measure synthetic logits, or those of stores."""
    if stores:
        yield from of_stores(scale, stores)
        return
    quick = scale.plane < jobs.Scale().plane
    for C, grid, times, bars in CASES:
        h, w = (n // 4 for n in grid) if quick else grid
        logits, image = class_logits(max(bars), C, (h, w)), (h * times, w * times)
        for M in sorted(bars):
            label = f"{M} × {C} × {h} × {w} fp16 → labels at {image[0]} × {image[1]}"
            own = [("logits", "probability", bars[M])]
            if max(bars) == M:
                own += [("logits", "logit", ()), ("scores", "probability", ())]
            for upsample, mean, asked in own:
                inputs = in_memory(logits[:M], image, upsample, mean)
                yield vote(scale, inputs, ["x"], label, asked)


def of_stores(scale: jobs.Scale, stores: Sequence[Path]) -> jobs.Rows:
    """Measure the first samples of stores of softmax members: one member, then all."""
    scale = replace(scale, tag=f", genuine logits of {', '.join(p.name for p in stores)}")
    for paths in dict.fromkeys((tuple(stores[:1]), tuple(stores))):
        for upsample, mean in (("logits", "probability"), ("logits", "logit"), ("scores", "probability")):
            ensemble = ek.Ensemble(list(paths), upsample=upsample, mean=mean)
            samples = ensemble.samples[: 4 * scale.samples]
            inputs = jobs.in_memory(ensemble.on(samples))
            size = " × ".join(map(str, ensemble.image_size(samples[0])))
            label = f"{len(paths)} members, {len(ensemble.classes)} classes → labels at {size}"
            yield vote(scale, inputs, samples, label)


def vote(scale: jobs.Scale, inputs: Inputs, samples: Sequence[str], label: str, bars: Sequence[Bar] = ()) -> Any:
    """Measure deciding samples, from logits in memory to the runs of all classes."""
    fusion, ones = inputs.fusion, [65536] * len(inputs.classes)
    order = [[m.classes.index(c) for c in inputs.classes] for m in inputs.members]
    arrays = [[m.read(s)[own] for m, own in zip(inputs.members, order, strict=True)] for s in samples]
    images = [inputs.members[0].placement(s).image for s in samples]
    others = {}
    if scale.rivals:
        make = [label_rivals(a, i, fusion.upsample, str(fusion.mean)) for a, i in zip(arrays, images, strict=True)]
        others = rivals.together(make)
    shares = [share for share in (undecided(inputs, s) for s in samples) if share is not None]
    note = f"{100 * np.mean(shares):.1f} % of quads undecided" if shares else "members of several grids"
    return jobs.measured(
        scale, f"argmax, upsample={fusion.upsample!r}, mean={str(fusion.mean)!r}: {label}",
        lambda: [FusedSample(inputs, s).winners(ones) for s in samples], others, "a sample", bars, LIMIT,
        read=[a for own in arrays for a in own], per=len(samples), note=note,
    )  # fmt: skip


def undecided(inputs: Inputs, sample: str) -> float | None:
    """The share of quads that members do not agree upon; None where there is no fast way."""
    places, C = [m.placement(sample) for m in inputs.members], len(inputs.classes)
    ones, none = np.ones(C, np.int64), np.zeros(C, np.int64)
    factors = ones if inputs.fusion.mean.of_logits else 65536 * ones
    laid = argmax.contest(inputs, sample, places, inputs.fusion.upsample, factors, none, 0)
    if laid is None:
        return None
    h, w = places[0].box.shape
    return float(kernels.decide(laid.contest, laid.exactly, laid.grids)[3]) / (h * w)


# --- inputs --------------------------------------------------------------------------------------------------


def in_memory(logits: Sequence[Logits], image: tuple[int, int], upsample: Any, mean: str) -> Inputs:
    """What `FusedSample` takes, over one sample's arrays (C, h, w) in memory: sample "x"."""
    C, *grid = logits[0].shape
    classes, place = tuple(f"class {c}" for c in range(C)), Placement.of(grid, image)
    members = tuple(
        jobs.MemoryMember(f"m{k}", classes, {"x": z}, {"x": place}, "softmax") for k, z in enumerate(logits)
    )
    names = tuple(m.member for m in members)
    weights = (integer_weights([1.0] * len(members), names),) * C
    return Inputs(members, classes, Fusion(Mean.of(mean), upsample, names, weights, (1.0,) * len(members)))


def class_logits(members: int, classes: int, grid: tuple[int, int], seed: int = 1) -> list[Logits]:
    """Logits (classes, h, w) of members that see the same regions, with edges a little apart, and noise."""
    rng, (h, w) = np.random.default_rng(seed), grid
    coarse = 16 if classes > 100 else max(8, h * 3 // 16)
    base = 8 * field(rng, classes, (h, w), coarse)
    return [
        (base + 0.3 * field(rng, classes, (h, w), coarse // 2) + rng.normal(0, 0.1, base.shape)).astype(np.float16)
        for _ in range(members)
    ]


def field(rng: np.random.Generator, classes: int, grid: tuple[int, int], coarse: int) -> NDArray[np.float32]:
    """Smooth noise, of one bump in `coarse` cells."""
    import cv2

    h, w = grid
    small = rng.normal(size=(classes, max(2, h // coarse), max(2, w // coarse))).astype(np.float32)
    return np.stack([cv2.resize(z, (w, h), interpolation=cv2.INTER_CUBIC) for z in small])


# --- rivals --------------------------------------------------------------------------------------------------


def label_rivals(
    members: Sequence[Logits], image: tuple[int, int], upsample: str, mean: str
) -> dict[str, Callable[[], Any]]:
    """Members (C, h, w) → label map of `image`, as frameworks do it, and at its best."""
    jobs: dict[str, Callable[[], Any]] = {}
    if torch := rivals.optional("torch"):
        jobs |= _torch(torch, [torch.from_numpy(np.ascontiguousarray(z))[None] for z in members], image, upsample, mean)
    if (cv2 := rivals.optional("cv2")) and (upsample, mean) == ("logits", "probability"):
        jobs["NumPy + OpenCV"] = lambda: _opencv(cv2, members, image)
    return jobs


def _torch(torch: Any, members: Sequence[Any], image: tuple[int, int], upsample: str, mean: str) -> dict[str, Any]:
    def up(z: Any) -> Any:
        return torch.nn.functional.interpolate(z, image, mode="bilinear", align_corners=False)

    def as_written() -> Any:
        if mean == "logit":
            return torch.stack([up(z.float()) for z in members]).mean(0).argmax(1)
        if upsample == "scores":
            return up(torch.stack([z.float().softmax(1) for z in members]).mean(0)).argmax(1)
        return torch.stack([up(z.float()).softmax(1) for z in members]).mean(0).argmax(1)

    def at_its_best(form: Any) -> Any:
        total = None
        for z in members:
            own = z.float().contiguous(memory_format=form)
            if upsample == "logits" and mean == "probability" and len(members) > 1:
                own = up(own).softmax(1)
            elif upsample == "scores":
                own = own.softmax(1)
            total = own if total is None else total.add_(own)
        return (total if total.shape[2:] == image else up(total)).argmax(1)

    return {
        "torch, as people write it": as_written,
        "torch, in place": lambda: at_its_best(torch.contiguous_format),
        "torch, channels last": lambda: at_its_best(torch.channels_last),
    }


def _opencv(cv2: Any, members: Sequence[Logits], image: tuple[int, int]) -> Any:
    """Class after class, so that few maps are held at a time; one member's argmax needs no softmax."""
    C = members[0].shape[0]

    def up(z: Any) -> Any:
        return cv2.resize(z.astype(np.float32), image[::-1], interpolation=cv2.INTER_LINEAR)

    totals = []
    for z in members if len(members) > 1 else ():
        total = np.zeros(image, np.float32)
        for c in range(C):
            total += cv2.exp(up(z[c]))
        totals.append(1 / total)
    best, label = np.full(image, -np.inf, np.float32), np.zeros(image, np.uint8)
    for c in range(C):
        score = (
            up(members[0][c])
            if not totals
            else sum(cv2.exp(up(z[c])) * t for z, t in zip(members, totals, strict=True))
        )
        ahead = score > best
        best[ahead], label[ahead] = score[ahead], c
    return label
