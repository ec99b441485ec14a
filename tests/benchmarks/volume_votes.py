"""Volumes: members' logits on a coarse grid to the runs of an image's size, beside torch and what nnU-Net does.

Members are generated: organs as smooth fields (`tests/generated_volumes.py`). Rivals that take minutes do a part of the
slices, or of the classes, and their time is multiplied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import rivals
from measure import Bar
from numpy.typing import NDArray

from ensemble_kit.scores import volume_argmax, volume_thresholds
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import PROBABILITY

sys.path.append(str(Path(__file__).resolve().parents[1]))

from generated_volumes import Kind, logits_of

Logits = NDArray[np.float16]
Size = tuple[int, int, int]
FOLDS, CLASSES, GRID, IMAGE = 5, 15, (200, 256, 256), (300, 512, 512)
NEAREST = ("nearest", "linear", "linear")
LIMIT = "voxels that members do not agree upon are evaluated sixteen at a time"
PARTS = 20
"""Rivals of a whole volume do every 20th slice of the image, or those between a 20th of the slices of cells."""


class VolumeMember(jobs.MemoryMember):
    """A member whose volume lies in memory."""

    def read_slab(self, sample: str, first: int, stop: int) -> Logits:
        return self.read(sample)[:, first:stop]


def rows(scale: jobs.Scale) -> jobs.Rows:
    """Measure exclusive and overlapping classes, and white noise."""
    full = scale.plane >= jobs.Scale().plane
    grid, image = (GRID, IMAGE) if full else ((12, 32, 32), (18, 64, 64))
    tall, slices = (3 * grid[0], *image[1:]), "torch, slice by slice"
    yield exclusive(scale, grid, "organs", image, (), (Bar("times", 20, slices),))
    yield exclusive(scale, grid, "organs", grid, (), (Bar("times", 7, slices),))
    yield exclusive(scale, grid, "organs", tall, NEAREST, (Bar("times", 35, slices),))
    yield exclusive(scale, grid, "rough", image, (), (Bar("times", 20, slices),))
    yield overlapping(scale, grid, image, (Bar("times", 40, slices),))
    grid, image = ((40, 128, 128), (60, 256, 256)) if full else (grid, image)
    yield exclusive(scale, grid, "noise", image, (), (Bar("seconds", 250e-9),))


@lru_cache(maxsize=1)
def members(grid: Size, classes: int, kind: Kind) -> list[Logits]:
    """Make every fold's logits; overlapping classes have no background."""
    return [logits_of(grid, classes, m, kind=kind, background=classes == CLASSES) for m in range(FOLDS)]


def exclusive(scale: jobs.Scale, grid: Size, kind: Kind, image: Size, axes: Any, bars: Sequence[Bar]) -> Any:
    """Measure argmax, from logits in memory to runs and the slices of a label map; of noise a voxel."""
    name = {"organs": "", "rough": ", ragged organs", "noise": ", white noise"}[kind]
    job = f"argmax of a volume: {FOLDS} folds × {CLASSES} exclusive classes × {as_text(grid)} fp16{name} → "
    job += f"{as_text(image)}{', z nearest' if axes else ''}"
    if scale.only not in job + scale.tag:
        return None
    logits, C = members(grid, CLASSES, kind), CLASSES
    inputs = in_memory(logits, image, axes, "softmax")
    places = [m.placement("x") for m in inputs.members]
    parts: list[NDArray[Any]] = []

    def ours() -> volume_argmax.Looked:
        laid = volume_argmax.contest(inputs, "x", places, "logits", np.full(C, 65536), np.zeros(C, np.int64), 0)
        assert laid is not None
        parts.clear()
        return volume_argmax.winners(laid, lambda _, labels: parts.append(labels[-1]))[1]

    looked, voxels = ours(), int(np.prod(image))
    note = f"{100 * looked.strips / strips_of(places[0]):.1f} % of cubes undecided, {looked.exact:,} voxels in integers"
    noise, others = kind == "noise", {}
    if scale.rivals and not noise:
        others = exclusive_rivals(logits, image, axes)
    unit, per = ("a voxel", voxels) if noise else ("a volume", 1)
    return jobs.measured(scale, job, ours, others, unit, bars, LIMIT, read=logits, per=per, note=note)


def overlapping(scale: jobs.Scale, grid: Size, image: Size, bars: Sequence[Bar]) -> Any:
    """Measure thresholds, from logits in memory to runs."""
    job = f"thresholds of a volume: {FOLDS} folds × 3 overlapping regions × {as_text(grid)} fp16 → {as_text(image)}"
    if scale.only not in job + scale.tag:
        return None
    logits = members(grid, 3, "organs")
    inputs, levels = in_memory(logits, image, (), "sigmoid"), dict.fromkeys(range(3), 32768)
    places = [m.placement("x") for m in inputs.members]

    def ours() -> Any:
        laid = volume_thresholds.lay(inputs, "x", places, "logits")
        assert laid is not None
        return volume_thresholds.decide(laid, levels)

    others = overlapping_rivals(logits, image) if scale.rivals else {}
    return jobs.measured(scale, job, ours, others, "a volume", bars, LIMIT, read=logits)


def strips_of(place: Placement) -> int:
    """Cubes of cells that have voxels between them."""
    from ensemble_kit.scores.volume_axes import depth_of, kinds_of, plane_of

    boxes = (kinds_of(place),)
    plane, depth = plane_of(boxes, place.image), depth_of(boxes, place.image[0])
    return int((plane.row_at.size - 1) * (plane.col_at.size - 1) * (depth.at.size - 1))


