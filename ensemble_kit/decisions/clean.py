"""Rules of post-processing: what is done to a mask after the decision, as frozen values with a text form.

    NAME[:ARGUMENT[,ARGUMENT…]][@CLASS[,CLASS…]]

    drop-small:200              drop components of fewer than 200 pixels
    drop-small:0.05%            … of fewer than 0.05 % of the image's pixels
    keep-largest                keep the largest component; keep-largest:2 the two largest
    fill-holes                  fill every hole; fill-holes:50 those of at most 50 pixels
    gate:0.75,2000              empty the mask unless at least 2000 pixels lie at or above 0.75

`connectivity=4` may stand as the last argument (`drop-small:200,connectivity=4`); the default is 8. Without `@` a
rule holds for every class. Everything behind the first `@` is the list of classes, as in a line of CSV: a name that
holds a comma stands in double quotes, and a double quote inside them is written twice.
"""

from __future__ import annotations

import csv
import io
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction
from math import ceil, prod
from typing import Any, ClassVar, Literal, Self

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.labels import check_names

Connectivity = Literal[4, 8]
Above = Callable[[float], int]
"""Counts the pixels of the mask's class and sample that lie at or above a threshold."""

_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_FORMS = {
    "drop-small": "drop-small:200 (pixels) or drop-small:0.05% (of the image)",
    "keep-largest": "keep-largest or keep-largest:2",
    "fill-holes": "fill-holes or fill-holes:50",
    "gate": "gate:0.75,2000 (top threshold, pixels)",
}


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One step of post-processing.

    Parameters
    ----------
    classes : names of the classes that the rule holds for; None is every class.
    """

    kind: ClassVar[str]
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        if not isinstance(self.classes, (list, tuple)):
            raise _refuse(f"{self.kind} with classes={self.classes!r}", "pass a tuple of class names, or None for all")
        object.__setattr__(self, "classes", check_names("classes", self.classes))

    @abstractmethod
    def apply(self, runs: Runs) -> Runs:
        """Return the mask as the rule leaves it."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Write what stands between `:` and `@`."""

    @classmethod
    @abstractmethod
    def _parse(cls, text: str, arguments: list[str], **options: Any) -> Self:
        """Read what stands between `:` and `@`; `options` are connectivity and classes, where given."""

    def covers(self, name: str) -> bool:
        """Tell whether the rule holds for a class."""
        return self.classes is None or name in self.classes

    def __str__(self) -> str:
        arguments = self._arguments()
        if getattr(self, "connectivity", 8) != 8:
            arguments.append(f"connectivity={self.connectivity}")  # type: ignore[attr-defined]
        text = f"{self.kind}:{','.join(arguments)}" if arguments else self.kind
        return text if self.classes is None else f"{text}@{_csv_line(self.classes)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON has it: `rule` is its name, then every parameter."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "rule": self.kind, "classes": None if self.classes is None else list(self.classes)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Rule:
        """Read what `to_dict` returned.

        Raises
        ------
        UsageError
            A rule that is unknown, lacks a parameter, has one too many, or one that cannot mean anything.
        """
        name = values.get("rule") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name not in _KINDS:
            raise _refuse(f"{values!r}", f"give 'rule' as one of {', '.join(_KINDS)}", "cannot read a rule")
        kind = _KINDS[name]
        wanted = {"rule", *(f.name for f in fields(kind))}
        if set(values) != wanted:
            raise _refuse(f"{values!r}", f"give exactly {some(sorted(wanted), 9)}", "cannot read a rule")
        return kind(**{k: v for k, v in values.items() if k != "rule"})


