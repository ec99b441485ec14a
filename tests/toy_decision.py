"""A decision in one file: the brightest pixels of every class, as many as a share of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble_kit.decisions.decision import Decision
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS


@dataclass(frozen=True)
class Brightest:
    """Turn on the pixels that no more than `share` of the image outscore."""

    share: float

    def check(self, inputs: Inputs) -> None:
        """Any members will do."""

    def written(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        return classes

    def excludes(self, inputs: Inputs) -> bool:
        return False

    def told(self) -> str:
        return f"the brightest {self.share:g} of the image"

    def __call__(self, scores: FusedSample) -> ManyRuns:
        counted = scores.counts(dict.fromkeys(range(len(scores.inputs.classes)), (0, LEVELS)))
        levels = {}
        for c in range(len(scores.inputs.classes)):
            found, pixels, *_ = counted.of(c)
            few = found[pixels <= self.share * np.prod(scores.image)]
            levels[c] = int(few[0]) if few.size else LEVELS
        return scores.decide(levels)


_: type[Decision] = Brightest
