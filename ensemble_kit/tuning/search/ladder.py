"""A ladder of settings: what is tried step by step, and which steps gain above noise on samples that did not choose.

Every step changes one thing of the setting so far. The best of its candidates is taken where it gains more out of fold
than one standard error of that gain over groups; so among equals the simpler setting stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Interval
from ensemble_kit.tuning.competing import Ratio
from ensemble_kit.tuning.resampling import Counts, Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["plain", "fitted", "areas", "rank"]
"""How masks are decided: at 0.5 or factors of 1; by what is fitted; with least areas too; by the rank rule."""

KINDS: tuple[Kind, ...] = ("plain", "fitted", "areas")


@dataclass(frozen=True)
class Candidate:
    """A setting in which only thresholds, least areas or factors are fitted.

    Parameters
    ----------
    shares : how often each member counts; all 1 is the ensemble as it was given.
    mean : what is averaged.
    kind : how masks are decided.
    ratio : of `compete`; None without.
    rules : texts of further rules.
    """

    shares: tuple[int, ...]
    mean: str
    kind: Kind = "plain"
    ratio: Ratio = None
    rules: tuple[str, ...] = ()

    @property
    def fusion(self) -> tuple[tuple[int, ...], str]:
        """What its counts depend on: shares and mean."""
        return self.shares, self.mean

    def told(self, members: Sequence[str], factors: bool) -> str:
        """Return the setting in words.

        Parameters
        ----------
        members : their names.
        factors : whether masks are decided by argmax.
        """
        words = {
            "plain": "argmax" if factors else "0.5",
            "fitted": "factors" if factors else "thresholds",
            "areas": "thresholds and least areas",
            "rank": "rank rule",
        }
        told = [f"mean of {self.mean}"]
        if set(self.shares) != {1}:
            told.append(" + ".join(n if s == 1 else f"{s} {n}" for n, s in zip(members, self.shares, strict=True) if s))
        told += [words[self.kind], *([] if self.ratio is None else [f"compete:{self.ratio:g}"]), *self.rules]
        return ", ".join(told)


class Step(NamedTuple):
    """One thing that may change: its name, the candidates after a setting, and whether it is tried again when taken."""

    name: str
    candidates: Callable[[Candidate], list[Candidate]]
    repeats: bool = False


@dataclass(frozen=True)
class Menu:
    """What an ensemble allows to try.

    Parameters
    ----------
    kinds : those after "plain".
    ratios : of `compete`.
    means : other means than the ensemble's own.
    members : whether members may be left out and counted twice.
    rules : texts of rules, one at a time.
    rank : means with which the rank rule may decide.
    """

    kinds: tuple[Kind, ...]
    ratios: tuple[float, ...]
    means: tuple[str, ...]
    members: bool
    rules: tuple[str, ...]
    rank: tuple[str, ...]

    def steps(self) -> list[Step]:
        """Return the steps in their order."""
        fitting = [Step(name, _with_kind(kind)) for kind, name in _KINDS.items() if kind in self.kinds]
        members = [
            Step("leave a member out", _without_one, repeats=True),
            Step("count a member twice", _with_one_doubled),
        ]
        return [
            *fitting,
            Step("competition", self._competing),
            Step("mean", lambda c: [replace(c, mean=mean) for mean in self.means]),
            *(members if self.members else []),
            Step("rules", lambda c: [replace(c, rules=(*c.rules, text)) for text in self.rules]),
            Step("rank rule", self._ranked),
        ]

    def _ranked(self, now: Candidate) -> list[Candidate]:
        return [replace(now, kind="rank", ratio=None, rules=())] if now.mean in self.rank else []

    def _competing(self, now: Candidate) -> list[Candidate]:
        kinds = [k for k in KINDS[KINDS.index(now.kind) :] if k in ("plain", *self.kinds)]
        return [replace(now, ratio=ratio, kind=kind) for kind in kinds for ratio in self.ratios]


_KINDS: dict[Kind, str] = {"fitted": "thresholds or factors", "areas": "least areas"}


def _with_kind(kind: Kind) -> Callable[[Candidate], list[Candidate]]:
    return lambda now: [replace(now, kind=kind)]


def _without_one(now: Candidate) -> list[Candidate]:
    heard = [m for m, share in enumerate(now.shares) if share]
    if len(heard) < 2:
        return []
    return [replace(now, shares=tuple(0 if k == m else s for k, s in enumerate(now.shares))) for m in heard]


def _with_one_doubled(now: Candidate) -> list[Candidate]:
    heard = [m for m, share in enumerate(now.shares) if share]
    if len(heard) < 2:
        return []
    return [replace(now, shares=tuple(2 * s if k == m else s for k, s in enumerate(now.shares))) for m in heard]


class Counted(Protocol):
    """Counts of every candidate: hits and pixels, int64 (classes, samples)."""

    measure: Measure
    truth: NDArray[np.int64]
    folds: Sequence[NDArray[np.int64]]

    def prepare(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Count what candidates need; return those that can be judged, fewer where time is up."""

    def counts(self, candidate: Candidate, which: tuple[int, ...]) -> Counts:
        """Return what a candidate does that was fitted on some folds; samples of other folds count, or all of all."""


