"""STAPLE: the truth and every member's quality at once, by expectation maximisation over patterns of votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ensemble_kit.decisions.patterns import Ballots
from ensemble_kit.errors import check_choice, check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scope = Literal["sample", "pooled"]
WHAT = "cannot fuse labels"
_ROUNDING = 1e-9  # two members of whom one has nothing on are a tie in theory, and either side of it in float64
_BY_CLASS, _BY_LABEL = 1e-7, 1e-5  # ITK's: a root mean square of 1e-14, and TerminationUpdateThreshold


class Estimate(NamedTuple):
    """What one expectation maximisation found.

    Parameters
    ----------
    theta : float64 (M, L, L), how often a member says the first label where the second is true; 0 where that never is.
    prior : float64 (L,), shares of the labels.
    iterations : how many were made.
    converged : whether the last one moved nothing by more than the tolerance.
    """

    theta: NDArray[np.float64]
    prior: NDArray[np.float64]
    iterations: int
    converged: bool

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """How often each member says a label where it is true, float64 (M, L); NaN where it never is."""
        there = self.theta.sum(axis=1) > 0
        return np.where(there, np.einsum("mtt->mt", self.theta), np.nan)

    @property
    def specificity(self) -> NDArray[np.float64]:
        """How often each member says no other label's pixel is of a label, float64 (M, L); NaN where all are."""
        there = self.theta.sum(axis=1) > 0
        share = np.where(there, self.prior, 0)
        others = share.sum(axis=1, keepdims=True) - share
        wrong = np.einsum("mst,mt->ms", self.theta, share) - np.einsum("mtt,mt->mt", self.theta, share)
        return np.divide(others - wrong, others, out=np.full_like(others, np.nan), where=others > 0)


