"""Test-time augmentation: average a network over the flips and turns of its input.

Outputs are averaged in float32 as the network puts them out: logits where it puts out logits, which for two
outputs is the geometric mean of the odds; probabilities where the domain says so.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ensemble_kit.errors import MismatchError, UsageError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.backends import Network


class Symmetry(NamedTuple):
    """One of the eight symmetries of the square: mirror left and right if `mirror`, then turn `turns` × 90°."""

    turns: int
    mirror: bool

    def apply(self, x: Any) -> Any:
        """Transform (…, h, w), a tensor or an array."""
        xp = sys.modules[type(x).__module__.partition(".")[0]]  # torch or numpy: flip and rot90 are the same
        return xp.rot90(xp.flip(x, (-1,)) if self.mirror else x, self.turns, (-2, -1))

    def undo(self, y: Any) -> Any:
        """Transform (…, h, w) back."""
        xp = sys.modules[type(y).__module__.partition(".")[0]]
        y = xp.rot90(y, -self.turns, (-2, -1))
        return xp.flip(y, (-1,)) if self.mirror else y

    def after(self, first: Symmetry) -> Symmetry:
        """Compose: `first`, then this one; a mirror turns turns around."""
        turns = self.turns + (-first.turns if self.mirror else first.turns)
        return Symmetry(turns % 4, self.mirror != first.mirror)


GENERATORS = {"hflip": Symmetry(0, True), "vflip": Symmetry(2, True), "rot90": Symmetry(1, False)}


def symmetries(names: Sequence[str]) -> tuple[Symmetry, ...]:
    """List the group that the named flips make, identity first: two flips make four, rot90 with one makes eight."""
    unknown = [n for n in names if n not in GENERATORS]
    if unknown:
        raise UsageError(
            "option-invalid", "cannot augment", item=f"--tta {some(unknown)}", fix="pass some of hflip, vflip, rot90"
        )
    group = {Symmetry(0, False)}
    while True:
        grown = group | {GENERATORS[n].after(s) for n in names for s in group}
        if grown == group:
            return tuple(sorted(group, key=lambda s: (s.mirror, s.turns)))
        group = grown


class Averaged:
    """A network averaged over symmetries of its input."""

    def __init__(self, network: Network, group: Sequence[Symmetry], swap: Sequence[int] | None) -> None:
        """Wrap `network`; `swap[c]` is the class that class `c` becomes in a mirror, None where none does."""
        self._network, self._group = network, tuple(group)
        self._swap = list(swap) if swap is not None else None
        self.size = network.size

    def put(self, images: NDArray[np.float32]) -> Any:
        """Bring a batch to where the network runs."""
        return self._network.put(images)

    def forward(self, x: Any) -> Any:
        """Run the network once a symmetry and average what it puts out, brought back: float32 (B, C, h', w')."""
        total: Any = None
        for symmetry in self._group:
            y = symmetry.undo(self._network.forward(symmetry.apply(x)))
            if symmetry.mirror and self._swap is not None and y.shape[1] == len(self._swap):
                y = y[:, self._swap]
            if total is not None and total.shape != y.shape:
                raise MismatchError(
                    "model-output",
                    "cannot average flips",
                    item=f"outputs of {tuple(total.shape)} and {tuple(y.shape)}",
                    fix="leave rot90 out of --tta, or pass a square --size",
                )
            total = y if total is None else total + y
        return total / len(self._group)

    def get(self, y: Any) -> NDArray[np.float32]:
        """Bring outputs back."""
        return self._network.get(y)

    def record(self) -> dict[str, Any]:
        """Say what ran."""
        return self._network.record()


def class_swap(classes: Sequence[str], pairs: Mapping[str, str]) -> list[int]:
    """Turn pairs of names into a permutation of class numbers, for what a mirror does to the classes."""
    unknown = [n for pair in pairs.items() for n in pair if n not in classes]
    names = [n for pair in pairs.items() for n in pair]
    twice = sorted({n for n in names if names.count(n) > 1})
    if unknown or twice:
        item = f"no class is called {some(unknown)}" if unknown else f"{some(twice)} stand in more than one pair"
        raise MismatchError(
            "swap-classes",
            "cannot swap classes",
            item=item,
            fix=f"pass --swap-classes A=B,C=D with names among {some(classes)}",
        )
    both = {**pairs, **{b: a for a, b in pairs.items()}}
    return [list(classes).index(both.get(c, c)) for c in classes]


def parse_swap(text: str) -> dict[str, str]:
    """Read pairs, `A=B,C=D`, or a file: such a pair a line, or JSON {"A": "B"}; `none` says that there are none."""
    if text.strip() == "none":
        return {}
    path = Path(text)
    if path.is_file():
        from ensemble_kit import strict_json

        if path.suffix.lower() == ".json":
            values = strict_json.load(path)
            if isinstance(values, dict) and all(isinstance(v, str) for v in values.values()):
                return values
            raise _bad_swap(text)
        try:
            parts: Iterable[str] = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise _bad_swap(text) from None
    else:
        parts = text.split(",")
    split = [tuple(n.strip() for n in part.split("=")) for part in parts]
    if not all(len(pair) == 2 and all(pair) for pair in split) or len({p[0] for p in split}) != len(split):
        raise _bad_swap(text)
    return {pair[0]: pair[1] for pair in split}


def _bad_swap(text: str) -> UsageError:
    return UsageError(
        "swap-classes",
        "cannot read pairs of classes",
        item=f"--swap-classes {text!r}",
        fix='pass A=B,C=D, a file with A=B a line or JSON {"A": "B"}, or none',
    )


_SIDES = re.compile(r"(?<![a-z])(left|right|lt|rt|l|r|lh|rh|dexter|sinister)(?![a-z])", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(Left|Right|L|R)(?![a-z])|^(left|right)(?=[A-Z])|^(Left|Right|L|R)(?=[A-Z][a-z])")
_OTHER = {"left": "right", "lt": "rt", "l": "r", "lh": "rh", "sinister": "dexter"}
_OTHER |= {b: a for a, b in _OTHER.items()}


def likely_pairs(classes: Sequence[str]) -> dict[str, str]:
    """Find classes whose names look like the left and the right of one thing, such as `lung_left`, `lung_right`."""
    by_fold = {c.casefold(): c for c in classes}
    pairs: dict[str, str] = {}
    for name in classes:
        for sides in (_SIDES, _CAMEL):
            other = by_fold.get(sides.sub(lambda m: _OTHER[m[0].casefold()], name).casefold())
            if other is not None and other != name and name not in pairs.values():
                pairs[name] = other
    return pairs


def check_sides(classes: Sequence[str], group: Sequence[Symmetry], pairs: Mapping[str, str] | None) -> None:
    """Refuse to mirror left and right classes into each other unless the caller said what becomes of them."""
    likely = likely_pairs(classes)
    if pairs is None and likely and any(s.mirror for s in group):
        swap = ",".join(f"{a}={b}" for a, b in likely.items())
        raise UsageError(
            "sides-merge",
            "refused to average flips that would merge left and right",
            item="; ".join(f"{a!r} and {b!r}" for a, b in likely.items()) + " look like the two sides of one thing",
            fix=f"pass --swap-classes '{swap}', or --swap-classes none if a mirror leaves these classes as they are",
        )
