"""Whether logits can be what they are said to be: what belongs to a softmax is not taken for overlapping classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.logits.floats import Floats
    from ensemble_kit.spec.fusion import Activation

Domain = Literal["logits", "probabilities"]
"""What a network puts out, or arrays hold."""

TOLERANCE = 1e-2
"""How far a sum of probabilities may be from 1: bfloat16 reaches 0.004."""
_CELLS = 2**16
"""Most cells of a sample that are looked at: what holds by chance does not hold in as many."""


def settle_activation(activation: Activation | None, classes: Sequence[str]) -> Activation:
    """Return the activation that was given, or else "sigmoid".

    Raises
    ------
    UsageError
        None was given, and one of the classes is the background, as where classes exclude each other.
    """
    if activation is not None:
        return activation
    backgrounds = [name for name in classes if isinstance(name, str) and is_background(name)]
    if backgrounds and len(classes) > 1:
        raise UsageError(
            "activation-ambiguous",
            "cannot tell whether classes exclude each other or overlap",
            item=f"{backgrounds[0]!r} is among {len(classes)} classes, and the activation was not given",
            fix='pass activation="softmax" (--activation softmax) if a pixel has one class, '
            'or activation="sigmoid" (--activation sigmoid) if each class is decided by itself',
        )
    return "sigmoid"


def check_overlapping(array: Floats, sample: str, classes: Sequence[str], domain: Domain, given: bool) -> None:
    """Refuse what a softmax made for sigmoid classes.

    Parameters
    ----------
    array : (C, h, w) of one sample.
    given : whether the user chose "sigmoid". Probabilities that add up to 1 may then be thresholded class by class;
        logarithms of them may not.

    Raises
    ------
    DamagedError
        Logarithms of probabilities that add up to 1; or such probabilities, where nobody chose "sigmoid".
    """
    if len(classes) < 2 or (domain == "probabilities" and given):
        return
    values = _some_cells(array, len(classes))
    softmax = 'pass activation="softmax" (--activation softmax)'
    if domain == "probabilities" and adds_up(values):
        what = "cannot take probabilities that add up to 1 for those of overlapping classes"
        fix = f'{softmax}; or activation="sigmoid" (--activation sigmoid) to decide each class by itself nevertheless'
        raise DamagedError("probabilities-exclusive", what, item=_item(sample, classes), fix=fix)
    if domain == "logits" and values.max() <= 1e-6 and adds_up(np.exp(values)):
        what = "cannot take an array for logits of overlapping classes: it is a logarithm of softmax"
        item = f"{_item(sample, classes)} after exp, and no value is above 0: every mask would be empty"
        raise DamagedError("logits-exclusive", what, item=item, fix=softmax)


def _item(sample: str, classes: Sequence[str]) -> str:
    return f"sample {sample!r}: {len(classes)} classes add up to 1 at every pixel"


def _some_cells(array: Floats, classes: int) -> NDArray[np.float64]:
    """Take cells spread over a sample: float64 (C, cells)."""
    step = max(1, int(np.prod(array.shape[1:])) // _CELLS)
    return np.stack([array.class_map(k).reshape(-1)[::step].astype(np.float64) for k in range(classes)])


def adds_up(values: NDArray[np.float64]) -> bool:
    """Tell whether values (C, cells) are within [0, 1] and add up to 1 at every cell; NaN never does."""
    within = bool((values >= 0).all()) and bool((values <= 1 + 1e-6).all())
    return within and bool((np.abs(values.sum(axis=0) - 1) <= TOLERANCE).all())


def exclusive(array: Floats, classes: int) -> bool:
    """Tell whether a sample holds probabilities of exclusive classes."""
    return classes > 1 and adds_up(_some_cells(array, classes))


def with_background(found: int, classes: Sequence[str]) -> str:
    """Say what one map more than classes usually is; nothing where it is another number."""
    more = found == len(classes) + 1 and not any(is_background(name) for name in classes)
    return (
        "; one map more is often the background: name it in --classes, too, with --activation softmax" if more else ""
    )