@dataclass(frozen=True)
class Staple:
    """Fuse labels by STAPLE, which estimates the truth and how well each member hits it, in turn.

    Of overlapping classes each is decided by itself (Warfield, Zou, Wells, "Simultaneous truth and performance level
    estimation (STAPLE)", IEEE Trans. Medical Imaging 23(7), 2004). With the sensitivity p and the specificity q of
    member j and the prior γ, the probability that a pixel with the votes d is on is

        W = γ a / (γ a + (1 - γ) b),  a = Π p_j (d_j on) · (1 - p_j) (d_j off),  b = Π (1 - q_j) (on) · q_j (off)

    and then p_j = Σ W over the pixels that j has on / Σ W, q_j = Σ (1 - W) over those it has off / Σ (1 - W), until
    nothing moves by more than the tolerance. A pixel is on where W ≥ 0.5. γ is the share of "on" over all members and
    pixels, and the first W that of the members that have a pixel on: as in ITK's STAPLEImageFilter. With by="label" a
    matrix for each member takes the place of p and q (ITK's MultiLabelSTAPLEImageFilter; Dawid and Skene, Applied
    Statistics 28, 1979), seeded from the majority without ties, and a pixel takes its most probable label; of an exact
    tie none.

    Parameters
    ----------
    scope : "sample" estimates for each sample (and class) by itself, as ITK does; "pooled" once for all samples.
    region : the pixels that estimates are made of. "all"; or "disagreement", those on which not all members agree. The
        more background there is, the closer all specificities come to 1, and what one member has on stays on.
    iterations : the most of one estimate.
    tolerance : None is ITK's: 1e-7, and 1e-5 with by="label".

    Raises
    ------
    UsageError
        Another scope or region, no iteration, a negative tolerance.

    Examples
    --------
    >>> str(Staple("pooled", region="disagreement"))
    'staple:pooled,region=disagreement'
    """

    scope: Scope = "sample"
    region: Literal["all", "disagreement"] = "all"
    iterations: int = 10_000
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, ("sample", "pooled"), WHAT)
        check_choice("region", self.region, ("all", "disagreement"), WHAT)
        check_number("iterations", self.iterations, "pass 1 or more", least=1, whole=True, what=WHAT)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, "pass a number of at least 0", least=0, below=1, what=WHAT)

    def __str__(self) -> str:
        return written("staple", self, self.scope)

    @property
    def needs(self) -> int:
        """How many members it takes: of two, each disagreement alone is as much one's fault as the other's."""
        return 3 if self.region == "disagreement" else 1

    def told(self, members: int, by: str) -> str:
        """Say how a pixel is decided, and over what estimates are made."""
        each = {"sample": "each sample", "pooled": "all samples together"}[self.scope]
        pixels = "all pixels" if self.region == "all" else "the pixels on which members disagree"
        if by == "label":
            return (
                f"multi-label STAPLE of {members} members, estimated for {each} over {pixels}: a pixel takes its most "
                "probable label, of an exact tie none"
            )
        each += " and class" if self.scope == "sample" else ", class by class"
        return f"STAPLE of {members} members, estimated for {each} over {pixels}: on where the probability is ≥ 0.5"

    def fuse(self, ballots: Ballots, by: str) -> tuple[NDArray[np.int64], Estimate]:
        """Decide every pattern: the label, int64 (P,), -1 is none; with by="class" 1 is on and 0 is off."""
        from ensemble_kit.kernels import patterns as kernels

        counts, (labels, pixels, kinds) = ballots.counts, ballots
        heard = counts.sum(axis=1)
        agreed = (counts.max(axis=1) == heard) & (heard > 0)
        out = (heard == 0) | agreed if self.region == "disagreement" else heard == 0
        pixels = np.where(out, 0, pixels)
        votes = (pixels[:, None] * counts).sum(axis=0)
        if not votes.any():  # nothing to estimate: all agree, or none votes
            nothing = Estimate(np.zeros((labels.shape[1], kinds, kinds)), np.zeros(kinds), 0, True)
            return _most(counts, by), nothing
        prior = votes / votes.sum()
        if by == "label":
            weights = np.empty(counts.shape)
            kernels.expect(labels, _seed(ballots, pixels), prior, weights)
        else:
            weights = counts / np.maximum(heard, 1)[:, None]
        tolerance = self.tolerance if self.tolerance is not None else _BY_LABEL if by == "label" else _BY_CLASS
        theta, made, change = kernels.estimate(labels, pixels, weights, prior, tolerance, self.iterations)
        decided = weights.argmax(axis=1) if by == "label" else (weights[:, 1] >= 0.5 - _ROUNDING).astype(np.int64)
        if by == "label":
            decided[(weights >= weights.max(axis=1, keepdims=True) - _ROUNDING).sum(axis=1) > 1] = -1
        decided = np.where(out, _most(counts, by), decided)
        return decided, Estimate(theta, prior, made, bool(change <= tolerance))


def written(name: str, method: object, scope: str) -> str:
    """Write a method as the text that makes it: what is as by default is left out."""
    kind = type(method)
    given = [scope] if scope != "sample" else []
    for key, default in vars(kind()).items():
        value = getattr(method, key)
        if key != "scope" and value != default:
            given.append(f"{key}={value}")
    return ":".join([name, *([",".join(given)] if given else [])])


def _most(counts: NDArray[np.int64], by: str) -> NDArray[np.int64]:
    """Return the label of the most members, -1 (with by="class" 0) where none votes or the first two tie."""
    best = counts.max(axis=1)
    clear = (best > 0) & ((counts == best[:, None]).sum(axis=1) == 1)
    return np.where(clear, counts.argmax(axis=1), -1 if by == "label" else 0)


def _seed(ballots: Ballots, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Count what each member says against the majority, without its ties; each row of a matrix adds up to 1, or 0."""
    major, theta = _most(ballots.counts, "label"), np.zeros((ballots.labels.shape[1], ballots.kinds, ballots.kinds))
    for m, said in enumerate(ballots.labels.T):
        counted = (said >= 0) & (major >= 0)
        np.add.at(theta[m], (said[counted], major[counted]), pixels[counted])
    total = theta.sum(axis=2, keepdims=True)
    return np.divide(theta, total, out=theta, where=total > 0)
