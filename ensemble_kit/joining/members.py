"""Whether members fit each other: one activation, names apart, each store once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.logits.folds import Folds, StoreMember, stores_of
from ensemble_kit.logits.store import LogitStore


def check_members(members: Sequence[StoreMember]) -> None:
    """Refuse members that cannot be fused, whatever their classes are.

    Raises
    ------
    UsageError
        One store twice.
    MismatchError
        Members of different activations, or of one name where one has folds.
    """
    check_distinct([store for member in members for store in stores_of(member)])
    _check_names(members)
    first = members[0]
    for other in members[1:]:
        if other.activation != first.activation:
            item = f"{first.member!r} is {first.activation}, {other.member!r} is {other.activation}"
            alone = "soft-vote each kind alone and combine the two with a hard vote"
            raise MismatchError("activation-differs", "cannot mix sigmoid and softmax members", item=item, fix=alone)


def _check_names(members: Sequence[StoreMember]) -> None:
    """Refuse a name that was given to some stores, and that another member has by itself."""
    for one, other in combinations(members, 2):
        if one.member == other.member and (isinstance(one, Folds) or isinstance(other, Folds)):
            paths = [str(store.path) for member in (one, other) for store in stores_of(member)]
            raise MismatchError(
                "members-namesakes",
                "cannot tell members apart",
                item=f"{some(paths)}: some are named {one.member!r}, and another calls itself so",
                fix=f"write {one.member}=PATH before each to make them folds of one member, or NAME=PATH with another "
                "name; in Python pass a mapping, name → path or list of paths",
            )


def check_distinct(members: Sequence[LogitStore], how: Sequence[Hashable] | None = None) -> None:
    """Refuse one store twice, which would count twice: through a link, as a copy or as its packed file too.

    Parameters
    ----------
    how : how each member decides; one store may decide in two ways.

    Raises
    ------
    UsageError
        Two have one id.
    """
    known: dict[Hashable, LogitStore] = {}
    for store, way in zip(members, how or [None] * len(members), strict=True):
        other = known.get((store.uuid, way))
        if other is not None:
            paths = list(dict.fromkeys(str(s.path) for s in (other, store)))
            raise twice(paths, f"one store, {store.uuid[:8]}")
        known[store.uuid, way] = store


def twice(paths: Sequence[str], what: str) -> UsageError:
    """Say that a member is named twice.

    Parameters
    ----------
    paths : where it is: one path, or two that lead to the same.
    what : what they hold, such as "one store".
    """
    item = f"{paths[0]} is named twice" if len(paths) == 1 else f"{paths[0]} and {paths[1]} are {what}"
    fix = "name each member once; where one is to count twice, give it twice the weight of the others"
    return UsageError("member-twice", "cannot count one member as two", item=item, fix=fix)
