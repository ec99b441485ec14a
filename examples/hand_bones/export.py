"""Write a trained network as ONNX, a backend without torch: python export.py --exp unet; then inference.py --onnx."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from hand_bones import command, networks
from hand_bones.classes import CLASSES
from hand_bones.config import Config

OPSET = 20


def export(folder: Path, side: int | None = None) -> Path:
    """Write `network.onnx` into an experiment's folder: images (B, 3, side, side) → logits (B, 29, h, w), any B."""
    config = Config.load(folder / "config.json")
    network = networks.build(config.model, len(CLASSES), pretrained=False)
    network.load_state_dict(torch.load(folder / "best.pt", map_location="cpu", weights_only=True))
    side = side or config.image_size
    path = folder / "network.onnx"
    torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, side, side),),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", required=True)
    parser.add_argument("--img_size", type=int)
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    a = parser.parse_args()
    print(export(a.experiments / a.exp, a.img_size))


if __name__ == "__main__":
    command.run(main)
