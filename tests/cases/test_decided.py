"""Networks whose output is decided already: a class map or masks in whole numbers are no logits, in any framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cases.dumps import GREY, put, refused
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe


class Decided(nn.Module):
    """A network with its decision inside."""

    def __init__(self, decide: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.decide = nn.Conv2d(3, 3, 3, padding=1), decide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decide(self.net(x))


@pytest.mark.parametrize("classes", [("a",), ("a", "b", "c")], ids=["one class", "three classes"])
@pytest.mark.parametrize(
    "decide",
    [
        lambda y: y.argmax(1, keepdim=True),
        lambda y: y.argmax(1),
        lambda y: (y > 0).to(torch.uint8),
        lambda y: y[:, :1] > 0,
    ],
    ids=["argmax", "argmax without axis", "bytes", "booleans"],
)
def test_whole_numbers_of_torch(tmp_path: Path, decide: Callable, classes: tuple[str, ...]) -> None:
    error = refused("output-class-map", tmp_path, Decided(decide), Recipe(Preprocess(16)), classes=classes)
    assert "before argmax" in error.fix and error.exit_code == 2


def test_a_map_of_floats_is_named(tmp_path: Path) -> None:
    flat = Decided(lambda y: y.argmax(1).float())
    error = refused("model-output", tmp_path, flat, Recipe(Preprocess(16)), classes=("a", "b", "c"))
    assert error.fix.endswith("which are there before argmax")


def test_argmax_baked_into_onnx(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["classes"], axis=1, keepdims=1),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    found = helper.make_tensor_value_info("classes", TensorProto.INT64, ["b", 1, "h", "w"])
    graph = helper.make_graph(nodes, "net", [images], [found], [numpy_helper.from_array(weight, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "net.onnx")
    put(tmp_path / "images" / "a.png", GREY)
    error = refused("output-class-map", tmp_path, tmp_path / "net.onnx", Recipe(Preprocess(16)), classes=("a",))
    assert "int64" in error.item and "exported again without it" in error.fix