def in_memory(logits: Sequence[Logits], image: Size, axes: Any, activation: str) -> Inputs:
    """What is decided, over one sample's volumes in memory: sample "x"."""
    classes = tuple(f"class {c}" for c in range(len(logits[0])))
    own = tuple(
        VolumeMember(f"m{k}", classes, {"x": z}, {"x": Placement.of(z.shape[1:], image, axes=axes)}, activation)
        for k, z in enumerate(logits)
    )
    names = tuple(m.member for m in own)
    weights = (integer_weights([1.0] * len(own), names),) * len(classes)
    return Inputs(own, classes, Fusion(PROBABILITY, "logits", names, weights, (1.0,) * len(own)))


def as_text(size: Sequence[int]) -> str:
    return " × ".join(map(str, size))


# --- rivals --------------------------------------------------------------------------------------------------


def exclusive_rivals(logits: Sequence[Logits], image: Size, axes: Any) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    grid, plain = logits[0].shape[1:], image == logits[0].shape[1:]
    if torch := rivals.optional("torch"):
        made["torch, slice by slice"] = _by_slices(
            torch, logits, image, axes, lambda z: z.softmax(0), lambda mean: mean.argmax(0).to(torch.uint8)
        )
        if not plain and not axes:
            part = _part(logits, image)
            made["torch, softmax of whole members"] = _scaled(
                lambda: sum(_whole(torch, z, part[1]).softmax(0) for z in part[0]).argmax(0), grid, part
            )
            made["torch, whole mean of logits"] = _scaled(
                lambda: _whole(torch, _mean(part[0]), part[1]).argmax(0), grid, part
            )
    if rivals.optional("skimage") and not plain and not axes:
        few = [z[:3] for z in logits]  # each channel is resized by itself
        part = _part(few, image)
        nnunet = _scaled(lambda: _nnunet(part).argmax(0), grid, part)
        made["skimage, as nnU-Net does"] = rivals.scaled(nnunet, nnunet.factor * len(logits[0]) / 3)  # type: ignore[attr-defined]
    return made


def overlapping_rivals(logits: Sequence[Logits], image: Size) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    grid, part = logits[0].shape[1:], _part(logits, image)
    if torch := rivals.optional("torch"):
        made["torch, slice by slice"] = _by_slices(
            torch, logits, image, (), lambda z: z.sigmoid_(), lambda mean: mean >= 0.5 * len(logits)
        )
        made["torch, sigmoid of whole members"] = _scaled(
            lambda: sum(_whole(torch, z, part[1]).sigmoid_() for z in part[0]) >= 0.5 * len(logits), grid, part
        )
    if rivals.optional("skimage"):
        made["skimage, as nnU-Net does"] = _scaled(lambda: _nnunet(part) >= 0, grid, part)
    return made


def _by_slices(
    torch: Any, logits: Sequence[Logits], image: Size, axes: Any, activate: Callable[[Any], Any],
    decide: Callable[[Any], Any],
) -> Callable[[], Any]:  # fmt: skip
    """Interpolate two slices of each member, then their mixture; decide from the sum of probabilities."""
    tensors, d, D = [torch.from_numpy(z) for z in logits], logits[0].shape[1], image[0]
    slices = range(PARTS // 2 if D > PARTS else 0, D, PARTS)

    def mixed(z: Any, o: int) -> Any:
        if axes or d == D:
            return z[:, (2 * o + 1) * d // (2 * D)].float()
        at = min(max((o + 0.5) * d / D - 0.5, 0), d - 1)
        a, f = int(at), at % 1
        return z[:, a].float() * (1 - f) + z[:, min(a + 1, d - 1)].float() * f

    def one(o: int) -> Any:
        total = None
        for z in tensors:
            own = mixed(z, o)
            if own.shape[1:] != image[1:]:
                own = torch.nn.functional.interpolate(own[None], image[1:], mode="bilinear", align_corners=False)[0]
            own = activate(own)
            total = own if total is None else total.add_(own)
        return decide(total)

    return rivals.scaled(lambda: [one(o) for o in slices], D / len(slices))


def _part(logits: Sequence[Logits], image: Size) -> tuple[list[Logits], Size]:
    """Some slices of cells of every member, and the slices of the image between them."""
    d = max(2, logits[0].shape[1] // PARTS)
    return [z[:, :d] for z in logits], (round(image[0] * d / logits[0].shape[1]), *image[1:])


def _scaled(job: Callable[[], Any], grid: Sequence[int], part: tuple[list[Logits], Size]) -> Callable[[], Any]:
    return rivals.scaled(job, grid[0] / part[0][0].shape[1])


def _whole(torch: Any, logits: NDArray[Any], image: Size) -> Any:
    given = torch.from_numpy(np.ascontiguousarray(logits)).float()[None]
    return torch.nn.functional.interpolate(given, image, mode="trilinear", align_corners=False)[0]


def _nnunet(part: tuple[list[Logits], Size]) -> NDArray[np.float32]:
    """Resize the mean of logits channel by channel (nnunetv2, default_resampling.py, order 1)."""
    from skimage.transform import resize

    out = [resize(channel, part[1], 1, mode="edge", clip=True, anti_aliasing=False) for channel in _mean(part[0])]
    return np.stack(out).astype(np.float32)


def _mean(logits: Sequence[Logits]) -> NDArray[np.float32]:
    total = np.zeros(logits[0].shape, np.float32)
    for z in logits:
        total += z
    return total / np.float32(len(logits))