@dataclass(frozen=True)
class Rung:
    """The best candidate of a step.

    Parameters
    ----------
    step : its name.
    score : out of fold.
    gain : over the setting so far, out of fold; None for the start, and where nobody reads it.
    taken : whether the gain exceeds one standard error.
    """

    step: str
    candidate: Candidate
    score: float
    gain: Interval | None
    taken: bool

    def to_dict(self, members: Sequence[str], factors: bool) -> dict[str, Any]:
        """Return what a set records."""
        gain = None if self.gain is None else [round(v, 9) for v in (self.gain.value, self.gain.low, self.gain.high)]
        return {
            "step": self.step,
            "setting": self.candidate.told(members, factors),
            "out_of_fold": round(self.score, 9),
            "gain": gain,
            "taken": self.taken,
        }


def out_of_fold(bench: Counted, candidate: Candidate, which: Sequence[int]) -> Counts:
    """Fill in each of some folds what a candidate does there that was fitted on the others of them; zeros elsewhere."""
    tp, pred = np.zeros_like(bench.truth), np.zeros_like(bench.truth)
    for j in which:
        own = bench.counts(candidate, tuple(i for i in which if i != j))
        tp[:, bench.folds[j]], pred[:, bench.folds[j]] = (v[:, bench.folds[j]] for v in own)
    return tp, pred


def of_classes(counts: Counts, pick: slice | NDArray[np.bool_]) -> Counts:
    """Return the counts of some classes."""
    return counts[0][pick], counts[1][pick]


def climb(
    bench: Counted, start: Candidate, steps: Sequence[Step], judge: Resampler, which: Sequence[int], told: bool = False
) -> list[Rung]:
    """Try every step in turn, and take the best candidate of each where it gains above noise.

    Parameters
    ----------
    which : folds whose samples judge, each by what the others of them fitted.
    told : whether to find intervals of the gains, of all samples.

    Returns
    -------
    list of Rung
        The start, then one for each step that had candidates; the last that was taken is the choice.
    """
    seen = np.concatenate([bench.folds[j] for j in which])
    some = np.any(bench.truth[:, seen], axis=1).reshape(-1)  # of an absent class only false pixels would speak

    def score(counts: Counts) -> float:
        return bench.measure.of_all(*(v[:, seen] for v in (*counts, bench.truth)))

    bench.prepare([start])
    now, counts = start, out_of_fold(bench, start, which)
    rungs = [Rung("start", start, score(counts), None, taken=True)]
    for step in steps:
        again = True
        while again:
            tried = bench.prepare([c for c in step.candidates(now) if c != now])
            if not tried:
                break
            found = [out_of_fold(bench, candidate, which) for candidate in tried]
            scores = [score(own) for own in found]
            best = int(np.argmax(np.nan_to_num(scores, nan=-1.0)))
            pair = of_classes(found[best], some), of_classes(counts, some), bench.truth[some]
            taken = scores[best] > score(counts) and judge.above_noise(bench.measure, *pair, seen)
            gain = judge.interval(bench.measure, *pair) if told else None
            rungs.append(Rung(step.name, tried[best], scores[best], gain, taken))
            if taken:
                now, counts = tried[best], found[best]
            again = taken and step.repeats
    return rungs


def chosen(rungs: Sequence[Rung]) -> Rung:
    """Return the last rung that was taken."""
    return [rung for rung in rungs if rung.taken][-1]
