"""An experiment: a configuration, its data, and its folder.

EXPERIMENTS/NAME/
  config.json  classes.txt
  latest.pt    all that resuming needs
  best.pt      the state dict that validated best
  log.csv      an epoch a row
  val.zarr     logits of the images that validate; test.zarr: of the test images
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ensemble_kit import IncompleteError, MaskSet, MismatchError
from hand_bones.augment import Augmentation
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.dataset import HandDataset
from hand_bones.layout import read_layout, removals_of
from hand_bones.splits import parts, read_splits
from hand_bones.truth import truth_masks

SPLITS = "splits.csv"
DEBUG_EPOCHS, DEBUG_TRAIN, DEBUG_HELD_OUT = 2, 4, 2


@dataclass(frozen=True)
class Data:
    """What a run trains on and what it validates on; `truth` holds the latter's masks at original size."""

    train: HandDataset
    held_out: HandDataset
    truth: MaskSet


def for_debugging(config: Config) -> Config:
    """Give the configuration of a run that only shows whether everything works: two epochs, under its own name."""
    return config.but(name=f"{config.name}-debug", epochs=DEBUG_EPOCHS)


def load_data(config: Config, root: Path, *, debug: bool = False) -> Data:
    """Read the training images below `root` without those of removals.txt, divided by splits.csv.

    Parameters
    ----------
    debug : take a few images of each part.
    """
    if not (root / SPLITS).is_file():
        raise IncompleteError(
            "splits-missing",
            "cannot train",
            item=f"there is no file {root / SPLITS}",
            fix=f"run: python make_splits.py {root} --out {root / SPLITS}",
        )
    records = read_layout(root, "train", removals=removals_of(root))
    train, held_out = parts(records, read_splits(root / SPLITS), config.fold)
    if debug:
        train, held_out = train[:DEBUG_TRAIN], held_out[:DEBUG_HELD_OUT]
    return Data(
        HandDataset(train, config.image_size, augment=Augmentation(config.augmentation)),
        HandDataset(held_out, config.image_size),
        truth_masks(held_out),
    )


def begin(config: Config, experiments: Path) -> Path:
    """Make the experiment's folder, or go on with it where it was begun by the same configuration."""
    folder = experiments / config.name
    file = folder / "config.json"
    if file.is_file() and Config.load(file) != config:
        raise MismatchError(
            "experiment-differs",
            "cannot go on with an experiment that another configuration began",
            item=str(file),
            fix="give this configuration another name, or remove the folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in ((file, config.to_json()), (folder / "classes.txt", "".join(f"{c}\n" for c in CLASSES))):
        with replacing(path) as out:
            out.write(text.encode())
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that is the old one until all of the new one is on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
