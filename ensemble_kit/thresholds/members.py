"""`MemberRecord`: a member as a set, a stack or a fused store records it, with the folds that it had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ensemble_kit.thresholds.fields import as_list, as_text


class Described(Protocol):
    """A member's store, as far as it is recorded."""

    @property
    def fingerprint(self) -> str:
        """Digest of what the store holds."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the store."""


@dataclass(frozen=True)
class FoldRecord:
    """One fold of a member: the digest of its store, and that of its model; None if unknown."""

    fingerprint: str
    model: str | None


@dataclass(frozen=True)
class MemberRecord:
    """A member: its name, the digest of its store, and that of its model; None if unknown.

    Parameters
    ----------
    fingerprint : of several folds the digest of all.
    model : of several folds None: each has its own.
    folds : of a member that has several, in the order of their fingerprints.
    """

    name: str
    fingerprint: str
    model: str | None
    folds: tuple[FoldRecord, ...] = ()

    @classmethod
    def of(cls, name: str, fingerprint: str, stores: Sequence[Described]) -> MemberRecord:
        """Record a member's stores."""
        folds = tuple(FoldRecord(store.fingerprint, _model_digest(store.provenance)) for store in stores)
        return cls(name, fingerprint, folds[0].model) if len(folds) == 1 else cls(name, fingerprint, None, folds)

    @property
    def parts(self) -> tuple[FoldRecord, ...]:
        """Its folds, or the member itself."""
        return self.folds or (FoldRecord(self.fingerprint, self.model),)

    @property
    def models(self) -> set[str | None]:
        """Digests of the models of its folds."""
        return {part.model for part in self.parts}

    def is_other(self, tuned: MemberRecord) -> bool:
        """Tell whether networks are recorded on both sides, and none is on both; other folds are of the same member."""
        known = None not in self.models | tuned.models
        return known and self.models.isdisjoint(tuned.models)

    def folds_told(self, tuned: MemberRecord) -> str | None:
        """Say what makes other folds than those that were tuned on the same member; None where neither has several."""
        if not self.folds and not tuned.folds:
            return None
        before, now = (f"{len(r.parts)} {'fold' if len(r.parts) == 1 else 'folds'}" for r in (tuned, self))
        if self.fingerprint == tuned.fingerprint:
            return f"{self.name}: {now}, the stores that the set was tuned on"
        told = "their networks are not recorded, so that only the name says that they are of one member"
        if None not in self.models | tuned.models:
            same = sum(part.model in tuned.models for part in self.parts)
            told = f"{same} of {len(self.parts)} networks are among those that it was tuned with"
        return f"{self.name}: {now} for the {before} that the set was tuned on; {told}"

    def to_dict(self) -> dict[str, Any]:
        """Return what files hold of it (docs/storage.md)."""
        folds = [{"fingerprint": f.fingerprint, "model": f.model} for f in self.folds]
        own = {"name": self.name, "fingerprint": self.fingerprint, "model": self.model}
        return {**own, "folds": folds} if folds else own

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> MemberRecord:
        """Read it; a TypeError, ValueError or KeyError where it is not one."""
        folds = [FoldRecord(as_text(f["fingerprint"]), _text_or_none(f["model"])) for f in as_list(d.get("folds", []))]
        if len(folds) == 1:
            raise ValueError(f"member {d['name']!r} lists one fold alone")
        return cls(as_text(d["name"]), as_text(d["fingerprint"]), _text_or_none(d["model"]), tuple(folds))


def stores_in(members: Iterable[MemberRecord]) -> set[str]:
    """Collect the fingerprints of all stores of some members."""
    return {part.fingerprint for member in members for part in member.parts}


def _text_or_none(value: object) -> str | None:
    return None if value is None else as_text(value)


def _model_digest(provenance: Mapping[str, Any]) -> str | None:
    """Digest the network and the preparation of images; None where the store does not record them."""
    network = provenance.get("network_sha256")
    if not isinstance(network, str):
        return None
    recipe = {k: provenance.get(k) for k in ("preprocessing", "tta", "tile", "overlap", "scale", "clamp")}
    recipe |= {"swap": provenance.get("swap_classes") or None, **{k: provenance[k] for k in _LATER if k in provenance}}
    return hashlib.sha256(json.dumps([network, recipe], sort_keys=True).encode()).hexdigest()


_LATER = ("output", "tile_weights", "axes")
"""Keys of the provenance that former versions did not write: without them a digest stays what it was."""
