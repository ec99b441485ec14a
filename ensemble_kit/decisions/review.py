"""Which samples to look at first: the Dice that each mask is expected to get, from the scores alone.

The formula and its rivals: docs/concepts.md#expected-dice, tests/benchmarks/review.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.clean import check_classes
from ensemble_kit.decisions.decision import Decision, Vote
from ensemble_kit.decisions.rank import at_each_level, probabilities
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.errors import UsageError, check_number
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.files import atomic_write
from ensemble_kit.formats.table import format_row
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores import fused
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.mean import LEVELS, PROBABILITY

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

COLUMNS = ("rank", "sample", "score")
_AT_ONCE = 1 << 23
"""Scores that are held at a time where classes have to be evaluated together."""
FLOOR = 0.1
"""Probability below which a pixel counts as background: summed over a whole image, what networks leave there weighs
more than an object does (tests/benchmarks/review.py)."""


def expected_dice(levels: NDArray[np.uint16], pixels: NDArray[np.int64], hits: NDArray[np.int64], area: int,
                  chances: NDArray[np.float64]) -> float:  # fmt: skip
    """Return the Dice that a mask is expected to get: `2 Σ p over the mask / (its pixels + Σ p over what is counted)`.

    Of an empty mask it is 1 less the largest p, the chance that the truth is empty if its pixels go together.

    Parameters
    ----------
    levels : uint16 (n,), those that occur, ascending; those left out count as a probability of 0.
    pixels, hits : int64 (n,), pixels of each level, and those in the mask.
    area : pixels of the mask.
    chances : probability of every level, float64 (65536,).
    """
    p = chances[levels]
    if not area:
        return 1.0 - float(p[-1]) if levels.size else 1.0
    return float(2 * (p * hits).sum() / (area + (p * pixels).sum()))


@dataclass(frozen=True)
class ExpectDice:
    """The work of judging one sample: fuse, decide, clean, and count levels in the masks and around them."""

    inputs: Inputs
    decision: Decision
    rules: tuple[Rule, ...] = ()

    def __call__(self, item: Item) -> list[float]:
        """Return the expected Dice of each class that is written."""
        inputs, kept = self.inputs, self.decision.written(self.inputs.classes)
        image, decided = Vote(inputs, self.decision, self.rules)(item)
        masks = [decided.mask(k, image) for k in range(len(kept))]
        scores, numbers = open_sample(inputs, item.sample), [inputs.classes.index(name) for name in kept]
        shared = inputs.activation == "softmax" and inputs.fusion.mean.of_logits
        mean = PROBABILITY if shared else inputs.fusion.mean
        alone = self.decision.excludes(inputs)  # p outside of a mask lies in another class's, and is counted there
        band = 1 if alone else mean.level_of(FLOOR), LEVELS - 1
        counted = _shares if shared else _scores
        chances = probabilities(mean)
        out = []
        for (levels, pixels, hits), mask in zip(counted(scores, numbers, masks, band), masks, strict=True):
            around = hits if alone and mask.area else pixels
            out.append(expected_dice(levels, around, hits, mask.area, chances))
        return out


Counts = tuple["NDArray[np.uint16]", "NDArray[np.int64]", "NDArray[np.int64]"]


def _scores(scores: FusedSample, numbers: list[int], masks: list[Runs], band: tuple[int, int]) -> Iterator[Counts]:
    """Yield each class's levels of the band, their pixels, and those in its mask."""
    counted = scores.counts(dict.fromkeys(numbers, band), masks)
    for k in range(len(numbers)):
        yield at_each_level(*counted.of(k))


