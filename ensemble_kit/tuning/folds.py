"""Groups of samples, and folds that no group crosses."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, check_kind, check_number, some
from ensemble_kit.remote.copies import local

if TYPE_CHECKING:
    from numpy.typing import NDArray

Groups = Mapping[str, str] | str | None


def read_groups(text: str | None) -> Groups:
    """Read groups as the user typed them: the path of a CSV file of sample,group, or a regular expression.

    Returns
    -------
    Groups
        What `group_of` takes.

    Raises
    ------
    IncompleteError
        A name that ends in .csv is not that of a file.
    DamagedError
        The file is not CSV in UTF-8, has rows of other than two fields, or names a sample twice.
    """
    if text is None:
        return None
    named = Path(text).suffix.lower() == ".csv"  # as an expression it would end in any character and "csv"
    file = local(text) if named else Path(text)
    if not file.is_file():
        if named:
            fix = "check the path, or pass a regular expression that does not end in .csv"
            raise IncompleteError("input-missing", "cannot read groups", item=f"{text} does not exist", fix=fix)
        return text
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(text, error, "save it as CSV in UTF-8") from None
    for k, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise _damaged(text, f"row {k} has {len(row)} fields", "write two columns: sample,group")
    groups = dict(rows)
    if len(groups) != len(rows):
        raise _damaged(text, "it names a sample twice", "keep one")
    return groups


def group_of(samples: Sequence[str], groups: Groups) -> list[str]:
    """Name the group of each sample.

    Parameters
    ----------
    groups : None makes each sample a group of its own; a mapping names each sample's; a regular expression is
        searched in the sample's id, and its first group (or the whole match) is the name.

    Raises
    ------
    MismatchError
        A sample without a group.
    UsageError
        Not a regular expression.
    """
    if groups is None:
        return list(samples)
    if isinstance(groups, str):
        try:
            pattern = re.compile(groups)
        except re.error as error:
            raise UsageError(
                "groups-invalid",
                "cannot group samples",
                item=f"{groups!r} is not a regular expression ({error})",
                fix="pass one whose first group is the name, such as '^(ID[0-9]+)', or a file",
            ) from None
        found = {s: pattern.search(s) for s in samples}
        named = {s: m[1] if m.re.groups else m[0] for s, m in found.items() if m is not None}
    else:
        check_kind("the groups", groups, Mapping, "pass a mapping of sample to group, or a regular expression")
        named = {s: str(groups[s]) for s in samples if s in groups}
    by = f" by the expression {groups!r}" if isinstance(groups, str) else ""
    missing = [s for s in samples if named.get(s) is None]
    if missing:
        raise MismatchError(
            "groups-missing",
            "cannot group samples",
            item=f"{len(missing)} of {len(samples)} have no group{by}: {some(missing)}",
            fix="name the group of every sample, in the file or by the expression",
        )
    return [named[s] for s in samples]


def make_folds(samples: Sequence[str], folds: int, groups: Groups, seed: int) -> list[NDArray[np.int64]]:
    """Share samples out into folds, with no group on both sides of a split.

    Groups are taken in a seeded order, the largest first, each into the fold that is smallest so far.

    Returns
    -------
    list of int64 arrays
        Sample numbers of each fold.

    Raises
    ------
    UsageError
        Fewer than 3 folds (the decision inside a fold needs 2 more), or fewer groups than folds; no seed.
    """
    check_number("seed", seed, "pass a whole number, 0 or more", least=0, whole=True)
    names = group_of(samples, groups)
    members: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        members.setdefault(name, []).append(k)
    if folds < 3 or len(members) < folds:
        raise UsageError(
            "folds-invalid",
            "cannot cross-validate",
            item=f"{folds} folds of {len(members)} groups ({len(samples)} samples)",
            fix="pass 3 or more folds, at most one per group; or 0 for none",
        )
    order = np.random.default_rng(seed).permutation(sorted(members))
    out: list[list[int]] = [[] for _ in range(folds)]
    for name in sorted(order.tolist(), key=lambda n: -len(members[n])):  # stable: ties stay in the seeded order
        min(out, key=len).extend(members[name])
    return [np.array(sorted(fold), np.int64) for fold in out]


def _damaged(text: str, why: object, fix: str) -> DamagedError:
    return DamagedError("groups-invalid", "cannot read groups", item=f"{text!r}: {why}", fix=fix)
