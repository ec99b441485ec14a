"""Networks of PyTorch as files: ONNX, an exported program, TorchScript; by any torch from 2.3 on."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

FREE = {0: "batch", 2: "h", 3: "w"}


def onnx(net: nn.Module, path: Path, size: tuple[int, int], free: tuple[int, ...] = (0,)) -> None:
    """Export a network that takes (2, 3, h, w); the axes in `free` may have other lengths."""
    example = (torch.zeros(2, 3, *size),)
    names = {axis: FREE[axis] for axis in free}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own parts' deprecations
        if at_least(2, 6):
            shapes = ({axis: torch.export.Dim(name) for axis, name in names.items()},) if free else None
            torch.onnx.export(
                net, example, str(path), dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False
            )
        else:
            axes = {"x": names, "y": names} if free else None
            torch.onnx.export(net, example, str(path), input_names=["x"], output_names=["y"], dynamic_axes=axes)


def program(net: nn.Module, path: Path, size: tuple[int, int]) -> None:
    """Export a network as a program (.pt2) that takes (B, 3, h, w)."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.zeros(2, 3, *size),), dynamic_shapes=shapes), path)


def torchscript(net: nn.Module, path: Path) -> None:
    """Save a network as TorchScript, which is deprecated; its files are still in use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net).save(str(path))


def at_least(*version: int) -> bool:
    """Tell whether torch is of this version or a later one."""
    return tuple(int(v) for v in torch.__version__.split(".")[:2]) >= version
