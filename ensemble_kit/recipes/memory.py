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
from ensemble_kit.execution.executor import Threads
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.stream import MASKS, RUNS
from ensemble_kit.recipes.part_file import LATER, entries
from ensemble_kit.scores.competition import AT_ONCE
from ensemble_kit.scores.raster import ROOM
from ensemble_kit.spec.mean import LEVELS

LOADED = 147_000_000
"""Bytes of a process that has loaded Python, NumPy, Numba, the machine code of a vote, and what writes masks."""
_WRITER = 8_000_000
"""Bytes of what is loaded after a trial: what writes masks."""
COMPILED = 320_000_000
"""Bytes of one that compiles kernels, as the first run of a command does."""
_ENOUGH = 1.25
"""What a refusal asks for, by the figure, which is within a quarter of the peak."""
RUN = 16
"""Bytes of a run: where it starts and ends."""
_TEXT = 14 / RUN
"""Bytes of masks as text, by those of their runs."""
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
_LEVELS = 59_000
_COUNTED = 10


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
        enough = f"--memory {-int(-needed * _ENOUGH // 10_000_000)}0MB or more" if all_told else "several times that"
        fix = f"pass {enough}, or fewer samples at a time"
        raise ResourceError("memory-budget", f"cannot {what} within the memory budget", item=item, fix=fix)


def of_reading(paths: Sequence[Path]) -> float:
    """Project what mask files take when they are read, of the stores among them their descriptions."""
    return held_after_trial() + sum(_of_path(path) for path in paths)


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


class Tried(NamedTuple):
    """What a few samples of a soft vote show, in bytes.

    Parameters
    ----------
    masks : of one sample.
    most : of the largest of them.
    working : of the samples in flight, and of those that wait for one before them.
    known : of what is known of each sample: that it was verified.
    piece : samples of a piece of the stream.
    """

    masks: float
    most: float
    working: float
    known: float
    piece: int


def tried(ensemble: Ensemble, decision: Decision, rules: tuple[Rule, ...], jobs: int | None) -> Tried:
    """Vote on a few samples."""
    some, threads, samples = few(ensemble.samples), jobs or cores(), len(ensemble.samples)
    voted = vote(ensemble.inputs, some, decision, rules, Threads(1))
    sizes = [RUN * sum(len(voted[s, c]) for c in voted.classes) for s in some]
    compared = _compared(ensemble, some) if any(isinstance(rule, Compete) for rule in rules) else 0
    # edges grow in turns before they become runs; two samples a thread wait for those before them
    working = min(threads, samples) * (logits_at_work(ensemble) + compared + max(sizes))
    working += min(2 * threads, samples) * max(sizes)
    known = _VERIFIED * samples * len(ensemble.inputs.heard.members)
    return Tried(sum(sizes) / len(some), max(sizes), working, known, -(-MASKS // max(len(voted.classes), 1)))


def of_vote(
    ensemble: Ensemble, decision: Decision, rules: tuple[Rule, ...], jobs: int | None, in_pieces: bool = False
) -> float:
    """Project a soft vote: its samples in flight, and masks by those of a few samples that are tried.

    Parameters
    ----------
    in_pieces : whether masks are written as they come; otherwise those of all samples are held.
    """
    few, samples = tried(ensemble, decision, rules, jobs), len(ensemble.samples)
    if in_pieces:  # a piece is joined of its samples, and formatted
        masks = (1 + _TEXT) * min(few.masks * min(samples, few.piece), RUN * RUNS + few.most)
    else:  # all are, and joined
        masks = (2 + _TEXT) * few.masks * samples
    return held_after_trial() + few.working + masks + few.known


def of_hard_vote(stores: Sequence[Tried], samples: int) -> float:
    """Project a hard vote: the masks of all stores, while one of them votes, or while they are counted and written.

    Parameters
    ----------
    samples : how many are voted on together.
    """
    masks = [few.masks * samples for few in stores]
    voting = max((few.working + own for few, own in zip(stores, masks, strict=True)), default=0.0)  # pieces are joined
    written = (2 + _TEXT) * max(masks, default=0.0)  # voted masks are about as large as the largest member's
    base = held_after_trial() if stores else held()
    return base + sum(masks) + max(voting, written) + sum(few.known for few in stores)


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


def held() -> float:
    """Return what this process holds, and will hold as soon as kernels run, which may have to be compiled."""
    return max(float(used()), COMPILED)


def held_after_trial(loaded: float = 0.0, compiled: float | None = None) -> float:
    """Return what this process holds, and will hold, where kernels ran: whether they had to be compiled is known.

    Parameters
    ----------
    loaded : bytes of libraries and machine code that come beside those of a vote.
    compiled : the same where kernels have to be compiled; default: no more.
    """
    from ensemble_kit.kernels.jit import is_cold

    if is_cold():
        return held() + (loaded if compiled is None else compiled)
    return max(float(used()) + _WRITER, LOADED) + loaded


def at_work(ensemble: Ensemble) -> float:
    """Project one sample in flight whose scores are laid out: its logits, and what is made of them."""
    return 24_000_000 + logits_at_work(ensemble) * (4 if ensemble.activation == "softmax" else 1.5)


def logits_at_work(ensemble: Ensemble) -> float:
    """Return the bytes of the logits of one sample in flight; of a volume those of a slab."""
    heard = [ensemble.members[m] for m in ensemble.fusion.heard]
    logits = sum(m.bytes_per_sample for m in heard)
    if heard[0].rank == 3:
        sample = ensemble.samples[0]
        slices = sum(m.bytes_per_sample / m.placement(sample).grid[0] for m in heard)
        logits = min(logits, int(max(ROOM, 2 * slices)))
    return float(logits)


def _compared(ensemble: Ensemble, samples: Sequence[str]) -> float:
    """Project what one sample's competition takes: marks and tops of its pixels, and scores at a time."""
    pixels = max(math.prod(ensemble.image_size(s)) for s in samples)
    return 3 * pixels + 15 * min(AT_ONCE, pixels * len(ensemble.classes))


def few(samples: Sequence[str]) -> list[str]:
    """Return a few samples that are tried."""
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
