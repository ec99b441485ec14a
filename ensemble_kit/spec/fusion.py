"""`Fusion`: how members become one answer, what is averaged and with which weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import Literal, TypeVar

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.mean import LEVELS, Mean

T = TypeVar("T")

Activation = Literal["sigmoid", "softmax"]

Upsample = Literal["logits", "scores"]

Weights = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float]


@dataclass(frozen=True)
class Fusion:
    """How members become one answer; what a threshold set records and `vote` checks.

    Parameters
    ----------
    mean : what is averaged.
    upsample : what is interpolated from grid to image, each member's "logits" or the fused "scores".
    members : names, in the order of `weights` and `temperatures`.
    weights : integers that add up to 65536, per member, for each class: (C, M).
    temperatures : per member.
    original : the weights as they were given, of which the integers are made: for each class one per member. They are
        needed where only some members have a say. Without them, the smallest whole numbers that become the integers.
    """

    mean: Mean
    upsample: Upsample
    members: tuple[str, ...]
    weights: tuple[tuple[int, ...], ...]
    temperatures: tuple[float, ...]
    original: tuple[tuple[float | Fraction, ...], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        members = len(self.members)
        if any(len(row) != members or sum(row) != LEVELS or min(row) < 0 for row in self.weights):
            raise UsageError(
                "weights-invalid",
                "cannot fuse members",
                item=f"integer weights that do not add up to {LEVELS} over {members} members",
                fix="pass for each class one integer of at least 0 per member, as integer_weights makes them",
            )
        if len(self.temperatures) != members or not all(0 < t < math.inf for t in self.temperatures):
            raise UsageError(
                "temperatures-invalid",
                "cannot scale logits",
                item=f"temperatures {list(self.temperatures)} for {members} members",
                fix="pass one finite number above 0 per member",
            )
        if not self._is_original():
            object.__setattr__(self, "original", ())  # they are of other weights, which were replaced

    def _is_original(self) -> bool:
        pairs = {*zip(self.original, self.weights, strict=False)}
        return all(len(o) == len(w) and integer_weights(o, self.members) == w for o, w in pairs)

    @property
    def untold(self) -> tuple[tuple[float | Fraction, ...], ...]:
        """The original weights, where they do not follow from the integers; else ()."""
        for own, row in {*zip(self.original, self.weights, strict=False)}:
            if _shares(own, self.members) != _shares(original_of(row, self.members), self.members):
                return self.original
        return ()

    def among(self, which: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the weights where only some members have a say, by rule 2 on the original weights.

        They are 0 for the other members, and for a class that weighs nothing in any of these.
        """
        if len(which) == len(self.members):
            return self.weights
        rows = self.original or self.weights
        given = bool(self.original)
        return tuple(_among(row, given, self.members, tuple(which)) for row in rows)

    def spread(self, folds: Sequence[int]) -> Fusion:
        """Return the fusion of members' folds: each weighs the member's weight / K, by rule 2 on the original weights.

        Parameters
        ----------
        folds : how many are averaged of each member, K; 1 of a member that is read as it is.
        """
        if set(folds) == {1}:
            return self
        given, names = bool(self.original), spread(self.members, folds)
        rows = [_split(row, given, self.members, tuple(folds)) for row in self.original or self.weights]
        weights = tuple(integer_weights(row, names) for row in rows)
        return Fusion(self.mean, self.upsample, names, weights, spread(self.temperatures, folds), tuple(rows))

    @property
    def heard(self) -> tuple[int, ...]:
        """Indices of the members that weigh something in some class; the others need not be read."""
        return tuple(m for m in range(len(self.members)) if any(row[m] for row in self.weights))

    def of(self, which: Sequence[int]) -> Fusion:
        """Return the fusion of some members, all those that weigh something among them."""
        weights = tuple(tuple(row[m] for m in which) for row in self.weights)
        temperatures = tuple(self.temperatures[m] for m in which)
        original = tuple(tuple(row[m] for m in which) for row in self.original)
        members = tuple(self.members[m] for m in which)
        return replace(self, members=members, weights=weights, temperatures=temperatures, original=original)

    def differences(
        self, other: Fusion, classes: Sequence[str], others: Sequence[str]
    ) -> Iterator[tuple[str, object, object]]:
        """Yield what differs: its name, ours and theirs.

        Parameters
        ----------
        classes, others : names of the rows of weights, ours and theirs, in any order.
        """
        weights = dict(zip(others, other.weights, strict=True))
        alike = len({*self.weights, *other.weights}) <= 2 and len(set(self.weights)) == len(set(other.weights)) == 1
        facts: list[tuple[str, object, object]] = [
            ("classes", sorted(classes), sorted(others)),
            ("members", sorted(self.members), sorted(other.members)),
            ("mean", str(self.mean), str(other.mean)),
            ("upsample", self.upsample, other.upsample),
            ("temperatures", self.temperatures, other.temperatures),
            *(
                ("weights" if alike else f"weights of class {name!r}", self.weighed(row), self.weighed(weights[name]))
                for name, row in zip(classes, self.weights, strict=True)
                if name in weights
            ),
        ]
        return ((what, ours, theirs) for what, ours, theirs in facts if ours != theirs)

    def weighed(self, weights: Sequence[int]) -> str:
        """Write integer weights by member, as the smallest numbers that become them: `a 2, b 1`; else as shares of 1.

        Examples
        --------
        >>> Fusion(Mean.of("probability"), "logits", ("a", "b"), ((43691, 21845),), (1.0, 1.0)).weighed((43691, 21845))
        'a 2, b 1'
        """
        told = next(_small(weights, self.members), [w / LEVELS for w in weights])
        return ", ".join(f"{name} {w:.5g}" for name, w in zip(self.members, told, strict=True))


