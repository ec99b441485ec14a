"""Arrays in, logits out: whatever a framework made becomes fp16 (C, h, w), checked, and never bent in silence.

Torch is recognised through `sys.modules` and never imported. It also narrows ten times faster than NumPy does
(29 x 512 x 512 from fp32: 1.1 against 11.5 ms), so a tensor stays a tensor until it is fp16.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import numpy as np

from ensemble_kit.errors import DamagedError, UsageError, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation

Domain = Literal["logits", "probabilities"]

LARGEST = 65504.0
SUM_TOLERANCE = 1e-2
"""How far the probabilities of exclusive classes may add up beside 1: bfloat16 comes to 0.004."""
_LARGEST_CODE, _INF_CODE, _ONE_CODE, _SIGN = 0x7BFF, 0x7C00, 0x3C00, 0x8000


class Logits(NamedTuple):
    """One sample, ready to be stored: little-endian contiguous fp16 (C, h, w), and how many values saturated."""

    codes: NDArray[np.float16]
    saturated: int


class Source(Protocol):
    """An array of floats of some framework, (C, h, w) or (B, C, h, w)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    def sample(self, index: int) -> Source:
        """Take one sample of a batch."""

    def narrow(self) -> NDArray[np.float16]:
        """Round to fp16; what is too large becomes infinite. Read-only where it may be the caller's own memory."""

    def plane(self, k: int) -> NDArray[Any]:
        """Return class `k` as it came, float (h, w)."""


class _NumpySource:
    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def sample(self, index: int) -> _NumpySource:
        return _NumpySource(self._array[index])

    def narrow(self) -> NDArray[np.float16]:
        if self._array.dtype == np.dtype("<f2"):
            out = np.ascontiguousarray(self._array).view()
            out.flags.writeable = False  # it may be the caller's own memory
            return out
        out = np.empty(self._array.shape, "<f2")
        if _torch_narrows(self._array, out):
            return out
        with np.errstate(all="ignore"):
            for k, plane in enumerate(self._array):
                np.copyto(out[k], plane, casting="unsafe")
        return out

    def plane(self, k: int) -> NDArray[Any]:
        return cast("NDArray[Any]", self._array[k])


def _torch_narrows(array: NDArray[Any], out: NDArray[np.float16]) -> bool:
    """Let torch narrow what it can where it is loaded: 3.5 in place of 11.5 ms a sample.

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


class _TorchSource:
    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    def sample(self, index: int) -> _TorchSource:
        return _TorchSource(self._tensor[index])

    def narrow(self) -> NDArray[np.float16]:
        torch = sys.modules["torch"]
        return self._tensor.to(torch.float16).cpu().contiguous().numpy()

    def plane(self, k: int) -> NDArray[Any]:
        return self._tensor[k].float().cpu().numpy()


def source(array: object) -> Source:
    """Recognise an array of floats: NumPy, torch on any device, DLPack, or anything with `__array__`.

    Raises
    ------
    UsageError
        Integers, whose scale nobody knows; complex numbers, objects, or nothing that is an array.
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
    return _NumpySource(found)


def _of_tensor(tensor: Any) -> Source:
    torch = sys.modules["torch"]
    if not tensor.dtype.is_floating_point:
        raise _not_floats(str(tensor.dtype))
    if tensor.dtype is torch.float64:  # torch rounds float64 twice on its way to fp16, NumPy once
        return _NumpySource(tensor.cpu().numpy())
    if tensor.device.type == "cpu" and tensor.dtype is torch.float16:
        return _NumpySource(tensor.numpy())
    return _TorchSource(tensor)