def _shares(scores: FusedSample, numbers: list[int], masks: list[Runs], band: tuple[int, int]) -> Iterator[Counts]:
    """Do the same for averaged logits of exclusive classes, whose shares exist only where all classes are known."""
    counts, packed, width = np.zeros((2, len(numbers), LEVELS), np.int64), ManyRuns.of(masks), scores.image[-1]
    step = max(1, _AT_ONCE // (len(scores.inputs.classes) * width))
    for first in range(0, scores.rows, step):
        stop = min(first + step, scores.rows)
        levels = fused.image_levels(scores, of_shares=True, rows=(first, stop))
        own = packed.between(first * width, stop * width)
        here = ManyRuns(own.starts - first * width, own.ends - first * width, own.offsets)
        for k, (c, mask) in enumerate(zip(numbers, here.masks((stop - first, width)), strict=True)):
            counts[0, k] += np.bincount(levels[c].reshape(-1), minlength=LEVELS)
            counts[1, k] += np.bincount(levels[c][mask.decode()], minlength=LEVELS)
    for pixels, hits in zip(*counts, strict=True):
        found = band[0] + np.flatnonzero(pixels[band[0] :])
        yield found.astype(np.uint16), pixels[found], hits[found]


@dataclass(frozen=True, eq=False)
class Review:
    """The samples in the order in which to look at them: those of the lowest expected Dice first.

    Parameters
    ----------
    samples, classes : the rows and columns of the next.
    expected : float64 (samples, classes), the Dice that each mask is expected to get.
    rule : how the masks were decided, in words.
    """

    samples: tuple[str, ...]
    classes: tuple[str, ...]
    expected: NDArray[np.float64]
    rule: str

    @property
    def scores(self) -> NDArray[np.float64]:
        """The mean over classes of each sample, float64 (samples,)."""
        return np.asarray(self.expected.mean(axis=1))

    @property
    def order(self) -> tuple[str, ...]:
        """The samples, the lowest score first; of equal ones as they stand in `samples`."""
        return tuple(self.samples[s] for s in self._order)

    @property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.scores, kind="stable")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns: rank, sample, score, and the classes."""
        return (*COLUMNS, *(f"class {name}" if name in COLUMNS else name for name in self.classes))

    def rows(self, first: int | None = None) -> Iterator[tuple[int, str, float, list[float]]]:
        """Yield rank, sample, score, and the expected Dice of each class, of the first so many or of all."""
        if first is not None:
            check_number("first", first, "pass a number of samples, or None for all", least=0, whole=True)
        scores = self.scores
        for rank, s in enumerate(self._order[:first].tolist(), start=1):
            yield rank, self.samples[s], float(scores[s]), self.expected[s].tolist()

    def table(self, first: int | None = None) -> pd.DataFrame:
        """Return a pandas frame with a row for each sample, the first so many or all, in the order of review."""
        import pandas as pd

        return pd.DataFrame([(*row, *own) for *row, own in self.rows(first)], columns=list(self.columns))

    def write(self, path: str | Path, force: bool = True) -> None:
        """Write the table as CSV, whole or not at all; numbers in full.

        Raises
        ------
        UsageError
            The path does not end in .csv; it exists, and `force` is false.
        """
        check_suffix(path)
        with atomic_write(path, force=force) as out:
            out.write(format_row(list(self.columns)).encode())
            for rank, sample, score, own in self.rows():
                out.write(format_row([str(rank), sample, *map(repr, [score, *own])]).encode())

    def __repr__(self) -> str:
        return f"Review({len(self.samples)} samples x {len(self.classes)} classes; {self.rule})"


def check_suffix(path: str | Path) -> None:
    """Refuse a path that is not that of a CSV file."""
    if Path(path).suffix.lower() != ".csv":
        item, fix = f"{os.fspath(path)!r} does not end in .csv", "end the name in .csv"
        raise UsageError("review-suffix", "cannot write the list of samples", item=item, fix=fix)


def review(
    inputs: Inputs,
    samples: Sequence[str],
    decision: Decision,
    rules: tuple[Rule, ...],
    executor: Executor,
    listener: Listener = nobody,
) -> Review:
    """Judge every sample; parameters and errors as for `decisions.decision.vote`."""
    classes = decision.written(inputs.classes)
    check_classes(rules, classes)
    found = list(executor.map(ExpectDice(inputs, decision, rules), Items(samples), "reviewing", listener))
    return Review(tuple(samples), classes, np.array(found).reshape(len(samples), len(classes)), decision.told())
