"""Ultralytics' `semantic` task: store the logits that `results.semantic_mask` is decided from.

    dump(YOLO("best.pt"), sorted(Path("images").iterdir()), "yolo.zarr", imgsz=1024)

Ultralytics is under the AGPL-3.0: read its terms before you pass on what imports it. The kit does not depend on it.

The predictor brings logits from the head's grid, an eighth, to the letterboxed input, cuts the padding off, resizes to
the image and decides. They are stored after the first two steps, since the padding is rarely whole cells of the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn import Module
from torch.nn.functional import interpolate
from ultralytics.models.yolo.semantic import SemanticSegmentationPredictor

from ensemble_kit.backends.digest import network_digest
from ensemble_kit.errors import UsageError
from ensemble_kit.trainers.batches import BatchWriter, Terms, this_process, to_stderr

TERMS = Terms("the model", "the source")
_ARGMAX = "pass the .pt file: exports to ONNX, OpenVINO, MNN and TensorRT have argmax inside"


def dump(
    model: Any,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    member: str | None = None,
    say: Callable[[str], None] = to_stderr,
    **predict: Any,
) -> None:
    """Store a model's logits of image files; those that are there already are not computed again.

    Under torchrun each process takes its share.

    Parameters
    ----------
    model : a `YOLO` of the task "semantic".
    files : images, whose names are the ids.
    classes : default: the model's `names`.
    member : name of the network; default: the store's.
    say : receives what was written, at the end.
    predict : for `model.predict`, such as `imgsz`, `batch` and `device`.

    Raises
    ------
    UsageError
        The model is of another task, or an export that has decided already.
    """
    if model.task != "semantic":
        fix = (
            "pass a model of the task semantic, such as yolo26n-sem.pt; instances and boxes have no scores of pixels, "
        )
        fix += "and are voted on as masks (ek.hard_vote)"
        item = f"the model's task is {model.task!r}"
        raise UsageError("option-invalid", "cannot store logits", item=item, fix=fix)
    process, paths = this_process(), [Path(file) for file in files]
    names = list(classes or map(str, model.names.values()))
    activation = "softmax" if len(names) > 1 else "sigmoid"
    about = {"network": Path(model.model_name or "YOLO").name, "network_sha256": _digest(model)}
    how = {"activation": activation, "member": member, "provenance": about, "terms": TERMS, "process": process}
    with BatchWriter(out, names, [path.name for path in paths], **how) as writer:
        share = paths[process[0] - 1 :: process[1]]
        left = [str(path) for path in share if path.name not in writer.there]
        writer.pass_over(len(share) - len(left))
        predict |= {"predictor": partial(LogitPredictor, writer), "stream": True, "verbose": False}
        size = int(predict.setdefault("batch", 1))
        for first in range(0, len(left), size):  # of a list, predict makes one batch, whatever `batch` says
            for _ in model.predict(left[first : first + size], **predict):
                pass
            predict["predictor"] = None  # the same again
        model.predictor = None  # its writer is closed
    say(writer.told())


class LogitPredictor(SemanticSegmentationPredictor):
    """Write the logits of each image file, then decide as ever.

    Examples
    --------
    >>> with BatchWriter("yolo.zarr", classes, names, activation="softmax") as writer:  # doctest: +SKIP
    ...     for result in model.predict("images", predictor=partial(LogitPredictor, writer), stream=True):
    ...         result.save()
    """

    def __init__(self, writer: BatchWriter, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writer = writer

    def postprocess(self, preds: Any, img: Any, orig_imgs: Any) -> Any:
        """Write a batch, and return its results.

        Raises
        ------
        UsageError
            The source is not image files, which have an id and a size each; the model has decided already.
        """
        paths = [Path(path) for path in self.batch[0]]
        if self.dataset.mode != "image" or not all(path.is_file() for path in paths):
            item = f"{paths[0].name!r} is a frame of a video or an array, not the file of one image"
            fix = (
                "pass the files of images to model.predict; of a video its frames, written by ffmpeg -i VIDEO %06d.png"
            )
            raise UsageError("batch-ids", "cannot tell the ids of samples", item=item, fix=fix)
        logits = preds[0] if isinstance(preds, (tuple, list)) else preds
        if logits.ndim != 4:
            item = f"the model put out {tuple(logits.shape)} of type {logits.dtype}, not (B, C, h, w)"
            raise UsageError("output-class-map", "cannot store a class map in place of logits", item=item, fix=_ARGMAX)
        logits = interpolate(logits.float(), img.shape[2:], mode="bilinear", align_corners=False)
        for one, path, image in zip(logits, paths, orig_imgs, strict=True):
            y0, x0, y1, x1 = content(one.shape[1:], image.shape[:2])
            self.writer.write(one[:, y0:y1, x0:x1], {"id": path.name, "size": image.shape[:2]})
        return super().postprocess(preds, img, orig_imgs)


def content(shape: Sequence[int], image: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the pixels (y0, x0, y1, x1) of a letterboxed input that show the image, as `scale_masks` does."""
    gain = min(have / want for have, want in zip(shape, image, strict=True))
    h, w = (max(round(want * gain), 1) for want in image)
    y, x = (round((have - side) / 2 - 0.1) for have, side in zip(shape, (h, w), strict=True))
    return y, x, y + h, x + w


def _digest(model: Any) -> str | None:
    """Digest a network as it will run: convolutions and norms fused, as the first prediction would leave them."""
    if isinstance(model.model, Module):
        model.fuse()
        return network_digest(model.model)
    file = Path(str(model.model))
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
