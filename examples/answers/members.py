"""Train three small networks of different families on a set; dump their logits of its validation and test images."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from sets import Case, Parts, Set, truth
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, binary_cross_entropy_with_logits, grid_sample

import ensemble_kit as ek
from ensemble_kit.demo.networks import FPN, Dilated, UNet

FAMILIES: dict[str, Callable[[], nn.Module]] = {"unet": UNet, "fpn": FPN, "dilated": Dilated}
RATE = 3e-3


def build(family: str, wanted: Set) -> nn.Module:
    """Build a network of a family, untrained, with a channel for each class."""
    net = FAMILIES[family]()
    last = net.head[-1] if isinstance(net.head, nn.Sequential) else net.head
    new = nn.Conv2d(last.in_channels, len(wanted.classes), 1)
    if not wanted.exclusive:
        nn.init.constant_(new.bias, -3.0)  # most pixels are off
    if isinstance(net.head, nn.Sequential):
        net.head[-1] = new
    else:
        net.head = new
    return net


def inputs(rows: list[Case], side: int, mean: np.ndarray, std: np.ndarray) -> Tensor:
    """Stretch and normalise images: float32 (N, 3, side, side)."""
    scaled = [cv2.resize(r.image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for r in rows]
    return torch.from_numpy(((np.stack(scaled) - mean) / std).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def targets(rows: list[Case], side: int) -> Tensor:
    """Bring planes to a grid, soft at boundaries: float16 (N, C, side, side)."""
    planes = [
        [cv2.resize(p.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for p in r.planes] for r in rows
    ]
    return torch.from_numpy(np.array(planes, np.float16))


def augment(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, shift, turn and scale images (B, 3, h, w) with their planes (B, C, h', w'); change the contrast."""
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    angle, scale, stretch = draw(-0.2, 0.2), draw(0.8, 1.2), draw(0.85, 1.18)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [cos * mirror, -sin * stretch, draw(-0.1, 0.1), sin * mirror, cos * stretch, draw(-0.1, 0.1)]
    where = torch.stack(rows, 1).view(n, 2, 3)
    x = grid_sample(x, affine_grid(where, list(x.shape), align_corners=False), align_corners=False)
    y = grid_sample(y, affine_grid(where, list(y.shape), align_corners=False), align_corners=False)
    return x * draw(0.75, 1.33).view(n, 1, 1, 1), y


def loss_of(logits: Tensor, y: Tensor, exclusive: bool) -> Tensor:
    """Add cross-entropy and the soft Dice loss, classes pooled over the batch, on the grid of the logits.

    Planes are all 0 outside the image.
    """
    y = adaptive_avg_pool2d(y, logits.shape[-2:])
    if exclusive:
        p = logits.softmax(1) * y.sum(1, keepdim=True)
        entropy = -(y * logits.log_softmax(1)).sum() / y.sum().clamp(min=1)
    else:
        p, entropy = logits.sigmoid(), binary_cross_entropy_with_logits(logits, y)
    overlap, total = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    return entropy + (1 - 2 * overlap / (total + 1)).mean()


def train(family: str, wanted: Set, x: Tensor, y: Tensor, seed: int, say: Callable[[str], None]) -> nn.Module:
    """Train a network from random weights for a fixed number of steps; its last weights are kept."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = build(family, wanted).to(memory_format=torch.channels_last)
    steps = wanted.steps[family]
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 30, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    start, losses = time.perf_counter(), []
    net.train()
    for step in range(1, steps + 1):
        rows = torch.randperm(len(x), generator=rng)[: wanted.batch]
        some = augment(x[rows], y[rows].float(), rng)
        loss = loss_of(net(some[0].contiguous(memory_format=torch.channels_last)), some[1], wanted.exclusive)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - start
            say(f"{wanted.name} {family} step {step:4d}  {seconds:5.0f} s  loss {np.mean(losses[-50:]):.3f}")
    return net.eval()


def dump(net: nn.Module, x: Tensor, rows: list[Case], wanted: Set, path: Path, member: str) -> None:
    """Write a member's logits of these cases, in a store that gets its name when it is complete."""
    partial = path.with_name(f".{path.name}")
    out: ek.LogitWriter | None = None
    with torch.inference_mode():
        for image, row in zip(x, rows, strict=True):
            logits = net(image[None])[0].numpy()
            if out is None:
                ids = [r.name for r in rows]
                grid = logits.shape[1:]
                out = ek.LogitWriter(partial, wanted.classes, ids, grid, wanted.activation, member, overwrite=True)
            out.write(row.name, logits, row.image.shape[:2])
    if out is not None:
        out.close()
        partial.rename(path)


def make(wanted: Set, data: Path, out: Path, say: Callable[[str], None] = print) -> None:
    """Write what is not there yet: {val,test}.npz, groups.csv, {val,test}/MEMBER.zarr below `out`."""
    places = {(f, part): out / part / f"{f}.zarr" for f in FAMILIES for part in ("val", "test")}
    tables = [out / "groups.csv", out / "val.npz", out / "test.npz"]
    if all(path.exists() for path in (*places.values(), *tables)):
        return
    parts = wanted.load(data)
    for part in ("val", "test"):
        (out / part).mkdir(parents=True, exist_ok=True)
        truth(parts[part], wanted).write(out / f"{part}.npz")
    write_groups(parts, out / "groups.csv")
    pixels = np.concatenate([r.image.reshape(-1, 3) for r in parts["fit"]]) / 255
    mean, std = pixels.mean(0), pixels.std(0)
    x = {part: inputs(rows, wanted.side, mean, std) for part, rows in parts.items()}
    y = targets(parts["fit"], wanted.side // 2)
    for seed, family in enumerate(FAMILIES):
        if not all(places[family, part].exists() for part in ("val", "test")):
            net = train(family, wanted, x["fit"], y, seed, say)
            for part in ("val", "test"):
                if not places[family, part].exists():
                    dump(net, x[part], parts[part], wanted, places[family, part], family)


def write_groups(parts: Parts, path: Path) -> None:
    """Write which group each sample is of, as `ensk tune-thresholds --groups` reads it."""
    partial = path.with_name(f".{path.name}")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("sample", "group"))
        writer.writerows((r.name, r.group) for part in ("val", "test") for r in parts[part])
    partial.rename(path)