@dataclass(frozen=True)
class DropSmall(Rule):
    """Drop the components that are smaller than a number of pixels or a share of the image.

    Parameters
    ----------
    min_area : pixels that a component needs to stay, at least 1.
    min_share : the same as a share of the image's pixels, in (0, 1]; exactly one of the two is given.
    connectivity : 8 joins pixels that touch by a corner, 4 does not.

    Examples
    --------
    >>> DropSmall(2).apply(Runs([0, 5], [3, 6], (2, 6))).text()
    '1 3'
    >>> str(DropSmall(min_share=0.0005, classes=("Radius",)))
    'drop-small:0.05%@Radius'
    """

    kind = "drop-small"
    min_area: int | None = None
    min_share: float | None = None
    connectivity: Connectivity = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.min_area is None) == (self.min_share is None):
            raise _refuse(
                f"drop-small with min_area={self.min_area!r}, min_share={self.min_share!r}", "pass exactly one of them"
            )
        if self.min_area is not None:
            _set_whole(self, "min_area")
        else:
            _set_number(self, "min_share")
            if self.min_share == 0:
                raise _refuse("drop-small with min_share=0", "pass a share above 0: every component has a pixel")
        _set_connectivity(self)

    def least(self, shape: tuple[int, ...]) -> int:
        """Return the pixels that a component needs in an image; a share counts as the decimal it is shown as."""
        if self.min_area is not None:
            return self.min_area
        return ceil(Fraction(str(self.min_share)) * prod(shape))

    def apply(self, runs: Runs) -> Runs:
        """Return the mask without its small components."""
        from ensemble_kit.kernels import components as kernels

        W = runs.shape[1]
        left = kernels.drop_small(runs.starts, runs.ends, W, self.connectivity, self.least(runs.shape))
        return Runs.trusted(left, runs.shape)

    def _arguments(self) -> list[str]:
        if self.min_area is not None:
            return [str(self.min_area)]
        return [f"{_plain(Decimal(str(self.min_share)).scaleb(2))}%"]

    @classmethod
    def _parse(cls, text: str, arguments: list[str], **options: Any) -> Self:
        if len(arguments) != 1:
            raise _unreadable(text, cls.kind)
        if arguments[0].endswith("%"):
            return cls(min_share=float(_decimal(text, cls.kind, arguments[0][:-1]).scaleb(-2)), **options)
        return cls(_integer(text, cls.kind, arguments[0]), **options)


@dataclass(frozen=True)
class KeepLargest(Rule):
    """Keep the k largest components; of equal ones the one whose first pixel (row by row) comes first.

    Parameters
    ----------
    k : how many stay, at least 1.
    connectivity : 8 joins pixels that touch by a corner, 4 does not.

    Examples
    --------
    >>> KeepLargest().apply(Runs([0, 4], [2, 7], (2, 8))).text()
    '5 3'
    """

    kind = "keep-largest"
    k: int = 1
    connectivity: Connectivity = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _set_whole(self, "k")
        _set_connectivity(self)

    def apply(self, runs: Runs) -> Runs:
        """Return the mask with its k largest components only."""
        from ensemble_kit.kernels import components as kernels

        left = kernels.keep_largest(runs.starts, runs.ends, runs.shape[1], self.connectivity, self.k)
        return Runs.trusted(left, runs.shape)

    def _arguments(self) -> list[str]:
        return [] if self.k == 1 else [str(self.k)]

    @classmethod
    def _parse(cls, text: str, arguments: list[str], **options: Any) -> Self:
        k = _at_most_one(text, cls.kind, arguments)
        return cls(1 if k is None else k, **options)


@dataclass(frozen=True)
class FillHoles(Rule):
    """Fill holes: components of the background that do not touch the image's border.

    With the default connectivity this is `scipy.ndimage.binary_fill_holes`.

    Parameters
    ----------
    largest : pixels of the largest hole that is filled; None fills all.
    connectivity : of the mask. 8 (default) makes the background 4-connected, 4 makes it 8-connected: a hole that
        touches the outside by a corner is then no hole.

    Examples
    --------
    >>> FillHoles().apply(Runs([0, 5, 8], [4, 6, 12], (3, 4))).text()
    '1 4 6 1 9 4'
    >>> FillHoles().apply(Runs([0, 6], [5, 12], (3, 4))).text()
    '1 12'
    """

    kind = "fill-holes"
    largest: int | None = None
    connectivity: Connectivity = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest is not None:
            _set_whole(self, "largest")
        _set_connectivity(self)

    def apply(self, runs: Runs) -> Runs:
        """Return the mask with its holes filled."""
        from ensemble_kit.kernels import components as kernels

        H, W = runs.shape
        largest = H * W if self.largest is None else min(self.largest, H * W)
        filled = kernels.fill_holes(runs.starts, runs.ends, H, W, self.connectivity, largest)
        return Runs.trusted(filled, runs.shape)

    def _arguments(self) -> list[str]:
        return [] if self.largest is None else [str(self.largest)]

    @classmethod
    def _parse(cls, text: str, arguments: list[str], **options: Any) -> Self:
        return cls(_at_most_one(text, cls.kind, arguments), **options)


