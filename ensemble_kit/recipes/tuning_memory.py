"""Memory that a tuning takes, projected from a few samples that are counted before the work begins.

Each term is what one step holds: `docs/reliability.md` compares the sums with peaks that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ensemble_kit.decisions.decision import Vote
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.executor import Item
from ensemble_kit.execution.resident import give_back
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes import memory
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.bagging import bytes_of_draws
from ensemble_kit.tuning.class_statistics import LOOKED_AT
from ensemble_kit.tuning.counting import HELD as SUMS
from ensemble_kit.tuning.counting import HIGHS, LOWS
from ensemble_kit.tuning.gathered_counts import AT_ONCE, HELD
from ensemble_kit.tuning.resampling import DRAWN, KEPT, RESAMPLES
from ensemble_kit.tuning.statistics import CountLevels
from ensemble_kit.tuning.truth import Truth

_ENTRY = 10
"""Bytes of a level that occurs in a sample and class: its number, pixels and hits."""
_JOINED = 1.25
"""Tables of many classes by their bytes: parts that are joined class by class leave holes that nothing else fills."""
_PAIR = 200
"""Bytes of a sample and class beside its levels: where these begin, sums above the band, outcomes of five choices."""
_LEVELS = 65536
_PIXELS, _COLLECTED = 20_000_000, 2
"""The least that a search is given for undecided pixels, and how often they are held while they are put together."""
_CHOSEN, _JUDGED, _SEARCHED, _FACTORS = (10e6, 10e6), (25e6, 25e6), (42e6, 95e6), (32e6, 190e6)
"""Bytes of libraries and kernels that come when the first samples are counted, loaded and compiled: to choose levels;
with folds, which draw samples; to search; of factors."""
_GATHERED = 2.0
"""Peak of the pixels that factors can change by their bytes: as they come, and put together."""
_MEMBERS = 8
"""Samples on which each member alone is compared with the truth in the end."""
_SCAN = (LOWS[0], HIGHS[0])


class Found(NamedTuple):
    """What a few samples show.

    Parameters
    ----------
    entries : levels that occur in a sample, of all its classes.
    levels : different levels of a class that occur in any sample.
    runs : of a sample's masks at 0.5.
    """

    entries: float
    levels: float
    runs: float


class Room(NamedTuple):
    """How a tuning fits its budget: classes that a pass for rules counts, and bytes for a search's undecided pixels."""

    classes: int | None = None
    pixels: int | None = None


def room_for_thresholds(
    budget: int,
    ensemble: Ensemble,
    truth: MaskSet,
    folds: int | None,
    jobs: int | None,
    measure: Measure,
    counted: bool = False,
    searches: bool = False,
    band: tuple[int, int] = _SCAN,
    labels: bool = False,
    ratios: int = 0,
    unread: float = 0.0,
) -> Room:
    """Project a tuning of thresholds by what a few samples show, and return what is left for what can do with less.

    Parameters
    ----------
    counted : whether its tables are there already.
    searches : whether it tries settings on undecided pixels, too.
    band : levels that are counted.
    labels : whether it labels components of masks, by trials of rules.
    ratios : ratios of competing classes that it counts anew, each; 0 without rules that are chosen from counts.
    unread : bytes that reading the truth takes, where `truth` stands for it.

    Raises
    ------
    ResourceError
        The budget does not hold it.
    """
    few = _look(ensemble, truth, band)
    give_back()  # what reading the truth left
    needed = unread / 2 + of_thresholds(few, ensemble, folds, jobs, measure, counted, searches)  # half of it stays
    needed = max(needed, memory.held_after_trial() + unread)
    if labels and ensemble.members[0].rank == 3:  # a number for each voxel, and what is known of those in the band
        needed += (jobs or cores()) * 12 * max(math.prod(ensemble.image_size(s)) for s in ensemble.samples)
    classes, each = len(ensemble.classes), 2 * _ENTRY * few.entries * len(ensemble.samples) / len(ensemble.classes)
    memory.check(budget, needed + ratios * each, "tune")  # of a class: its parts, and the table that they become
    at_once = None
    if ratios and needed + ratios * classes * each > budget:
        at_once = min(max(1, int((budget - needed) / each)), max(1, classes - 1))
    return Room(at_once, int((budget - needed + _PIXELS) / _COLLECTED) if searches else None)


