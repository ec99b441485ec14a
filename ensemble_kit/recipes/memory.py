"""Memory that a command takes, projected before its work, and refused where a budget does not hold it.

What is there already is measured; what comes is projected from file sizes and from a few samples that are tried.
Projections are meant to lie above the peak and below twice of it: `tests/faults/test_memory.py` compares them.
"""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ensemble_kit.decisions.across import Compete
from ensemble_kit.decisions.decision import Decision, vote
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import ResourceError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.executor import Item, Threads
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import RUNS
from ensemble_kit.recipes.part_file import LATER, entries
from ensemble_kit.scores.competition import AT_ONCE
from ensemble_kit.scores.raster import ROOM
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning.truth import Truth

KERNELS = 320_000_000
"""Bytes of a process that compiles kernels, as the first run of a command does."""
_RUN = 16
_VOTED = 2.75
"""Peak of voted masks by their runs: as they come, joined, and as text."""
_LISTED, _KEY = 1.6, 250
"""Peak of reading the order of rows: by the bytes of their file, and bytes of a row's key."""
_VERIFIED = 280
"""Bytes by which an open store knows that a sample was verified."""
_TRIED = 3
_READ = {".csv": 6.0, ".npz": 15.0, ".npy": 2.0, ".json": 30.0}
"""Peak of reading masks by the bytes of their file; of a folder's files as of .npz."""
_CHUNKS = "c0123456789"
"""How names of chunks begin, in either encoding of their keys."""
_NAMES, _LINES = 14.0, 1.2
"""Peak of a store that is opened by the bytes of its description, and by those of its manifest."""
_ENTRY, _ROW = 10, 2000
"""Bytes of a level that occurs in a sample and class, and of a sample's counts beside those."""
_PIXELS = 20_000_000
"""The least that a search is given for undecided pixels."""
_BOOTSTRAP = 140_000_000
_LEVELS = 59_000
_COUNTED = 10
_SCAN = (3277, 62260)


def check(budget: int | None, needed: float, what: str, all_told: bool = True) -> None:
    """Refuse work that a budget does not hold.

    Parameters
    ----------
    budget : bytes; None for any number.
    needed : projected peak.
    what : what cannot be done, such as "vote".
    all_told : whether nothing else comes that is projected later.

    Raises
    ------
    ResourceError
        It names both.
    """
    if budget is not None and needed > budget:
        item = f"about {_mb(needed)} are needed, --memory allows {_mb(budget)}"
        enough = f"--memory {-int(-needed * 1.1 // 10_000_000)}0MB or more" if all_told else "several times that"
        fix = f"pass {enough}, or fewer samples at a time"
        raise ResourceError("memory-budget", f"cannot {what} within the memory budget", item=item, fix=fix)


def of_reading(paths: Sequence[Path]) -> float:
    """Project what mask files take when they are read, of the stores among them their descriptions."""
    return held() + sum(_of_path(path) for path in paths)


def of_parts(paths: Sequence[Path]) -> float:
    """Project what merging the parts of a run takes: what they hold, and what is made of it.

    Counts of a page's curves are held for one class at a time.
    """
    at_once, later = 0, Counter[str]()
    for name, size in (entry for path in paths for entry in entries(path)):
        if name.startswith(LATER):
            later[name.rpartition(".")[2]] += size
        else:
            at_once += size
    return held() + 3.0 * (at_once + max(later.values(), default=0))


def of_store(path: Path) -> float:
    """Project what a store takes that is opened, described or verified sample by sample."""
    return max(float(used()), PLAIN) + _of_path(path)


def of_repair(path: Path) -> float:
    """Project what the repair of a store takes, whose description may be damaged: by its largest sample."""
    return max(float(used()), PLAIN) + 2 * max(_sizes(path), default=0) + _described(path)


