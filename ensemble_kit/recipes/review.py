"""The list that `ensk review` prints."""

from __future__ import annotations

from ensemble_kit.decisions.review import Review
from ensemble_kit.reports.report import Report

SCORE = "score: the mean over classes of the Dice that each mask is expected to get"


def report(review: Review, first: int) -> Report:
    """Lay out the first samples: their score, and the class that is expected to be worst."""
    rows = []
    for rank, sample, score, own in review.rows(first):
        worst = min(range(len(own)), key=own.__getitem__)
        rows.append([str(rank), sample, f"{score:.4f}", review.classes[worst], f"{own[worst]:.4f}"])
    title = f"the first {len(rows)} of {len(review.samples)} samples to look at"
    return Report(
        title, ["rank", "sample", "score", "lowest", "its score"], rows, f"{SCORE}; lowest: the class of the lowest"
    )
