"""`Reframed`: a member whose image is another one, of which it saw all, or a part of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from ensemble_kit.scores.mosaics import mosaic_of
from ensemble_kit.spec.geometry import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Member, TiledMember, VolumeMember
    from ensemble_kit.spec.fusion import Activation
    from ensemble_kit.spec.geometry import Placement, Shape
    from ensemble_kit.spec.mosaic import Mosaic


@dataclass(frozen=True)
class Reframed:
    """A member whose box covers another image than its own.

    Parameters
    ----------
    of : the member.
    image : size of the other image, of which it saw all; None is the member's own window.
    within : pixels of its own image that are the other image, its window among them.
    """

    of: Member
    image: Shape | None = None
    within: Box | None = None

    @property
    def member(self) -> str:
        """Name of the model."""
        return self.of.member

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits' first axis."""
        return self.of.classes

    @property
    def activation(self) -> Activation:
        """What turns the logits into probabilities."""
        return self.of.activation

    def read(self, sample: str) -> NDArray[np.float16]:
        """Return a sample's logits."""
        return self.of.read(sample)

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Return some slices of a volume's logits."""
        return cast("VolumeMember", self.of).read_slab(sample, first, stop)

    def mosaic(self, sample: str) -> Mosaic | None:
        """Return where the tiles of a scene lie; None of other samples."""
        return mosaic_of(self.of, sample)

    def read_tile(self, sample: str, number: int) -> NDArray[np.float16]:
        """Return the logits of one tile."""
        return cast("TiledMember", self.of).read_tile(sample, number)

    def placement(self, sample: str) -> Placement:
        """Return where the other image lies on the grid."""
        own = self.of.placement(sample)
        if self.within is not None:
            edges = zip(own.covered, self.within.start * 2, strict=True)
            return replace(own, image=self.within.shape, window=Box(*(edge - start for edge, start in edges)))
        return replace(own, image=self.image or own.covered.shape, window=None)
