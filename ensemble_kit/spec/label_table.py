"""`LabelTable`: what each value of a label map means, from a table or by the order of the classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_choice, check_several, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

VALUES = 65536
"""Values that a label map can hold: 8 or 16 bits."""

NO_CLASS, UNNAMED = -1, -2


@dataclass(frozen=True)
class LabelTable:
    """What each value of a label map means.

    Parameters
    ----------
    classes : in the order in which masks have them.
    values : class of each value; None: the pixel has no class. Several values may name one class.
    void : values of pixels that count neither as prediction nor as truth.
    colours : by value, for colour-coded images and for palettes.
    source : where the table comes from, in words.
    numbered : whether the source says the values; else they are the numbers of its rows, and colours tell classes.
    regions : where classes overlap, such as nnU-Net's regions, all values of each class; `values` then has one class
        of each value.
    """

    classes: tuple[str, ...]
    values: Mapping[int, str | None]
    void: frozenset[int] = frozenset()
    colours: Mapping[int, Colour] = field(default_factory=dict)
    source: str = "table"
    numbered: bool = True
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def with_void(self, void: Collection[int] | None) -> LabelTable:
        """Return the table with these values void; None: 255, or 65535 where 255 is or may be a class."""
        if void is None:
            usual = 255 if len(self.classes) < 255 and 255 not in self.values else VALUES - 1
            return replace(self, void=self.void | ({usual} - self.values.keys()))
        kept = {value: name for value, name in self.values.items() if value not in void}
        return replace(self, values=kept, void=frozenset(void))

    def owners(self) -> NDArray[np.int64]:
        """Return by value the number of its class, `len(classes)` where it is void, `NO_CLASS` or `UNNAMED`."""
        numbers: dict[str | None, int] = {name: k for k, name in enumerate(self.classes)} | {None: NO_CLASS}
        out = np.full(VALUES, UNNAMED, np.int64)
        for value, name in self.values.items():
            out[value] = numbers[name]
        out[list(self.void)] = len(self.classes)
        return out

    def check(self, counts: Mapping[int, int], where: str, fix: str) -> None:
        """Refuse values that the table does not name, with the pixels of each.

        Raises
        ------
        MismatchError
            It lists them.
        """
        known = self.owners()
        if unnamed := {value: n for value, n in counts.items() if known[value] == UNNAMED}:
            item = f"{where} has values that nobody named: {counted(unnamed)}; {self}"
            raise MismatchError("label-values", "cannot read a label map", item=item, fix=fix)

    def name_of(self, value: int) -> str:
        """Say what a value means."""
        if value in self.void:
            return "void"
        return "not in the table" if value not in self.values else repr(self.values[value] or "no class")

    def value_of(self, name: str) -> int | None:
        """Return the first value that names a class; None where none does."""
        return next((value for value, own in self.values.items() if own == name), None)

    def owners_apart(self) -> list[NDArray[np.int64]]:
        """Return by value whether it is in a class: 0, else `NO_CLASS`; for each class that is a region, then void."""
        layers = [[value for value in self.regions[name] if value in self.values] for name in self.classes]
        out = np.full((len(layers) + 1, VALUES), NO_CLASS, np.int64)
        for inside, values in zip(out, [*layers, list(self.void)], strict=True):
            inside[values] = 0
        return list(out)

    def __str__(self) -> str:
        named = [f"{value} {'no class' if name is None else repr(name)}" for value, name in self.values.items()]
        if self.regions:
            named = [f"{name!r} {' + '.join(map(str, own))}" for name, own in self.regions.items()]
        void = ", ".join(map(str, sorted(self.void))) or "none"
        return f"label values ({self.source}): {', '.join(named)}; void {void}"


def is_background(name: str) -> bool:
    """Tell whether a class is called background: `background`, `bg`, `_background_`, `void_0` and the like."""
    return _letters(name) in {"background", "bg"} or name.casefold() == "void_0"


def from_zero(classes: Sequence[str]) -> bool:
    """Tell whether the first class stands for the value 0: it is called background, or void by a list of classes."""
    return bool(classes) and (is_background(classes[0]) or _letters(classes[0]) == "void")


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name.casefold())


def drawn_values(
    classes: Sequence[str], values: Mapping[str, int] | Sequence[int] | None = None
) -> tuple[list[int], int, int]:
    """Return the value of each class in a label map, that of a pixel without a class, and that of void.

    By default they count from 0 where background is among the classes, else from 1. A pixel without a class is void
    where background is a class or a class has the value 0, else it is 0. Void is 255, or 65535 from 255 classes on.

    Raises
    ------
    UsageError
        Values that are not one for each class, or not in 0 … 65535.
    """
    background = from_zero(classes) or any(map(is_background, classes))
    if values is None:
        own = list(range(0 if background else 1, len(classes) + (not background)))
    elif isinstance(values, Mapping):
        own = [values[name] for name in classes if name in values]
    else:
        check_several("values", values, "pass one whole number for each class")
        own = list(values)
    whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) and 0 <= v < VALUES for v in own)
    if len(own) != len(classes) or not whole or (isinstance(values, Mapping) and set(values) != set(classes)):
        item = f"values {str(values)[:200]} for the {len(classes)} classes {some(classes)}"
        fix = "pass one whole number from 0 to 65535 for each class, by name or in their order"
        raise UsageError("label-map-invalid", "cannot make a label map", item=item, fix=fix)
    void = 255 if len(classes) < 255 and 255 not in own else VALUES - 1
    return [int(v) for v in own], void if background or 0 in own else 0, void


def by_order(
    classes: Sequence[str],
    counts: Mapping[int, int],
    where: str,
    first_value: int | None = None,
    void: Collection[int] | None = None,
) -> LabelTable:
    """Make the table of a label map by the order of the classes.

    Where the first class is background, value k is the k-th class from 0. Where none is and the value of the number
    of classes occurs, 0 is no class and k the k-th class from 1. Where it does not occur, both are possible.

    Parameters
    ----------
    counts : pixels of each value, of the whole set.
    where : the set, in messages.
    first_value : 0 or 1, the value of the first class, where the user says it.
    void : values that are void; None: 255 where there are fewer than 255 classes.

    Raises
    ------
    UsageError
        Both readings are possible.
    MismatchError
        Background is not the first class.
    """
    names, source = tuple(classes), "by the order of the classes"
    if first_value is not None:
        check_choice("--first-value", first_value, (0, 1))
        first, source = int(first_value), f"first value {first_value}"
    elif from_zero(names):
        first, source = 0, f"{names[0]!r} is first in the list of classes"
    else:
        voids = ({255} if len(names) < 255 else set()) if void is None else set(void)
        first = _guessed(names, {v: n for v, n in counts.items() if v not in voids}, where)
        source = f"the value {len(names)} occurs, so the classes count from 1"
    values: dict[int, str | None] = {} if first == 0 else {0: None}
    return LabelTable(names, values | dict(enumerate(names, first)), source=source).with_void(void)


def _guessed(names: tuple[str, ...], counts: Mapping[int, int], where: str) -> int:
    """Tell the value of the first class by the values that occur, where background is not the first class."""
    found = f"{where}: the values are {counted(counts)}" if counts else f"{where}: there are no values but void"
    inside = [name for name in names if is_background(name)]
    if inside:
        what, item = "cannot tell the classes of a label map", f"{inside[0]!r} is not the first class; {found}"
        fix = "put it first in --classes FILE (classes=[…]), or pass --labels FILE with the class of each value"
        raise MismatchError("label-background", what, item=item, fix=fix)
    if max(counts, default=0) < len(names):
        what = "cannot tell the classes of a label map"
        item = (
            f"{found}, there are {len(names)} classes without a background: 0 can be {names[0]!r}, "
            f"or no class, with {names[0]!r} 1 and {names[-1]!r} absent"
        )
        fix = "pass --first-value 0 or --first-value 1 (first_value=…), or --labels FILE"
        raise UsageError("label-ambiguous", what, item=item, fix=fix)
    return 1


def in_pixels(count: int) -> str:
    """Write a number of pixels: `1 pixel`, `7 pixels`."""
    return f"{count} pixel{'s' * (count != 1)}"


def counted(counts: Mapping[int, int], limit: int = 12) -> str:
    """Write values with their pixels: `0 (812 pixels), 7 (1 pixel)`."""
    shown = [f"{value} ({in_pixels(n)})" for value, n in sorted(counts.items())]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
