"""Members of different class sets: which classes an ensemble has, and what a member without one of them says.

The arithmetic: docs/concepts.md#rule-17-members-of-other-class-sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from ensemble_kit.errors import MismatchError, check_choice, some
from ensemble_kit.masks.alignment import check_same_classes
from ensemble_kit.once import once
from ensemble_kit.scores.mosaics import mosaic_of
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Member, TiledMember, VolumeMember
    from ensemble_kit.spec.fusion import Activation
    from ensemble_kit.spec.geometry import Placement, Shape
    from ensemble_kit.spec.georeference import WorldGeometry
    from ensemble_kit.spec.mosaic import Mosaic
    from ensemble_kit.spec.void import Pixels

ClassSets = Literal["same", "common", "union"]

LOWEST = np.finfo(np.float16).min
"""The logit of an exclusive class that a member does not have: −∞, as rule 9 reads it."""


def joined_classes(members: Sequence[Member], how: ClassSets) -> tuple[str, ...]:
    """Return the classes of an ensemble, in an order that does not depend on that of its members.

    It is that of the member with the most classes, the first by name of equals; what it lacks follows.

    Parameters
    ----------
    members : sorted by name.
    how : "same" refuses members of different classes, "common" takes those that all members have, "union" those of any.

    Raises
    ------
    MismatchError
        Different classes with "same"; with "common" none, or of exclusive classes one alone, or no background where a
        member has one.
    UsageError
        Another word.
    """
    check_choice("classes", how, ("same", "common", "union"))
    widest = sorted(members, key=lambda m: -len(m.classes))  # stable: by name
    every = tuple(dict.fromkeys(name for m in widest for name in m.classes))
    if how == "union":
        return every
    if how == "same":
        for other in members[1:]:
            names = repr(members[0].member), repr(other.member)
            fix = (
                "dump all members with the same class names, whose order does not matter; or pass classes='union' "
                "(--member-classes union) to fuse each class over the members that have it, or 'common' to leave out "
                "what some of them lack"
            )
            check_same_classes(
                members[0].classes, other.classes, names, "cannot fuse members of different classes", fix
            )
        return members[0].classes
    shared = tuple(name for name in every if all(name in m.classes for m in members))
    exclusive = members[0].activation == "softmax"
    if not shared or (exclusive and len(shared) == 1 < len(every)):
        found = f"only {some(shared)} in common" if shared else "no class in common"
        raise _refused(f"{some([m.member for m in members])} have {found}, which is not enough")
    lost = [(m.member, c) for m in members for c in m.classes if is_background(c) and c not in shared]
    if exclusive and lost:
        member, name = lost[0]
        raise _refused(f"{name!r} of {member!r} would be left out, so that each of its pixels took another class")
    return shared


def beside(
    members: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return which classes each member has besides these, and which of these it lacks; members without are left out."""
    known, held = set(classes), {name: set(own) for name, own in members.items()}
    further = {name: tuple(c for c in own if c not in known) for name, own in members.items()}
    lacking = {name: tuple(c for c in classes if c not in held[name]) for name in members}
    return {k: v for k, v in further.items() if v}, {k: v for k, v in lacking.items() if v}


def _refused(item: str) -> MismatchError:
    fix = "pass classes='union' (--member-classes union), which fuses each class over the members that have it"
    return MismatchError(
        "classes-not-common", "cannot fuse the classes that members have in common", item=item, fix=fix
    )


def view(member: Member, classes: Sequence[str]) -> Member:
    """Return a member of exclusive classes as one of these classes; itself where it has them, and of overlapping ones.

    Overlapping classes are each read by themselves: those that a member lacks weigh nothing there.
    """
    if member.activation == "sigmoid" or set(member.classes) == set(classes):
        return member
    own = [name for name in member.classes if name in classes]
    return ClassView(member, (*own, *(name for name in classes if name not in own)))


@dataclass(frozen=True)
class ClassView:
    """A member of exclusive classes as if its network had these classes, with a logit of −∞ for those that it lacks.

    Parameters
    ----------
    of : the member.
    classes : of the view: what the member has of them in its own order, then the others.
    """

    of: Member
    classes: tuple[str, ...]

    @once
    def _rows(self) -> NDArray[np.int64]:
        return np.array([self.of.classes.index(name) for name in self.classes if name in self.of.classes], np.int64)

    def _viewed(self, logits: NDArray[np.float16]) -> NDArray[np.float16]:
        out = np.full((len(self.classes), *logits.shape[1:]), LOWEST, np.float16)
        out[: self._rows.size] = logits[self._rows]
        return out

    @property
    def member(self) -> str:
        """Name of the model."""
        return self.of.member

    @property
    def activation(self) -> Activation:
        """What turns the logits into probabilities."""
        return self.of.activation

    @property
    def grid(self) -> Shape | None:
        """The grid of all samples; None where each may have its own."""
        return getattr(self.of, "grid", None)

    def read(self, sample: str) -> NDArray[np.float16]:
        """Return a sample's logits, float16 (C, *grid)."""
        return self._viewed(self.of.read(sample))

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Return some slices of a volume's logits."""
        return self._viewed(cast("VolumeMember", self.of).read_slab(sample, first, stop))

    def mosaic(self, sample: str) -> Mosaic | None:
        """Return where the tiles of a scene lie; None of other samples."""
        return mosaic_of(self.of, sample)

    def read_tile(self, sample: str, number: int) -> NDArray[np.float16]:
        """Return the logits of one tile."""
        return self._viewed(cast("TiledMember", self.of).read_tile(sample, number))

    def placement(self, sample: str) -> Placement:
        """Return where the sample's image lies on the grid."""
        return self.of.placement(sample)

    def void(self, sample: str) -> Pixels | None:
        """Return the runs of pixels at which a scene's image holds no data; None where it has all."""
        own = getattr(self.of, "void", None)
        return None if own is None else cast("Pixels | None", own(sample))

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a volume or a scene lies, if it is known."""
        own = getattr(self.of, "geometry", None)
        return None if own is None else cast("WorldGeometry | None", own(sample))
