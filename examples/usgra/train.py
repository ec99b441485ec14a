"""Train the demo's three networks on USGRA-SEG, in less than ten minutes on two cores."""

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import affine_grid, binary_cross_entropy_with_logits, grid_sample, interpolate

from ensemble_kit.demo import networks

CLASSES = networks.CLASSES
PREPROCESS = {
    "size": [160, 160],
    "resize": "stretch",
    "mean": [0.1428, 0.1459, 0.1527],  # of the 204 training images, on the 0..1 scale
    "std": [0.1567, 0.1599, 0.1666],
    "channels": "rgb",
}
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "unet": networks.unet,
    "fpn": networks.fpn,
    "dilated": networks.dilated,
}
EPOCHS = {"unet": 150, "fpn": 120, "dilated": 140}  # about as many minutes each
RATES = {"unet": 3e-3, "fpn": 3e-3, "dilated": 3e-3}
BATCH = 8
HELD_OUT = 40


def split(names: list[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Divide image names into (training, validation), the same for the same seed, each sorted."""
    order = sorted(names)
    random.Random(seed).shuffle(order)
    return sorted(order[HELD_OUT:]), sorted(order[:HELD_OUT])


def read_masks(path: Path) -> np.ndarray:
    """Read an indexed mask (0 background, 1 nerve, 2 vessel) as bool (3, H, W): nerve, vessel, any."""
    index = np.asarray(Image.open(path))
    return np.stack([index == 1, index == 2, index > 0])


def preprocess(path: Path) -> Tensor:
    """Read an image, grey or colour, as float32 (3, h, w): stretched, 0..1, then normalised."""
    h, w = PREPROCESS["size"]
    image = np.asarray(Image.open(path).convert("RGB"))
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    image = (image - np.float32(PREPROCESS["mean"])) / np.float32(PREPROCESS["std"])
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def resize_masks(masks: np.ndarray) -> Tensor:
    """Bring bool (3, H, W) to the input size as float32 (3, h, w), soft at the boundary."""
    h, w = PREPROCESS["size"]
    planes = [cv2.resize(m.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) for m in masks]
    return torch.from_numpy(np.stack(planes))


def augment(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, shift, turn and scale images (B, 3, h, w) with their masks; change contrast and brightness."""
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    angle, scale, stretch = draw(-0.2, 0.2), draw(0.75, 1.2), draw(0.85, 1.18)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [cos * mirror, -sin * stretch, draw(-0.2, 0.2), sin * mirror, cos * stretch, draw(-0.2, 0.2)]
    grid = affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    black = -torch.tensor(PREPROCESS["mean"]) / torch.tensor(PREPROCESS["std"])
    black = black.view(1, 3, 1, 1)
    x = grid_sample(x - black, grid, align_corners=False)  # outside the image is black
    y = grid_sample(y, grid, align_corners=False)
    light = x.clamp(min=1e-4) ** draw(0.75, 1.33).view(n, 1, 1, 1)
    return light * draw(0.75, 1.33).view(n, 1, 1, 1) + black, y


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Add binary cross-entropy and the soft Dice loss, classes pooled over the batch."""
    logits = interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    p = logits.sigmoid()
    overlap, total = (p * target).sum((0, 2, 3)), (p + target).sum((0, 2, 3))
    return binary_cross_entropy_with_logits(logits, target) + (1 - 2 * overlap / (total + 1)).mean()


def dice_of(logits: Tensor, masks: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Score logits (3, h', w') of one image against bool (3, H, W) at full size; both empty counts 1."""
    full = interpolate(logits[None], size=masks.shape[1:], mode="bilinear", align_corners=False)[0]
    on = (full.sigmoid() >= threshold).numpy()
    both, total = (on & masks).sum((1, 2)), on.sum((1, 2)) + masks.sum((1, 2))
    return np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1))


def evaluate(net: nn.Module, images: Tensor, masks: list[np.ndarray]) -> np.ndarray:
    """Return the mean Dice of each class over images, at threshold 0.5."""
    net.eval()
    with torch.inference_mode():
        return np.mean([dice_of(net(x[None])[0], m) for x, m in zip(images, masks, strict=True)], axis=0)


def train(
    name: str,
    fit: tuple[Tensor, Tensor],
    held: tuple[Tensor, list[np.ndarray]],
    seed: int,
    say: Callable[[str], None],
) -> nn.Module:
    """Train one network from scratch for a fixed number of epochs; its last weights are kept."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = BUILDERS[name]().to(memory_format=torch.channels_last)  # twice to three times as fast on a CPU
    images, targets = fit
    steps = EPOCHS[name] * (len(images) // BATCH)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    kept = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": kept, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATES[name])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 60, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    say(f"{name}: {sum(p.numel() for p in net.parameters())} parameters, {EPOCHS[name]} epochs")
    start = time.perf_counter()
    for epoch in range(1, EPOCHS[name] + 1):
        net.train()
        losses = []
        order = torch.randperm(len(images), generator=rng)
        for rows in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
            x, y = augment(images[rows], targets[rows], rng)
            loss = loss_of(net(x.contiguous(memory_format=torch.channels_last)), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 0 or epoch == EPOCHS[name]:
            seconds = time.perf_counter() - start
            figures = show(evaluate(net, *held))
            say(f"{name} epoch {epoch:3d}  {seconds:5.0f} s  loss {np.mean(losses):.3f}  validation {figures}")
    return net


def show(dice: np.ndarray) -> str:
    """Write the Dice of each class and their mean."""
    cells = [f"{c} {d:.3f}" for c, d in zip(CLASSES, dice, strict=True)]
    return "  ".join([*cells, f"mean {dice.mean():.3f}"])


def save(net: nn.Module, path: Path) -> None:
    """Write the state dict with half-precision floats: half the size, the same Dice within .001."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save({k: v.contiguous() for k, v in state.items()}, path)


def main() -> None:
    """Train, log and save all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the train folder, with images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="where the state dicts go")
    parser.add_argument("--log", type=Path, default=Path(__file__).with_name("train.log"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="fewer than the networks' own numbers, for a trial run")
    parser.add_argument("--only", nargs="*", default=list(BUILDERS), choices=list(BUILDERS))
    args = parser.parse_args()
    if args.epochs:
        EPOCHS.update(dict.fromkeys(EPOCHS, args.epochs))
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    with args.log.open("w", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=log, flush=True)

        fit, held = split([p.name for p in (args.data / "images").glob("*.png")])
        say(f"torch {torch.__version__}, {args.threads} threads, seed {args.seed}")
        say(f"{len(fit)} images to train on, {len(held)} to validate; preprocessing {json.dumps(PREPROCESS)}")
        say("Dice: threshold 0.5, full image size, mean over images; both empty counts 1")
        images = {n: preprocess(args.data / "images" / n) for n in (*fit, *held)}
        masks = {n: read_masks(args.data / "masks" / n) for n in (*fit, *held)}
        training = torch.stack([images[n] for n in fit]), torch.stack([resize_masks(masks[n]) for n in fit])
        validation = torch.stack([images[n] for n in held]), [masks[n] for n in held]

        start = time.perf_counter()
        for i, name in enumerate(args.only):
            path = args.out / f"{name}.pt"
            save(train(name, training, validation, args.seed + i, say), path)
            saved = BUILDERS[name]()
            saved.load_state_dict(torch.load(path, weights_only=True), strict=True)
            figures = show(evaluate(saved, *validation))
            say(f"{name} as saved, {path.stat().st_size} bytes: validation {figures}")
        say(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
