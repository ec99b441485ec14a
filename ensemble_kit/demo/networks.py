"""Three small networks of different families, for the demo.

Each takes normalised images, float (B, 3, h, w) with h and w divisible by 32, and returns logits
(B, 3, h', w') of the overlapping classes nerve, vessel, any, on the grid that its own head computes.
This module imports torch and is imported by name only.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

CLASSES = ("nerve", "vessel", "any")


def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1, *, dilation: int = 1, groups: int = 1) -> nn.Module:
    """Build convolution → batch norm → ReLU that keeps h × w, but for the stride."""
    pad = dilation * (kernel // 2)
    layer = nn.Conv2d(cin, cout, kernel, stride, pad, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def head(width: int) -> nn.Module:
    """Build the last layer, features to logits; it starts at a foreground of 5 %."""
    layer = nn.Conv2d(width, len(CLASSES), 1)
    nn.init.constant_(layer.bias, -3.0)  # type: ignore[arg-type]
    return layer


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate (B, F, h, w) bilinearly to the grid of `like`."""
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """U-Net (Ronneberger, 2015) behind a 2 × 2 space-to-depth stem; its grid is h/2 × w/2."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32, 48, 64)) -> None:
        super().__init__()
        self.stem = nn.PixelUnshuffle(2)
        self.down = nn.ModuleList(nn.Sequential(conv(a, b), conv(b, b)) for a, b in pairwise((12, *widths)))
        self.up = nn.ModuleList(conv(a + b, a) for a, b in pairwise(widths))
        self.head = head(widths[0])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 3, h/2, w/2) of images (B, 3, h, w)."""
        x = self.stem(x)
        skips: list[Tensor] = []
        for stage in self.down:
            x = stage(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = self.up[i](torch.cat([skips[i], resize(x, skips[i])], 1))
        logits: Tensor = self.head(x)
        return logits


class Separable(nn.Module):
    """Inverted residual of depthwise-separable convolutions (Sandler, 2018)."""

    def __init__(self, cin: int, cout: int, stride: int = 1, expand: int = 3) -> None:
        super().__init__()
        mid = cin * expand
        self.body = nn.Sequential(
            conv(cin, mid, 1),
            conv(mid, mid, 3, stride, groups=mid),
            nn.Conv2d(mid, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, cout, h/stride, w/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class FPN(nn.Module):
    """Feature pyramid (Lin, 2017) over a depthwise-separable encoder; its grid is h/4 × w/4."""

    def __init__(self, widths: tuple[int, ...] = (24, 40, 64, 96), pyramid: int = 48) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(Separable(a, b, 2), Separable(b, b), Separable(b, b)) for a, b in pairwise((16, *widths))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(b, pyramid, 1) for b in widths)
        self.smooth = nn.Sequential(conv(pyramid, pyramid), nn.Dropout2d(0.1))
        self.head = head(pyramid)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 3, h/4, w/4) of images (B, 3, h, w)."""
        x = self.stem(x)
        levels: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        top = levels.pop()
        while levels:
            finer = levels.pop()
            top = finer + resize(top, finer)
        logits: Tensor = self.head(self.smooth(top))
        return logits


class Dilated(nn.Module):
    """Residual dilated convolutions (Yu and Koltun, 2016) with a global average; its grid is h/4 × w/4."""

    def __init__(self, width: int = 40, dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 4, 1)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), conv(12, 24), conv(24, width, 3, 2))
        self.blocks = nn.ModuleList(conv(width, width, dilation=d) for d in dilations)
        self.context = nn.Linear(width, width)
        self.head = nn.Sequential(conv(2 * width, width, 1), nn.Dropout2d(0.1), head(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 3, h/4, w/4) of images (B, 3, h, w)."""
        x = near = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = x + self.context(x.mean((2, 3)))[:, :, None, None]
        logits: Tensor = self.head(torch.cat([x, near], 1))
        return logits


def unet() -> nn.Module:
    """Build the U-Net, untrained."""
    return UNet()


def fpn() -> nn.Module:
    """Build the feature pyramid network, untrained."""
    return FPN()


def dilated() -> nn.Module:
    """Build the dilated network, untrained."""
    return Dilated()
