"""Three small networks of hands: U-Nets as the demo's, with 29 classes, trained on the generated hands of examples/hand_bones.

    python tests/benchmarks/hands.py [--people 24] [--steps 350] [--only NAME ...]

trains them anew, in minutes, and writes the weights that lie beside this file. No hand that they were trained on is measured:
`images` draws others, by another seed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import ensemble_kit as ek
from ensemble_kit.demo.networks import UNet
from ensemble_kit.dumping import Recipe, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples/hand_bones"))

from hand_bones.classes import CLASSES  # noqa: E402 - the example is not a package that is installed
from hand_bones.generator import generate  # noqa: E402

WEIGHTS = Path(__file__).parent / "hands"
PREPROCESS = Preprocess((512, 512), mean=(0.25,) * 3, std=(0.25,) * 3)
GRID, BATCH = 256, 2
WIDTHS = {"slim": (16, 20, 28, 40, 56), "plain": (16, 24, 32, 48, 64), "wide": (20, 24, 40, 56, 64)}


def build(name: str) -> nn.Module:
    """Make one of the U-Nets, untrained: images (B, 3, 512, 512) to logits (B, 29, 256, 256)."""
    net = UNet(WIDTHS[name])
    net.head = nn.Conv2d(WIDTHS[name][0], len(CLASSES), 1)
    nn.init.constant_(net.head.bias, -5.0)
    return net


def slim() -> nn.Module:
    return build("slim")


def plain() -> nn.Module:
    return build("plain")


def wide() -> nn.Module:
    return build("wide")


def images(folder: Path, people: int, size: int) -> tuple[Path, ek.MaskSet]:
    """Draw the two hands of each of some persons, and read their bones; the images lie in one folder."""
    generate(folder / "hands", people=people, size=size, seed=1)
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in sorted((folder / "hands/train/DCM").rglob("*.png")):
        shutil.copyfile(path, pictures / path.name)
    return pictures, ek.read_masks(folder / "hands/train/outputs_json")


def dump(pictures: Path, folder: Path) -> list[Path]:
    """Write the stores of the three networks."""
    stores, recipe = [folder / f"{name}.zarr" for name in WIDTHS], Recipe(PREPROCESS)
    for name, store in zip(WIDTHS, stores, strict=True):
        weights = WEIGHTS / f"{name}.pt"
        dump_logits(f"hands:{name}", pictures, CLASSES, store, recipe, weights=weights, member=name)
    return stores


# --- training --------------------------------------------------------------------------------------------------


def data(people: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Draw hands to train on: images (N, 3, 512, 512), and masks (N, 29, 256, 256) as bytes, 255 where a cell is full."""
    generate(folder, people=people, size=1024, seed=0)
    truth = ek.read_masks(folder / "train/outputs_json")
    x, y = [], []
    for path in sorted((folder / "train/DCM").rglob("*.png")):
        grey = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (512, 512), interpolation=cv2.INTER_AREA)
        x.append(np.repeat((grey[None] / np.float32(255) - 0.25) / 0.25, 3, 0).astype(np.float32))
        planes = [truth[path.name, c].decode().view(np.uint8) * 255 for c in CLASSES]
        y.append(np.stack([cv2.resize(p, (GRID, GRID), interpolation=cv2.INTER_AREA) for p in planes]))
    return torch.from_numpy(np.stack(x)), torch.from_numpy(np.stack(y))


def train(name: str, x: Tensor, y: Tensor, steps: int, seed: int) -> nn.Module:
    """Train one network by binary cross-entropy and Dice, small batches."""
    torch.manual_seed(seed)
    net, order = build(name).to(memory_format=torch.channels_last), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    began = time.process_time()
    for step in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=order)
        shade = 0.8 + 0.4 * torch.rand((BATCH, 1, 1, 1), generator=order)
        target = y[rows].float() / 255
        logits = net((x[rows] * shade).contiguous(memory_format=torch.channels_last))
        p = logits.sigmoid()
        dice = 1 - (2 * (p * target).sum((0, 2, 3)) + 1) / ((p + target).sum((0, 2, 3)) + 1)
        loss = 10 * nn.functional.binary_cross_entropy_with_logits(logits, target) + dice.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"{name} {step:4} {time.process_time() - began:5.0f} s  Dice {1 - dice.mean().item():.3f}", flush=True
            )
    return net


def save(net: nn.Module, path: Path) -> None:
    """Write the state in half precision."""
    torch.save({k: v.half().contiguous() if v.is_floating_point() else v for k, v in net.state_dict().items()}, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--only", nargs="*", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    options.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        x, y = data(options.people, Path(folder, "hands"))
    for name in options.only:
        save(train(name, x, y, options.steps, list(WIDTHS).index(name)), options.out / f"{name}.pt")


if __name__ == "__main__":
    main()
