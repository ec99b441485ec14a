"""Small real networks, images and dumps of them, for the cases of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ensemble_kit as ek
from ensemble_kit.dumping import Dumped, dump_logits
from ensemble_kit.dumping.recipe import Recipe

SIDES = ("lung_left", "lung_right")
GREY = np.random.default_rng(0).integers(40, 256, (16, 16)).astype(np.uint8)


def put(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path.parent


def dump(tmp_path: Path, network: object, recipe: Recipe, classes: Any = SIDES, **options: Any) -> Dumped:
    images = tmp_path / "images"
    if not images.is_dir():
        put(images / "a.png", GREY)
    return dump_logits(network, images, classes, tmp_path / "m.zarr", recipe, device="cpu", **options)


def stored(tmp_path: Path) -> np.ndarray:
    return ek.LogitStore(tmp_path / "m.zarr").read("a.png").astype(np.float32)


def refused(code: str, tmp_path: Path, network: object, recipe: Recipe, **options: Any) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, network, recipe, **options)
    assert caught.value.code == code, caught.value
    assert not (tmp_path / "m.zarr").exists()
    return caught.value


def onnx_of(path: Path, outputs: dict[str, int], channels: int = 3) -> Path:
    """An ONNX file with free lengths whose k-th output is k + 2 on two classes, at its own stride."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, made, values = [], [], []
    for k, (name, stride) in enumerate(outputs.items()):
        weight = np.zeros((2, channels, 1, 1), np.float32)
        made += [
            numpy_helper.from_array(weight, f"w{k}"),
            numpy_helper.from_array(np.full(2, k + 2, np.float32), f"b{k}"),
        ]
        nodes.append(helper.make_node("Conv", ["x", f"w{k}", f"b{k}"], [name], strides=[stride, stride]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2, f"h{k}", f"w{k}"]))
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", channels, "h", "w"])
    graph = helper.make_graph(nodes, "g", [images], values, made)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def first_channel(channels: int) -> nn.Module:
    """Two classes: the first channel, and one less; the weights are those of a convolution of so many."""
    built = nn.Conv2d(channels, 2, 1)
    nn.init.zeros_(built.weight)
    with torch.no_grad():
        built.weight[:, 0] = 1
        built.bias[:] = torch.tensor([0.0, -1.0])
    return built


def arrays(tmp_path: Path, array: np.ndarray, **options: Any) -> Any:
    put(tmp_path / "images" / "a.png", GREY)
    (tmp_path / "arrays").mkdir(exist_ok=True)
    np.savez(tmp_path / "arrays" / "a.npz", logits=array)
    dump(tmp_path, tmp_path / "arrays", Recipe(**options), ("u", "v", "w"))
    return stored(tmp_path)
