"""Rule 13 in plain NumPy: the fused value of every voxel, from members that hold one sample's volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble_kit.kernels import reference as ref
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean


@dataclass(frozen=True)
class Volume:
    """A member that holds one sample's logits (C, d, h, w)."""

    member: str
    classes: tuple[str, ...]
    activation: Any
    logits: np.ndarray
    where: Placement

    def read(self, sample: str) -> np.ndarray:
        return self.logits

    def read_slab(self, sample: str, first: int, stop: int) -> np.ndarray:
        return self.logits[:, first:stop].copy()  # as a store: another piece of memory each time

    def placement(self, sample: str) -> Placement:
        return self.where


def inputs_of(
    logits: list[np.ndarray], places: list[Placement], upsample: Any = "logits", mean: str = "probability",
    weights: Any = None, temperatures: Any = None, orders: Any = None, activation: str = "softmax",
) -> Inputs:  # fmt: skip
    """Members of these logits; `weights` are one for each member, or (C, M)."""
    C, M = logits[0].shape[0], len(logits)
    classes, orders = tuple(f"c{k:02}" for k in range(C)), [np.arange(C)] * M if orders is None else orders
    members = tuple(
        Volume(f"m{k}", tuple(classes[c] for c in own), activation, np.ascontiguousarray(z), place)
        for k, (z, own, place) in enumerate(zip(logits, orders, places, strict=True))
    )
    names = tuple(m.member for m in members)
    by_class = np.broadcast_to(np.array(weights or [1] * M), (C, M)).tolist()
    rows = tuple(integer_weights(row, names) for row in by_class)
    return Inputs(members, classes, Fusion(Mean.of(mean), upsample, names, rows, tuple(temperatures or [1.0] * M)))


def interpolate(cells: np.ndarray, place: Placement) -> np.ndarray:
    """The level × 2^24 of every voxel, int64 (C, D, H, W), from the cells (C, d, h, w) of a box."""
    out = cells.astype(np.int64)
    for axis, (n_in, n_out, kind) in enumerate(zip(cells.shape[1:], place.image, place.kinds, strict=True), 1):
        pairs = ref.axis(n_in, n_out)
        if kind == "nearest":
            pairs = [((2 * o + 1) * n_in // (2 * n_out), 0) for o in range(n_out)]
        i, f = np.array(pairs).T
        f = f.reshape([-1 if k == axis else 1 for k in range(4)])
        out = (256 - f) * out.take(i, axis) + f * out.take(np.minimum(i + 1, n_in - 1), axis)
    return out


def values(ens: Inputs) -> np.ndarray:
    """F_c of rule 10 of a whole volume, int64 (C, D, H, W)."""
    f, softmax, each = ens.fusion, ens.activation == "softmax", ens.fusion.upsample == "logits"
    weights, power, cells = np.array(f.weights, np.int64), f.mean.scale, []
    for member, t in zip(ens.members, f.temperatures, strict=True):
        z, order = member.read("a"), [member.classes.index(c) for c in ens.classes]
        if each or f.mean.of_logits:
            level = ref.exclusive_q(z, t) if softmax else ref.q(z, t)
        else:
            level = power[ref.softmax_level(z, t) if softmax else ref.level(z, t)]
        cells.append(level[order][:, *member.placement("a").box.slices])
    places = [m.placement("a") for m in ens.members]
    if not each:
        fused = np.stack([ref.fuse([own[c] for own in cells], list(f.weights[c])) for c in range(len(ens.classes))])
        return interpolate(fused, places[0]) >> 8
    out = np.zeros((len(ens.classes), *places[0].image), np.int64)
    for own, place, w in zip(cells, places, weights.T, strict=True):
        q = ((interpolate(own, place) + 2**23) >> 24).astype(np.uint16)
        scores = q if f.mean.of_logits else power[ref.shares(q) if softmax else ref.level_of_q(q)]
        out += w[:, None, None, None] * scores.astype(np.int64)
    return out


def label(ens: Inputs, factors: list[int], least: int = 0) -> np.ndarray:
    """The class of every voxel, -1 where there is none."""
    found, of_logits = values(ens), ens.fusion.mean.of_logits
    column = np.array([ref.offset(w / 65536) if of_logits else w for w in factors]).reshape(-1, 1, 1, 1)
    won = (found + column if of_logits else found * column).argmax(axis=0)
    if not least:
        return won
    rounded = (found + (32768 if ens.fusion.upsample == "logits" else 0)) >> 16
    if of_logits:
        rounded = ref.shares(((found + 32768) >> 16).astype(np.uint16)).astype(np.int64)
    return np.where(np.take_along_axis(rounded, won[None], 0)[0] < least, -1, won)


def decided(ens: Inputs, levels: list[int]) -> np.ndarray:
    """Which voxels of each class reach its level, bool (C, D, H, W)."""
    found, half = values(ens), 32768 if ens.fusion.upsample == "logits" else 0
    return np.asarray((found + half) >> 16 >= np.array(levels).reshape(-1, 1, 1, 1))
