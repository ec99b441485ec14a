"""Overlapping classes of a volume, decided slab by slab by bounds over cubes of cells, of members that share a grid."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.kernels.arguments import Members, Pixels
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores import layouts
from ensemble_kit.scores.slices import Slices
from ensemble_kit.scores.volume_axes import Depth, Kinds, axis, depth_of, kinds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Upsample
    from ensemble_kit.spec.geometry import Placement, Shape


class Laid(NamedTuple):
    """What the classes of a volume are decided from."""

    inputs: Inputs
    recipe: layouts.Recipe
    box: Kinds
    image: Shape
    slices: Sequence[Slices]
    depth: Depth
    pixels: Pixels


def lay(inputs: Inputs, sample: str, placements: Sequence[Placement], upsample: Upsample) -> Laid | None:
    """Lay out a volume; None where its classes exclude each other, its members do not share a grid, or see windows."""
    first, late, fusion = placements[0], upsample == "logits", inputs.fusion
    box, image = kinds_of(first), first.image
    alike = all(kinds_of(p) == box and p.window is None for p in placements)
    if upsample == "scores":
        alike &= all((p.grid, p.box) == (first.grid, first.box) for p in placements)
    if inputs.activation != "sigmoid" or not alike or box[0][2] > image[2]:
        return None
    kind: layouts.Codes = "q" if late or fusion.mean.of_logits else "levels"
    return Laid(
        inputs,
        layouts.Recipe(kind, fusion.temperatures, fusion.mean, late),
        box,
        image,
        [Slices(m, sample, p) for m, p in zip(inputs.members, placements, strict=True)],
        depth_of((box,), image[0]),
        _pixels(box, image),
    )


def decide(laid: Laid, levels: Mapping[int, int]) -> ManyRuns:
    """Decide classes, `{class number: level}`; the masks are in this order."""
    from ensemble_kit.kernels import cubes

    classes, wanted = np.array(tuple(levels), np.int64), np.array(tuple(levels.values()), np.int64)
    reach = layouts.reach(laid.recipe, tuple(levels.values()), tuple(levels.values()))
    (_, h, w), scoring = laid.box[0], layouts.scoring(laid.recipe)
    bits = cubes.Bits(*(np.zeros((len(levels), 2, h, -(-w // 64)), np.int64) for _ in range(2)))
    parts: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in levels]
    held, members, depth = [-1, -1], [_members(laid), _members(laid)], laid.depth
    for band, (first, stop) in enumerate(pairwise(depth.at.tolist())):
        slots = []
        for number in (int(depth.before[0, band]), int(depth.behind[0, band])):
            slot = number & 1
            slots.append(slot)
            if held[slot] != number:
                held[slot] = number
                for m, own in enumerate(laid.slices):
                    members[slot].addresses[m], members[slot].class_bytes[m] = own.take(number)
                cubes.enter(slot, w, classes, reach, members[slot], bits)
        shares = depth.fractions[0, first:stop].copy()
        shares[1:][shares[1:] == shares[:-1]] = -1
        slices = cubes.Slices(np.array(slots), shares, first)
        before, behind = (members[slot] for slot in slots)
        edges, at = cubes.decide_slices(slices, classes, wanted, before, behind, scoring, laid.pixels, bits)
        for part, (begin, end) in zip(parts, pairwise(at.tolist()), strict=True):
            part.append(edges[begin:end])
    return _joined([np.concatenate(part) for part in parts])


def _members(laid: Laid) -> Members:
    """The members of a slice of cells that is not read yet."""
    own, none = tuple([m.classes for m in laid.inputs.members]), np.zeros(len(laid.slices), np.int64)
    order, weights = layouts.order(own, laid.inputs.classes), layouts.weights(laid.inputs.fusion.weights)
    return Members(none, none.copy(), np.array([s.width for s in laid.slices]), none, order, weights)


def _pixels(box: Kinds, image: Shape) -> Pixels:
    """Lay out the pixels of a slice of the image behind the rows and columns of a box."""
    out: list[NDArray[np.int64]] = []
    for n_in, n_out, kind in list(zip(box[0], image, box[1], strict=True))[1:]:
        near, fractions = axis(n_in, n_out, kind)
        out += np.searchsorted(near, np.arange(n_in + 1)), fractions
    return Pixels(*out)


def _joined(edges: Sequence[NDArray[np.int64]]) -> ManyRuns:
    """Make runs of every class's edges; where one slice closes what the next opens, a run goes on."""
    kept = []
    for own in edges:
        goes_on = np.zeros(len(own) + 1, np.bool_)
        goes_on[1:-1] = own[1:] == own[:-1]
        kept.append(own[~(goes_on[1:] | goes_on[:-1])])
    every = np.concatenate(kept)
    offsets = np.cumsum([0, *(len(own) // 2 for own in kept)])
    return ManyRuns(every[::2].copy(), every[1::2].copy(), offsets)
