"""mmsegmentation 1.2, and its maintained fork onedl-mmsegmentation: a hook that stores the logits of `tools/test.py`.

    custom_imports = dict(imports=["mmseg_hook"])  # this file, on PYTHONPATH
    custom_hooks = [dict(type="LogitHook", out="fcn.zarr")]

Logits are those of `seg_logits`: without padding, resized to the image, which is where mmsegmentation decides; of one
class it puts out a probability. Each process writes its own samples; those that `DefaultSampler` repeats are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS

from ensemble_kit.errors import UsageError
from ensemble_kit.trainers.batches import BatchWriter, Terms, this_process, to_stderr


@HOOKS.register_module()
class LogitHook(Hook):
    """Store what the test loop puts out.

    Parameters
    ----------
    out : the store.
    classes : default: those of the dataset's `METAINFO`.
    member : name of the network; default: the store's.

    Raises
    ------
    UsageError
        The model is one of test time augmentation; a batch lacks an image's path or size, or its logits.
    """

    def __init__(self, out: str, classes: Sequence[str] | None = None, member: str | None = None) -> None:
        self.out, self.classes, self.member = out, classes, member
        self._writer: BatchWriter | None = None

    def before_test(self, runner: Any) -> None:
        """Declare the store with all images of the test set."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if isinstance(model, BaseTTAModel):
            item = f"{type(model).__name__} leaves the logits of the last augmentation beside the mean's classes"
            fix = "test without --tta, and vote over a store for each augmentation"
            raise UsageError("option-invalid", "cannot store logits of test time augmentation", item=item, fix=fix)
        dataset = runner.test_dataloader.dataset
        classes = list(self.classes or dataset.metainfo["classes"])
        names = [Path(dataset.get_data_info(k)["img_path"]).name for k in range(len(dataset))]
        several = len(classes) > 1
        if several and getattr(model, "out_channels", None) == 1:
            item = f"out_channels=1 of the model, and {len(classes)} classes: {', '.join(classes)}"
            fix = f'pass the foreground alone to the hook: dict(type="LogitHook", classes=["{classes[-1]}"], …)'
            raise UsageError("output-classes", "cannot tell the classes of an output", item=item, fix=fix)
        self._writer = BatchWriter(
            self.out,
            classes,
            names,
            domain="logits" if several else "probabilities",
            activation="softmax" if several else "sigmoid",
            member=self.member,
            provenance={"network": type(model).__qualname__, "checkpoint": str(runner._load_from)},
            terms=Terms("the model", "the test set"),
            process=this_process(),
        )

    def after_test_iter(
        self,
        runner: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Write a batch."""
        if self._writer is not None:
            for sample in outputs or ():
                path, size = _of(sample, "img_path", "batch-ids"), _of(sample, "ori_shape", "batch-sizes")
                logits = _of(
                    sample, "seg_logits", "output-loss", "let the model's predict() return SegDataSample with it"
                )
                self._writer.write(logits.data, {"id": Path(path).name, "size": tuple(size)[:2]})

    def after_test(self, runner: Any) -> None:  # noqa: ARG002
        """Close the store, and say what was written."""
        if self._writer is not None:
            self._writer.close()
            to_stderr(self._writer.told())
            self._writer = None


def _of(sample: Any, name: str, code: str, fix: str = "put it into meta_keys of PackSegInputs") -> Any:
    if name not in sample:
        item = f"a SegDataSample has no {name!r}, only {', '.join(sorted(sample.all_keys()))}"
        raise UsageError(code, "cannot store what the model puts out", item=item, fix=fix)
    return sample.get(name)
