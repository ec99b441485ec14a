"""What the user passes for a decision, and the decision that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.errors import MismatchError, check_number
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.mean import Mean


def level_of(threshold: Any, mean: Mean) -> int:
    """Turn a threshold in [0, 1] into the level that decides, on the scale of the mean.

    Raises
    ------
    UsageError
        A threshold outside [0, 1].
    """
    fix = "pass a number in [0, 1]; of a saved set, ThresholdSet.load(path); or a decision, such as Argmax()"
    what, code = "cannot decide", "threshold-invalid"
    check_number("threshold", threshold, fix, least=0, most=1, what=what, code=code)
    return mean.level_of(float(threshold))


def decision_of(given: Any, inputs: Inputs) -> Decision:
    """Make a decision of a number in [0, 1], one per class, by name or in their order, or of a decision itself.

    None is 0.5, of exclusive classes the largest score. Whether it fits the inputs is for `Decision.check` to tell.

    Raises
    ------
    MismatchError
        Another number of thresholds than classes.
    UsageError
        A threshold outside [0, 1].
    """
    mean = inputs.fusion.mean
    if isinstance(given, Mapping):
        return Thresholds({name: level_of(t, mean) for name, t in given.items()})
    if (isinstance(given, Sequence) and not isinstance(given, str)) or (isinstance(given, np.ndarray) and given.ndim):
        if len(given) != len(inputs.classes):
            raise MismatchError(
                "classes-differ",
                "cannot decide with these thresholds",
                item=f"{len(given)} thresholds, {len(inputs.classes)} classes",
                fix="pass exactly one threshold per class, in the order of .classes",
            )
        return Thresholds({name: level_of(t, mean) for name, t in zip(inputs.classes, given, strict=True)})
    if hasattr(given, "told") and not isinstance(given, type):
        decision: Decision = given
        return decision
    if given is None and inputs.activation == "softmax":
        return Argmax()
    number = given.item() if isinstance(given, (np.ndarray, np.generic)) else given
    return Thresholds(level_of(0.5 if number is None else number, mean))
