"""Losses on logits (B, C, h, w) of overlapping classes, all of segmentation_models_pytorch, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from segmentation_models_pytorch.losses import (
    DiceLoss,
    FocalLoss,
    JaccardLoss,
    LovaszLoss,
    SoftBCEWithLogitsLoss,
    TverskyLoss,
)
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hand_bones.config import Section, construct

MULTILABEL = "multilabel"
LOSSES: dict[str, Callable[..., nn.Module]] = {
    "bce": SoftBCEWithLogitsLoss,
    "focal": partial(FocalLoss, MULTILABEL),  # Lin et al. 2017
    "dice": partial(DiceLoss, MULTILABEL),  # Milletari et al. 2016; classes pooled over the batch, absent ones left out
    "iou": partial(JaccardLoss, MULTILABEL),
    "tversky": partial(TverskyLoss, MULTILABEL),  # Salehi et al. 2017; alpha weighs false positives, beta misses
    "lovasz": partial(LovaszLoss, MULTILABEL),  # Berman et al. 2018, the hinge of all planes together
}


class Combo(nn.Module):
    """A weighted sum of losses, at the resolution of the masks.

    Logits of a coarser grid are brought there bilinearly first, which is what the kit does with them later.

    Examples
    --------
    >>> import torch
    >>> combo = build([{"name": "focal", "weight": 2.0}, {"name": "dice"}])
    >>> combo(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 8, 8)).shape
    torch.Size([])
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms]
        self.terms = nn.ModuleList(term for _, term in terms)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Compare logits (B, C, h, w) with masks (B, C, H, W) of 0 and 1."""
        masks = masks.to(logits.dtype)
        if logits.shape[-2:] != masks.shape[-2:]:
            logits = interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
        return sum(weight * term(logits, masks) for weight, term in zip(self.weights, self.terms, strict=True))


def build(criterion: Sequence[Section]) -> Combo:
    """Build a criterion from [{"name": "dice", "weight": 0.5, …options of the loss}, …]."""
    terms = []
    for section in criterion:
        options = dict(section)
        weight = options.pop("weight", 1.0)
        terms.append((weight, construct("the loss", options, LOSSES)))
    return Combo(terms)