@dataclass(frozen=True)
class Gate(Rule):
    """Empty the mask unless enough pixels of its class lie at or above a top threshold.

    The first two of the triplet (top threshold, smallest area, bottom threshold) of the winners of the SIIM-ACR
    Pneumothorax challenge (Anuar Aimoldin, 2019); the third is the threshold that made the mask.

    Parameters
    ----------
    top : threshold in [0, 1], on the scale of `Ensemble.vote`.
    min_area : pixels at or above it that the mask needs to stay, at least 1.

    Examples
    --------
    >>> Gate(0.75, 3).decide(Runs([0], [4], (2, 4)), above=2).area
    0
    """

    kind = "gate"
    top: float
    min_area: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _set_number(self, "top")
        _set_whole(self, "min_area")

    def apply(self, runs: Runs) -> Runs:  # noqa: ARG002 - refused for any mask
        """Refuse: a mask alone does not tell how many pixels lie above the top threshold."""
        raise _gate_needs_scores(self)

    def decide(self, runs: Runs, above: int) -> Runs:
        """Return the mask, or an empty one where fewer than `min_area` pixels lie at or above the top threshold."""
        return runs if above >= self.min_area else Runs.empty(runs.shape)

    def _arguments(self) -> list[str]:
        return [_plain(Decimal(str(self.top))), str(self.min_area)]

    @classmethod
    def _parse(cls, text: str, arguments: list[str], **options: Any) -> Self:
        if len(arguments) != 2 or "connectivity" in options:
            raise _unreadable(text, cls.kind)
        top, area = arguments
        return cls(float(_decimal(text, cls.kind, top)), _integer(text, cls.kind, area), **options)


_KINDS: dict[str, type[Rule]] = {k.kind: k for k in (DropSmall, KeepLargest, FillHoles, Gate)}


def parse_rule(text: str) -> Rule:
    """Read a rule as `str` writes it; the forms are listed at the head of this module.

    Raises
    ------
    UsageError
        A text of another form, or a number that cannot mean anything.

    Examples
    --------
    >>> parse_rule("keep-largest:2@Radius,Ulna")
    KeepLargest(classes=('Radius', 'Ulna'), k=2, connectivity=8)
    """
    head, at, names = text.partition("@")
    name, colon, inside = head.partition(":")
    if name not in _KINDS:
        raise _refuse(f"{text!r} begins with no known rule", f"write one of {', '.join(_FORMS.values())}")
    arguments = inside.split(",") if colon else []
    options: dict[str, Any] = {}
    if arguments and arguments[-1].startswith("connectivity="):
        options["connectivity"] = _integer(text, name, arguments.pop().removeprefix("connectivity="))
    if at:
        options["classes"] = _csv_names(text, names)
    return _KINDS[name]._parse(text, arguments, **options)


def parse_rules(rules: Iterable[Rule | str] | Rule | str) -> tuple[Rule, ...]:
    """Read several rules, each a value or its text; one alone is a list of one."""
    given = [rules] if isinstance(rules, (Rule, str)) else list(rules)
    for rule in given:
        if not isinstance(rule, (Rule, str)):
            raise _refuse(f"{rule!r} is no rule", "pass rules or their texts, such as 'drop-small:200'")
    return tuple(parse_rule(r) if isinstance(r, str) else r for r in given)


def check_classes(rules: Iterable[Rule], classes: Sequence[str]) -> None:
    """Refuse a rule for a class that is not among `classes`."""
    for rule in rules:
        unknown = [c for c in rule.classes or () if c not in classes]
        if unknown:
            raise MismatchError(
                "rule-class-unknown",
                "cannot post-process",
                item=f"rule {str(rule)!r} is for {some(unknown)}, the classes are {some(classes, 40)}",
                fix="write class names as they are, behind @ with commas between",
            )