def _as_numpy(array: Any) -> Any:
    if isinstance(array, np.ndarray) or hasattr(array, "__array__"):
        return np.asarray(array)
    if hasattr(array, "__dlpack__"):
        try:
            return np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError):
            if "torch" in sys.modules:  # bf16 and devices, which NumPy does not know
                return sys.modules["torch"].from_dlpack(array)
            raise UsageError(
                "array-unknown",
                "cannot read an array",
                item=f"{type(array).__name__} on a device or of a type that NumPy does not know",
                fix="pass it as a float32 array on the host",
            ) from None
    if isinstance(array, Sequence) and not isinstance(array, (str, bytes)):
        try:
            return np.asarray(array)
        except ValueError:
            pass
    raise UsageError(
        "array-unknown",
        "cannot read an array",
        item=f"a value of type {type(array).__name__}",
        fix="pass a NumPy array, a torch tensor, or anything with DLPack or __array__",
    )


def _not_floats(kind: str) -> UsageError:
    return UsageError(
        "array-not-float",
        "cannot take an array for logits: its scale is unknown",
        item=f"values of type {kind}, floats are wanted",
        fix="turn it into floats first: divide probabilities by their largest value (255, 65535) and pass "
        'domain="probabilities", or dequantise logits',
    )


def clamp_code(clamp: float | None, activation: Activation) -> int | None:
    """Return the fp16 code of a bound on logits.

    Raises
    ------
    UsageError
        It bounds nothing, or the logits are of a softmax, where only their differences count.
    """
    if clamp is None:
        return None
    try:
        bound = abs(float(clamp)) if not isinstance(clamp, bool) and float(clamp) > 0 else float("nan")
    except (TypeError, ValueError):
        bound = float("nan")
    if not 1 <= bound <= LARGEST or activation != "sigmoid":
        raise UsageError(
            "clamp-invalid",
            "cannot limit logits",
            item=f"clamp={clamp!r} with {activation}",
            fix="pass a number from 1 to 65504, such as 12, for sigmoid logits only: of a softmax's only the "
            "differences count",
        )
    return int(np.float16(bound).view(np.uint16))


def value_of(code: int) -> float:
    """Return the number that an fp16 code stands for."""
    return float(np.uint16(code).view(np.float16))


def logits(
    array: Source,
    sample: str,
    classes: Sequence[str],
    domain: Domain,
    activation: Activation,
    clamp: int | None = None,
    seen: bool = False,
) -> Logits:
    """Turn one sample (C, h, w) into storable logits.

    Probabilities become logit(p) with sigmoid and log p with softmax, in float64. Values beyond the largest fp16
    saturate at ±65504 and are counted. `clamp` is the fp16 code of a bound that they are then limited to. `seen` says
    that other samples have shown that these are logits: one alone may well lie in [0, 1] then.

    Raises
    ------
    DamagedError
        NaN (named with its class and count), probabilities outside [0, 1] or, of exclusive classes, that do not add up
        to 1, or "logits" that all lie in [0, 1].
    """
    if domain == "probabilities":
        array = _NumpySource(_log_odds(array, sample, classes, activation))
    codes, saturated = array.narrow(), 0
    bits, signed = codes.view(np.uint16), codes.view(np.int16)
    largest, lowest = 0, 0
    for k in range(len(classes)):
        # as uint16 the greatest code is the most negative number, as int16 the most positive: NaN and infinities
        # lie beyond, so two integer maxima (0.3 ms a sample) stand for six floating-point checks
        positive, any_sign = int(signed[k].max()), int(bits[k].max())
        reach = max(positive, any_sign - _SIGN)
        if reach > _INF_CODE:
            raise _nan(codes, sample, classes)
        if reach >= _LARGEST_CODE:
            if not codes.flags.writeable:
                codes = codes.copy()
                bits, signed = codes.view(np.uint16), codes.view(np.int16)
            saturated += _saturate(bits[k], array.plane(k))
        largest, lowest = max(largest, positive), max(lowest, any_sign)
    unit = domain == "logits" and not seen and largest <= _ONE_CODE and lowest <= _SIGN
    if unit and within_unit(array, len(classes)):
        raise DamagedError(
            "logits-are-probabilities",
            "cannot take an array for logits: every value lies in [0, 1], as probabilities do",
            item=f"sample {sample!r}",
            fix='pass domain="probabilities" (--domain probabilities), or hand over what the network puts out '
            "before its activation",
        )
    if clamp is not None and max(largest, lowest - _SIGN) > clamp:
        if not codes.flags.writeable:
            codes = codes.copy()
        # two integer minima, since positive codes rise as int16 and all negative ones lie above them as uint16
        np.minimum(codes.view(np.int16), np.int16(clamp), out=codes.view(np.int16))
        np.minimum(codes.view(np.uint16), np.uint16(_SIGN | clamp), out=codes.view(np.uint16))
    return Logits(codes, saturated)


