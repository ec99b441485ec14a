"""`Rule`, one step of post-processing of a sample's masks: what all rules have in common."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ensemble_kit.decisions.ruletext import RuleText
from ensemble_kit.errors import UsageError
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.labels import check_names

Connectivity = Literal[4, 8]

_WHOLE = range(1, 10**18)


@dataclass
class Decided:
    """One sample's masks, as rules find them.

    Parameters
    ----------
    names : of the classes.
    masks : one for each of them.
    scores : what they were decided from; None where only masks are known.
    """

    names: Sequence[str]
    masks: list[Runs]
    scores: FusedSample | None = None


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One step of post-processing. Most rules look at one mask by itself: those are a `MaskRule`.

    Parameters
    ----------
    classes : names of the classes that the rule holds for; None is every class.

    Attributes
    ----------
    kind : the rule's name.
    form : how its text is written, by example.
    across : whether it compares classes with each other, which those that exclude each other leave no room for.
    monotone : whether a larger mask never leaves a smaller one, whatever the masks of other classes are: then the
        risk of missing pixels rises with the threshold after the rule too.
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    across: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        if not isinstance(self.classes, (list, tuple)):
            raise self._invalid("classes", "pass a tuple of class names, or None for all")
        if not self.classes:
            raise self._invalid("classes", "name a class after @, or leave @ out for all classes")
        if len(set(self.classes)) < len(self.classes):
            raise self._invalid("classes", "name each class once")
        object.__setattr__(self, "classes", check_names("classes", self.classes))

    @abstractmethod
    def changed(self, decided: Decided) -> Iterator[tuple[int, Runs]]:
        """Yield the number of each class that the rule holds for, and its mask as the rule leaves it.

        The caller puts each mask in its place before the next one is made.
        """

    @abstractmethod
    def _arguments(self) -> tuple[str, ...]:
        """Write what stands between `:` and `@`, without the connectivity."""

    @staticmethod
    @abstractmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        """Read what `_arguments` wrote, as parameters by name; ValueError for any other text."""

    def covers(self, name: str) -> bool:
        """Tell whether the rule holds for a class."""
        return self.classes is None or name in self.classes

    def __str__(self) -> str:
        connectivity = getattr(self, "connectivity", 8)
        told = None if connectivity == 8 else str(connectivity)
        return str(RuleText(self.kind, self._arguments(), told, self.classes))

    def _set_whole(self, name: str, allowed: Container[int] = _WHOLE, fix: str = "pass a whole number ≥ 1") -> None:
        """Check that a parameter is a whole number among those allowed, and make it an int."""
        value = getattr(self, name)
        try:
            number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
        except TypeError:
            number = 0
        if number not in allowed:
            raise self._invalid(name, fix)
        object.__setattr__(self, name, number)

    def _set_number(self, name: str, fix: str = "pass a number in [0, 1]; a share in text is in percent") -> None:
        """Check that a parameter is a number in [0, 1], and make it a float."""
        value = getattr(self, name)
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
            raise self._invalid(name, fix)
        object.__setattr__(self, name, float(value))

    def _invalid(self, name: str, fix: str) -> UsageError:
        return invalid(f"{self.kind} with {name}={getattr(self, name)!r}", fix)


class MaskRule(Rule):
    """A rule that looks at one mask by itself."""

    @abstractmethod
    def apply(self, runs: Runs) -> Runs:
        """Return the mask as the rule leaves it."""

    def changed(self, decided: Decided) -> Iterator[tuple[int, Runs]]:
        """Yield each mask as `apply` returns it."""
        for k, name in enumerate(decided.names):
            if self.covers(name):
                yield k, self.apply(decided.masks[k])


class ScoreRule(Rule):
    """A rule that looks at scores, and cannot be applied to masks alone."""

    @abstractmethod
    def masks_alone(self) -> UsageError:
        """Make the error of the rule where there are only masks."""

    def scores_of(self, decided: Decided) -> FusedSample:
        """Return a sample's scores.

        Raises
        ------
        UsageError
            There are only masks.
        """
        if decided.scores is None:
            raise self.masks_alone()
        return decided.scores


def invalid(item: str, fix: str) -> UsageError:
    """Make the error of a rule that cannot be applied to any mask."""
    return UsageError("rule-invalid", "cannot post-process", item=item, fix=fix)
