"""Train small softmax networks on images with label maps: larynx (seven classes) or usgra (three)."""

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
from networks import CLASSES, FAMILIES, build
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate, one_hot

SIZE = {"larynx": 192, "usgra": 160}
EPOCHS = {"larynx": 60, "usgra": 50}
BATCH = 8
IGNORED = -100
"""Target of pixels that an augmentation brings in from outside the image."""


def split(dataset: str, names: list[str]) -> tuple[list[str], list[str]]:
    """Divide image names into (training, validation); of larynx, whose frames are alike, the end of each video."""
    if dataset == "usgra":
        order = sorted(names)
        random.Random(0).shuffle(order)
        return sorted(order[40:]), sorted(order[:40])
    videos: dict[str, list[str]] = {}
    for name in sorted(names):
        videos.setdefault(name.split("_")[0], []).append(name)
    cuts = {video: len(own) * 3 // 4 for video, own in videos.items()}
    fit = [n for video, own in videos.items() for n in own[: cuts[video]]]
    return fit, [n for video, own in videos.items() for n in own[cuts[video] :]]


def read_image(path: Path, size: int) -> np.ndarray:
    """Read an image, grey or colour, as float32 (size, size, 3), stretched, on the 0..1 scale."""
    image = np.asarray(Image.open(path).convert("RGB"))
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255


def read_labels(path: Path) -> Tensor:
    """Read a label map as int64 (H, W)."""
    return torch.from_numpy(np.asarray(Image.open(path)).astype(np.int64))


def augment(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, shift, turn and scale images (B, 3, h, w) with their labels (B, h, w); change contrast and brightness."""
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    angle, scale, stretch = draw(-0.2, 0.2), draw(0.75, 1.2), draw(0.85, 1.18)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [cos * mirror, -sin * stretch, draw(-0.2, 0.2), sin * mirror, cos * stretch, draw(-0.2, 0.2)]
    grid = affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    x = grid_sample(x, grid, align_corners=False)
    y = grid_sample((y + 1)[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].round().long() - 1
    y[y < 0] = IGNORED
    return x * draw(0.75, 1.33).view(n, 1, 1, 1), y


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Add cross-entropy and the soft Dice loss, classes pooled over the batch."""
    logits = interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    inside = target >= 0
    wanted = one_hot(target.clamp(min=0), logits.shape[1]).permute(0, 3, 1, 2) * inside[:, None]
    p = logits.softmax(1) * inside[:, None]
    overlap, total = (p * wanted).sum((0, 2, 3)), (p + wanted).sum((0, 2, 3))
    return cross_entropy(logits, target, ignore_index=IGNORED) + (1 - 2 * overlap / (total + 1)).mean()


def miou_of(net: nn.Module, images: Tensor, labels: list[Tensor], classes: int) -> float:
    """Mean over classes of the IoU pooled over images, at the images' full size."""
    net.eval()
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    with torch.inference_mode():
        for x, y in zip(images, labels, strict=True):
            full = interpolate(net(x[None]).float(), size=y.shape, mode="bilinear", align_corners=False)[0]
            counts += torch.bincount(y.flatten() * classes + full.argmax(0).flatten(), minlength=classes**2).view(
                classes, classes
            )
    both, union = counts.diag(), counts.sum(0) + counts.sum(1) - counts.diag()
    return (both[union > 0] / union[union > 0]).mean().item()


def train(
    dataset: str,
    family: str,
    fit: tuple[Tensor, Tensor],
    held: tuple[Tensor, list[Tensor]],
    seed: int,
    epochs: int,
    say: Callable[[str], None],
) -> nn.Module:
    """Train one network from scratch for a fixed number of epochs; its last weights are kept."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = build(dataset, family).to(memory_format=torch.channels_last)
    images, labels = fit
    steps = max(epochs * (len(images) // BATCH), 1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 30, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        net.train()
        losses = []
        order = torch.randperm(len(images), generator=rng)
        for rows in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
            x, y = augment(images[rows], labels[rows], rng)
            loss = loss_of(net(x.contiguous(memory_format=torch.channels_last)), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 0 or epoch == epochs:
            miou = miou_of(net, *held, len(CLASSES[dataset]))
            seconds = time.perf_counter() - start
            say(f"{family} epoch {epoch:3d}  {seconds:5.0f} s  loss {np.mean(losses):.3f}  validation mIoU {miou:.3f}")
    return net


def main() -> None:
    """Train, log and save all families on one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=list(CLASSES))
    parser.add_argument("--data", type=Path, required=True, help="the data set's train folder: images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="where weights, preprocessing and the split go")
    parser.add_argument("--epochs", type=int, help="fewer than the default, for a trial run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    dataset, size, epochs = args.dataset, SIZE[args.dataset], args.epochs or EPOCHS[args.dataset]
    with (args.out / "train.log").open("w", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=log, flush=True)

        fit, held = split(dataset, [p.name for p in (args.data / "images").glob("*.png")])
        images = {n: read_image(args.data / "images" / n, size) for n in (*fit, *held)}
        seen = np.stack([images[n] for n in fit])
        mean, std = (np.round(v, 4) for v in (seen.mean((0, 1, 2)), seen.std((0, 1, 2))))
        preprocess = {"size": [size, size], "resize": "stretch", "channels": "rgb"}
        preprocess |= {"mean": mean.tolist(), "std": std.tolist()}
        (args.out / "preprocess.json").write_text(json.dumps(preprocess, indent=1) + "\n")
        (args.out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES[dataset]))
        (args.out / "validation.txt").write_text("".join(f"{name}\n" for name in held))
        say(
            f"torch {torch.__version__}, {args.threads} threads; {len(fit)} images to train on, {len(held)} to validate"
        )

        def network_input(names: list[str]) -> Tensor:
            scaled = np.stack([(images[n] - mean) / std for n in names]).astype(np.float32)
            return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()

        labels = {n: read_labels(args.data / "masks" / n) for n in (*fit, *held)}
        small = [
            interpolate(labels[n][None, None].float(), size=(size, size), mode="nearest-exact")[0, 0].long()
            for n in fit
        ]
        training = network_input(fit), torch.stack(small)
        validation = network_input(held), [labels[n] for n in held]
        for seed, family in enumerate(args.only):
            net = train(dataset, family, training, validation, seed, epochs, say)
            state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
            torch.save({k: v.contiguous() for k, v in state.items()}, args.out / f"{family}.pt")


if __name__ == "__main__":
    main()
