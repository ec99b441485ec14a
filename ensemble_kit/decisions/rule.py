"""`Rule`, one step of post-processing of a sample's masks: what all rules have in common."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ensemble_kit.decisions.ruletext import RuleText
from ensemble_kit.errors import UsageError
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.labels import check_names

Connectivity = Literal[4, 8, 6, 18, 26]
"""Neighbours over which components connect: 4 or 8 in an image, 6, 18 or 26 in a volume."""

NEIGHBOURS: Mapping[int, tuple[int, ...]] = {2: (4, 8), 3: (6, 18, 26)}
"""The connectivities by the number of axes; the last one is the default, all that touch by a corner."""

_WHOLE = range(1, 10**18)


@dataclass
class Decided:
    """One sample's masks, as rules find them.

    Parameters
    ----------
    names : of the classes.
    masks : one for each of them.
    scores : what they were decided from; None where only masks are known.
    geometry : where the volume lies in the world, which says how large a voxel is; None where nothing says it.
    """

    names: Sequence[str]
    masks: list[Runs]
    scores: FusedSample | None = None
    geometry: Geometry | None = None


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
    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield masks of classes that the rule holds for, as it leaves them, by the number of the class.

        Masks that change together are yielded together; the caller puts them in their places before the next are made.
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

    def neighbours(self, shape: Shape) -> int:
        """Return over how many neighbours components connect in an image (H, W) or a volume (D, H, W).

        Raises
        ------
        UsageError
            The rule's connectivity is one of the other.
        """
        allowed = NEIGHBOURS[len(shape)]
        own: int | None = getattr(self, "connectivity", None)
        if own is None:
            return allowed[-1]
        if own not in allowed:
            where = "a volume" if len(shape) == 3 else "an image"
            others = ", ".join(map(str, allowed[:-1]))
            fix = f"pass connectivity={others} or {allowed[-1]}, or leave it out for {allowed[-1]}"
            raise invalid(f"rule {str(self)!r} on {where} of {as_text(shape)}", fix)
        return own

    @property
    def mm3(self) -> float | None:
        """The size that the rule compares with, where it is in mm³."""
        return None

    def in_voxels(self, geometry: Geometry | None, which: str = "the volume") -> int | None:
        """Return the size in mm³ as the least number of voxels that have it; None where the rule has none.

        Parameters
        ----------
        which : what messages call the volume.

        Raises
        ------
        UsageError
            Nothing says how large a voxel is.
        """
        if self.mm3 is not None and geometry is None:
            raise UsageError(
                "rule-geometry",
                "cannot post-process",
                item=f"rule {str(self)!r} counts mm³, and {which} has no geometry that says how large a voxel is",
                fix="pass the size in voxels (pixels), or masks or stores of volumes that have an affine",
            )
        return None if self.mm3 is None or geometry is None else max(1, geometry.voxels(self.mm3))

    def __str__(self) -> str:
        connectivity = getattr(self, "connectivity", None)
        told = None if connectivity is None else str(connectivity)
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

    def _set_mm3(self, name: str) -> None:
        """Check that a parameter is a finite number above 0, and make it a float."""
        value = getattr(self, name)
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
        if not is_number or not 0 < value < math.inf:
            raise self._invalid(name, "pass mm³, a finite number above 0")
        object.__setattr__(self, name, float(value))

    def _check_connectivity(self) -> None:
        """Check that a parameter `connectivity` is one of images or of volumes, or None."""
        if getattr(self, "connectivity", None) is not None:
            self._set_whole("connectivity", (4, 8, 6, 18, 26), "pass 4 or 8 (images), or 6, 18 or 26 (volumes)")

    def _invalid(self, name: str, fix: str) -> UsageError:
        return invalid(f"{self.kind} with {name}={getattr(self, name)!r}", fix)


class MaskRule(Rule):
    """A rule that looks at one mask by itself."""

    @abstractmethod
    def apply(self, runs: Runs, geometry: Geometry | None = None) -> Runs:
        """Return the mask as the rule leaves it; sizes in mm³ need the volume's geometry."""

    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield each mask as `apply` returns it."""
        for k, name in enumerate(decided.names):
            if self.covers(name):
                yield {k: self.apply(decided.masks[k], decided.geometry)}


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
