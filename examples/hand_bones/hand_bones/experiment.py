"""An experiment: a configuration, its data, and its folder.

EXPERIMENTS/NAME/
  config.json  classes.txt
  run.json     the script that trains it, and the digests of the ids it trains and validates on
  latest.pt    all that resuming needs
  best.pt      the state dict that validated best
  log.csv      an epoch a row
  val.zarr     logits of the images that validate; test.zarr: of the test images
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ensemble_kit import IncompleteError, MaskSet, MismatchError, UsageError
from hand_bones import trained
from hand_bones.augment import Augmentation
from hand_bones.classes import CLASSES
from hand_bones.config import Config
from hand_bones.dataset import HandDataset
from hand_bones.layout import read_layout, removals_of
from hand_bones.splits import parts, read_splits
from hand_bones.truth import truth_masks

SPLITS = "splits.csv"
CHECKPOINTS = "latest.pt", "checkpoints/last.ckpt"
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


def begin(config: Config, experiments: Path, data: Data, trainer: str = "train.py") -> Path:
    """Make the experiment's folder, or go on with it where the same configuration, data and trainer began it.

    An experiment has begun when it has a checkpoint: a start that failed before takes nobody's name.

    Raises
    ------
    UsageError
        The name is taken by the module `trained`.
    MismatchError
        The experiment has begun with another configuration, trainer or division of the images.
    """
    if config.name in vars(trained):
        raise UsageError(
            "experiment-name", "cannot name an experiment so", item=repr(config.name), fix="give it another name"
        )
    folder = experiments / config.name
    texts = {
        "config.json": config.to_json(),
        "run.json": json.dumps({"trainer": trainer, **_digests(data)}, indent=2) + "\n",
        "classes.txt": "".join(f"{c}\n" for c in CLASSES),
    }
    if any((folder / checkpoint).is_file() for checkpoint in CHECKPOINTS):
        if Config.load(folder / "config.json") != config:
            raise _differs("experiment-differs", "another configuration", str(folder / "config.json"))
        run = folder / "run.json"
        begun = json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
        if begun.get("trainer") != trainer:
            raise _differs("trainer-differs", "another script", f"{run}: {begun.get('trainer')}, not {trainer}")
        if any(begun.get(part) != sha256 for part, sha256 in _digests(data).items()):
            why = "the images to train on or to validate on are others (splits, removals or data changed)"
            raise _differs("data-differs", "other images", f"{run}: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(folder / name) as out:
            out.write(text.encode())
    return folder


def find(experiments: Path, name: str) -> Path:
    """Give the folder of an experiment that has begun; of another name, say which there are."""
    if not (experiments / name / "config.json").is_file():
        known = ", ".join(sorted(file.parent.name for file in experiments.glob("*/config.json")))
        raise UsageError(
            "experiment-unknown",
            "cannot find an experiment",
            item=f"{name!r} in {experiments}",
            fix=f"use one of {known}" if known else "train one with train.py, or pass --experiments",
        )
    return experiments / name


def _digests(data: Data) -> dict[str, str]:
    """Give the SHA-256 of the sorted image ids of each part."""
    ids = {part: sorted(r.image_id for r, _ in getattr(data, part).records) for part in ("train", "held_out")}
    return {part: hashlib.sha256("\n".join(names).encode()).hexdigest() for part, names in ids.items()}


def _differs(code: str, who: str, item: str) -> MismatchError:
    fix = "give this configuration another name, remove the folder, or bring back what it began with"
    return MismatchError(code, f"cannot go on with an experiment that {who} began", item=item, fix=fix)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that is the old one until all of the new one is on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
