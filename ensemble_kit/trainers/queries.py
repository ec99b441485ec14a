"""Outputs of Hugging Face's segmentation models as logits: maps of classes, or queries with a mask and classes each.

Of queries q, class c has the score Σ_q P_q(c) · m_q (Cheng et al., 2021, MaskFormer): a sum, which may exceed 1, and of
which the model takes the largest. As exclusive classes its logarithm is stored: the softmax of it is the score divided
by that of all classes, in the same order. Overlapping classes are joined by noisy-or, 1 - Π_q (1 - P_q(c) · m_q).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.fields import listed

if TYPE_CHECKING:
    import torch

QUERIES = "class_queries_logits"


def classes_of(config: Any) -> list[str]:
    """Return the names of a model's classes, in order, from its `config.id2label`.

    Raises
    ------
    UsageError
        It has none.
    """
    if not getattr(config, "id2label", None):
        item, fix = "the model has no config.id2label", "pass classes= with a name for each map, in their order"
        raise UsageError("classes-unnamed", "cannot tell the names of classes", item=item, fix=fix)
    return [str(config.id2label[k]) for k in sorted(config.id2label, key=int)]


def logits_of(
    outputs: Mapping[str, Any],
    processor: Any,
    sizes: Sequence[tuple[int, ...]],
    activation: Activation,
    *,
    on_image: bool = False,
) -> list[torch.Tensor]:
    """Return the logits (C, h, w) of each image of a batch.

    Parameters
    ----------
    outputs : of a model `…ForSemanticSegmentation` or `…ForUniversalSegmentation`.
    processor : of the model, whose `post_process_semantic_segmentation` makes scores of queries.
    sizes : (H, W) of the images.
    on_image : whether maps are brought to the images' sizes, as the processor does before it decides.

    Raises
    ------
    UsageError
        The outputs are of another task.
    """
    if QUERIES in outputs and activation == "sigmoid" and not on_image:
        if len(outputs[QUERIES]) != len(sizes):
            item = f"the processor cut {len(sizes)} images into {len(outputs[QUERIES])} windows, which it joins itself"
            fix = 'pass a processor that does not (do_split_image=False), or activation="softmax"'
            raise UsageError("processor-scores", "cannot make scores of overlapping classes", item=item, fix=fix)
        return list(_noisy_or(outputs[QUERIES], outputs["masks_queries_logits"]))
    if QUERIES not in outputs:
        maps = outputs.get("logits")
        if maps is None or maps.ndim != 4:
            item = f"the model put out {listed(outputs)}"
            fix = "pass a model for semantic segmentation, whose output has logits (B, C, h, w), or for universal "
            fix += "segmentation, whose output has class_queries_logits and masks_queries_logits"
            raise UsageError("output-key", "cannot tell which output is the logits", item=item, fix=fix)
        if not on_image:
            return list(maps)
    processor = getattr(processor, "image_processor", processor)
    process = getattr(processor, "post_process_semantic_segmentation", None)
    known = {} if process is None else inspect.signature(process).parameters
    if process is None or "return_segmentation_scores" not in known or activation == "sigmoid":
        item = f"{type(processor).__name__}, activation={activation!r}, grid={'image' if on_image else 'model'!r}"
        fix = 'pass the model\'s own processor, of transformers 5 or later, and activation="softmax"'
        fix += '; overlapping classes have grid="model"'
        raise UsageError("processor-scores", "cannot make scores of classes", item=item, fix=fix)
    targets = list(sizes) if on_image or known["target_sizes"].default is inspect.Parameter.empty else None
    found = process(outputs, target_sizes=targets, return_segmentation_scores=True)
    scores = [one.segmentation_scores.float() for one in found]
    return [s.clamp(min=1e-38).log() for s in scores] if QUERIES in outputs else scores


def _noisy_or(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 - p)), (B, C, h, w), of p = 1 - Π_q (1 - P_q(c) · m_q), query by query."""
    import torch

    chances, shapes = classes.float().softmax(-1)[..., :-1], masks.float().sigmoid()
    none = torch.zeros(len(masks), chances.shape[-1], *masks.shape[2:], device=masks.device)
    for q in range(masks.shape[1]):
        none += torch.log1p(-(chances[:, q, :, None, None] * shapes[:, q, None]).clamp(max=1 - 1e-7))
    return (-torch.expm1(none)).clamp(min=1e-38).log() - none


def boxes_of(mask: Any, grids: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int]]:
    """Return the cells (y0, x0, y1, x1) of each grid that lie on the image, of a batch padded below and on the right.

    Parameters
    ----------
    mask : `pixel_mask` (B, H, W), 1 on the image and 0 on padding.

    An edge of the image within a cell is moved by less than half of it.
    """
    boxes = []
    for one, (h, w) in zip(mask, grids, strict=True):
        rows, columns = (int((one.sum(axis) > 0).sum()) for axis in (1, 0))
        y, x = round(rows * h / one.shape[0]), round(columns * w / one.shape[1])
        boxes.append((0, 0, max(y, 1), max(x, 1)))
    return boxes