def of_vote(
    ensemble: Ensemble, decision: Decision, rules: tuple[Rule, ...], jobs: int | None, in_pieces: bool = False
) -> float:
    """Project a soft vote: its samples in flight, and masks by those of a few samples that are tried.

    Parameters
    ----------
    in_pieces : whether masks are written as they come; otherwise those of all samples are held.
    """
    few, threads = _few(ensemble.samples), jobs or cores()
    tried = vote(ensemble.inputs, few, decision, rules, Threads(1))
    each = [_RUN * sum(len(tried[s, c]) for c in tried.classes) for s in few]
    compared = _compared(ensemble, few) if any(isinstance(rule, Compete) for rule in rules) else 0
    waiting = (2 * threads + 1) * max(each) + _RUN * RUNS  # at most two samples a thread, and a piece
    masks = waiting if in_pieces else sum(each) / len(few) * len(ensemble.samples)
    verified = _VERIFIED * len(ensemble.samples) * len(ensemble.inputs.heard.members)
    return held() + threads * (at_work(ensemble) + compared) + _VOTED * masks + verified


def of_order(path: Path | None, masks: int) -> float:
    """Project what is held of a sample submission while masks are written in the order of its rows."""
    return 0.0 if path is None or not path.is_file() else _LISTED * path.stat().st_size + _KEY * masks


def of_review(ensemble: Ensemble, jobs: int | None) -> float:
    """Project a review: its samples in flight, each with its counts by level; figures of samples weigh nothing."""
    counts = _COUNTED * _LEVELS * len(ensemble.classes)
    return held() + (jobs or cores()) * (at_work(ensemble) + counts)


def of_calibration(ensemble: Ensemble, jobs: int | None) -> float:
    """Project a measurement of calibration: a review's counts, and the sums of every level."""
    return of_review(ensemble, jobs) + 16 * LEVELS * len(ensemble.classes)


class Room(NamedTuple):
    """How a tuning fits its budget: classes that a pass counts, and bytes for a search's undecided pixels."""

    classes: int | None = None
    pixels: int | None = None


def room_for_thresholds(
    budget: int,
    ensemble: Ensemble,
    truth: MaskSet,
    folds: int | None,
    jobs: int | None,
    counted: bool,
    searches: bool,
    band: tuple[int, int] = _SCAN,
    rules: bool = False,
) -> Room:
    """Project a tuning of thresholds, by the levels that occur in a few samples.

    Parameters
    ----------
    counted : whether its tables are there already.
    searches : whether it searches too.
    band : levels that are counted.
    rules : whether it labels components of masks, by trials of rules.

    Raises
    ------
    ResourceError
        Not even one class at a time fits.
    """
    from ensemble_kit.tuning.bagging import bytes_of_draws
    from ensemble_kit.tuning.counting import HELD
    from ensemble_kit.tuning.search.kept_counts import FUSIONS
    from ensemble_kit.tuning.statistics import CountLevels

    few, classes = _few(ensemble.samples), ensemble.classes
    work = CountLevels(ensemble.inputs, tuple((c, band) for c in range(len(classes))))
    entries = sum(work(Item(s, Truth.of(truth, s, classes))).kept.levels.size for s in few) / len(few)
    fusion = _ENTRY * entries * len(ensemble.samples)
    tables = 0.0 if counted else fusion
    threads, curve = jobs or cores(), 2.5 * 16 * _LEVELS * (folds or 1)
    curves = curve * min(len(classes), 2 * threads) + min(curve * len(classes), HELD)  # two a thread are in flight
    kept = held() + threads * at_work(ensemble) + curves + (_BOOTSTRAP if folds else 0)
    kept += bytes_of_draws(len(ensemble.samples), ensemble.fusion.mean, folds) + _ROW * len(ensemble.samples)
    kept += _PIXELS + FUSIONS * fusion if searches else 0
    if rules and ensemble.members[0].rank == 3:  # a number for each voxel, and what is known of those in the band
        kept += threads * 12 * max(math.prod(ensemble.image_size(s)) for s in ensemble.samples)
    each = tables / len(classes)  # of a class: its table, and as much that a pass gathers before it becomes one
    at_once = None
    if kept + 2 * tables > budget:  # tables go to files, and memory holds those of a pass
        check(budget, kept + 2 * each, "tune")
        at_once = min(max(1, int((budget - kept) / (2 * each))), max(1, len(classes) - 1))
    return Room(at_once, int(budget - kept + _PIXELS) if searches else None)


