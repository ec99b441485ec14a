"""The same training as a Lightning module: Lightning's own loop, checkpoints and early stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from hand_bones import checkpoints, losses, networks, schedule
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.experiment import Data
from hand_bones.logs import Log, Row
from hand_bones.training import (
    Batch,
    Validator,
    choose_device,
    held_out_loader,
    in_step,
    loss_of,
    prepare,
    rehearse,
    train_loader,
    write_logits,
)


class HandBones(lightning.LightningModule):
    """A network, its criterion, its Dice at original size, and its log."""

    def __init__(self, config: Config, data: Data, log: Log) -> None:
        super().__init__()
        self.config, self.data, self.table = config, data, log
        self.network = networks.build(config.model, len(CLASSES)).to(memory_format=torch.channels_last)
        self.criterion = None if config.criterion == "own" else losses.build(config.criterion)
        self.validator = Validator(data.truth)
        self.row: dict[str, float | None] = {}
        self.history: list[Row] = []

    def on_train_epoch_start(self) -> None:
        """Begin a row of the log; the last epoch is validated whatever `validate_every` is."""
        if self.current_epoch + 1 == self.config.epochs:
            self.trainer.check_val_every_n_epoch = 1
        self.row = {"epoch": self.current_epoch + 1, "lr": self.optimizers().param_groups[0]["lr"], "loss": None}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Compute the loss of a batch, so that Lightning's division by `accumulate` is one by the step's batches."""
        images, masks = prepare(batch, self.config, self.device)
        loss = loss_of(self.network, self.criterion, images, masks)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        accumulate = self.config.accumulate
        return loss * (accumulate / in_step(index, int(self.trainer.num_training_batches), accumulate))

    def on_validation_epoch_start(self) -> None:
        """Begin to gather masks."""
        self.validator = Validator(self.data.truth)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Decide the masks of a batch."""
        images, masks = prepare(batch, self.config, self.device)
        loss = loss_of(self.network, self.criterion, images, masks)
        self.validator.add(batch, self.network(images).float(), loss.item())

    def on_validation_epoch_end(self) -> None:
        """Measure the masks."""
        found = self.validator.result()
        self.log("dice", found.dice)
        self.row |= found.row()

    def on_train_epoch_end(self) -> None:
        """Write the row."""
        self.row["loss"] = self.trainer.callback_metrics["loss"].item()
        self.history.append(self.row)
        self.table.write(self.history)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the log."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the log."""
        self.history = checkpoint["history"]

    def configure_optimizers(self) -> dict[str, Any]:
        """Build the optimizer and its schedule."""
        optimizer = schedule.build_optimizer(self.config.optimizer, self.network)
        scheduler = schedule.build_scheduler(self.config.lr_scheduler, optimizer)
        # a plateau is of validations, which have a Dice
        every = self.config.validate_every if isinstance(scheduler, ReduceLROnPlateau) else 1
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "dice", "frequency": every}}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches to train on."""
        return train_loader(self.data, self.config)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches to validate on."""
        return held_out_loader(self.data, self.config)


def fit(config: Config, data: Data, folder: Path, device: str = "auto") -> float:
    """Train in the experiment's folder, going on where it was ended; write best.pt and val.zarr; return the Dice."""
    lightning.seed_everything(config.seed, verbose=False)
    chosen = choose_device(device)
    best = ModelCheckpoint(folder / "checkpoints", monitor="dice", mode="max", save_on_train_epoch_end=False)
    every = ModelCheckpoint(folder / "checkpoints", save_top_k=0, save_last=True, save_on_train_epoch_end=True)
    patience = config.early_stop or config.epochs
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        accelerator="gpu" if chosen.type == "cuda" else chosen.type,
        devices=[chosen.index or 0] if chosen.type == "cuda" else 1,
        precision="16-mixed" if config.amp and chosen.type == "cuda" else "32-true",
        accumulate_grad_batches=config.accumulate,
        check_val_every_n_epoch=config.validate_every,
        callbacks=[best, every, EarlyStopping("dice", mode="max", patience=patience)],
        logger=False,
        num_sanity_val_steps=0,  # the Dice is of whole validations
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "checkpoints" / "last.ckpt"
    resuming = last.is_file()
    if resuming:
        checkpoints.load(last)
    with Log(config, folder) as log:
        module = HandBones(config, data, log)
        if not resuming:
            rehearse(module.network, module.criterion, data, config, torch.device("cpu"))
        trainer.fit(module, ckpt_path=last if resuming else None, weights_only=True)
    module.load_state_dict(checkpoints.load(Path(best.best_model_path))["state_dict"])
    checkpoints.save(module.network.state_dict(), folder / "best.pt")
    write_logits(module.network, data.held_out, config, module.device, folder)
    return float(best.best_model_score)
