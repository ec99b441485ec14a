"""Train one network in a plain torch loop: python train.py configs/unet.json --data data."""

from __future__ import annotations

from pathlib import Path

from hand_bones import command, training_script
from hand_bones.config import Config
from hand_bones.experiment import Data
from hand_bones.loop import Trainer


def fit(config: Config, data: Data, folder: Path, device: str) -> float:
    return Trainer(config, data, folder, device).fit().best


if __name__ == "__main__":
    command.run(lambda: training_script.main(__doc__, "train.py", fit))
