"""Train one network in Lightning: python train_lightning.py configs/unet.json --data data."""

from __future__ import annotations

from hand_bones import command, training_script
from hand_bones.lightning_module import fit

if __name__ == "__main__":
    command.run(lambda: training_script.main(__doc__, "train_lightning.py", fit))
