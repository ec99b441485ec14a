"""A submission of one trained network: python inference.py --exp unet --img_size 1024 --save_logits --data data.

A thin call of `ensk dump-logits` with the experiment's network, then of `ensk vote` with threshold 0.5.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hand_bones import checkpoints, command, experiment, trained
from hand_bones.config import Config

from ensemble_kit import IncompleteError, MismatchError, UsageError

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", required=True, help="the experiment's name")
    parser.add_argument("--img_size", type=int, help="default: the size it was trained at")
    parser.add_argument("--save_logits", action="store_true", help="keep test.zarr for ensembles")
    parser.add_argument("--force", action="store_true", help="with --save_logits: replace test.zarr that is there")
    parser.add_argument("--onnx", action="store_true", help="run network.onnx of export.py in place of torch")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("options", nargs="*", help="after --: further options of ensk dump-logits, such as --tta hflip")
    a = parser.parse_args()
    folder = experiment.find(a.experiments, a.exp)
    config = Config.load(folder / "config.json")
    side = config.image_size if a.img_size is None else a.img_size
    if side < 1:
        raise UsageError("size-invalid", "cannot infer", item=f"--img_size {side}", fix="pass 1 or more")
    weights = checkpoints.digest(folder / "best.pt")
    if a.onnx:
        check_onnx(folder / "network.onnx", weights, a.exp)
    if not a.save_logits:
        with tempfile.TemporaryDirectory(prefix=".test-", dir=folder) as temporary:
            infer(a, config, folder, side, Path(temporary) / "test.zarr")
        return
    infer(a, config, folder, side, folder / "test.zarr")


def infer(a: argparse.Namespace, config: Config, folder: Path, side: int, store: Path) -> None:
    """Write the logits into `store` and the masks into test.csv."""
    torch_model = (f"{trained.__name__}:{a.exp}", "--weights", folder / "best.pt")
    ensk(
        "dump-logits",
        *([folder / "network.onnx"] if a.onnx else torch_model),
        *("--member", a.exp, "--classes", folder / "classes.txt"),
        *("--images", a.data / "test" / "DCM", "--size", side, "--channels", "grey"),
        *("--mean", ",".join(map(str, config.mean)), "--std", ",".join(map(str, config.std))),
        *("--batch-size", config.batch_size, "--out", store, *(["--force"] if a.force else []), *a.options),
        experiments=a.experiments,
    )
    ensk("vote", store, "--out", folder / "test.csv", "--format", "handbone", "--force")


def check_onnx(path: Path, weights: str, name: str) -> None:
    """Refuse network.onnx that is not there, or that holds other weights than those of SHA-256 `weights`."""
    import onnxruntime

    again = f"run: python export.py --exp {name}"
    if not path.is_file():
        raise IncompleteError("onnx-missing", "cannot infer", item=f"there is no file {path}", fix=again)
    held = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map.get(checkpoints.WEIGHTS)
    if held != weights:
        item = f"{path} holds {held or 'unknown weights'}, best.pt is {weights}"
        raise MismatchError("onnx-stale", "cannot infer with an older ONNX file", item=item, fix=again)


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
