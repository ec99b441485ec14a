"""`Thresholds`: a pixel is on where its class's score reaches the class's level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ensemble_kit.errors import MismatchError, check_number, some
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS


@dataclass(frozen=True)
class Thresholds:
    """Decide each class by a level of its own.

    Parameters
    ----------
    levels : the level of each class by its name, 0 … 65535, or one for all; 65536 turns no pixel on. A threshold in
        [0, 1] becomes a level by `Ensemble.level_of`.

    Raises
    ------
    UsageError
        A level that is not an integer from 0 to 65536.

    Examples
    --------
    >>> Thresholds({"bone": 32768}).told()
    "on at or above each class's threshold"
    """

    levels: Mapping[str, int] | int

    def __post_init__(self) -> None:
        each = self.levels if isinstance(self.levels, Mapping) else {"all classes": self.levels}
        for name, level in each.items():
            fix = "pass an integer from 0 to 65535; Ensemble.level_of makes one of a threshold"
            check_number(
                f"level of {name}", level, fix, least=0, most=LEVELS, whole=True, what="cannot decide",
                code="threshold-invalid",
            )  # fmt: skip
        if isinstance(self.levels, Mapping):
            object.__setattr__(self, "levels", dict(self.levels))

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.levels.items())) if isinstance(self.levels, dict) else self.levels)

    def check(self, inputs: Inputs) -> None:
        """Refuse other classes than the levels are for.

        Raises
        ------
        MismatchError
            A class without a level, or a level without a class.
        UsageError
            As `Inputs.check_each_class`.
        """
        inputs.check_each_class()
        if isinstance(self.levels, Mapping) and set(self.levels) != set(inputs.classes):
            raise MismatchError(
                "classes-differ",
                "cannot decide with these thresholds",
                item=f"thresholds for {some(self.levels)}, classes {some(inputs.classes)}",
                fix="pass exactly one threshold per class",
            )

    def in_order(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Return the levels of classes, in their order."""
        return tuple(self.levels[c] if isinstance(self.levels, Mapping) else self.levels for c in classes)

    def written(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return all classes."""
        return classes

    def excludes(self, inputs: Inputs) -> bool:  # noqa: ARG002 - the protocol's argument
        """Tell whether each pixel gets one class at most: it may get several."""
        return False

    def told(self) -> str:
        """Return the rule in words."""
        return "on at or above each class's threshold"

    def __call__(self, scores: FusedSample) -> ManyRuns:
        """Decide all classes in one pass over the sample's logits."""
        return scores.decide(dict(enumerate(self.in_order(scores.inputs.classes))))
