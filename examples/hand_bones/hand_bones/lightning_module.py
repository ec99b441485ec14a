"""The same training as a Lightning module: Lightning's own loop, checkpoints and early stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from hand_bones import losses, networks, schedule
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.experiment import Data
from hand_bones.logs import Log, Row
from hand_bones.loop import save
from hand_bones.training import Batch, Validator, held_out_loader, loss_of, prepare, train_loader, write_logits


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
        """Begin a row of the log."""
        self.row = {"epoch": self.current_epoch + 1, "lr": self.optimizers().param_groups[0]["lr"], "loss": None}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute the loss of a batch."""
        images, masks = prepare(batch, self.config, self.device)
        loss = loss_of(self.network, self.criterion, images, masks)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "dice"}}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches to train on."""
        return train_loader(self.data, self.config)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches to validate on."""
        return held_out_loader(self.data, self.config)


def fit(config: Config, data: Data, folder: Path, device: str = "auto") -> float:
    """Train in the experiment's folder, going on where it was ended; write best.pt and val.zarr; return the Dice."""
    lightning.seed_everything(config.seed, verbose=False)
    checkpoints = ModelCheckpoint(
        folder / "checkpoints", monitor="dice", mode="max", save_last=True, save_on_train_epoch_end=True
    )
    patience = config.early_stop or config.epochs
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        accelerator="gpu" if device == "cuda" else device,
        devices=1,
        precision="16-mixed" if config.amp and device != "cpu" and torch.cuda.is_available() else "32-true",
        accumulate_grad_batches=config.accumulate,
        check_val_every_n_epoch=config.validate_every,
        callbacks=[checkpoints, EarlyStopping("dice", mode="max", patience=patience)],
        logger=False,
        num_sanity_val_steps=0,  # the Dice is of whole validations
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "checkpoints" / "last.ckpt"
    with Log(config, folder) as log:
        module = HandBones(config, data, log)
        trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
    best = torch.load(checkpoints.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    save(module.network.state_dict(), folder / "best.pt")
    write_logits(module.network, data.held_out, config, module.device, folder)
    return float(checkpoints.best_model_score)
