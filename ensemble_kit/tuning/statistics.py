"""Sufficient statistics: how many pixels, and how many of the truth, lie at or above every level.

One pass over scores and truth counts them; thresholds, folds, bootstrap, curves and gates are then read off the table
in milliseconds, and no pixel is touched again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item
from ensemble_kit.masks.alignment import check_aligned
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.tuning import archive
from ensemble_kit.tuning.class_statistics import AREAS, ARRAYS, Band, ClassStatistics, is_sound
from ensemble_kit.tuning.gathered_counts import GatheredCounts
from ensemble_kit.tuning.truth import items_with_truth, true_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.statistics/1"


@dataclass(frozen=True)
class Statistics:
    """Counts of every class of an ensemble against the truth.

    They are 10 bytes for each level that occurs in a (sample, class). In the band that tuning scans by default a
    bone-like mask of five members at 2048² has 11,000 of them, a noisy one 18,000, so that 800 samples of 29 classes
    have 2.6 to 4.2 GB; beyond 128 MB they are counted into a temporary file. Counting takes 0.03 to 0.06 s of processor
    time a sample there, once its logits are read.

    Parameters
    ----------
    samples, classes : names.
    tables : one `ClassStatistics` per class.
    source : what they were counted from; two statistics of one source are interchangeable.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    tables: tuple[ClassStatistics, ...]
    source: str

    @property
    def tells_areas(self) -> bool:
        """Tell whether void pixels were counted apart, so that the area of a mask is known where some are void."""
        return all(t.area is not None for t in self.tables)

    def widened(self, bands: Mapping[int, ClassStatistics]) -> Statistics:
        """Return these statistics with the tables of some classes replaced."""
        tables = tuple(bands.get(c, table) for c, table in enumerate(self.tables))
        return Statistics(self.samples, self.classes, tables, self.source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; complete, or nothing."""
        archive.save(Path(path), *self.unpacked())

    def unpacked(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a file holds: a head of JSON values, and arrays by name."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "samples": self.samples,
            "classes": self.classes,
            "source": self.source,
            "bands": [(t.low, t.high) for t in self.tables],
        }
        head |= {"areas": True} if self.tells_areas else {}
        names = (*ARRAYS, *(AREAS if self.tells_areas else ()))
        return head, {f"{name}_{c}": getattr(table, name) for c, table in enumerate(self.tables) for name in names}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It holds something else.
        """
        return archive.load(Path(path), cls.packed)

    @classmethod
    def packed(cls, head: Mapping[str, Any], read: archive.Arrays) -> Statistics:
        """Make statistics of what a file holds; ValueError where that is something else."""
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        names = (*ARRAYS, *(AREAS if head.get("areas") else ()))

        def table(c: int, low: int, high: int) -> ClassStatistics:
            arrays: dict[str, Any] = {name: read(f"{name}_{c}") for name in names}
            return ClassStatistics(low, high, **arrays)

        tables = tuple(table(c, low, high) for c, (low, high) in enumerate(head["bands"]))
        if len(tables) != len(head["classes"]) or any(not is_sound(t, len(head["samples"])) for t in tables):
            raise ValueError("its arrays do not fit each other")
        return cls(tuple(head["samples"]), tuple(head["classes"]), tables, head["source"])


def source_of(ensemble: Ensemble, truth: MaskSet) -> str:
    """Return a digest of the members' content, of how they are fused, and of the truth."""
    digest = hashlib.sha256(json.dumps([m.fingerprint for m in ensemble.members]).encode())
    f = ensemble.fusion
    fused = (
        f"Fusion(mean={str(f.mean)!r}, upsample={f.upsample!r}, members={f.members!r}, weights={f.weights!r}, "
        f"temperatures={f.temperatures!r})"
    )
    digest.update(f"({fused}, {ensemble.classes!r}, {ensemble.samples!r})".encode())
    runs, indices = truth.packed, truth.indices(ensemble.samples, ensemble.classes)
    firsts, lasts = runs.offsets[indices], runs.offsets[indices + 1]
    starts, ends = (np.ascontiguousarray(v).data for v in (runs.starts, runs.ends))
    for k, sample in enumerate(ensemble.samples):
        shape, parts = repr(truth.image_size(sample)).encode(), list[bytes | memoryview]()
        for first, last in zip(firsts[k].tolist(), lasts[k].tolist(), strict=True):
            parts += (shape, starts[first:last], ends[first:last])
        digest.update(b"".join(parts))
        if truth.has_void and (void := truth.void(sample)):
            digest.update(b"void" + void.starts.tobytes() + void.ends.tobytes())
    return digest.hexdigest()


class Counted(NamedTuple):
    """Counts of one sample by level: of all its pixels, and of those that are not void, the same object if none is."""

    every: LevelCounts
    kept: LevelCounts


@dataclass(frozen=True)
class CountLevels:
    """The work of counting one sample, some of its classes each in a band of levels; an item has their `Truth`."""

    inputs: Inputs
    bands: tuple[tuple[int, Band], ...]

    def __post_init__(self) -> None:
        self.inputs.check_each_class()

    def __call__(self, item: Item) -> Counted:
        """Count pixels, and pixels of the truth, at and above every level of the bands."""
        scores, bands, truth = open_sample(self.inputs, item.sample), dict(self.bands), item.truth
        every = scores.counts(bands, truth.masks)
        if truth.void is None:
            return Counted(every, every)
        return Counted(every, every.without(scores.counts(bands, [truth.void] * len(bands))))


def count(
    ensemble: Ensemble,
    truth: MaskSet,
    bands: Mapping[int, Band],
    executor: Executor = THREADS,
    listener: Listener = nobody,
    areas: bool = False,
) -> dict[int, ClassStatistics]:
    """Count some classes in one pass over the stores.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes (see `check_truth`).
    bands : for each class number, the band (low, high) of levels to tell apart.
    areas : whether to count void pixels, too, where there are any, so that the area of a mask is known.
    """
    names = [ensemble.classes[c] for c in bands]
    work = CountLevels(ensemble.inputs, tuple(bands.items()))
    items = items_with_truth(ensemble.samples, truth, names)

    def most() -> int:
        """Tell how many levels of a class can occur, of all samples."""
        widest = max(high - low for low, high in bands.values())
        return sum(min(widest, math.prod(ensemble.image_size(s))) for s in ensemble.samples)

    rows, whole = GatheredCounts(len(bands), most), GatheredCounts(len(bands)) if areas and truth.has_void else None
    for counted in executor.map(work, items, "counting", listener):
        rows.add(counted.kept)
        if whole is not None:
            whole.add(counted.every)
    return tables_of(bands, rows, true_areas(ensemble.samples, truth, names), whole)


def tables_of(
    bands: Mapping[int, Band],
    rows: GatheredCounts,
    truth: NDArray[np.int64],
    whole: GatheredCounts | None = None,
) -> dict[int, ClassStatistics]:
    """Take the gathered counts of all samples as one table a class.

    Parameters
    ----------
    rows : of each sample, the classes of `bands` in their order.
    truth : int64 (classes, samples), pixels of the truth that are not void.
    whole : as `rows`, with void pixels; None where no pixel is void, or areas are not asked for.
    """
    found = {}
    for k, (c, (low, high)) in enumerate(bands.items()):
        (kept, mapped), every = rows.placed(k), None if whole is None else whole.take(k)
        area, above_area = (None, None) if every is None else (every.pred, every.above)
        found[c] = ClassStatistics(
            low, high, *kept, truth=truth[k].copy(), area=area, above_area=above_area, mapped=mapped
        )
    return found


def check_truth(ensemble: Ensemble, truth: MaskSet) -> None:
    """Refuse truth that does not hold exactly the ensemble's classes, samples and image sizes.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, samples or image sizes.
    """
    what, names = "cannot compare with the truth", ("the truth", "the ensemble")
    wanted = ensemble.inputs.extent(ensemble.samples, ensemble.classes)
    check_aligned(truth.extent, wanted, names, what, missing="truth-missing")


def check_source(statistics: Statistics, ensemble: Ensemble, truth: MaskSet, what: str, fix: str) -> None:
    """Refuse statistics that were counted from something else.

    Parameters
    ----------
    what, fix : of the error: what cannot be done, and what to pass instead.

    Raises
    ------
    MismatchError
        Statistics of other stores, another fusion or another truth.
    """
    if statistics.source != source_of(ensemble, truth):
        item = "they were counted from other stores, another fusion or another truth"
        raise MismatchError("statistics-differ", what, item=item, fix=fix)