def of_thresholds(
    few: Found,
    ensemble: Ensemble,
    folds: int | None,
    jobs: int | None,
    measure: Measure,
    counted: bool = False,
    searches: bool = False,
) -> float:
    """Project the peak of a tuning of thresholds; parameters as for `room_for_thresholds`.

    A search is projected as if it held the counts of every fusion that it keeps: where these are in a file, narrower
    bands of a fold's samples are copied to memory, which a few samples do not tell.
    """
    from ensemble_kit.tuning.search.kept_counts import FUSIONS

    samples, classes, threads = len(ensemble.samples), len(ensemble.classes), jobs or cores()
    at_work, sample = min(threads, samples), _ENTRY * few.entries
    table = sample * samples
    in_file = table > HELD
    # what is gathered is in memory until it is too much; then it is looked at some of it at a time, in each thread
    tables = _JOINED * (min(threads, classes) * LOOKED_AT if in_file else table)
    beside = AT_ONCE + at_work * (memory.logits_at_work(ensemble) + 2 * sample) + min(2 * threads, samples) * sample
    counting = (HELD + AT_ONCE - tables if in_file else 0) + min(beside, beside - AT_ONCE + table)
    wide = measure.objective == "pooled" or measure.convention.empty == "skip"
    sums = (8 * (folds or 1) * (2 if wide else 1) + 16) * few.levels
    # those of all classes are held where they are few; otherwise of two classes a thread, which are in flight
    held = classes * sums if classes * sums <= SUMS else min(classes, 2 * threads) * sums
    breaks = 0 if in_file else 8 * few.levels * classes
    choosing = held + breaks + min(threads, classes) * (16 * _LEVELS + 32 * few.levels)
    if folds:
        choosing += bytes_of_draws(samples, ensemble.fusion.mean, folds, min(threads, classes), wide)
    resampling = breaks + _of_resamples(samples) if folds else 0
    later = max(0.0 if counted else counting, choosing, resampling, breaks + _of_members(ensemble, few, threads))
    loaded = _SEARCHED if searches else _JUDGED if folds else _CHOSEN
    needed = memory.held_after_trial(*loaded) + (0 if counted else tables) + _PAIR * samples * classes + later
    if searches:
        needed += _PIXELS + FUSIONS * _JOINED * table
    return needed


def room_for_factors(
    budget: int,
    ensemble: Ensemble,
    truth: MaskSet,
    folds: int | None,
    jobs: int | None,
    searches: bool = False,
    unread: float = 0.0,
) -> Room:
    """Project a tuning of factors, as `room_for_thresholds`: by the pixels of a few samples that they can change."""
    from ensemble_kit.tuning.contenders import RATIOS
    from ensemble_kit.tuning.gathering import GatherContenders, items_with_exclusive_truth

    some = memory.few(ensemble.samples)
    work, items = GatherContenders(ensemble.inputs, RATIOS[0]), items_with_exclusive_truth(ensemble.on(some), truth)
    rows = [work(item) for item in items]
    taken = sum(array.nbytes for row in rows for array in (*row.contenders, row.decided, row.far)) / len(rows)
    samples, threads = len(ensemble.samples), jobs or cores()
    give_back()
    needed = unread / 2 + memory.held_after_trial(*_FACTORS) + min(threads, samples) * memory.logits_at_work(ensemble)
    needed += _GATHERED * taken * samples + (_of_resamples(samples) if folds else 0)
    needed = max(needed, memory.held_after_trial() + unread) + (_PIXELS if searches else 0)
    memory.check(budget, needed, "tune")
    return Room(None, int((budget - needed + _PIXELS) / _COLLECTED) if searches else None)


def _of_resamples(samples: int) -> float:
    """Project resamples: as they are drawn, given to samples, as floats, and those that are kept."""
    numbers = RESAMPLES * samples
    return 24 * min(DRAWN, numbers) + (numbers if numbers <= KEPT else 0)


def _of_members(ensemble: Ensemble, few: Found, threads: int) -> float:
    """Project the votes of each member alone, whose masks of some samples are held, put together and arranged."""
    some, own = min(_MEMBERS, len(ensemble.samples)), memory.RUN * few.runs
    logits = memory.logits_at_work(ensemble) / len(ensemble.members)
    return 3 * some * own + min(threads, some) * (logits + own)


def _look(ensemble: Ensemble, truth: MaskSet, band: tuple[int, int]) -> Found:
    """Count a few samples."""
    some, classes = memory.few(ensemble.samples), ensemble.classes
    work = CountLevels(ensemble.inputs, tuple((c, band) for c in range(len(classes))))
    kept = [work(Item(s, Truth.of(truth, s, classes))).kept for s in some]
    runs = _runs(ensemble, some)
    levels = [[own.of(c)[0] for own in kept] for c in range(len(classes))]
    return Found(
        sum(own.levels.size for own in kept) / len(kept),
        float(np.mean([_in_all(own, len(ensemble.samples)) for own in levels])),
        runs,
    )


def _runs(ensemble: Ensemble, samples: Sequence[str]) -> float:
    """Count runs of a sample's masks at 0.5."""
    from ensemble_kit.decisions.thresholds import Thresholds

    decide = Vote(ensemble.inputs, Thresholds(ensemble.level_of(0.5)))
    return sum(decide(Item(s))[1].starts.size for s in samples) / len(samples)


def _in_all(few: Sequence[np.ndarray], samples: int) -> float:
    """Estimate how many different levels all samples have, by how few of one sample's the next one repeats.

    Levels are taken to be drawn alike in every sample: of N a sample misses a share y, all of them y^samples.
    """
    one = sum(own.size for own in few) / len(few)
    if len(few) < 2 or not one:
        return one
    two = np.union1d(few[0], few[1]).size / max((few[0].size + few[1].size) / 2, 1)
    missed = min(max(two - 1, 0.0), 1 - 1e-6)  # N (1 - y²) of N (1 - y)
    return float(min(one * (1 - missed**samples) / (1 - missed), _LEVELS))
