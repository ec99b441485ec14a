"""What the user passes as members: stores, or names with the stores of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from ensemble_kit.errors import UsageError, check_kind, check_several
from ensemble_kit.logits.folds import Folds, StoreMember
from ensemble_kit.logits.store import LogitStore

Store = str | os.PathLike[str] | LogitStore
Members = Store | Iterable[Store | Folds] | Mapping[str, Store | Sequence[Store]]

_KINDS = "pass a list of stores, their paths or LogitStores; or a mapping, name → path or list of paths"


def members_of(given: Members, common: bool = False) -> list[StoreMember]:
    """Open members, in the order in which they were given.

    Parameters
    ----------
    common : whether folds that share some of their samples are averaged on those that all of them hold.

    Raises
    ------
    UsageError
        There is none, or a name that is not a text, or has no store.
    MismatchError
        Stores of one name that are not folds of one member.
    """
    if isinstance(given, str | os.PathLike | LogitStore):
        given = [given]
    check_several("members", given, _KINDS)
    if isinstance(given, Mapping):
        found: list[StoreMember] = [named(name, stores, common) for name, stores in given.items()]
    else:
        found = [member if isinstance(member, Folds) else _opened(member) for member in given]
    if not found:
        raise UsageError("members-none", "cannot fuse members", item="there is none", fix="pass at least one store")
    return found


def named(name: object, given: Store | Sequence[Store], common: bool = False) -> Folds:
    """Open the stores of one name; parameters and errors as for `members_of`."""
    check_kind("a member's name", name, str, _KINDS)
    stores = [given] if isinstance(given, str | os.PathLike | LogitStore) else given
    check_several(f"the stores of member {name!r}", stores, _KINDS)
    if not str(name).strip() or not stores:
        item = f"member {name!r} has no store" if str(name).strip() else "a name is blank"
        raise UsageError("members-none", "cannot fuse members", item=item, fix=_KINDS)
    return Folds.of(str(name), [_opened(store) for store in stores], common)


def _opened(store: Store) -> LogitStore:
    return store if isinstance(store, LogitStore) else LogitStore(store)
