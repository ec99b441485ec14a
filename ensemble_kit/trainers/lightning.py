"""Lightning 2: a callback that stores what `predict_step` or `validation_step` returned, each process its own samples.

It takes `lightning` and `pytorch_lightning`, whichever was imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partialmethod
from typing import Any

from torch.utils.data import default_collate

from ensemble_kit.backends.digest import network_digest
from ensemble_kit.errors import check_choice
from ensemble_kit.logits.open import PathLike
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.batches import BatchWriter, Samples, Terms, path_at, to_stderr
from ensemble_kit.trainers.fields import Key

if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback

STAGES = {"predict": "predict_step", "validate": "validation_step", "test": "test_step"}
_WHOLE = {"SingleDeviceStrategy", "DDPStrategy"}
"""Strategies whose processes each hold the whole network."""
_NOT_WITHIN_FIT = """validation within fit is not stored, as each epoch has another network: run \
trainer.predict(ckpt_path="best") after it, or pass out="val_{epoch}.zarr\""""


class LogitCallback(Callback):  # type: ignore[misc] # the framework is not installed where types are checked
    """Store the logits of `trainer.predict(..., return_predictions=False)`, `trainer.validate` and `trainer.test`.

    Parameters
    ----------
    out, classes, domain, activation, member, checked : as of `LogitWriter`; each sample has its own grid.
    samples : the ids of all samples, or a function that takes a dataloader's dataset and returns them.
    id, image_size : where a batch holds the ids, and the sizes (H, W) of the images: a key, the index of a tuple, an
        attribute or a function of the batch; `image_size` may also be one size for all.
    key : where the step's output holds the logits; None: it is the logits.
    stages : "predict", "validate" and "test": those that are stored. Validation within `trainer.fit` sees another
        network each time: it is stored where the path says which one, as "val_{epoch}.zarr" or "val_{step}.zarr".
    say : receives what was written, at the end.

    Examples
    --------
    >>> writer = LogitCallback("unet.zarr", CLASSES, samples=ids)  # doctest: +SKIP
    >>> trainer = Trainer(callbacks=[writer], devices=2)  # doctest: +SKIP
    >>> trainer.predict(model, loader, return_predictions=False)  # doctest: +SKIP
    """

    def __init__(
        self,
        out: PathLike,
        classes: Sequence[str],
        samples: Samples,
        id: Key = "id",  # noqa: A002 - as the field is called
        image_size: Key | Sequence[int] = "size",
        key: Key | None = None,
        domain: Domain = "logits",
        activation: Activation | None = None,
        member: str | None = None,
        *,
        stages: Sequence[str] = tuple(STAGES),
        checked: bool = False,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        for stage in stages:
            check_choice("stages", stage, tuple(STAGES))
        self.out, self.stages, self.say = out, tuple(stages), say
        self._how: dict[str, Any] = {"classes": classes, "samples": samples, "id": id, "image_size": image_size}
        self._how |= {"key": key, "domain": domain, "activation": activation, "member": member, "checked": checked}
        self._writer: BatchWriter | None = None

    def _open(self, trainer: Any, module: Any, stage: str) -> None:
        if trainer.sanity_checking or stage not in self.stages:
            return
        out = path_at(self.out, epoch=trainer.current_epoch, step=trainer.global_step)
        if trainer.state.fn == "fit" and out is None:
            if trainer.is_global_zero and trainer.current_epoch == 0:
                self.say(f"{self.out}: {_NOT_WITHIN_FIT}")
            return
        whole = type(trainer.strategy).__name__ in _WHOLE
        digest = network_digest(module) if whole else None  # running statistics may differ between processes
        found = getattr(trainer, f"{'val' if stage == 'validate' else stage}_dataloaders")
        loaders = list(found.values() if isinstance(found, dict) else found if isinstance(found, list) else [found])
        self._writer = BatchWriter(
            self.out if out is None else out,
            **self._how,
            datasets=[loader.dataset for loader in loaders],
            columns=True if all(loader.collate_fn is default_collate for loader in loaders) else None,
            provenance={"network": type(module).__qualname__, "network_sha256": trainer.strategy.broadcast(digest)},
            terms=Terms(STAGES[stage], "the dataset", f"; or pass stages= without {stage!r}"),
            process=(trainer.global_rank + 1, trainer.world_size),
        )

    def _write(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: int) -> None:  # noqa: ARG002
        if self._writer is not None:
            self._writer.write(outputs, batch)

    def _close(self, trainer: Any, module: Any, *failed: BaseException) -> None:  # noqa: ARG002
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            if not failed:  # nothing is called missing that another process is about to write
                trainer.strategy.barrier()
            self.say(writer.told())

    on_predict_start = partialmethod(_open, stage="predict")
    on_validation_start = partialmethod(_open, stage="validate")
    on_test_start = partialmethod(_open, stage="test")
    on_predict_batch_end = on_validation_batch_end = on_test_batch_end = _write
    on_predict_end = on_validation_end = on_test_end = on_exception = _close
