"""Six families of networks from three libraries. Each maps images (B, 3, S, S) to logits (B, C, h, w).

Heads that would only enlarge their output (DeepLabV3+, UPerNet, SegFormer, Mask2Former: stride 4) put it out as it
is: 16 times less to store, and the kit interpolates exactly.

Weights are random unless the options say otherwise: `encoder_weights` (the first four families) and `pretrained`
(the other two) are the libraries' own ways to pretrained weights, which they download; `weights` is a local file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from ensemble_kit import MismatchError
from hand_bones import checkpoints
from hand_bones.config import Section, construct, refuse_unknown

if TYPE_CHECKING:  # 3 s to import, so only where a network needs it
    from transformers import (
        Mask2FormerForUniversalSegmentation,
        PretrainedConfig,
        PreTrainedModel,
        SegformerForSemanticSegmentation,
    )

LEAST = 1e-6
"""Probability below which Mask2Former's logits are not told apart: a logit of −13.8."""


class Segformer(nn.Module):
    """SegFormer (Xie et al. 2021) of transformers, its logits alone."""

    def __init__(self, network: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to logits (B, C, S/4, S/4)."""
        return self.network(pixel_values=images).logits


class Mask2Former(nn.Module):
    """Mask2Former (Cheng et al. 2022) of transformers: its queries become the logit of each class.

    A query holds a class with a probability and has a mask. A pixel is of a class unless every query leaves it out:
    p = 1 − Π (1 − p(query is of the class) · σ(its mask)). Classes may so overlap, which the original's sum over
    queries leaves to chance.
    """

    def __init__(self, network: Mask2FormerForUniversalSegmentation) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to logits (B, C, S/4, S/4)."""
        output = self.network(pixel_values=images)
        return per_class(output.class_queries_logits.float(), output.masks_queries_logits.float())

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """Compute the original's loss: queries are matched to the classes present, (B, C, S, S) of 0 and 1."""
        present = [mask.flatten(1).amax(1) > 0 for mask in masks]
        return self.network(
            pixel_values=images,
            mask_labels=[mask[there].float() for mask, there in zip(masks, present, strict=True)],
            class_labels=[there.nonzero()[:, 0] for there in present],
        ).loss


def per_class(queries: Tensor, masks: Tensor) -> Tensor:
    """Turn the logits of queries (B, Q, C + 1) and their masks (B, Q, h, w) into those of classes (B, C, h, w)."""
    holds, inside = queries.softmax(-1)[..., :-1], masks.sigmoid()
    planes = [torch.log1p(-(h[..., None, None] * inside).clamp(max=1 - LEAST)).sum(1) for h in holds.unbind(-1)]
    none = torch.stack(planes, 1).clamp(max=-LEAST)  # log of the probability that no query has the pixel
    return torch.log(-torch.expm1(none)) - none


def segformer(
    classes: int, pretrained: str | None = None, architecture: str | None = None, config: Section | None = None
) -> Segformer:
    """Build SegFormer from keys of SegformerConfig.

    Parameters
    ----------
    pretrained, architecture : a local folder or a name on the hub, whose weights or whose sizes alone are taken.
    """
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    kinds = SegformerForSemanticSegmentation, SegformerConfig
    return Segformer(_transformer(*kinds, classes, pretrained, architecture, config or {}))


def mask2former(
    classes: int,
    pretrained: str | None = None,
    architecture: str | None = None,
    config: Section | None = None,
    backbone: Section | None = None,
) -> Mask2Former:
    """Build Mask2Former from keys of Mask2FormerConfig, on a Swin backbone from keys of SwinConfig.

    Parameters
    ----------
    pretrained, architecture : a local folder or a name on the hub, whose weights or whose sizes alone are taken.
    """
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    options = dict(config or {})
    if backbone is not None:
        refuse_unknown("the backbone", backbone, SwinConfig().to_dict())
        stages = [f"stage{k + 1}" for k in range(len(backbone.get("depths", SwinConfig().depths)))]
        options["backbone_config"] = SwinConfig(**backbone, out_features=stages)
    kinds = Mask2FormerForUniversalSegmentation, Mask2FormerConfig
    return Mask2Former(_transformer(*kinds, classes, pretrained, architecture, options))


def _transformer(
    kind: type[PreTrainedModel],
    config: type[PretrainedConfig],
    classes: int,
    pretrained: str | None,
    architecture: str | None,
    options: Section,
) -> Any:
    refuse_unknown(config.__name__, options, config().to_dict())
    if pretrained is not None:
        return kind.from_pretrained(pretrained, num_labels=classes, ignore_mismatched_sizes=True, **options)
    if architecture is not None:
        return kind(config.from_pretrained(architecture, num_labels=classes, **options))
    return kind(config(num_labels=classes, **options))


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(smp.Unet, encoder_weights=None),
    "unetplusplus": partial(smp.UnetPlusPlus, encoder_weights=None),
    "deeplabv3plus": partial(smp.DeepLabV3Plus, encoder_weights=None, upsampling=1),
    "upernet": partial(smp.UPerNet, encoder_weights=None, upsampling=1),
    "segformer": segformer,
    "mask2former": mask2former,
}


def build(section: Section, classes: int, *, pretrained: bool = True) -> nn.Module:
    """Build {"name": family, "weights": file or null, …options of the family} for so many classes.

    Parameters
    ----------
    pretrained : load what the section asks for; without it weights are random, for a state dict to be loaded after.
    """
    options = {k: v for k, v in section.items() if k != "weights"}
    if not pretrained:
        options.pop("encoder_weights", None)
        if "pretrained" in options:
            options["architecture"] = options.pop("pretrained")
    network: nn.Module = construct("the network", options, FAMILIES, classes=classes)
    if pretrained and section.get("weights"):
        load_weights(network, Path(section["weights"]))
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file into a network.

    Raises
    ------
    IncompleteError, DamagedError
        See `checkpoints.load`.
    MismatchError
        It is not one of this network.
    """
    try:
        network.load_state_dict(checkpoints.load(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise MismatchError(
            "weights-differ",
            "cannot load weights into a network",
            item=f"{path}: {str(error)[:300]}",
            fix="pass the state dict of a network of the same options",
        ) from error
