"""The seam between the kit and frameworks: what a network can do, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNDECIDED = (
    "return what is there before argmax or the threshold, (B, C, h, w); a network that was exported with argmax inside "
    "is exported again without it"
)
"""What to do about an output that was decided already."""


class Network(Protocol):
    """A network that maps images, float32 (B, channels, h, w), to outputs (B, C, h', w') on a grid of its own.

    What stands between `put` and `get` belongs to the framework, so that flips are averaged where the network runs.

    The smallest one::

        class Identity:
            size = None
            channels = None
            def put(self, images): return images
            def forward(self, x): return x
            def get(self, y): return y
            def record(self): return {}
    """

    @property
    def size(self) -> tuple[int, int] | None:
        """The only (h, w) that it takes; None where it takes others too."""

    @property
    def channels(self) -> int | None:
        """How many channels it takes, as far as can be seen from outside; None where nothing tells."""

    def put(self, images: NDArray[np.float32]) -> Any:
        """Bring a batch to where the network runs."""

    def forward(self, x: Any) -> Any:
        """Run the network; return float32 (B, C, h', w') in the framework's own array type."""

    def get(self, y: Any) -> NDArray[np.float32]:
        """Bring outputs back."""

    def record(self) -> dict[str, Any]:
        """Return what ran, for the store's provenance: file digests, versions, device."""


@dataclass(frozen=True)
class Options:
    """How a network is to be opened.

    Parameters
    ----------
    weights : file of a state dict to load into it.
    device : "auto", or a device by its name, such as "cpu" or "cuda:1".
    half : whether to run in float16.
    trust : whether files that can run code may be opened.
    seed : of random numbers, set before the network is built.
    output : which of several outputs holds the logits: its name or its position; None: see `choosing.choose`.
    weights_key : where in the file of weights the state dict is; None: see `weights.load_weights`.
    say : receives notes that only a first run can give.
    """

    weights: str | Path | None = None
    device: str = "auto"
    half: bool = False
    trust: bool = False
    seed: int = 0
    output: str | int | None = None
    weights_key: str | None = None
    say: Callable[[str], None] = lambda _: None


def check_undecided(shape: tuple[int, ...], kind: str) -> None:
    """Refuse whole numbers, which are classes or what is on, and no logits.

    Raises
    ------
    UsageError
        They are.
    """
    if "int" in kind or "bool" in kind:
        item = f"the network put out {shape} of type {kind}"
        raise UsageError("output-class-map", "cannot store a class map in place of logits", item=item, fix=UNDECIDED)
