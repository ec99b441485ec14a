"""A network whose work a GPU feels, and what it puts out in bf16; `ensk dump-logits nets:unet` finds it by PYTHONPATH."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn.functional import interpolate

CLASSES = ("nerve", "vessel", "muscle", "bone")


class UNet(nn.Module):
    """Two steps down and up again; logits at half the input's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.ModuleList([self.block(3, width, 2), self.block(width, 2 * width, 2)])
        self.up, self.head = self.block(3 * width, width, 1), nn.Conv2d(width, len(CLASSES), 1)
        nn.init.normal_(self.head.weight, std=3 / width**0.5)

    @staticmethod
    def block(channels: int, width: int, stride: int) -> nn.Module:
        norm = [nn.GroupNorm(4, width), nn.ReLU()]
        return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), *norm, nn.Conv2d(width, width, 3, 1, 1), *norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down[0](x)
        second = interpolate(self.down[1](first), first.shape[2:], mode="bilinear")
        return self.head(self.up(torch.cat([first, second], 1)))


class Cast(nn.Module):
    """The same network in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = unet().to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.to(torch.bfloat16))


def unet() -> nn.Module:
    return UNet(int(os.environ.get("ENSK_GPU_WIDTH", "64")))


def unet_bf16() -> nn.Module:
    return Cast()
