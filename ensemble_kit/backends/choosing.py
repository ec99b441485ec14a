"""Which of a network's several outputs holds the logits: the one that was asked for, or what most frameworks mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ensemble_kit.errors import MismatchError, some

PREFERRED = ("logits", "out", "output")
"""Names of the main output: of Hugging Face, of torchvision, of exporters."""


class Output(NamedTuple):
    """One output: its name or its index, and its shape, of which lengths that are not known are text or None."""

    name: str | int
    shape: tuple[object, ...]

    @property
    def is_map(self) -> bool:
        """Whether it can be maps of classes, (B, C, h, w)."""
        return len(self.shape) == 4

    @property
    def cells(self) -> int:
        """Cells of its grid; 0 where that is not known."""
        h, w = self.shape[2:4] if self.is_map else (None, None)
        return h * w if isinstance(h, int) and isinstance(w, int) else 0

    def __str__(self) -> str:
        return f"{self.name!r} ({', '.join(str(n) for n in self.shape)})"


def choose(outputs: Sequence[Output], asked: str | int | None, ordered: bool) -> tuple[int, str]:
    """Choose an output; return its position, and what to tell the user: nothing where there is no choice.

    Parameters
    ----------
    asked : its name, or its position: -1 is the last. None: the one that is called logits, out or output; else, where
        outputs have an order, the first that can be maps of classes.
    ordered : whether they have an order, as those of a list and of an ONNX file have, and those of a dict have not.

    Raises
    ------
    MismatchError
        There is no such output; none of a dict has a known name; or the first is coarser than another, as where a
        network with deep supervision lists its deepest output first.
    """
    if asked is not None:
        return _asked(outputs, asked), ""
    maps = [k for k, output in enumerate(outputs) if output.is_map]
    names = [output.name for output in outputs]
    named = [names.index(name) for name in PREFERRED if name in names]
    if not named and not ordered:
        raise _unnamed(outputs, maps)
    chosen = ([k for k in named if k in maps] or named or maps or [0])[0]
    if len(maps) < 2:
        return chosen, ""
    finest = max((outputs[k] for k in maps), key=lambda output: output.cells)
    listed = "; ".join(str(outputs[k]) for k in maps)
    if not named and 0 < outputs[chosen].cells < finest.cells:
        raise MismatchError(
            "output-ambiguous",
            "cannot tell which output holds the logits",
            item=f"the network has outputs {listed}: {names[chosen]!r} comes first, {finest.name!r} is the finest",
            fix=f"pass --output {finest.name} for the finest, or --output {names[chosen]} for the first",
        )
    alike = [outputs[k].name for k in maps if k != chosen and outputs[k].shape == outputs[chosen].shape]
    told = f"the network has outputs {listed}: {names[chosen]!r} is taken"
    told += f", although {some(alike)} {'has' if len(alike) == 1 else 'have'} the same shape" if alike else ""
    other, which = (maps[-1], "last") if chosen != maps[-1] else (maps[0], "first")
    return chosen, f"{told}; pass --output {names[other]} for the {which}"


def _asked(outputs: Sequence[Output], asked: str | int) -> int:
    names = [output.name for output in outputs]
    for name in (asked, str(asked)):  # exporters number their names, too
        if name in names:
            return names.index(name)
    if isinstance(asked, int) and -len(names) <= asked < len(names):
        return asked % len(names)
    raise MismatchError(
        "output-missing",
        "cannot find the output that was asked for",
        item=f"--output {asked}; the network has outputs {'; '.join(map(str, outputs))}",
        fix=f"pass --output {names[0]}, another of these names, or a number that counts from 0 (-1 is the last)",
    )


def _unnamed(outputs: Sequence[Output], maps: Sequence[int]) -> MismatchError:
    item = f"a dict of {'; '.join(map(str, outputs)) or 'nothing'}"
    asked = " or ".join(f"--output {outputs[k].name}" for k in maps[:5])
    fix = f"pass {asked}; or return a tensor (B, C, h, w), or a dict with 'logits' or 'out'"
    what = "cannot find the logits in what the network returns"
    return MismatchError("model-output", what, item=item, fix=fix.removeprefix("pass ; or "))
