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
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean

Logits = NDArray[np.float16]
LIMIT = "pixels that members do not agree upon are evaluated sixteen at a time"
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


MIXED: tuple[tuple[int, tuple[int, int], tuple[int, int]], ...] = (
    (19, (256, 512), (512, 1024)),
    (19, (256, 512), (1024, 2048)),
    (7, (96, 96), (384, 384)),
    (3, (80, 80), (480, 480)),
)
"""Classes, the finer grid, and the image: of three members on it the second has a grid of half the size."""


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
    yield from of_several_grids(scale, quick)


def of_several_grids(scale: jobs.Scale, quick: bool) -> jobs.Rows:
    """Measure three members, the second on a grid of half the size, with weights by class and with sigmoid too."""
    bar = (Bar("times", 10, "torch"),)
    for C, grid, image in MIXED:
        (h, w), (H, W) = ((n // 4 for n in size) if quick else size for size in (grid, image))
        logits = class_logits(3, C, (h, w))
        logits[1] = halved(logits[1])
        label = f"{C} classes, two members on {h} × {w} and one on {h // 2} × {w // 2} fp16 → labels at {H} × {W}"
        for upsample, mean in (("logits", "probability"), ("logits", "logit"), ("scores", "probability")):
            yield vote(scale, in_memory(logits, (H, W), upsample, mean), ["x"], label, bar)
        if (C, image) == (19, (512, 1024)):
            uneven = [[1 + (c + m) % 3 for m in range(3)] for c in range(C)]
            given = in_memory(logits, (H, W), "logits", "probability", weights=uneven)
            yield vote(scale, given, ["x"], f"{label}, weights by class", bar)
            given = in_memory(logits, (H, W), "logits", "probability", activation="sigmoid")
            yield vote(scale, given, ["x"], f"{label}, sigmoid", bar)


def of_stores(scale: jobs.Scale, stores: Sequence[Path]) -> jobs.Rows:
    """Measure the first samples of stores of softmax members: one member, all, and all with one on half its grid."""
    scale = replace(scale, tag=f", genuine logits of {', '.join(p.name for p in stores)}")
    for paths, mixed in ((stores[:1], False), (stores, False), (stores, True))[: 3 if len(stores) > 1 else 1]:
        for upsample, mean in (("logits", "probability"), ("logits", "logit"), ("scores", "probability")):
            ensemble = ek.Ensemble(list(paths), upsample=upsample, mean=mean)
            samples = ensemble.samples[: 4 * scale.samples]
            inputs, bars = jobs.in_memory(ensemble.on(samples)), ()
            size = " × ".join(map(str, ensemble.image_size(samples[0])))
            label = f"{len(paths)} members, {len(ensemble.classes)} classes → labels at {size}"
            if mixed:
                inputs, bars = with_one_halved(inputs, samples), (Bar("times", 10, "torch"),)
                label = f"{label}, the second member on half its grid"
            yield vote(scale, inputs, samples, label, bars)


def vote(scale: jobs.Scale, inputs: Inputs, samples: Sequence[str], label: str, bars: Sequence[Bar] = ()) -> Any:
    """Measure deciding samples, from logits in memory to the runs of all classes."""
    fusion, ones = inputs.fusion, [65536] * len(inputs.classes)
    order = [[m.classes.index(c) for c in inputs.classes] for m in inputs.members]
    arrays = [[m.read(s)[own] for m, own in zip(inputs.members, order, strict=True)] for s in samples]
    images = [inputs.members[0].placement(s).image for s in samples]
    others = {}
    if scale.rivals:
        make = [label_rivals(a, i, inputs) for a, i in zip(arrays, images, strict=True)]
        others = rivals.together(make)
    found = [share for share in (undecided(inputs, s) for s in samples) if share is not None]
    quads, exact = 100 * np.mean(found, axis=0) if found else (0, 0)
    note = (
        f"{quads:.1f} % of quads undecided, {exact:.3f} % of pixels in integers" if found else "every pixel evaluated"
    )
    return jobs.measured(
        scale, f"argmax, upsample={fusion.upsample!r}, mean={str(fusion.mean)!r}: {label}",
        lambda: [open_sample(inputs, s).winners(ones) for s in samples], others, "a sample", bars, LIMIT,
        read=[a for own in arrays for a in own], per=len(samples), note=note,
    )  # fmt: skip


def undecided(inputs: Inputs, sample: str) -> tuple[float, float] | None:
    """The shares of quads that members do not agree upon, and of pixels that took integers; None: no fast way."""
    places, C = [m.placement(sample) for m in inputs.members], len(inputs.classes)
    ones, none = np.ones(C, np.int64), np.zeros(C, np.int64)
    factors = ones if inputs.fusion.mean.of_logits else 65536 * ones
    laid = argmax.contest(inputs, sample, places, inputs.fusion.upsample, factors, none, 0)
    if laid is None:
        return None
    quads, exact = kernels.decide(laid.contest, laid.exactly, laid.grids)[3:]
    (H, W), grids = places[0].image, laid.grids
    return quads / (grids.upper.shape[1] * grids.cols.shape[1]), exact / (H * W)


# --- inputs --------------------------------------------------------------------------------------------------


def in_memory(
    logits: Sequence[Logits], image: tuple[int, int], upsample: Any, mean: str, activation: Any = "softmax",
    weights: Sequence[Sequence[float]] | None = None,
) -> Inputs:  # fmt: skip
    """What `FusedSample` takes, over one sample's arrays (C, h, w) in memory: sample "x"."""
    C = logits[0].shape[0]
    classes = tuple(f"class {c}" for c in range(C))
    members = tuple(
        jobs.MemoryMember(f"m{k}", classes, {"x": z}, {"x": Placement.of(z.shape[1:], image)}, activation)
        for k, z in enumerate(logits)
    )
    names = tuple(m.member for m in members)
    rows = tuple(integer_weights(row, names) for row in weights or [[1.0] * len(members)] * C)
    return Inputs(members, classes, Fusion(Mean.of(mean), upsample, names, rows, (1.0,) * len(members)))


def halved(logits: Logits) -> Logits:
    """Logits on a grid of half the size: means of four cells."""
    C, h, w = logits.shape
    return logits.astype(np.float32).reshape(C, h // 2, 2, w // 2, 2).mean(axis=(2, 4)).astype(np.float16)


def with_one_halved(inputs: Inputs, samples: Sequence[str]) -> Inputs:
    """The same members, the second on half its grid, where the image fills the grid."""
    own = inputs.members[1]
    arrays = {s: halved(own.read(s)) for s in samples}
    places = {s: Placement.of(z.shape[1:], own.placement(s).image) for s, z in arrays.items()}
    member = jobs.MemoryMember(own.member, own.classes, arrays, places, own.activation)
    return replace(inputs, members=(inputs.members[0], member, *inputs.members[2:]))


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


def label_rivals(members: Sequence[Logits], image: tuple[int, int], inputs: Inputs) -> dict[str, Callable[[], Any]]:
    """Members (C, h, w) → label map of `image`, as frameworks do it, and at its best."""
    jobs: dict[str, Callable[[], Any]] = {}
    fusion = inputs.fusion
    even = len(set(fusion.weights)) == 1
    if torch := rivals.optional("torch"):
        jobs |= _torch(torch, [torch.from_numpy(np.ascontiguousarray(z))[None] for z in members], image, inputs)
    plain = (fusion.upsample, str(fusion.mean), inputs.activation) == ("logits", "probability", "softmax") and even
    if plain and (cv2 := rivals.optional("cv2")):
        jobs["NumPy + OpenCV"] = lambda: _opencv(cv2, members, image)
    return jobs


def _torch(torch: Any, members: Sequence[Any], image: tuple[int, int], inputs: Inputs) -> dict[str, Any]:
    fusion, finest = inputs.fusion, max((z.shape[2:] for z in members), key=lambda size: size[0] * size[1])
    upsample, mean = fusion.upsample, str(fusion.mean)
    even = len(set(fusion.weights)) == 1
    weights = [
        torch.tensor(own, dtype=torch.float32)[None, :, None, None] / 65536 for own in zip(*fusion.weights, strict=True)
    ]

    def up(z: Any, size: Any = image) -> Any:
        return torch.nn.functional.interpolate(z, size, mode="bilinear", align_corners=False)

    def share(z: Any) -> Any:
        return z.softmax(1) if inputs.activation == "softmax" else z.sigmoid_()

    def average(scores: Sequence[Any]) -> Any:
        if even:
            return torch.stack(list(scores)).mean(0)
        return torch.stack([w * s for w, s in zip(weights, scores, strict=True)]).sum(0)

    def as_written() -> Any:
        if mean == "logit":
            return average([up(z.float()) for z in members]).argmax(1)
        if upsample == "scores":
            return up(average([up(share(z.float()), finest) for z in members])).argmax(1)
        return average([share(up(z.float())) for z in members]).argmax(1)

    def at_its_best(form: Any) -> Any:
        """Class maps are added up in place; those of one grid before they are interpolated, where that is the same."""
        totals: dict[Any, Any] = {}
        for z, weight in zip(members, weights, strict=True):
            own = z.float().contiguous(memory_format=form)
            if upsample == "logits" and mean == "probability" and (len(members) > 1 or not even):
                own = share(up(own))
            elif upsample == "scores":
                own = share(own)
            own = own if even else own.mul_(weight)
            size = own.shape[2:]
            totals[size] = totals[size].add_(own) if size in totals else own
        if upsample == "scores" and len(totals) > 1:
            totals = {finest: sum(z if size == finest else up(z, finest) for size, z in totals.items())}
        return sum(z if size == image else up(z) for size, z in totals.items()).argmax(1)

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
