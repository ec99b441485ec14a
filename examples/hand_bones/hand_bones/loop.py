"""A training loop in plain torch: mixed precision, accumulation, early stop, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ensemble_kit import DamagedError
from hand_bones import checkpoints, losses, networks, schedule
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.experiment import Data
from hand_bones.logs import Log, write_table
from hand_bones.training import (
    Validation,
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


@dataclass
class Progress:
    """How far a run is: epochs done, the best Dice, validations since then, and the rows of the log."""

    epochs: int = 0
    best: float = -1.0
    stale: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)


class Trainer:
    """Trains one experiment in its folder, and goes on where it was ended.

    A resumed run ends as one that was never ended, to the bit where the device computes deterministically: the seed
    of every epoch follows from the configuration's alone, and everything else is in `latest.pt`.

    Parameters
    ----------
    folder : of the experiment, see `experiment.begin`.
    device : "auto", or a name of torch's.
    say : hears a line an epoch.
    """

    def __init__(
        self, config: Config, data: Data, folder: Path, device: str = "auto", say: Callable[[str], None] = print
    ) -> None:
        self.config, self.data, self.folder, self.say = config, data, folder, say
        self.device = choose_device(device)
        resuming = (folder / "latest.pt").is_file()
        torch.manual_seed(config.seed)
        network = networks.build(config.model, len(CLASSES), pretrained=not resuming)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.criterion = None if config.criterion == "own" else losses.build(config.criterion)
        self.optimizer = schedule.build_optimizer(config.optimizer, self.network)
        self.scheduler = schedule.build_scheduler(config.lr_scheduler, self.optimizer)
        self.amp = config.amp and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        self.progress = Progress()
        if resuming:
            self._load()
        else:
            rehearse(self.network, self.criterion, data, config, self.device)

    def fit(self) -> Progress:
        """Train what is left of the epochs, then write the logits of the best network's validation."""
        if self.progress.history:  # a run killed between its checkpoint and its log has a row less there
            write_table(self.folder, self.progress.history)
        if not self._finished():
            with Log(self.config, self.folder) as log:
                while not self._finished():
                    self._epoch(log)
        self.network.load_state_dict(checkpoints.load(self.folder / "best.pt", self.device))
        write_logits(self.network, self.data.held_out, self.config, self.device, self.folder)
        return self.progress

    def _finished(self) -> bool:
        config, progress = self.config, self.progress
        return progress.epochs >= config.epochs or (config.early_stop > 0 and progress.stale >= config.early_stop)

    def _epoch(self, log: Log) -> None:
        config, progress, start = self.config, self.progress, time.perf_counter()
        torch.manual_seed(config.seed + 1_000_003 * (progress.epochs + 1))
        row: dict[str, float | None] = {"epoch": progress.epochs + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        row["loss"] = self._train()
        progress.epochs += 1
        found = None
        if progress.epochs % config.validate_every == 0 or progress.epochs == config.epochs:
            found = self._validate()
            row |= found.row()
        row["seconds"] = round(time.perf_counter() - start, 3)
        self._step_scheduler(found)
        progress.history.append(row)
        if found is not None:
            progress.stale += 1
            if found.dice > progress.best:
                progress.best, progress.stale = found.dice, 0
                checkpoints.save(self.network.state_dict(), self.folder / "best.pt")
        self._save()
        log.write(progress.history)
        told = "" if found is None else f"  validation loss {found.loss:.4f}  Dice {found.dice:.4f}"
        self.say(
            f"{config.name} epoch {progress.epochs:3d} of {config.epochs}  lr {row['lr']:.2e}  "
            f"loss {row['loss']:.4f}{told}  {row['seconds']:.1f} s"
        )

    def _train(self) -> float:
        """Train for one epoch; return the mean loss."""
        self.network.train()
        loader, total = train_loader(self.data, self.config), 0.0
        for index, batch in enumerate(loader):
            images, masks = prepare(batch, self.config, self.device)
            with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
                loss = loss_of(self.network, self.criterion, images, masks)
            self.scaler.scale(loss / in_step(index, len(loader), self.config.accumulate)).backward()
            if (index + 1) % self.config.accumulate == 0 or index + 1 == len(loader):
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad(set_to_none=True)
            total += loss.item()
        if not math.isfinite(total):
            raise DamagedError(
                "loss-not-finite",
                "cannot go on training",
                item=f"{self.config.name}: the loss of epoch {self.progress.epochs + 1} is {total}",
                fix="lower the learning rate, or switch amp off",
            )
        return total / len(loader)

    def _validate(self) -> Validation:
        self.network.eval()
        validator = Validator(self.data.truth)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            for batch in held_out_loader(self.data, self.config):
                images, masks = prepare(batch, self.config, self.device)
                logits = self.network(images).float()
                loss = (
                    loss_of(self.network, None, images, masks)
                    if self.criterion is None
                    else self.criterion(logits, masks)
                )
                validator.add(batch, logits, loss.item())
        return validator.result()

    def _step_scheduler(self, found: Validation | None) -> None:
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        elif found is not None:
            self.scheduler.step(found.dice)

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
        }

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        checkpoints.save({**state, "progress": asdict(self.progress)}, self.folder / "latest.pt")

    def _load(self) -> None:
        state = checkpoints.load(self.folder / "latest.pt", self.device)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        self.say(f"{self.config.name}: going on after epoch {self.progress.epochs}")