def refuse_gates(rules: Iterable[Rule]) -> None:
    """Refuse rules that need scores, where there are only masks."""
    for rule in rules:
        if isinstance(rule, Gate):
            raise _gate_needs_scores(rule)


def clean(runs: Runs, name: str, rules: Iterable[Rule], above: Above | None = None) -> Runs:
    """Apply the rules that hold for class `name` to its mask, in their order.

    Parameters
    ----------
    above : counts the pixels of this class at or above a threshold; without it a gate is refused.
    """
    for rule in rules:
        if not rule.covers(name):
            continue
        if isinstance(rule, Gate) and above is not None:
            runs = rule.decide(runs, above(rule.top)) if runs else runs
        else:
            runs = rule.apply(runs)
    return runs


def apply_rules(masks: MaskSet, rules: Iterable[Rule | str] | Rule | str) -> MaskSet:
    """Post-process every mask of a set: rules or their texts, in the order given.

    Raises
    ------
    UsageError
        A gate, which needs scores: pass it to `Ensemble.vote`.
    MismatchError
        A rule for a class that the set does not have.

    Examples
    --------
    >>> masks = MaskSet({("x", "bone"): Runs([0, 5], [3, 6], (2, 6))})
    >>> apply_rules(masks, ["drop-small:2"])["x", "bone"].text()
    '1 3'
    """
    known = parse_rules(rules)
    refuse_gates(known)
    check_classes(known, masks.classes)
    return MaskSet({key: clean(runs, key[1], known) for key, runs in masks.items()}, rule=masks.rule)


def _refuse(item: str, fix: str, what: str = "cannot post-process") -> UsageError:
    return UsageError("rule-invalid", what, item=item, fix=fix)


def _unreadable(text: str, kind: str) -> UsageError:
    return _refuse(f"rule {text!r}", f"write {_FORMS[kind]}; behind it @ and class names where it is for some")


def _gate_needs_scores(rule: Rule) -> UsageError:
    return UsageError(
        "gate-needs-scores",
        "cannot apply a gate to masks alone",
        item=f"rule {str(rule)!r} counts pixels above a threshold, and a mask has no scores",
        fix="pass it to a soft vote over stores: Ensemble.vote(rules=…), ensk vote --soft",
    )


def _set_whole(rule: Rule, name: str) -> None:
    """Check that a parameter is a whole number from 1 up to 18 digits, and make it an int."""
    value = getattr(rule, name)
    try:
        whole = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        whole = 0
    if not 1 <= whole < 10**18:
        raise _refuse(f"{rule.kind} with {name}={value!r}", "pass a whole number of at least 1")
    object.__setattr__(rule, name, whole)


def _set_number(rule: Rule, name: str) -> None:
    """Check that a parameter is a number in [0, 1], and make it a float."""
    value = getattr(rule, name)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
        raise _refuse(f"{rule.kind} with {name}={value!r}", "pass a number in [0, 1]; a share in text is in percent")
    object.__setattr__(rule, name, float(value))


def _set_connectivity(rule: DropSmall | KeepLargest | FillHoles) -> None:
    _set_whole(rule, "connectivity")
    if rule.connectivity not in {4, 8}:
        raise _refuse(f"{rule.kind} with connectivity={rule.connectivity!r}", "pass 4 or 8")


def _decimal(text: str, kind: str, number: str) -> Decimal:
    if not _NUMBER.fullmatch(number):
        raise _unreadable(text, kind)
    return Decimal(number)


def _integer(text: str, kind: str, number: str) -> int:
    if not _WHOLE.fullmatch(number):
        raise _unreadable(text, kind)
    return int(number)


def _at_most_one(text: str, kind: str, arguments: list[str]) -> int | None:
    if len(arguments) > 1:
        raise _unreadable(text, kind)
    return _integer(text, kind, arguments[0]) if arguments else None


def _plain(number: Decimal) -> str:
    """Write a decimal without an exponent and without trailing zeros."""
    shown = f"{number:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _csv_names(text: str, names: str) -> tuple[str, ...]:
    try:
        rows = list(csv.reader([names], strict=True))
    except csv.Error as error:
        raise _refuse(f"rule {text!r}: its classes are no line of CSV ({error})", "close the double quotes") from None
    return tuple(rows[0]) if rows else ()


def _csv_line(names: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()
