"""`Argmax`: each pixel takes the class of the largest score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ensemble_kit.errors import MismatchError, UsageError, check_kind, check_number, some
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.factors import LARGEST, ONE, integer_factor
from ensemble_kit.spec.mean import PROBABILITY


@dataclass(frozen=True)
class Argmax:
    """Give each pixel to one class: the one of the largest score times its factor, ties to the first of the classes.

    Parameters
    ----------
    factors : factor by class, 1/128 … 128; a class that is not named has 1. They are rounded to 1/65536.
    background : a class that takes its pixels, and whose mask is not written.
    least : probability in [0, 1] that the fused score of the pixel's class must reach, or the pixel has no class.

    Raises
    ------
    UsageError
        A factor outside 1/128 … 128, `least` outside [0, 1].

    Examples
    --------
    >>> Argmax({"tumour": 2}, background="rest").told()
    "each pixel takes the class of the largest score (factors: tumour 2), 'rest' is not written"
    """

    factors: Mapping[str, float] | None = None
    background: str | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        if self.factors is not None:
            check_kind("factors", self.factors, Mapping, "pass them by class: {'tumour': 2}")
            for name, factor in self.factors.items():
                check_number(
                    f"factor of {name!r}", factor, f"pass a number from 1/{LARGEST} to {LARGEST}; 1 changes nothing",
                    least=1 / LARGEST, most=LARGEST, what="cannot decide", code="factor-invalid",
                )  # fmt: skip
            object.__setattr__(self, "factors", {name: integer_factor(f) / ONE for name, f in self.factors.items()})
        if self.least is not None:
            fix, code = "pass a probability in [0, 1]", "threshold-invalid"
            check_number("least", self.least, fix, least=0, most=1, what="cannot decide", code=code)

    def __hash__(self) -> int:
        return hash((tuple(sorted((self.factors or {}).items())), self.background, self.least))

    def check(self, inputs: Inputs) -> None:
        """Refuse other classes than those of the factors and the background.

        Raises
        ------
        MismatchError
            A factor or a background of a class that the members do not have.
        UsageError
            Members of one class, which would take every pixel.
        """
        unknown = [name for name in (*(self.factors or ()), self.background) if name not in (*inputs.classes, None)]
        if unknown:
            raise MismatchError(
                "classes-differ",
                "cannot decide by argmax",
                item=f"no class is called {some(unknown)}; the members have {some(inputs.classes)}",
                fix="pass factors and a background of these classes",
            )
        if len(inputs.classes) < 2:
            raise UsageError(
                "argmax-one-class",
                "cannot decide by argmax",
                item=f"{inputs.classes[0]!r} is the only class and would take every pixel",
                fix="pass a threshold (--decide threshold --thresholds 0.5)",
            )

    def in_order(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        """Return the integer factors of classes, 65536 for 1, in their order."""
        return tuple(integer_factor((self.factors or {}).get(name, 1)) for name in classes)

    def written(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes whose masks are kept: all but the background."""
        return tuple(name for name in classes if name != self.background)

    def excludes(self, inputs: Inputs) -> bool:  # noqa: ARG002 - the protocol's argument
        """Tell whether each pixel gets one class at most."""
        return True

    def told(self) -> str:
        """Return the rule in words."""
        changed = [f"{name} {f:.6g}" for name, f in (self.factors or {}).items() if f != 1]
        words = "each pixel takes the class of the largest score"
        words += f" (factors: {', '.join(changed)})" if changed else ""
        words += f", {self.background!r} is not written" if self.background is not None else ""
        return words + (f"; below {self.least:g} it has no class" if self.least else "")

    def __call__(self, scores: FusedSample) -> ManyRuns:
        """Decide all classes in one pass over the sample's logits."""
        inputs, least = scores.inputs, None
        if self.least is not None:
            shared = inputs.activation == "softmax" and inputs.fusion.mean.of_logits
            least = (PROBABILITY if shared else inputs.fusion.mean).level_of(self.least)
        return scores.winners(self.in_order(inputs.classes), least)
