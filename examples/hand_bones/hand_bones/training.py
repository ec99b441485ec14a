"""What the plain loop and the Lightning module share: batches, the loss, decisions at original size, logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Subset

import ensemble_kit as ek
from ensemble_kit import ResourceError, UsageError
from hand_bones import checkpoints
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.dataset import HandDataset
from hand_bones.experiment import Data
from hand_bones.losses import Combo

Batch = dict[str, Any]


def train_loader(data: Data, config: Config) -> DataLoader[Batch]:
    """Batches in an order of torch's generator; a last one that is not full is left out, for the norms' sake."""
    return DataLoader(
        data.train,
        config.batch_size,
        shuffle=True,
        drop_last=len(data.train) >= config.batch_size,
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
    )


def held_out_loader(data: Data, config: Config) -> DataLoader[Batch]:
    """Batches in the order of the records."""
    return DataLoader(data.held_out, config.batch_size, num_workers=config.workers)


def prepare(batch: Batch, config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bring images (B, 3, S, S), normalised, and masks (B, C, S, S) to the device.

    Channels last: on a CPU convolutions are two to three times as fast so, on CUDA in half precision faster too.
    """
    images = batch["image"].to(device, memory_format=torch.channels_last)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (config.mean, config.std))
    return (images - mean) / std, batch["masks"].to(device)


def loss_of(network: nn.Module, criterion: Combo | None, images: Tensor, masks: Tensor) -> Tensor:
    """Compute the criterion of the network's logits, or with None the network's own loss."""
    return network.loss(images, masks) if criterion is None else criterion(network(images).float(), masks)


def rehearse(network: nn.Module, criterion: Combo | None, data: Data, config: Config, device: torch.device) -> None:
    """Compute the loss of a small batch of zeros, so that what does not fit ends a run before its first epoch.

    The buffers (a batch norm's means) are put back. At most two images: one is where batch norms fail.
    """
    number, side = min(2, config.batch_size, len(data.train)), config.image_size
    masks = torch.zeros(number, len(CLASSES), side, side, device=device, dtype=torch.uint8)
    masks[:, 0, : side // 2] = 1
    buffers = [buffer.clone() for buffer in network.buffers()]
    try:
        with torch.no_grad():
            loss_of(network.train(), criterion, torch.zeros(number, 3, side, side, device=device), masks)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            "config-unfit",
            "cannot train this network so",
            item=f"{config.name}: image_size {side}, batch_size {config.batch_size}: {type(error).__name__}: {error}",
            fix="mend model, criterion, image_size (a multiple of 32 suits all) or batch_size (2 or more suits all)",
        ) from error
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), buffers, strict=True):
            buffer.copy_(before)


def in_step(index: int, batches: int, accumulate: int) -> int:
    """Count the batches of the optimizer's step that batch `index`, from 0, belongs to: the last may have fewer.

    >>> [in_step(index, 5, 2) for index in range(5)]
    [2, 2, 2, 2, 1]
    """
    return min(accumulate, batches - index // accumulate * accumulate)


def choose_device(name: str) -> torch.device:
    """Take the device of this name; "auto" is CUDA where there is one, else the CPU."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ResourceError(
            "device-unavailable",
            "cannot train on this device",
            item=f"{name!r}: {str(error).splitlines()[0]}",
            fix="pass auto, cpu, or cuda on a machine with a GPU and its driver",
        ) from None
    return device


def sizes_of(batch: Batch) -> list[tuple[int, int]]:
    """Give the original (H, W) of each image of a batch."""
    heights, widths = batch["original_size"]
    return list(zip(heights.tolist(), widths.tolist(), strict=True))


def decide(sample: str, size: tuple[int, int], logits: Tensor) -> Iterator[tuple[tuple[str, str], ek.Runs]]:
    """Decide logits (C, h, w) at 0.5 and original size, a class at a time: 29 planes of 2048² would be 486 MB."""
    for name, plane in zip(CLASSES, logits, strict=True):
        full = interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        yield (sample, name), ek.encode((full >= 0).cpu().numpy())


@dataclass(frozen=True)
class Validation:
    """The loss, and the Dice at original size with threshold 0.5: each class's, and their mean."""

    loss: float
    dice: float
    per_class: dict[str, float]

    def row(self) -> dict[str, float]:
        """Write it as a row of the log."""
        return {"val_loss": self.loss, "dice": self.dice, **{f"dice/{c}": d for c, d in self.per_class.items()}}


class Validator:
    """Gathers the masks of one validation, batch by batch, and measures them."""

    def __init__(self, truth: ek.MaskSet) -> None:
        self._truth = truth
        self._masks: dict[tuple[str, str], ek.Runs] = {}
        self._losses: list[float] = []

    def add(self, batch: Batch, logits: Tensor, loss: float) -> None:
        """Decide a batch's logits (B, C, h, w)."""
        for sample, size, planes in zip(batch["id"], sizes_of(batch), logits, strict=True):
            self._masks.update(decide(sample, size, planes))
            self._losses.append(loss)

    def result(self) -> Validation:
        """Measure, both empty counting 1."""
        found = ek.dice(ek.MaskSet(self._masks), self._truth)
        return Validation(sum(self._losses) / len(self._losses), found.mean, dict(found.per_class))


def write_logits(network: nn.Module, dataset: HandDataset, config: Config, device: torch.device, folder: Path) -> None:
    """Write the logits of a dataset into `val.zarr` of an experiment; go on where an earlier try was ended.

    The store records the digest of best.pt, which `network` holds, as `ensk dump-logits --weights` does: so the kit
    knows that this store and the one of the test images are of one member.
    """
    weights = checkpoints.digest(folder / "best.pt")
    samples = [record.image_id for record, _ in dataset.records]
    network.eval()
    with torch.inference_mode():
        side = config.image_size
        grid = network(torch.zeros(1, 3, side, side, device=device)).shape[-2:]
        with ek.LogitWriter(
            folder / "val.zarr",
            CLASSES,
            samples,
            grid,
            member=config.name,
            provenance={"weights": {"file": "best.pt", "sha256": weights}},
        ) as out:
            todo = Subset(dataset, [samples.index(sample) for sample in out.missing])
            for batch in DataLoader(todo, config.batch_size, num_workers=config.workers):
                images, _ = prepare(batch, config, device)
                out.write(batch["id"], network(images).float(), image_size=sizes_of(batch))
