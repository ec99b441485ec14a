"""Whether what the kit promises of new samples holds: by halving all samples of a set, many times.

Validation and test images of a set are put together, their groups are divided at random into two halves; the first is
tuned on or calibrates, the second judges.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from bench import Bench

import ensemble_kit as ek
from ensemble_kit.tuning.folds import group_of

SPLITS = 10
ALPHA = 0.1


@dataclass(frozen=True)
class Half:
    """Some of the samples with their truth."""

    ensemble: ek.Ensemble
    truth: ek.MaskSet
    groups: int


@dataclass(frozen=True)
class Pool:
    """All samples of a set."""

    bench: Bench

    @cached_property
    def ensemble(self) -> ek.Ensemble:
        """Open stores of all samples, which are written once."""
        return ek.Ensemble([self._joined(member) for member in self.bench.members])

    def _joined(self, member: str) -> Path:
        path = self.bench.folder / "all" / f"{member}.zarr"
        path.parent.mkdir(exist_ok=True)
        parts = [ek.LogitStore(self.bench.folder / part / path.name) for part in ("val", "test")]
        first, samples = parts[0], [s for store in parts for s in store.samples]
        with ek.LogitWriter(path, first.classes, samples, first.grid, first.activation, member, checked=True) as out:
            missing = set(out.missing)
            for store in parts:
                for sample in missing & set(store.samples):
                    out.write(sample, store.read(sample), store.image_size(sample))
        return path

    @cached_property
    def truth(self) -> ek.MaskSet:
        return ek.MaskSet({(s, c): t[s, c] for t in self.bench.truth.values() for s in t.samples for c in t.classes})

    def halves(self, splits: int) -> Iterator[tuple[Half, Half]]:
        """Divide the groups, `splits` times."""
        names = np.array(group_of(self.ensemble.samples, self.bench.groups))
        groups = np.unique(names)
        for seed in range(splits):
            first = np.random.default_rng(seed).permutation(groups)[: len(groups) // 2]
            inside = np.isin(names, first)
            yield self._half(names, inside), self._half(names, ~inside)

    def _half(self, names: np.ndarray, inside: np.ndarray) -> Half:
        samples = [s for s, own in zip(self.ensemble.samples, inside, strict=True) if own]
        truth = self.truth.arranged(samples, self.truth.classes)
        return Half(self.ensemble.on(samples), truth, len(set(names[inside])))


def interval(bench: Bench, splits: int = SPLITS) -> dict[str, Any]:
    """In how many splits the stated prediction interval holds the score of the other half, and how wide it is."""
    inside, widths, off = [], [], []
    for tuned_on, judge in Pool(bench).halves(splits):
        found = ek.tune_thresholds(tuned_on.ensemble, tuned_on.truth, folds="auto", groups=bench.groups)
        stated = found.validation.crossed.expected_score(judge.groups)
        masks = judge.ensemble.as_tuned(found).vote(found)
        score = ek.dice(masks, judge.truth).score(bench.measure)
        inside.append(stated.low <= score <= stated.high)
        widths.append(stated.high - stated.low)
        off.append(score - stated.value)
    return {"splits": splits, "held": sum(inside), "width": float(np.median(widths)), "off": float(np.mean(off))}


def risk(bench: Bench, splits: int = SPLITS) -> dict[str, Any]:
    """The share of the truth that is missed on the other half: mean over classes and splits, and the worst class."""
    from ensemble_kit import control_risk

    missed = []
    for calibrates, judge in Pool(bench).halves(splits):
        found = control_risk(calibrates.ensemble, calibrates.truth, ALPHA, groups=bench.groups)
        counts = ek.dice(judge.ensemble.as_tuned(found).vote(found), judge.truth)
        share = np.where(counts.truth > 0, 1 - counts.tp / np.maximum(counts.truth, 1), 0.0)
        groups = np.unique(group_of(counts.samples, bench.groups), return_inverse=True)[1]
        means = [share[groups == g].mean(0) for g in range(groups.max() + 1)]
        missed.append(np.mean(means, 0))
    per_class = np.mean(missed, 0)
    return {"splits": splits, "alpha": ALPHA, "mean": float(per_class.mean()), "worst": float(per_class.max())}


def review(bench: Bench) -> dict[str, Any]:
    """Spearman's correlation of each test image's expected Dice with its true one, after the default tuning."""
    from scipy.stats import spearmanr

    found = ek.tune_thresholds(bench.val, bench.truth["val"], folds="auto", groups=bench.groups)
    test = bench.open("test").as_tuned(found)
    expected, true = test.review(found), ek.dice(test.vote(found), bench.truth["test"])
    mine = dict(zip(expected.samples, expected.scores, strict=True))
    values = [mine[s] for s in true.samples], np.nanmean(true.values, axis=1)
    return {"images": len(true.samples), "spearman": float(spearmanr(*values).statistic)}


CHECKS = {"interval": interval, "risk": risk, "review": review}


def check(bench: Bench, key: str) -> dict[str, Any] | None:
    """Run one check; None where the set cannot have it: control of the risk is of overlapping classes."""
    if key == "risk" and bench.exclusive:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return CHECKS[key](bench)
