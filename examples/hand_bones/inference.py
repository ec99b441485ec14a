"""A submission of one trained network: python inference.py --exp unet --img_size 1024 --save_logits --data data.

A thin call of `ensk dump-logits` with the experiment's network, then of `ensk vote` with threshold 0.5.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from hand_bones import command, trained
from hand_bones.config import Config

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", required=True, help="the experiment's name")
    parser.add_argument("--img_size", type=int, help="default: the size it was trained at")
    parser.add_argument("--save_logits", action="store_true", help="keep test.zarr for ensembles")
    parser.add_argument("--onnx", action="store_true", help="run network.onnx of export.py in place of torch")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("options", nargs="*", help="after --: further options of ensk dump-logits, such as --tta hflip")
    a = parser.parse_args()
    folder = a.experiments / a.exp
    config = Config.load(folder / "config.json")
    store = folder / "test.zarr"
    torch_model = (f"{trained.__name__}:{a.exp}", "--weights", folder / "best.pt")
    ensk(
        "dump-logits",
        *([folder / "network.onnx"] if a.onnx else torch_model),
        *("--member", a.exp, "--classes", folder / "classes.txt"),
        *("--images", a.data / "test" / "DCM", "--size", a.img_size or config.image_size, "--channels", "grey"),
        *("--mean", ",".join(map(str, config.mean)), "--std", ",".join(map(str, config.std))),
        *("--batch-size", config.batch_size, "--out", store, *a.options),
        experiments=a.experiments,
    )
    ensk("vote", store, "--out", folder / "test.csv", "--format", "handbone", "--force")
    if not a.save_logits:
        shutil.rmtree(store)


def ensk(*arguments: object, experiments: Path = Path("experiments")) -> None:
    """Run `ensk`; end as it ends where it fails."""
    env = {
        **os.environ,
        trained.EXPERIMENTS: str(experiments.resolve()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }
    program = Path(sys.executable).with_name("ensk")
    ended = subprocess.run([program, *map(str, arguments)], env=env, check=False)  # noqa: S603 - the kit itself
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    command.run(main)
