"""What a page says of the vote that made its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble_kit.errors import Caution
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.mean import Mean
from ensemble_kit.thresholds.members import MemberRecord


@dataclass(frozen=True)
class Voted:
    """What is told of a vote, as values that a part can keep.

    Parameters
    ----------
    told, doubts : how it was voted, and what the user may not have meant.
    members : a row of the table of members for each.
    mean : the scale of its thresholds.
    softmax : whether the stores are.
    ruled : whether masks were post-processed.
    background : the class that it leaves out, if any.
    """

    told: tuple[str, ...]
    doubts: tuple[Caution, ...]
    members: tuple[tuple[str, ...], ...]
    mean: Mean
    softmax: bool
    ruled: bool
    background: str | None

    @classmethod
    def of(cls, vote: SoftVote) -> Voted:
        """Tell of a vote."""
        e, background = vote.ensemble, getattr(vote.decision, "background", None)
        members = member_rows(e.fusion, e.records)
        softmax = e.activation == "softmax"
        return cls(
            tuple(vote.told()), tuple(vote.doubts()), members, e.fusion.mean, softmax, bool(vote.rules), background
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; the inverse of `from_dict`."""
        return {**vars(self), "mean": str(self.mean)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Voted:
        """Read what `to_dict` returned."""
        told, members = tuple(map(str, d["told"])), tuple(tuple(map(str, row)) for row in d["members"])
        doubts, background = tuple(Caution(*map(str, own)) for own in d["doubts"]), d["background"]
        background = None if background is None else str(background)
        return cls(told, doubts, members, Mean.of(d["mean"]), bool(d["softmax"]), bool(d["ruled"]), background)


def member_rows(fusion: Fusion, records: Sequence[MemberRecord]) -> tuple[tuple[str, ...], ...]:
    """List members with their weights and digests."""
    spans = [(w.min(), w.max()) for w in np.array(fusion.weights).T / 65536]
    return tuple(
        (r.name, f"{low:.4f}" if low == high else f"{low:.4f}–{high:.4f}", str(len(r.parts)),
         f"{temperature:g}", r.fingerprint[:16], (r.model or "not known")[:16])
        for r, (low, high), temperature in zip(records, spans, fusion.temperatures, strict=True)
    )  # fmt: skip
