"""Images and planes as a trainer takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hand_bones.images import read_grey
from hand_bones.layout import Record, annotated
from hand_bones.polygons import draw
from hand_bones.truth import original_size

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class HandDataset(Dataset[dict[str, Any]]):
    """Records at the training size.

    Parameters
    ----------
    records : annotated, see `layout.read_layout`.
    size : side S of images and planes.
    augment : from image (3, S, S) and masks (29, S, S) to the same; see `augment.Augmentation`.

    Items are
        image : float32 (3, S, S), 0…1, grey in three channels, resized as `ensk dump-logits --size S` does;
        masks : uint8 (29, S, S), 0 or 1, polygons drawn at S;
        id : the image id;
        original_size : (H, W) of the image.
    """

    def __init__(self, records: Sequence[Record], size: int, *, augment: Augment | None = None) -> None:
        self.records = annotated(records)
        self.size, self.augment = size, augment

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, annotation = self.records[index]
        original = original_size(record)
        grey = cv2.resize(read_grey(record.image), (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        image = torch.from_numpy(grey.astype(np.float32) / np.float32(255)).expand(3, -1, -1).contiguous()
        masks = torch.from_numpy(draw(annotation, (self.size, self.size), original))
        if self.augment is not None:
            image, masks = self.augment(image, masks)
        return {"image": image, "masks": masks, "id": record.image_id, "original_size": original}