def spread(values: Sequence[T], folds: Sequence[int]) -> tuple[T, ...]:
    """Repeat each member's value for its folds."""
    return tuple(value for value, count in zip(values, folds, strict=True) for _ in range(count))


def fold_weights(weights: Sequence[float], folds: Sequence[int], names: Sequence[str]) -> tuple[int, ...]:
    """Make the integers of members' folds, each of which weighs the member's weight / K.

    Parameters
    ----------
    weights, folds : of each member, and how many folds are averaged of it, K.
    names : of each fold, the member's.
    """
    own = [_exact_weight(w, "") / k for w, k in zip(weights, folds, strict=True)]
    return integer_weights(spread(own, folds), names)


def folds_of(names: Sequence[str]) -> tuple[int, ...]:
    """Count how often each name follows itself: the folds of members that have names of their own."""
    return tuple(len(list(group)) for _, group in groupby(names))


@lru_cache(maxsize=256)
def _split(
    row: tuple[float | Fraction, ...], given: bool, names: tuple[str, ...], folds: tuple[int, ...]
) -> tuple[Fraction, ...]:
    """Divide the weights of members by the number of their folds: those given, or what the integers were made of."""
    own = row if given else original_of(tuple(map(int, row)), names)
    each = [_exact_weight(w, n) / k for w, n, k in zip(own, names, folds, strict=True)]
    return spread(each, folds)


def _shares(weights: Sequence[float | Fraction], names: Sequence[str]) -> list[Fraction]:
    """Scale weights to a sum of 1, exactly."""
    exact = [_exact_weight(w, n) for w, n in zip(weights, names, strict=True)]
    return [w / sum(exact) for w in exact]


@lru_cache(maxsize=256)
def _among(
    row: tuple[float | Fraction, ...], given: bool, names: tuple[str, ...], which: tuple[int, ...]
) -> tuple[int, ...]:
    """Renormalise the weights of some members: those given, or integers of which the given ones have to be found."""
    shares = row if given else original_of(tuple(map(int, row)), names)
    own, out = [shares[m] for m in which], [0] * len(names)
    if any(own):
        for m, weight in zip(which, integer_weights(own, [names[m] for m in which]), strict=True):
            out[m] = weight
    return tuple(out)


@lru_cache(maxsize=256)
def original_of(weights: tuple[int, ...], names: tuple[str, ...]) -> tuple[float, ...]:
    """Find the smallest whole numbers, of up to 1,000 in all, that become these integers; else the integers."""
    return tuple(next(_small(weights, names), weights))


def _small(weights: Sequence[int], names: Sequence[str]) -> Iterator[list[float]]:
    """Yield the numbers of up to 1,000 in all that become these integers."""
    for total in range(1, 1001):
        tried = [float(round(w * total / LEVELS)) for w in weights]
        if sum(tried) == total and integer_weights(tried, names) == tuple(weights):
            yield tried


def integer_weights(weights: Sequence[float | Fraction], names: Sequence[str]) -> tuple[int, ...]:
    """Scale weights to integers that add up to 65536: largest remainder, ties to the name that sorts first.

    Weights count as the decimals they are written as, so that 0.1, 0.1, 0.1 are equal thirds exactly.

    Raises
    ------
    UsageError
        A weight that is negative or not a finite number, or only weights of 0.

    Examples
    --------
    >>> integer_weights([2, 1], ["b", "a"])
    (43691, 21845)
    """
    exact = [_exact_weight(w, n) for w, n in zip(weights, names, strict=True)]
    total = sum(exact)
    if total == 0:
        raise _invalid("all weights are 0", "pass at least one weight above 0")
    shares = [w * LEVELS / total for w in exact]
    whole = [int(s) for s in shares]
    by_rest = sorted(range(len(whole)), key=lambda k: (whole[k] - shares[k], names[k]))
    for k in by_rest[: LEVELS - sum(whole)]:
        whole[k] += 1
    return tuple(whole)


def _exact_weight(weight: float | Fraction, name: str) -> Fraction:
    if isinstance(weight, Fraction):
        return weight
    try:
        exact = Fraction(str(float(weight)))
    except (TypeError, ValueError, OverflowError):
        exact = Fraction(-1)
    if exact < 0:
        raise _invalid(f"member {name!r} has weight {weight!r}", "pass finite weights of at least 0")
    return exact


def _invalid(item: str, fix: str) -> UsageError:
    return UsageError("weights-invalid", "cannot fuse members", item=item, fix=fix)
