"""A network's outputs for a batch, checked against the images and the classes; a failure names its samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ensemble_kit.errors import DamagedError, EnskError, MismatchError, ResourceError, some
from ensemble_kit.logits.plausible import with_background

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.backends import Network

_OF_MEMORY = re.compile(r"out of memory|not enough memory|ALLOC_FAILED|(can't|failed to) allocate", re.IGNORECASE)


def outputs_of(network: Network, x: NDArray[np.float32], classes: Sequence[str]) -> NDArray[np.float32]:
    """Run a batch (B, channels, h, w); return float32 (B, C, h', w').

    Raises
    ------
    MismatchError
        There is not one map for each class of each image.
    """
    y = network.get(network.forward(network.put(x)))
    item = f"outputs {tuple(y.shape)} for {len(x)} images, {len(classes)} classes: {some(classes)}"
    if y.ndim != 4 or y.shape[0] != len(x):
        fix = "let the network put out (B, C, h, w), one map for each class of each image"
        fix += ", which are there before argmax" if y.ndim == 3 else ""
        raise MismatchError("model-output", "cannot use the model's outputs as maps of classes", item=item, fix=fix)
    if y.shape[1] != len(classes):
        second = "let the network put out (B, C, h, w), classes second"
        named = f"pass --classes with a name for each map, in their order{with_background(y.shape[1], classes)}"
        named += f"; where the model has several outputs, --output with the one of {len(classes)} maps"
        fix = second if y.shape[3] == len(classes) else named
        raise MismatchError("classes-count", "cannot match the model's outputs to the classes", item=item, fix=fix)
    return y


@contextmanager
def failing_as(samples: Sequence[str], takes: int | None = None, given: int | None = None) -> Iterator[None]:
    """Name the samples when the model fails on them; or the channels that it `takes` where others were `given`."""
    try:
        yield
    except EnskError:
        raise
    except Exception as error:
        item = f"at sample {some(samples)}: {told(error)}"
        if is_of_memory(error):
            fix = "pass a smaller --batch-size or --size, --tile, or --device cpu"
            raise ResourceError("model-memory", "cannot run the model: out of memory", item=item, fix=fix) from error
        told_by_torch = re.search(r"to have (\d+) channels, but got (\d+) channels", str(error))
        if told_by_torch is not None and int(told_by_torch[2]) == given:
            takes = int(told_by_torch[1])
        if takes is not None and given is not None and takes != given:
            raise channels_differ(takes, given, told(error)) from error
        fix = "see its traceback with --debug; samples before this one are committed"
        raise DamagedError("model-failed", "cannot run the model", item=item, fix=fix) from error


def is_of_memory(error: Exception) -> bool:
    """Tell whether a model failed for want of memory.

    Of CUDA only the allocator raises `OutOfMemoryError`: cuDNN and cuBLAS, whose workspaces come on top, raise a
    RuntimeError, and so do torch's allocator on a CPU and onnxruntime's.
    """
    known = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return known or _OF_MEMORY.search(str(error)) is not None


def channels_differ(takes: int, given: int, why: str = "") -> MismatchError:
    """Make the error of a network that takes another number of channels than images are given with."""
    fix = {1: "pass --channels grey", 3: "pass --channels rgb (or bgr)"}.get(takes)
    fix = fix or f"pass --channels {takes} with a folder of arrays (.npy) or TIFF files of as many channels"
    item = f"the network takes {takes} channel{'s' * (takes != 1)}, images are given with {given}"
    what = "cannot feed images to a model of other channels"
    return MismatchError("model-channels", what, item=f"{item}{why and ': '}{why}", fix=fix)


def told(error: Exception) -> str:
    """Quote an error of the model in one line; its text can be long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
