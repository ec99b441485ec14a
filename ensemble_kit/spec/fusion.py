"""`Fusion`: how members become one answer, what is averaged and with which weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.mean import LEVELS, Mean

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
    """

    mean: Mean
    upsample: Upsample
    members: tuple[str, ...]
    weights: tuple[tuple[int, ...], ...]
    temperatures: tuple[float, ...]

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

    @property
    def heard(self) -> tuple[int, ...]:
        """Indices of the members that weigh something in some class; the others need not be read."""
        return tuple(m for m in range(len(self.members)) if any(row[m] for row in self.weights))

    def of(self, which: Sequence[int]) -> Fusion:
        """Return the fusion of some members, all those that weigh something among them."""
        weights = tuple(tuple(row[m] for m in which) for row in self.weights)
        temperatures = tuple(self.temperatures[m] for m in which)
        return replace(self, members=tuple(self.members[m] for m in which), weights=weights, temperatures=temperatures)

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


def _small(weights: Sequence[int], names: Sequence[str]) -> Iterator[list[float]]:
    """Yield the numbers of up to 1,000 in all that become these integers."""
    for total in range(1, 1001):
        tried = [float(round(w * total / LEVELS)) for w in weights]
        if sum(tried) == total and integer_weights(tried, names) == tuple(weights):
            yield tried


def integer_weights(weights: Sequence[float], names: Sequence[str]) -> tuple[int, ...]:
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


def _exact_weight(weight: float, name: str) -> Fraction:
    try:
        exact = Fraction(str(float(weight)))
    except (TypeError, ValueError, OverflowError):
        exact = Fraction(-1)
    if exact < 0:
        raise _invalid(f"member {name!r} has weight {weight!r}", "pass finite weights of at least 0")
    return exact


def _invalid(item: str, fix: str) -> UsageError:
    return UsageError("weights-invalid", "cannot fuse members", item=item, fix=fix)
