"""`Member`, the interface of a store to fusing, and `Inputs`, members with their fusion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Protocol

from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.fusion import Activation, Fusion
from ensemble_kit.spec.geometry import Box, Placement, as_text
from ensemble_kit.spec.georeference import WorldGeometry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.spec.mosaic import Mosaic


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


class VolumeMember(Member, Protocol):
    """A member of volumes: it reads some slices of one without the others."""

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Return the slices `first … stop - 1` of a volume's logits, float16 (C, slices, h, w)."""


class TiledMember(Member, Protocol):
    """A member that saw scenes tile by tile; a sample that it holds as a whole has no mosaic, and is read."""

    def mosaic(self, sample: str) -> Mosaic | None:
        """Return which cells of the sample's grid each of its tiles covers; None where it has none."""

    def read_tile(self, sample: str, number: int) -> NDArray[np.float16]:
        """Return the logits of a tile, float16 (C, h, w) of its box."""


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

    def extent(self, samples: Sequence[str], classes: tuple[str, ...]) -> Extent:
        """Return what a vote makes masks of: these samples, with the sizes of their images.

        A volume or a scene lies where the first member says that knows it. Its windows are those of the members that
        are heard, where none of them saw all of the image.
        """
        sizes = {sample: self.members[0].placement(sample).image for sample in samples}
        plain = self._plain
        geometry = {} if plain else {s: own for s in samples if (own := self.geometry(s)) is not None}
        windows = {} if plain else {s: seen for s in samples if (seen := self._windows(s))}
        return Extent(classes, sizes, geometry, windows)

    def _windows(self, sample: str) -> tuple[Box, ...]:
        places = [member.placement(sample) for member in self.heard.members]
        seen = [p.window for p in places if p.window is not None]
        return tuple(dict.fromkeys(seen)) if len(seen) == len(places) else ()

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a sample's volume lies in the world, or its scene on the Earth; None where no member says it."""
        found = (own(sample) for m in self.members if (own := getattr(m, "geometry", None)) is not None)
        return next((geometry for geometry in found if geometry is not None), None)

    @property
    def _plain(self) -> bool:
        """Whether all members have one grid of images: such stores keep no geometry, no window and no void."""
        return all(len(getattr(m, "grid", None) or ()) == 2 for m in self.members)

    def voids(self, samples: Iterable[str]) -> dict[str, Runs]:
        """Return the pixels at which scenes' images hold no data, of the samples that have such."""
        if self._plain:
            return {}
        return {sample: own for sample in samples if (own := self.void(sample)) is not None}

    def void(self, sample: str) -> Runs | None:
        """Return the pixels at which a scene's image holds no data, as the members say; None where it has all."""
        if self._plain:
            return None
        found = [own for m in self.heard.members if (own := getattr(m, "void", lambda _: None)(sample)) is not None]
        return reduce(or_, (Runs.trusted((v.starts, v.ends), v.shape) for v in found)) if found else None

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


def check_one_image(inputs: Inputs, sample: str, placements: Sequence[Placement]) -> None:
    """Refuse members that saw images of different sizes, or of which one saw a volume and another an image.

    Raises
    ------
    MismatchError
        It names two members, with both sizes.
    """
    first, names = placements[0], [m.member for m in inputs.members]
    for name, placement in zip(names, placements, strict=True):
        if len(placement.image) != len(first.image):
            raise MismatchError(
                "ranks-differ",
                "cannot fuse images with volumes",
                item=f"sample {sample!r}: {as_text(first.image)} in {names[0]!r}, "
                f"{as_text(placement.image)} in {name!r}",
                fix="pass members of volumes only, or of images only; a volume of one slice is (C, 1, h, w)",
            )
        if placement.image != first.image:
            raise MismatchError(
                "image-size-differs",
                "cannot fuse members that saw images of different sizes",
                item=f"sample {sample!r}: {as_text(first.image)} in {names[0]!r}, "
                f"{as_text(placement.image)} in {name!r}",
                fix="dump both members from the same images",
            )
