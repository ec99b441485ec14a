"""Write a trained network as ONNX, a backend without torch: python export.py --exp unet; then inference.py --onnx."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import torch
from hand_bones import checkpoints, command, experiment, networks
from hand_bones.classes import CLASSES
from hand_bones.config import Config

from ensemble_kit import UsageError

OPSET = 20


def export(folder: Path, side: int | None = None) -> Path:
    """Write `network.onnx` into an experiment's folder: images (B, 3, side, side) → logits (B, 29, h, w), any B."""
    config = Config.load(folder / "config.json")
    side = config.image_size if side is None else side
    if side < 1:
        raise UsageError("size-invalid", "cannot export", item=f"--img_size {side}", fix="pass 1 or more")
    network = networks.build(config.model, len(CLASSES), pretrained=False)
    networks.load_weights(network, folder / "best.pt")
    path = folder / "network.onnx"
    program = torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, side, side),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, {checkpoints.WEIGHTS: checkpoints.digest(folder / "best.pt")})
    with experiment.replacing(path) as out:
        out.write(model.SerializeToString())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", required=True)
    parser.add_argument("--img_size", type=int)
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    a = parser.parse_args()
    print(export(experiment.find(a.experiments, a.exp), a.img_size))


if __name__ == "__main__":
    command.run(main)
