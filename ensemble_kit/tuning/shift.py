"""Distribution shift: how the scores of some images differ from those of the images that thresholds were tuned on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, UsageError, check_kind, differ, some
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, Item, Items
from ensemble_kit.execution.parts import WHOLE, Part
from ensemble_kit.reports.html import report_html
from ensemble_kit.reports.report import Report
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning.difference import MEDIUM, SURE, Difference, holm, mann_whitney

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_WHAT = "cannot compare the scores of two ensembles"
UNDECIDED = (0.1, 0.9)
"""A pixel is undecided where its score is at least the first and below the second."""


@dataclass(frozen=True)
class ClassShift:
    """What changed in one class.

    Parameters
    ----------
    area : share of the image at or above the threshold.
    undecided : of the pixels that score at least 0.1, the share that scores below 0.9; 0 if none does. It does
        not grow with the object, as a share of the image would.
    empty : share of samples whose mask at the threshold is empty, in validation and in test.
    """

    name: str
    area: Difference
    undecided: Difference
    empty: tuple[float, float]

    @property
    def is_shifted(self) -> bool:
        """Tell whether either quantity is."""
        return self.area.is_shifted or self.undecided.is_shifted


@dataclass(frozen=True)
class ShiftReport:
    """How test scores differ from validation scores, class by class.

    Parameters
    ----------
    samples : how many, in validation and in test.
    undecided : scores from the first up to the second are undecided.
    """

    classes: tuple[ClassShift, ...]
    samples: tuple[int, int]
    undecided: tuple[float, float]

    @property
    def shifted(self) -> tuple[str, ...]:
        """Classes whose scores differ more than chance explains."""
        return tuple(c.name for c in self.classes if c.is_shifted)

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, for JSON."""
        return {
            "legend": " ".join(self._legend()),
            "samples": {"validation": self.samples[0], "test": self.samples[1]},
            "undecided_between": list(self.undecided),
            "classes": [
                {
                    "name": c.name,
                    "area": c.area.to_dict(),
                    "undecided": c.undecided.to_dict(),
                    "empty": {"validation": round(c.empty[0], 9), "test": round(c.empty[1], 9)},
                }
                for c in self.classes
            ],
            "shifted": list(self.shifted),
        }

    def report(self) -> Report:
        """Describe it: one table, what its columns mean, and a warning for what is shifted."""
        columns = ["class", "area val", "area test", "d", "p", "undecided val", "undecided test", "d", "p", "empty val"]
        columns += ["empty test", "shifted"]
        warnings = []
        if self.shifted:
            doubt = (
                f"test scores of {len(self.shifted)} of {len(self.classes)} classes are not like validation scores, so "
                f"thresholds and scores may not carry over: {some(self.shifted)}"
            )
            fix = "look at these classes in both sets of images; validate on images like those of the test, or take 0.5"
            warnings.append(Caution(doubt, fix))
        return Report(
            f"scores of {self.samples[1]} test samples against {self.samples[0]} validation samples",
            columns,
            [_row(c) for c in self.classes],
            " ".join(self._legend()),
            [],
            warnings,
        )

    def _legend(self) -> list[str]:
        low, high = self.undecided
        area = "Area: share of the image at or above the threshold."
        undecided = f"Undecided: of the pixels that score at least {low:g}, the share below {high:g}."
        tests = "d: difference of means in standard deviations. p: Mann–Whitney, corrected by Holm over the table."
        return [
            f"{area} {undecided} Empty: share of samples with an empty mask.",
            f"{tests} Shifted: p < {SURE:g} and |d| ≥ {MEDIUM:g}.",
        ]

    def table(self) -> pd.DataFrame:
        """Return a pandas frame, a row for each class and quantity."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"class": c.name, "quantity": name, **value.to_dict()}
                for c in self.classes
                for name, value in (("area", c.area), ("undecided", c.undecided))
            ]
        )

    def __str__(self) -> str:
        told = ", ".join(self.shifted) or "none"
        return f"shifted classes: {told} ({self.samples[0]} validation and {self.samples[1]} test samples)"

    def _repr_html_(self) -> str:
        return report_html(self.report())


def compare(
    validation: Ensemble,
    test: Ensemble,
    thresholds: Any = 0.5,
    undecided: tuple[float, float] = UNDECIDED,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> ShiftReport:
    """Compare the scores of two sets of images that the same members saw; no truth is needed.

    Takes a pass over each, about as long as a vote; memory does not depend on the number of samples.

    Parameters
    ----------
    validation, test : ensembles of the same members, fused alike.
    thresholds : as for `Ensemble.vote`; a number, one per class, or a `ThresholdSet`.
    undecided : scores from the first up to the second are undecided.

    Raises
    ------
    MismatchError
        Ensembles of other classes or members, or fused in another way; thresholds that do not fit.
    UsageError
        Two scores that are not ascending in [0, 1]; a decision without thresholds.

    Examples
    --------
    >>> import tempfile, numpy as np, ensemble_kit as ek
    >>> paths = [f"{tempfile.mkdtemp()}/{name}.zarr" for name in ("val", "test")]
    >>> for path, shift in zip(paths, (0, 3)):
    ...     with ek.LogitWriter(path, ["bone"], [f"s{k}" for k in range(9)], (8, 8), member="unet") as out:
    ...         for k in range(9):
    ...             out.write(f"s{k}", np.linspace(-9, 9 - k / 9, 64).reshape(1, 8, 8) - shift, (16, 16))
    >>> compare(ek.Ensemble(paths[:1]), ek.Ensemble(paths[1:])).shifted
    ('bone',)
    """
    return measured(validation, test, thresholds, undecided, executor, listener).compared()


@dataclass(frozen=True)
class Measured:
    """What is compared of each sample.

    Parameters
    ----------
    classes : names.
    validation, test : float64 (samples, classes, 2), area and share of undecided pixels.
    undecided : as for `compare`.
    """

    classes: tuple[str, ...]
    validation: NDArray[np.float64]
    test: NDArray[np.float64]
    undecided: tuple[float, float] = UNDECIDED

    def compared(self) -> ShiftReport:
        """Test whether validation and test differ more than chance explains."""
        ours, theirs = self.validation.transpose(2, 1, 0), self.test.transpose(2, 1, 0)
        rough = [[mann_whitney(ours[q, c], theirs[q, c]) for q in range(2)] for c in range(len(self.classes))]
        p = np.array(holm([value for row in rough for value in row])).reshape(-1, 2)
        classes = tuple(
            ClassShift(
                name,
                Difference(ours[0, c], theirs[0, c], float(p[c, 0])),
                Difference(ours[1, c], theirs[1, c], float(p[c, 1])),
                (float((ours[0, c] == 0).mean()), float((theirs[0, c] == 0).mean())),
            )
            for c, name in enumerate(self.classes)
        )
        return ShiftReport(classes, (ours.shape[2], theirs.shape[2]), self.undecided)


def measured(
    validation: Ensemble,
    test: Ensemble,
    thresholds: Any = 0.5,
    undecided: tuple[float, float] = UNDECIDED,
    executor: Executor = THREADS,
    listener: Listener = nobody,
    part: Part = WHOLE,
) -> Measured:
    """Measure the scores of both sets of images; parameters and errors as for `compare`.

    Parameters
    ----------
    part : which share of the samples of each is measured; of a set that has fewer it may be none.
    """
    _check_alike(validation, test)
    if not 0 <= undecided[0] < undecided[1] <= 1:
        raise UsageError(
            "undecided-invalid",
            "cannot compare scores",
            item=f"undecided={undecided!r}",
            fix="pass two ascending scores in [0, 1], such as (0.1, 0.9)",
        )
    ours, theirs = (_measure(e, thresholds, undecided, executor, listener, part) for e in (validation, test))
    order = [test.classes.index(name) for name in validation.classes]
    return Measured(validation.classes, ours, theirs[:, order], undecided)


def _measure(
    ensemble: Ensemble,
    thresholds: Any,
    undecided: tuple[float, float],
    executor: Executor,
    listener: Listener,
    part: Part,
) -> NDArray[np.float64]:
    """Measure the area and the share of undecided pixels: float64 (samples, classes, 2)."""
    decision = ensemble.decision(thresholds)
    if not isinstance(decision, Argmax):
        check_kind("the decision", decision, Thresholds)
    ensemble.inputs.check_each_class()
    low, high = (ensemble.level_of(score) for score in undecided)
    work = MeasureScores(ensemble.inputs, decision, low, high)
    rows = list(executor.map(work, Items(tuple(part.share(ensemble.samples))), "comparing", listener))
    return np.array(rows, np.float64).reshape(len(rows), len(ensemble.classes), 2)


@dataclass(frozen=True)
class MeasureScores:
    """The work of measuring one sample: each class's area, and the share of it that is undecided."""

    inputs: Inputs
    decision: Decision
    low: int
    high: int

    def __call__(self, item: Item) -> list[tuple[float, float]]:
        """Return area and undecided share of every class."""
        scores, classes = open_sample(self.inputs, item.sample), self.inputs.classes
        levels = (
            self.decision.in_order(classes) if isinstance(self.decision, Thresholds) else (self.low,) * len(classes)
        )
        edges = [(min(self.low, level), min(max(self.high, level) + 1, LEVELS)) for level in levels]
        counted, pixels = scores.counts(dict(enumerate(edges))), math.prod(scores.image)
        areas, at = [], []
        for c, level in enumerate(levels):
            found, pred, _, above, _ = counted.of(c)
            pred = np.append(pred, above)
            area, *likely = (int(pred[np.searchsorted(found, k)]) for k in (level, self.low, self.high))
            areas.append(area)
            at.append(likely)
        if not isinstance(self.decision, Thresholds):
            areas = [mask.area for mask in self.decision(scores).masks(scores.image)]
        shares = [(likely - sure) / likely if likely else 0.0 for likely, sure in at]
        return [(area / pixels, share) for area, share in zip(areas, shares, strict=True)]


