"""`Member`, the interface of a store to fusing, and `Inputs`, members with their fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.fusion import Activation, Fusion
from ensemble_kit.spec.geometry import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_DECIDE = "cannot decide each class of softmax members by itself"
_OR_ARGMAX = "decide by Argmax() (--decide argmax)"


class Member(Protocol):
    """One model's logits, sample by sample. `LogitStore` is one; the smallest holds arrays::

    class Arrays:
        member, activation = "unet", "sigmoid"

        def __init__(self, classes, logits, image):
            self.classes, self._logits, self._image = classes, logits, image

        def read(self, sample):
            return self._logits[sample]

        def placement(self, sample):
            return Placement.of(self._logits[sample].shape[1:], self._image)
    """

    @property
    def member(self) -> str:
        """Name of the model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits' first axis."""

    @property
    def activation(self) -> Activation:
        """What turns the logits into probabilities."""

    def read(self, sample: str) -> NDArray[np.float16]:
        """Return a sample's logits, float16 (C, *grid)."""

    def placement(self, sample: str) -> Placement:
        """Return where the sample's image lies on the grid."""


@dataclass(frozen=True)
class Inputs:
    """Members, the classes in the order of the answer, and how they are fused; a value that can be pickled.

    Parameters
    ----------
    members : in the order of the fusion's weights, all of one activation; each has every class, in any order.
    classes : names.
    fusion : weights, mean, temperatures, upsampling.
    """

    members: tuple[Member, ...]
    classes: tuple[str, ...]
    fusion: Fusion

    @property
    def activation(self) -> Activation:
        """What turns the members' logits into probabilities."""
        return self.members[0].activation

    @property
    def heard(self) -> Inputs:
        """Leave out the members whose weights are all 0: they are not read."""
        which = self.fusion.heard
        if len(which) == len(self.members):
            return self
        return Inputs(tuple(self.members[m] for m in which), self.classes, self.fusion.of(which))

    def check_each_class(self, what: str = _DECIDE, fix: str = _OR_ARGMAX) -> None:
        """Refuse to look at a class by itself where its score is only comparable with those of the other classes.

        Parameters
        ----------
        what, fix : what cannot be done, and what to do instead of mean="logit", for the error.

        Raises
        ------
        UsageError
            Exclusive classes with mean="logit".
        """
        if self.activation == "softmax" and self.fusion.mean.of_logits:
            raise UsageError(
                "softmax-option",
                what,
                item="mean='logit': averaged logits of exclusive classes compare classes, and are not probabilities",
                fix=f"pass mean='probability' (--mean probability), or {fix}",
            )
