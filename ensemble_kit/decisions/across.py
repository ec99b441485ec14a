"""Rules that look across classes: `Compete` by their scores, `Nested` by the order of their regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from ensemble_kit.decisions.rule import Decided, Rule, ScoreRule, invalid
from ensemble_kit.decisions.ruletext import decimal, plain
from ensemble_kit.errors import UsageError
from ensemble_kit.masks.runs import Runs


@dataclass(frozen=True)
class Compete(ScoreRule):
    """Take a pixel from a class whose score is below a ratio of the highest score of the classes that compete.

    At a ratio of 1 a pixel stays with the class of the highest score alone, with several where they tie. Pixels are
    only taken away: a score competes whether or not it reaches its class's threshold, and whether or not an earlier
    rule took the pixel from it. The arithmetic: docs/concepts.md#rule-14-rules-across-classes.

    Parameters
    ----------
    ratio : in (0, 1], on the scale of probabilities; rounded to 1/65536.
    classes : those that compete, two or more; None is every class of the members.

    Examples
    --------
    >>> str(Compete(0.8, classes=("tumour", "cyst")))
    'compete:0.8@tumour,cyst'
    """

    kind = "compete"
    form = "compete:0.8 (of the highest score of all classes), or compete:0.8@A,B among two classes or more"
    across = True
    monotone = True
    ratio: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_number("ratio", "pass a number above 0 and at most 1, such as 0.8")
        if self.in_65536 == 0:
            raise invalid(f"compete with ratio={self.ratio!r}", "pass a ratio of at least 0.00001, or no rule")
        if self.classes is not None and len(self.classes) < 2:
            raise invalid(f"compete among {self.classes!r}", "name two classes or more, or none for all")

    @property
    def in_65536(self) -> int:
        """The ratio as the integer that decides, 65536 for 1."""
        return int(65536 * self.ratio + 0.5)

    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield each mask without the pixels where its class is beaten."""
        from ensemble_kit.scores import competition

        scores = self.scores_of(decided)
        known = scores.inputs.classes
        own = [k for k, name in enumerate(decided.names) if self.covers(name)]
        masks = {known.index(decided.names[k]): decided.masks[k] for k in own}
        rivals = [c for c, name in enumerate(known) if self.covers(name)]
        beaten = competition.beaten(scores, rivals, masks)
        for k, found in zip(own, beaten, strict=True):
            yield {k: decided.masks[k] - found.below(self.in_65536)}

    def masks_alone(self) -> UsageError:
        """Make the error of the rule where there are only masks."""
        return UsageError(
            "compete-needs-scores",
            "cannot let classes compete by masks alone",
            item=f"rule {str(self)!r} compares scores of classes, and a mask has none",
            fix="pass it to a soft vote over stores: Ensemble.vote(rules=…), ensk vote --soft",
        )

    def _arguments(self) -> tuple[str, ...]:
        return (plain(Decimal(str(self.ratio))),)

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        (ratio,) = arguments
        return {"ratio": float(decimal(ratio))}


@dataclass(frozen=True)
class Nested(Rule):
    """Make regions lie inside each other: whole tumour ⊇ tumour core ⊇ enhancing tumour.

    Parameters
    ----------
    classes : from the outermost to the innermost, two or more.
    grow : whether the outer ones take the pixels of the inner ones, from the inside out; without, each mask is cut to
        that of the class before it, after that one was cut.

    Examples
    --------
    >>> masks = [Runs([0], [3], (1, 8)), Runs([2], [5], (1, 8)), Runs([2], [8], (1, 8))]
    >>> decided = Decided(("WT", "TC", "ET"), masks)
    >>> [{k: mask.text() for k, mask in new.items()} for new in Nested(("WT", "TC")).changed(decided)]
    [{1: '3 1'}]
    """

    kind = "nested"
    form = "nested@WT,TC,ET or nested:grow@WT,TC,ET (from the outermost to the innermost class)"
    across = True
    classes: tuple[str, ...] | None = None
    grow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is None or len(self.classes) < 2:
            raise invalid(f"nested of {self.classes!r}", f"name two classes or more: {self.form}")
        if not isinstance(self.grow, bool):
            raise self._invalid("grow", "pass True or False")

    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield each mask that has one outside of it, or with `grow` one inside, in the order in which they change."""
        order = [decided.names.index(name) for name in self.classes or ()]
        steps = pairwise(reversed(order) if self.grow else order)
        for before, k in steps:
            mask, other = decided.masks[k], decided.masks[before]
            yield {k: mask | other if self.grow else mask & other}

    def _arguments(self) -> tuple[str, ...]:
        return ("grow",) if self.grow else ()

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        if arguments not in {(), ("grow",)}:
            raise ValueError(arguments)
        return {"grow": bool(arguments)}
