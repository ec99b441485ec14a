"""Samples with counts by level, or with contenders of argmax, that are split at random into those to tune on and others.

A folder of a set holds `val/` and `test/` with one store a member, their masks `val.npz` and `test.npz`, and may hold
`groups.csv` (sample,group). Its validation and test samples are put together and dealt out anew, by groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA
from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.spec.mean import Mean
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable, concatenated
from ensemble_kit.tuning.folds import group_of, read_groups
from ensemble_kit.tuning.gathering import exclusive_truth, gather
from ensemble_kit.tuning.statistics import count

GOLDEN = Path(__file__).parent.parent / "golden"
LOW, HIGH, HALF = 3277, 62260, 32768
LEVELS = np.unique(np.linspace(LOW + 200, HIGH - 1, 60).astype(np.uint16))


@dataclass(frozen=True)
class Samples:
    """Some samples: a table of counts for each class or one of contenders, and the group of each sample.

    Parameters
    ----------
    gathered : returns the contenders for a larger ratio of factors.
    """

    tables: tuple[ClassStatistics, ...] | ContenderTable
    names: tuple[str, ...]
    gathered: Callable[[int], ContenderTable] | None = None

    @property
    def by_argmax(self) -> bool:
        """Whether they are decided by argmax."""
        return isinstance(self.tables, ContenderTable)

    def taken(self, samples: Sequence[int]) -> Samples:
        """Keep some samples."""
        names = tuple(self.names[s] for s in samples)
        if isinstance(self.tables, ContenderTable):
            gathered = self.gathered
            assert gathered is not None
            return Samples(_contenders_of(self.tables, samples), names, lambda r: _contenders_of(gathered(r), samples))
        return Samples(tuple(_table_of(table, samples) for table in self.tables), names)

    def halves(self, seed: int) -> tuple[Samples, Samples]:
        """Deal the groups out into two halves."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(sorted(set(self.names))).tolist()
        first = set(order[: len(order) // 2])
        parts = [[k for k, name in enumerate(self.names) if (name in first) is own] for own in (True, False)]
        return self.taken(parts[0]), self.taken(parts[1])


def drawn(rng: np.random.Generator, n: int, classes: int, off: float, each: int = 1) -> Samples:
    """Draw `n` samples: true and false pixels have normal logits, whose means differ by class, group and sample.

    Parameters
    ----------
    off : how far classes' scores lie from calibrated ones.
    each : samples of a group, which are alike; 1: every sample is a group.
    """
    out, like = [], 0.9 if each > 1 else 0.0

    def normal() -> np.ndarray:
        shared = np.repeat(rng.normal(size=-(-n // each)), each)[:n]
        return np.sqrt(like) * shared + np.sqrt(1 - like) * rng.normal(size=n)

    common, at = normal() * 0.4, _logit(np.append(LEVELS, HIGH))
    for c in range(classes):
        of_class = np.random.default_rng(c)
        mu, nu, shift = of_class.uniform(1, 3), of_class.uniform(2, 4), of_class.normal() * off
        truth = np.round(np.exp(6 + 0.8 * normal())) * (rng.random(n) > 0.1)
        own = common + normal() * 0.8 + shift
        tp = np.round(truth[:, None] * norm.sf((at - (own + mu)[:, None]) / 1.5)).astype(np.int64)
        false = np.round(10_000 * norm.sf((at - (0.7 * own - nu)[:, None]) / 1.5)).astype(np.int64)
        pred, size = tp + false, LEVELS.size
        counts = (v[:, :-1].reshape(-1).astype(np.uint32) for v in (pred, tp))
        ends = np.arange(n + 1) * size
        above = pred[:, -1].copy(), tp[:, -1].copy()
        out.append(ClassStatistics(LOW, HIGH, ends, np.tile(LEVELS, n), *counts, *above, truth.astype(np.int64)))
    return Samples(tuple(out), tuple(f"g{k // each}" for k in range(n)))


def demo() -> Samples:
    """Count the demo's three networks on its validation and its test images, which no network was trained on."""
    parts = []
    for split in ("val", "test"):
        ens = ek.Ensemble([GOLDEN / f"{name}_{split}.zip" for name in ("unet", "fpn", "dilated")])
        truth = ek.read_masks(DATA / split / "masks", classes=ens.classes)
        parts.append(_counted(ens, truth, ens.samples))
    return _joined(*parts)


def of_folder(path: Path, by_argmax: bool | None = None) -> Samples:
    """Count a set's members on its validation and test samples; softmax ones by argmax, unless told otherwise."""
    groups = read_groups(str(path / "groups.csv")) if (path / "groups.csv").exists() else None
    both = [ek.Ensemble(sorted((path / split).glob("*.zarr"))) for split in ("val", "test")]
    truths = [
        ek.read_masks(path / f"{split}.npz").arranged(ens.samples, ens.classes)
        for split, ens in zip(("val", "test"), both, strict=True)
    ]
    names = [group_of(ens.samples, groups) for ens in both]
    if both[0].activation != "softmax" if by_argmax is None else not by_argmax:
        return _joined(*(_counted(*part) for part in zip(both, truths, names, strict=True)))

    @cache
    def gathered(ratio: int) -> ContenderTable:
        pairs = zip(both, truths, strict=True)
        return _contenders_joined([gather(ens, exclusive_truth(ens, truth), ratio) for ens, truth in pairs])

    return Samples(gathered(RATIOS[0]), (*names[0], *names[1]), gathered)


MEAN = Mean()


def _logit(level: np.ndarray) -> np.ndarray:
    return np.log(level / 65535) - np.log1p(-np.asarray(level) / 65535)


def _counted(ens: ek.Ensemble, truth: ek.MaskSet, names: Sequence[str]) -> Samples:
    found = count(ens, truth, dict.fromkeys(range(len(ens.classes)), (328, 65208)))
    return Samples(tuple(found[c] for c in range(len(ens.classes))), tuple(names))


def _joined(a: Samples, b: Samples) -> Samples:
    joined = tuple(_table_joined([x, y]) for x, y in zip(a.tables, b.tables, strict=True))
    return Samples(joined, (*a.names, *b.names))


def _table_joined(parts: Sequence[ClassStatistics]) -> ClassStatistics:
    ends = np.cumsum([0, *np.concatenate([np.diff(p.offsets) for p in parts])])
    arrays = (np.concatenate([getattr(p, name) for p in parts]) for name in ("levels", "pred", "tp"))
    rest = (np.concatenate([getattr(p, name) for p in parts]) for name in ("above", "above_tp", "truth"))
    return ClassStatistics(parts[0].low, parts[0].high, ends, *arrays, *rest)


def _table_of(t: ClassStatistics, samples: Sequence[int]) -> ClassStatistics:
    parts = [slice(t.offsets[s], t.offsets[s + 1]) for s in samples]
    arrays = (np.concatenate([v[own] for own in parts]) for v in (t.levels, t.pred, t.tp))
    ends = np.cumsum([0, *(own.stop - own.start for own in parts)])
    return ClassStatistics(t.low, t.high, ends, *arrays, *(v[list(samples)] for v in (t.above, t.above_tp, t.truth)))


def _contenders_joined(parts: Sequence[ContenderTable]) -> ContenderTable:
    first = parts[0]
    samples = tuple(s for p in parts for s in p.samples)
    begins = np.cumsum([0, *np.concatenate([np.diff(p.begins) for p in parts])])
    arrays = (np.concatenate([getattr(p, name) for p in parts]) for name in ("decided", "far", "doubt"))
    about = first.classes, first.background, first.source, first.adds, first.ratio
    return ContenderTable(samples, *about, concatenated([p.contenders for p in parts]), begins, *arrays)


def _contenders_of(t: ContenderTable, samples: Sequence[int]) -> ContenderTable:
    def one(s: int) -> ContenderTable:
        a, b = int(t.begins[s]), int(t.begins[s + 1])
        offsets = t.contenders.offsets[a : b + 1]
        own = slice(int(offsets[0]), int(offsets[-1]))
        contenders = Contenders(
            t.contenders.truth[a:b], offsets - offsets[0], t.contenders.classes[own], t.contenders.values[own]
        )
        about = t.classes, t.background, t.source, t.adds, t.ratio
        counts = t.decided[s : s + 1], t.far[s : s + 1], t.doubt[s : s + 1]
        return ContenderTable(t.samples[s : s + 1], *about, contenders, np.array([0, b - a]), *counts)

    return _contenders_joined([one(s) for s in samples])
