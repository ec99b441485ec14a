"""One sample's arrays in, logits out: fp16 (C, h, w), checked, converted where they are probabilities, limited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.errors import DamagedError, UsageError, some
from ensemble_kit.logits.floats import Floats, recognise
from ensemble_kit.logits.plausible import TOLERANCE, Domain, exclusive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation

LARGEST = 65504.0
_LARGEST_CODE, _INF_CODE, _ONE_CODE, _SIGN = 0x7BFF, 0x7C00, 0x3C00, 0x8000


class Logits(NamedTuple):
    """A sample or a slab of one, ready to be stored.

    Parameters
    ----------
    codes : little-endian contiguous fp16 (C, …).
    saturated : how many values were cut.
    unit : whether "logits" all lie in [0, 1], as probabilities do; False where `seen`.
    """

    codes: NDArray[np.float16]
    saturated: int
    unit: bool


def clamp_code(clamp: float | None, activation: Activation) -> int | None:
    """Return the fp16 code of a bound on logits.

    Raises
    ------
    UsageError
        It is not a number from 1 to 65504, or the logits are of a softmax, where only their differences count.
    """
    if clamp is None:
        return None
    try:
        bound = abs(float(clamp)) if not isinstance(clamp, bool) and float(clamp) > 0 else float("nan")
    except (TypeError, ValueError):
        bound = float("nan")
    if not 1 <= bound <= LARGEST or activation != "sigmoid":
        what, item = "cannot limit logits", f"clamp={clamp!r} with {activation}"
        fix = "pass a number from 1 to 65504, such as 12, for sigmoid logits only: softmax depends on differences"
        raise UsageError("clamp-invalid", what, item=item, fix=fix)
    return int(np.float16(bound).view(np.uint16))


def value_of(code: int) -> float:
    """Return the number that an fp16 code stands for."""
    return float(np.uint16(code).view(np.float16))


def logits(
    array: Floats,
    sample: str,
    classes: Sequence[str],
    domain: Domain,
    activation: Activation,
    clamp: int | None = None,
) -> Logits:
    """Turn one sample (C, h, w) into storable logits, as `slab` does.

    Raises
    ------
    DamagedError
        What `slab` raises, or "logits" that all lie in [0, 1].
    """
    out = slab(array, sample, classes, domain, activation, clamp)
    if out.unit:
        raise are_probabilities(sample, exclusive(array, len(classes)))
    return out


def slab(
    array: Floats,
    sample: str,
    classes: Sequence[str],
    domain: Domain,
    activation: Activation,
    clamp: int | None = None,
    seen: bool = False,
) -> Logits:
    """Turn a sample (C, h, w), or a slab of a volume (C, n, h, w), into storable logits.

    Probabilities become logit(p) with sigmoid and log p with softmax, in float64. Values beyond the largest fp16
    saturate at ±65504 and are counted. `clamp` is the fp16 code of a bound that they are then limited to. `seen` says
    that other samples have shown that these are logits: one alone may then lie in [0, 1]. Otherwise a sample all of
    whose slabs do is for `are_probabilities` to refuse.

    Raises
    ------
    DamagedError
        NaN (named with its class and count), probabilities outside [0, 1] or, of exclusive classes, that do not add up
        to 1.
    """
    if domain == "probabilities":
        array = recognise(_log_odds(array, sample, classes, activation))
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
            saturated += _saturate(bits[k], array.class_map(k))
        largest, lowest = max(largest, positive), max(lowest, any_sign)
    unit = domain == "logits" and not seen and largest <= _ONE_CODE and lowest <= _SIGN
    unit = unit and within_unit(array, len(classes))
    if clamp is not None and max(largest, lowest - _SIGN) > clamp:
        if not codes.flags.writeable:
            codes = codes.copy()
        # two integer minima, since positive codes rise as int16 and all negative ones lie above them as uint16
        np.minimum(codes.view(np.int16), np.int16(clamp), out=codes.view(np.int16))
        np.minimum(codes.view(np.uint16), np.uint16(_SIGN | clamp), out=codes.view(np.uint16))
    return Logits(codes, saturated, unit)


def are_probabilities(sample: str, adding_up: bool) -> DamagedError:
    """Say that "logits" all lie in [0, 1]; `adding_up`: and the classes add up to 1."""
    what = "cannot take an array for logits: every value lies in [0, 1], as probabilities do"
    fix = 'pass domain="probabilities" (--domain probabilities), or the network\'s output before its activation'
    if adding_up:
        fix = 'pass domain="probabilities", activation="softmax" (--domain probabilities --activation softmax): '
        fix += "the classes add up to 1 at every pixel; or the network's output before its activation"
    return DamagedError("logits-are-probabilities", what, item=f"sample {sample!r}", fix=fix)


def _saturate(bits: NDArray[np.uint16], values: NDArray[Any]) -> int:
    infinite = (bits & 0x7FFF) == _INF_CODE
    bits[infinite] -= 1
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(np.abs(values) > LARGEST))


def within_unit(array: Floats, classes: int) -> bool:
    """Tell whether no value of a sample lies outside [0, 1], as of probabilities; NaN does not count."""
    maps = (array.class_map(k) for k in range(classes))  # as they came: -1e-9 is not a probability, its fp16 is -0
    return not any(bool(one.min() < 0) or bool(one.max() > 1) for one in maps)


def _nan(codes: NDArray[np.float16], sample: str, classes: Sequence[str]) -> DamagedError:
    counts = np.isnan(codes).reshape(len(classes), -1).sum(axis=1)
    bad = [classes[k] for k in np.flatnonzero(counts).tolist()]
    return _not_a_number(f"sample {sample!r}, class {some(bad)}: {int(counts.sum())} of {codes.size} values")


def _not_a_number(item: str) -> DamagedError:
    fix = "look for a division by zero, a NaN weight or an fp16 overflow in the network; try float32 or bfloat16"
    return DamagedError("logits-nan", "cannot store NaN", item=item, fix=fix)


def _log_odds(array: Floats, sample: str, classes: Sequence[str], activation: Activation) -> NDArray[np.float32]:
    out, total = np.empty(array.shape, np.float32), np.zeros(array.shape[1:])
    for k, name in enumerate(classes):
        given = array.class_map(k)
        low, high = float(given.min()), float(given.max())
        if math.isnan(low):
            nan = int(np.isnan(given).sum())
            raise _not_a_number(f"sample {sample!r}, class {name!r}: {nan} of {given.size} probabilities")
        if low < 0 or high > 1:
            what = "cannot take an array for probabilities: values lie outside [0, 1]"
            item = f"sample {sample!r}, class {name!r}: {low:.6g} to {high:.6g}"
            fix = 'pass domain="logits" (--domain logits) if no activation was applied; divide bytes by 255'
            raise DamagedError("probabilities-outside", what, item=item, fix=fix)
        p = given.astype(np.float64)
        total += p
        with np.errstate(divide="ignore"):
            out[k] = np.log(p) - np.log1p(-p) if activation == "sigmoid" else np.log(p, out=p)
    if activation == "softmax":
        _check_sum(total, sample, len(classes))
    return out


def _check_sum(total: NDArray[np.float64], sample: str, classes: int) -> None:
    """Refuse probabilities of exclusive classes that do not add up to 1; softmax of their logs would change them."""
    off = np.abs(total - 1)
    if off.max() > TOLERANCE:
        worst = total.flat[int(off.argmax())]
        what = "cannot take an array for probabilities of exclusive classes: they do not add up to 1"
        pixels = f"one of {int(np.count_nonzero(off > TOLERANCE))} such pixels of {total.size}"
        item = f"sample {sample!r}: {classes} classes add up to {worst:.4g} at {pixels}"
        fix = 'pass activation="sigmoid" (--activation sigmoid) if classes may overlap; else pass every class, '
        fix += "the background too, divided by their sum"
        if worst == 0:
            fix += "; where a margin of zeros is what pads a crop, pass box= and window= of the cells and pixels inside"
        raise DamagedError("probabilities-sum", what, item=item, fix=fix)