def _saturate(bits: NDArray[np.uint16], plane: NDArray[Any]) -> int:
    infinite = (bits & 0x7FFF) == _INF_CODE
    bits[infinite] -= 1
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(np.abs(plane) > LARGEST))


def within_unit(array: Source, classes: int) -> bool:
    """Tell whether no value of a sample lies outside [0, 1], as of probabilities; NaN does not count."""
    planes = (array.plane(k) for k in range(classes))  # as they came: -1e-9 is no probability, its fp16 is -0
    return not any(bool(plane.min() < 0) or bool(plane.max() > 1) for plane in planes)


def _nan(codes: NDArray[np.float16], sample: str, classes: Sequence[str]) -> DamagedError:
    counts = np.isnan(codes).sum(axis=(1, 2))
    bad = [classes[k] for k in np.flatnonzero(counts).tolist()]
    return DamagedError(
        "logits-nan",
        "cannot store NaN",
        item=f"sample {sample!r}, class {some(bad)}: {int(counts.sum())} of {codes.size} values",
        fix="look for a division by zero, a NaN weight or an fp16 overflow in the network; try it in "
        "float32 or bfloat16",
    )


def _log_odds(array: Source, sample: str, classes: Sequence[str], activation: Activation) -> NDArray[np.float32]:
    out, total = np.empty(array.shape, np.float32), np.zeros(array.shape[1:])
    for k, name in enumerate(classes):
        p = array.plane(k).astype(np.float64)
        nan = int(np.isnan(p).sum())
        if nan:
            raise DamagedError(
                "logits-nan",
                "cannot store NaN",
                item=f"sample {sample!r}, class {name!r}: {nan} of {p.size} probabilities",
                fix="look for the NaN in the network's output",
            )
        if p.min() < 0 or p.max() > 1:
            raise DamagedError(
                "probabilities-outside",
                "cannot take an array for probabilities: values lie outside [0, 1]",
                item=f"sample {sample!r}, class {name!r}: {p.min():.6g} to {p.max():.6g}",
                fix='pass domain="logits" (--domain logits) if this is what the network puts out before its '
                "activation; divide by 255 if it is bytes",
            )
        with np.errstate(divide="ignore"):
            out[k] = np.log(p) - np.log1p(-p) if activation == "sigmoid" else np.log(p)
        total += p
    if activation == "softmax":
        _check_sum(total, sample, len(classes))
    return out


def _check_sum(total: NDArray[np.float64], sample: str, classes: int) -> None:
    """Refuse probabilities of exclusive classes that do not add up to 1; the softmax of their logs would bend them."""
    off = np.abs(total - 1)
    if off.max() > SUM_TOLERANCE:
        worst = total.flat[int(off.argmax())]
        raise DamagedError(
            "probabilities-sum",
            "cannot take an array for probabilities of exclusive classes: they do not add up to 1",
            item=f"sample {sample!r}: {classes} classes add up to {worst:.4g} at one of "
            f"{int(np.count_nonzero(off > SUM_TOLERANCE))} such pixels of {total.size}",
            fix='pass activation="sigmoid" (--activation sigmoid) if classes may overlap; else hand over every class, '
            "the background too, divided by their sum",
        )