def check_comparable(validation: Ensemble, test: Ensemble) -> None:
    """Refuse ensembles whose scores cannot be compared however they will be fused, before any work.

    Raises
    ------
    MismatchError
        Other classes, or other members.
    UsageError
        Exclusive classes with mean="logit".
    """
    validation.inputs.check_each_class(_WHAT, "leave --compare out")
    for what, ours, theirs in (
        ("classes", validation.classes, test.classes),
        ("members", validation.fusion.members, test.fusion.members),
    ):
        if sorted(ours) != sorted(theirs):
            raise differ(
                _WHAT,
                what,
                f"{', '.join(ours)} in validation",
                f"{', '.join(theirs)} in test",
                "pass stores of the same members, by the same names",
                "ensembles-differ",
            )


def _check_alike(validation: Ensemble, test: Ensemble) -> None:
    for what, ours, theirs in validation.fusion.differences(test.fusion, validation.classes, test.classes):
        raise differ(
            _WHAT,
            what,
            f"{ours} in validation",
            f"{theirs} in test",
            "pass stores of the same members, fused alike",
            "ensembles-differ",
        )


def _row(c: ClassShift) -> list[str]:
    out = [c.name]
    for value, digits in ((c.area, 5), (c.undecided, 4)):
        out += [f"{v.mean():.{digits}f}" for v in (value.validation, value.test)]
        out += [f"{value.standardised:+.2f}", f"{value.p:.3g}"]
    return [*out, f"{c.empty[0]:.3f}", f"{c.empty[1]:.3f}", "yes" if c.is_shifted else ""]
