"""What `ensk inspect` shows of several stores: the folds of each member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import EnskError, UsageError

if TYPE_CHECKING:
    from ensemble_kit.cli.plain import Shown
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.recipes.members import MemberPaths


def inspect_folds(members: Sequence[MemberPaths]) -> tuple[dict[str, Any], list[Shown]]:
    """Show stores by the member whose folds they are: by the names that the user gave, else by the stores' own.

    Raises
    ------
    UsageError
        Something else than a store among them.
    """
    from ensemble_kit.logits.store import LogitStore

    stores: dict[str, list[LogitStore]] = {}
    for member in members:
        if not member.is_store:
            item = f"{member} is not a store, beside stores"
            fix = "pass stores alone, or one path, or two threshold sets"
            raise UsageError("paths-count", "cannot inspect these together", item=item, fix=fix)
        for store in map(LogitStore, member.paths):
            stores.setdefault(member.name or store.member, []).append(store)
    values, shown = list[dict[str, Any]](), list[Any]()
    for name, own in stores.items():
        facts, rows = _member(name, own)
        values.append({**facts, "stores": rows})
        shown += [facts, _table(rows)]
    return {"kind": "logit stores", "members": values}, shown


def _member(name: str, stores: Sequence[LogitStore]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ensemble_kit.logits.folds import Folds

    facts: dict[str, Any] = {"member": name, "folds": len(stores)}
    try:
        folds = Folds.of(name, stores)
    except EnskError as error:  # they are shown all the same
        facts["cannot be one member"] = error.item
    else:
        if len(stores) > 1:
            facts["together"] = "joined: each holds other samples" if folds.joined else "averaged: all hold the same"
        facts |= {
            "activation": folds.activation,
            "classes": list(folds.classes),
            "samples": len(folds.samples),
            "missing": len(folds.missing),
            "fingerprint": folds.fingerprint,
        }
    rows = [
        {
            "store": str(store.path),
            "samples": len(store.samples),
            "committed": len(store.samples) - len(store.missing),
            "grid": "x".join(map(str, store.grid)) if store.grid else "a grid each",
            "network": str(store.provenance.get("network_sha256") or "not recorded")[:16],
            "fingerprint": store.fingerprint,
        }
        for store in sorted(stores, key=lambda store: store.fingerprint)
    ]
    return facts, rows


def _table(rows: Sequence[dict[str, Any]]) -> Shown:
    from ensemble_kit.reports.report import Report

    shown = [[str(row[key])[:16] if key == "fingerprint" else str(row[key]) for key in row] for row in rows]
    return Report("", list(rows[0]), shown, "Folds in the order of their fingerprints, by which ties are settled.")
