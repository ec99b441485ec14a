"""The command line that train.py and train_lightning.py share."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from ensemble_kit import UsageError
from hand_bones.config import Config
from hand_bones.experiment import Data, begin, for_debugging, load_data

Fit = Callable[[Config, Data, Path, str], float]


def main(description: str, trainer: str, fit: Fit) -> None:
    """Read the options, then train; `trainer` is the script's name, which the experiment records."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="a JSON file; configs/ has one for each family")
    parser.add_argument("--data", type=Path, required=True, help="with train/, test/ and splits.csv")
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU")
    parser.add_argument(
        "--debug", action="store_true", help="a few images, two epochs, under NAME-debug, anew each time"
    )
    a = parser.parse_args()
    if a.threads is not None:
        if a.threads < 1:
            raise UsageError("threads-invalid", "cannot train", item=f"--threads {a.threads}", fix="pass 1 or more")
        torch.set_num_threads(a.threads)
    config = Config.load(a.config)
    if a.debug:
        config = for_debugging(config)
    data = load_data(config, a.data, debug=a.debug)
    if a.debug:
        shutil.rmtree(a.experiments / config.name, ignore_errors=True)
    folder = begin(config, a.experiments, data, trainer)
    dice = fit(config, data, folder, a.device)
    print(f"{config.name}: best validation Dice {dice:.4f}, logits in {folder / 'val.zarr'}")
