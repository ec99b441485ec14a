"""What earlier runs left in a store, and whether this run may add to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, some

_FREE = {"versions", "device", "seed", "created"}
"""What may change between the runs that fill one store."""


@dataclass(frozen=True)
class Begun:
    """What earlier runs left: the samples that are committed; `stale` where none are, of a run with other options."""

    committed: frozenset[str] = frozenset()
    stale: bool = False


def begun(out: str | Path, ours: Mapping[str, Any]) -> Begun:
    """Find what is committed in a store.

    Parameters
    ----------
    ours : provenance of this run, and its `classes`, `samples` (a set), `member` and `codec`.

    Raises
    ------
    UsageError
        `out` is a file.
    MismatchError
        Samples were committed with another recipe, model, or list.
    """
    from ensemble_kit.logits.store import LogitStore

    there = Path(out)
    if there.is_file():
        item = f"{str(out)!r} is a file, a store is a folder"
        raise UsageError("output-kind", "cannot make a store", item=item, fix="pass another --out")
    if there.is_dir() and not any(there.iterdir()):
        return Begun()
    try:
        store = LogitStore(os.fspath(out))
    except IncompleteError:  # there is nothing yet
        return Begun()
    committed = frozenset(store.samples) - frozenset(store.missing)
    theirs = {
        **store.provenance,
        "classes": list(store.classes),
        "samples": set(store.samples),
        "member": store.member,
        "codec": store.codec,
    }
    different = [k for k in sorted({*theirs, *ours} - _FREE) if theirs.get(k) != ours.get(k)]
    if different and committed:
        told = "; ".join(_difference(k, theirs.get(k), ours.get(k)) for k in different[:3])
        fix = "run with the options it was begun with, pass another --out, or replace it with --force"
        raise MismatchError(
            "store-differs", "cannot resume a store of another run", item=f"{str(out)!r}: {told}", fix=fix
        )
    return Begun(committed, stale=bool(different))


def _difference(key: str, theirs: Any, ours: Any) -> str:
    if key == "samples":
        gone, new = sorted(theirs - ours), sorted(ours - theirs)
        return f"samples only there: {some(gone) or 'none'}, only here: {some(new) or 'none'}"
    return f"{key} is {theirs!r:.200} there, {ours!r:.200} here"
