"""Arrays of frameworks: NumPy, torch on any device, and whatever speaks DLPack or `__array__`, recognised and narrowed.

Torch is recognised through `sys.modules` and never imported. It also narrows ten times faster than NumPy does
(29 x 512 x 512 from fp32: 1.1 against 11.5 ms), so a tensor stays a tensor until it is fp16.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_LEAST, _STEPS = 2.0**-14, 2.0**24
"""Numbers of fp16 below this one are multiples of 1 / `_STEPS`, and their codes count them."""


class Floats(Protocol):
    """An array of floats of some framework: (C, h, w), (C, d, h, w), or a batch of them, (B, C, …)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    def sample(self, index: int) -> Floats:
        """Take one sample of a batch."""

    def slices(self, first: int, stop: int) -> Floats:
        """Take slices of a volume (C, d, h, w)."""

    def narrow(self) -> NDArray[np.float16]:
        """Round to fp16; what is too large becomes infinite. Read-only where it may be the caller's own memory."""

    def class_map(self, k: int) -> NDArray[Any]:
        """Return class `k` as it came, float (h, w) or (d, h, w)."""


class _NumpyFloats:
    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def sample(self, index: int) -> _NumpyFloats:
        return _NumpyFloats(self._array[index])

    def slices(self, first: int, stop: int) -> _NumpyFloats:
        return _NumpyFloats(self._array[:, first:stop])

    def narrow(self) -> NDArray[np.float16]:
        if self._array.dtype == np.dtype("<f2"):
            out = np.ascontiguousarray(self._array).view()
            out.flags.writeable = False  # it may be the caller's own memory
            return out
        out = np.empty(self._array.shape, "<f2")
        if _torch_narrows(self._array, out):
            return out
        with np.errstate(all="ignore"):
            for one, narrow in zip(self._array, out, strict=True):
                _narrow(one, narrow)
        return out

    def class_map(self, k: int) -> NDArray[Any]:
        return cast("NDArray[Any]", self._array[k])


def _narrow(values: NDArray[Any], out: NDArray[np.float16]) -> None:
    """Round to fp16; what fp16 has no full precision for, by integers: NumPy takes 60 ns for each such value.

    Logarithms of probabilities near 1 are such values, of about one class in each cell of a softmax.
    """
    size = np.abs(values)
    small = size < _LEAST
    if values.itemsize == out.itemsize or not small.any():
        np.copyto(out, values, casting="unsafe")
        return
    np.copyto(out, np.where(small, np.copysign(0, values), values), casting="unsafe")
    steps = np.where(small, size, 0) * _STEPS
    np.add(out.view("<u2"), np.rint(steps, out=steps).astype("<u2"), out=out.view("<u2"))


def _torch_narrows(array: NDArray[Any], out: NDArray[np.float16]) -> bool:
    """Let torch narrow what it can where it is loaded: 3.5 instead of 11.5 ms a sample.

    In blocks below the size from which torch starts threads, which a forked child must not.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "from_numpy") or array.dtype != np.dtype("=f4") or sys.byteorder != "little":
        return False
    if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned and array.size):
        return False
    pieces = (torch.from_numpy(a.reshape(-1)).split(1 << 14) for a in (out, array))
    for narrow, wide in zip(*pieces, strict=True):
        narrow.copy_(wide)
    return True


class _TorchFloats:
    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    def sample(self, index: int) -> _TorchFloats:
        return _TorchFloats(self._tensor[index])

    def slices(self, first: int, stop: int) -> _TorchFloats:
        return _TorchFloats(self._tensor[:, first:stop])

    def narrow(self) -> NDArray[np.float16]:
        torch = sys.modules["torch"]
        return self._tensor.to(torch.float16).cpu().contiguous().numpy()

    def class_map(self, k: int) -> NDArray[Any]:
        return self._tensor[k].float().cpu().numpy()


def recognise(array: object) -> Floats:
    """Recognise an array of floats: NumPy, torch on any device, DLPack, or anything with `__array__`.

    Raises
    ------
    UsageError
        Integers, whose scale is unknown; complex numbers, objects, or something that is not an array.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor") and isinstance(array, torch.Tensor):
        return _of_tensor(array.detach())
    found = _as_numpy(array)
    if not isinstance(found, np.ndarray):
        return _of_tensor(found)
    if found.dtype.name == "bfloat16":
        found = found.astype(np.float32)
    if found.dtype.kind != "f":
        raise _not_floats(str(found.dtype))
    return _NumpyFloats(found)


def _of_tensor(tensor: Any) -> Floats:
    torch = sys.modules["torch"]
    if not tensor.dtype.is_floating_point:
        raise _not_floats(str(tensor.dtype))
    if tensor.dtype is torch.float64:  # torch rounds float64 twice on its way to fp16, NumPy once
        return _NumpyFloats(tensor.cpu().numpy())
    if tensor.device.type == "cpu" and tensor.dtype is torch.float16:
        return _NumpyFloats(tensor.numpy())
    return _TorchFloats(tensor)


def _as_numpy(array: Any) -> Any:
    if isinstance(array, np.ndarray) or hasattr(array, "__array__"):
        return np.asarray(array)
    if hasattr(array, "__dlpack__"):
        try:
            return np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError):
            if "torch" in sys.modules:  # bf16 and devices, which NumPy does not know
                return sys.modules["torch"].from_dlpack(array)
            item = f"{type(array).__name__} on a device or of a type that NumPy does not know"
            raise _unknown(item, "pass it as a float32 array on the host") from None
    if isinstance(array, Sequence) and not isinstance(array, (str, bytes)):
        try:
            return np.asarray(array)
        except ValueError:
            pass
    fix = "pass a NumPy array, a torch tensor, or anything with DLPack or __array__"
    raise _unknown(f"a value of type {type(array).__name__}", fix)


def _unknown(item: str, fix: str) -> UsageError:
    return UsageError("array-unknown", "cannot read an array", item=item, fix=fix)


def _not_floats(kind: str) -> UsageError:
    what, item = "cannot take an array for logits: its scale is unknown", f"values of type {kind} instead of floats"
    scale = 'divide probabilities by their largest value (255, 65535) and pass domain="probabilities"'
    fix = f"turn it into floats first: {scale}, or dequantise logits"
    return UsageError("array-not-float", what, item=item, fix=fix)
