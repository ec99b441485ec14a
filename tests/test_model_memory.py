"""Networks that run out of memory: a batch's memory is freed before its images run alone, and each kind has one code."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.outputs import is_of_memory
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.errors import ResourceError
from ensemble_kit.logits.store import LogitStore

CLASSES = ("red", "green", "blue")
MESSAGES = {
    "allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
    "runtime": RuntimeError("CUDA error: out of memory"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
    "onnxruntime": RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"),
    "numpy": MemoryError("Unable to allocate 3.00 GiB for an array"),
}


class Held(nn.Module):
    """Keeps a large tensor in a frame, as activations are, and fails at more than one image."""

    def __init__(self, error: Exception, most: int = 1) -> None:
        super().__init__()
        self.error, self.most, self.seen = error, most, weakref.WeakSet[torch.Tensor]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.seen, "what the batch left is still there"
        activation = x.repeat(1, 4, 1, 1)
        self.seen.add(activation)
        if len(x) > self.most:
            raise type(self.error)(*self.error.args)  # one that is kept would keep its frames
        return activation[:, :3].clone()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for k in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * k + 9, np.uint8)).save(tmp_path / f"images/{k}.png")
    return tmp_path / "images"


def dump(model: nn.Module, images: Path, say: list[str]) -> LogitStore:
    out = images.parent / "net.zarr"
    recipe = Recipe(Preprocess(mean=(0.5,) * 3).but(size=8))
    dump_logits(model, images, CLASSES, out, recipe, batch_size=4, say=say.append)
    return LogitStore(out)


def test_a_batch_is_freed_before_its_images_run_alone(images: Path) -> None:
    said: list[str] = []
    model = Held(MESSAGES["allocator"])
    store = dump(model, images, said)
    assert store.complete and any("one by one: OutOfMemoryError" in line for line in said)


@pytest.mark.parametrize("name", MESSAGES)
def test_an_image_that_does_not_fit_is_named(images: Path, name: str) -> None:
    with pytest.raises(ResourceError, match=r"0\.png.*--batch-size") as caught:
        dump(Held(MESSAGES[name], 0), images, [])
    assert caught.value.code == "model-memory"


def test_other_failures_are_not_of_memory() -> None:
    assert not is_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"))
    assert not is_of_memory(ValueError("cannot allocate a seat"))
