"""Members of a hard vote that saw windows: they do not vote elsewhere (docs/concepts.md#rule-6-hard-vote)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_

from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.windows import inside
from ensemble_kit.spec.geometry import Box


def abstaining(masks: Sequence[MaskSet], weights: Sequence[float]) -> list[MaskSet]:
    """Make void what a member did not see of an image and another one did, so that it abstains there.

    Where nobody saw the image all vote, as each decides there: for nothing, or for the background.

    Parameters
    ----------
    weights : of the members; one that weighs nothing sees nothing.
    """
    heard = [m for m, weight in zip(masks, weights, strict=True) if weight]
    return [_beside(m, [o for o in heard if o is not m]) for m in masks]


def together(masks: Sequence[MaskSet]) -> dict[str, tuple[Box, ...]]:
    """Return the windows of all members, of the samples of which none saw all."""
    alike = (s for s in masks[0].samples if all(s in m.extent.windows for m in masks))
    return {s: tuple(dict.fromkeys(box for m in masks for box in m.extent.windows[s])) for s in alike}


def _beside(masks: MaskSet, others: Iterable[MaskSet]) -> MaskSet:
    """Make void what one member did not see, and one of the others did."""
    void = {}
    for sample in masks.extent.windows:
        unseen = ~_seen(masks, sample)
        by_others = [unseen & _seen(other, sample) for other in others]
        void[sample] = masks.void(sample) | reduce(or_, by_others, Runs.empty(unseen.shape))
    return masks.with_void(void) if void else masks


def _seen(masks: MaskSet, sample: str) -> Runs:
    image = masks.image_size(sample)
    boxes = masks.extent.windows.get(sample, (Box.whole(image),))
    return reduce(or_, (inside(box, image) for box in boxes))
