"""Test-time augmentation: average a network over the flips and turns of its input.

Outputs are averaged in float32 as the network puts them out: logits where it puts out logits, which for two
outputs is the geometric mean of the odds; probabilities where the domain says so.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ensemble_kit.errors import MismatchError, check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        """Compose: `first`, then this one; a mirror reverses the turns before it."""
        turns = self.turns + (-first.turns if self.mirror else first.turns)
        return Symmetry(turns % 4, self.mirror != first.mirror)


GENERATORS = {"hflip": Symmetry(0, True), "vflip": Symmetry(2, True), "rot90": Symmetry(1, False)}


def symmetries(names: Sequence[str]) -> tuple[Symmetry, ...]:
    """List the group that the named flips make, identity first: two flips make four, rot90 with one makes eight."""
    for name in names:
        check_choice("--tta", name, tuple(GENERATORS))
    group = {Symmetry(0, False)}
    while True:
        grown = group | {GENERATORS[n].after(s) for n in names for s in group}
        if grown == group:
            return tuple(sorted(group, key=lambda s: (s.mirror, s.turns)))
        group = grown


class Averaged:
    """A network averaged over symmetries of its input."""

    def __init__(
        self, network: Network, group: Sequence[Symmetry], orders: Sequence[list[int] | None] | None = None
    ) -> None:
        """Wrap `network`; `orders[k][c]` is the class that `c` becomes under the k-th symmetry; None: all stay."""
        self._network, self._group = network, tuple(group)
        self._orders = tuple(orders) if orders is not None else (None,) * len(self._group)
        self.size, self.channels = network.size, network.channels

    def put(self, images: NDArray[np.float32]) -> Any:
        """Bring a batch to where the network runs."""
        return self._network.put(images)

    def forward(self, x: Any) -> Any:
        """Average the network's outputs for each symmetry of the input, turned back: float32 (B, C, h', w')."""
        total: Any = None
        for symmetry, order in zip(self._group, self._orders, strict=True):
            y = symmetry.undo(self._network.forward(symmetry.apply(x)))
            if order is not None and y.shape[1] == len(order):
                y = y[:, order]
            if total is not None and total.shape != y.shape:
                item = f"outputs of {tuple(total.shape)} and {tuple(y.shape)}"
                fix = "leave rot90 out of --tta, or pass a square --size"
                raise MismatchError("model-output", "cannot average flips", item=item, fix=fix)
            total = y if total is None else total + y
        return total / len(self._group)

    def get(self, y: Any) -> NDArray[np.float32]:
        """Bring outputs back."""
        return self._network.get(y)

    def record(self) -> dict[str, Any]:
        """Return what ran."""
        return self._network.record()
