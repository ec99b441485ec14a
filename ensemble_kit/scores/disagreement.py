"""How far members disagree: variance of their probabilities and mutual information (docs/concepts.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.scores import fused
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS, PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.fused import Room

_ROWS = 32


class Disagreement(NamedTuple):
    """What each pixel of some rows, or of all, has; codes, of which `VARIANCE` and `bits` say what they stand for.

    Parameters
    ----------
    variance : uint16 (C, H, W), or (C, D, H, W), of the members' probabilities of a class; 0 where no member has a say.
    information : likewise, mutual information of a class; of exclusive classes (1, H, W), of all together.
    """

    variance: NDArray[np.uint16]
    information: NDArray[np.uint16]


def variances() -> NDArray[np.float32]:
    """Return the variance that each code stands for, float32 (65536,): up to 1/4, which no variance exceeds."""
    return (np.arange(LEVELS) / (4 * (LEVELS - 1))).astype(np.float32)


def bits(inputs: Inputs) -> NDArray[np.float32]:
    """Return the mutual information that each code stands for, in bits, float32 (65536,): up to `most_bits`."""
    return (np.arange(LEVELS) / (LEVELS - 1) * most_bits(inputs)).astype(np.float32)


def most_bits(inputs: Inputs) -> float:
    """Return the largest entropy: 1 bit of a class by itself, log2 of their number of exclusive classes."""
    return math.log2(max(2, len(inputs.classes))) if inputs.activation == "softmax" else 1.0


def in_image(inputs: Inputs, sample: str, room: Room = fused.in_memory) -> Disagreement:
    """Evaluate a sample at the image's size; `room` makes the arrays."""
    return _of_sample(open_sample(_as_probabilities(inputs), sample), room)


def on_grid(inputs: Inputs, sample: str, room: Room = fused.in_memory) -> Disagreement:
    """Evaluate a sample on the grid of its fused logits (`fused.grid_levels`); 0 outside the box."""
    place, found = fused.placement(inputs, sample), _of_sample(fused.on_box(_as_probabilities(inputs), sample), room)
    if place.box.shape == place.grid:
        return found
    whole = [room((len(part), *place.grid)) for part in found]
    for out, part in zip(whole, found, strict=True):
        for own, one in zip(out, part, strict=True):
            own[place.box.slices] = one
    return Disagreement(*whole)


def _as_probabilities(inputs: Inputs) -> Inputs:
    """Fuse by the mean of probabilities, whatever the ensemble's mean is: these are what members disagree on."""
    return replace(inputs, fusion=replace(inputs.fusion, mean=PROBABILITY))


def _of_sample(scores: FusedSample, room: Room) -> Disagreement:
    """Evaluate every pixel, some rows at a time: members' own scores of a whole image are never held."""
    joint, classes = scores.inputs.activation == "softmax", len(scores.inputs.classes)
    out = [room((n, scores.rows, scores.image[-1])) for n in (classes, 1 if joint else classes)]
    for first in range(0, scores.rows, _ROWS):
        rows = scores.disagreement(first, min(first + _ROWS, scores.rows), most_bits(scores.inputs))
        for whole, part in zip(out, rows, strict=True):
            whole[:, first : first + _ROWS] = part
    return Disagreement(*(whole.reshape(-1, *scores.image) for whole in out))
