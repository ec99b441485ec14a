"""What earlier runs left in a store, and whether this run may add to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, some

_FREE = {"versions", "device", "seed", "created"}
"""What may change between the runs that fill one store."""


@dataclass(frozen=True)
class Begun:
    """What earlier runs left.

    Parameters
    ----------
    committed : samples that are in the store.
    stale : whether there are none, of a run with other options.
    sources : digest of the file that each was made from, where it was recorded.
    """

    committed: frozenset[str] = frozenset()
    stale: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)


def begun(out: str | Path, ours: Mapping[str, Any], unknown: Collection[str] = ()) -> Begun:
    """Find what is committed in a store.

    Parameters
    ----------
    ours : provenance of this run, and its `classes`, `samples` (a set), `member` and `codec`.
    unknown : what this run cannot tell yet, and may differ.

    Raises
    ------
    UsageError
        `out` is a file, or a folder of other things.
    MismatchError
        Samples were committed with another recipe, model, or list.
    """
    from ensemble_kit.logits.store import LogitStore

    there = Path(out)
    if there.is_file():
        item = f"{str(out)!r} is a file, a store is a folder"
        raise UsageError("output-kind", "cannot make a store", item=item, fix="pass another --out")
    if there.is_dir():
        if not any(there.iterdir()):
            return Begun()
        check_replaceable(there)
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
    different = [k for k in sorted({*theirs, *ours} - _FREE - {*unknown}) if theirs.get(k) != ours.get(k)]
    if different and committed:
        told = "; ".join(differences({k: theirs.get(k) for k in different}, {k: ours.get(k) for k in different}))
        fix = "run with the options it was begun with, pass another --out, or replace it with --force"
        raise MismatchError(
            "store-differs", "cannot resume a store of another run", item=f"{str(out)!r}: {told}", fix=fix
        )
    sources = {s: store.source(s) for s in committed}
    return Begun(committed, bool(different), {s: digest for s, digest in sources.items() if digest})


def check_replaceable(out: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds other things than a store, which is neither resumed nor replaced.

    Raises
    ------
    UsageError
        It does.
    """
    from ensemble_kit.logits.open import is_store

    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()) and not is_store(folder):
        item = f"{os.fspath(out)!r} is a folder of other things than a store of logits"
        raise UsageError("output-foreign", "cannot make a store", item=item, fix="pass another --out")


def changed(
    earlier: Begun, samples: Sequence[str], digest: Callable[[str], str], jobs: int, redo: bool, out: str | Path
) -> list[str]:
    """List the samples whose file is another one than when they were dumped.

    Parameters
    ----------
    samples : those to look at.
    digest : of what a sample is made from; "" where it cannot be read.
    redo : whether they are dumped again; if not, they are refused.

    Raises
    ------
    MismatchError
        A file was changed, and `redo` was not asked for.
    """
    known = [s for s in samples if s in earlier.sources]
    with ThreadPoolExecutor(jobs) as pool:
        digests = pool.map(digest, known)
        found = [s for s, now in zip(known, digests, strict=True) if now and now != earlier.sources[s]]
    if found and not redo:
        item = f"{len(found)} of {len(samples)} changed since {str(out)!r} was written: {some(found)}"
        fix = "pass --redo to dump these samples again, or put the former files back"
        raise MismatchError("image-changed", "cannot resume: images are not those that were dumped", item=item, fix=fix)
    return found


def differences(theirs: Any, ours: Any, most: int = 3) -> list[str]:
    """Say where values of JSON differ, by the innermost key at which they do; sets by their items."""
    return list(islice(_differences("", theirs, ours), most))


def _differences(key: str, theirs: Any, ours: Any) -> Iterator[str]:
    if theirs == ours:
        return
    if isinstance(theirs, set) and isinstance(ours, set):
        gone, new = sorted(theirs - ours), sorted(ours - theirs)
        yield f"{key} only there: {some(gone) or 'none'}, only here: {some(new) or 'none'}"
    elif isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for k in sorted({*theirs, *ours}):
            yield from _differences(f"{key}.{k}" if key else k, theirs.get(k), ours.get(k))
    elif _are_records(theirs) and _are_records(ours) and len(theirs) == len(ours):
        for k, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(f"{key}[{k}]", their, our)
    else:
        yield f"{key} is {theirs!r:.200} there, {ours!r:.200} here"


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