def room_for_factors(budget: int, ensemble: Ensemble, truth: MaskSet, folds: int | None, jobs: int | None) -> Room:
    """Project a tuning of factors: the pixels that they can change, from those of a few samples."""
    from ensemble_kit.tuning.contenders import RATIOS
    from ensemble_kit.tuning.gathering import GatherContenders, items_with_exclusive_truth

    part = ensemble.on(_few(ensemble.samples))
    work, items = GatherContenders(ensemble.inputs, RATIOS[0]), items_with_exclusive_truth(part, truth)
    rows = [work(item) for item in items]
    taken = sum(array.nbytes for row in rows for array in (*row.contenders, row.decided, row.far)) / len(rows)
    kept = held() + (jobs or cores()) * at_work(ensemble) + 3 * taken * len(ensemble.samples)
    kept += _BOOTSTRAP if folds else 0
    check(budget, kept + _PIXELS, "tune")
    return Room(None, int(budget - kept))


def held() -> float:
    """Return what this process holds, and will hold as soon as a kernel runs."""
    return max(float(used()), KERNELS)


def at_work(ensemble: Ensemble) -> float:
    """Project one sample in flight: its logits, of a volume those of a slab, and what is made of them."""
    heard = [ensemble.members[m] for m in ensemble.fusion.heard]
    logits = sum(m.bytes_per_sample for m in heard)
    if heard[0].rank == 3:
        sample = ensemble.samples[0]
        slices = sum(m.bytes_per_sample / m.placement(sample).grid[0] for m in heard)
        logits = min(logits, int(max(ROOM, 2 * slices)))
    return 24_000_000 + logits * (4 if ensemble.activation == "softmax" else 1.5)


def _compared(ensemble: Ensemble, samples: Sequence[str]) -> float:
    """Project what one sample's competition takes: marks and tops of its pixels, and scores at a time."""
    pixels = max(math.prod(ensemble.image_size(s)) for s in samples)
    return 3 * pixels + 15 * min(AT_ONCE, pixels * len(ensemble.classes))


def _few(samples: Sequence[str]) -> list[str]:
    return list(samples[:: max(1, -(-len(samples) // _TRIED))])


def _of_path(path: Path) -> float:
    if is_store(path):
        return _described(path) if path.is_dir() else 0.0
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path] if path.is_file() else []
    return sum(p.stat().st_size * _READ.get(p.suffix.lower(), _READ[".npz"]) for p in files)


def _sizes(folder: Path) -> Iterator[int]:
    """Yield the bytes of a store's chunks, one by one: there may be a million."""
    for inside, _, names in os.walk(folder):
        chunks = (name for name in names if name[0] in _CHUNKS and not name.endswith((".json", ".jsonl")))
        for path in (os.path.join(inside, name) for name in chunks):  # noqa: PTH118 - of a million
            state = os.lstat(path)
            yield state.st_size if stat.S_ISREG(state.st_mode) else 0


def _described(store: Path) -> float:
    """Project what a store's description and its manifest take by their files, as a million samples do."""
    lines = (store / "logits" / "manifest").glob("*.jsonl")
    sizes = [p.stat().st_size for p in (store / "zarr.json", *lines) if p.is_file()]
    return _NAMES * sizes[0] + _LINES * sum(sizes[1:]) if (store / "zarr.json").is_file() else _LINES * sum(sizes)


def _mb(n: float) -> str:
    return f"{n / 1e6:,.0f} MB" if n >= 1e6 else f"{n:,.0f} bytes"
