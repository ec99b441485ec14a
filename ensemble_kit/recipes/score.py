"""From masks and their truth to scores with a report, for `ensk score` and notebooks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ensemble_kit.errors import Caution, some
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.confusion import Confusion, confusion
from ensemble_kit.metrics.conventions import Named, named
from ensemble_kit.metrics.overlap import Overlap, dice
from ensemble_kit.metrics.shifted import mistaken
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.scoring import Convention, Measure

_SAME = "compare both sides' order of classes and label values (--labels, --first-value, --classes)"
_EXCLUSIVE = (
    "Every figure is of the pixels of all samples pooled, eps = 0. Accuracy: share of a class's true pixels that are "
    "predicted as it (recall). Precision: share of its predicted pixels that are truly it. Pixels: of the truth. -: "
    "there is no such pixel, and means leave the class out. Void does not count."
)


class Void(NamedTuple):
    """Pixels of masks that are void: how many of how many, and in how many of how many samples."""

    pixels: int
    of_pixels: int
    samples: int
    of_samples: int

    @classmethod
    def of(cls, masks: MaskSet) -> Void:
        """Count them."""
        areas = [masks.void(s).area for s in masks.samples]
        every = sum(math.prod(masks.image_size(s)) for s in masks.samples)
        return cls(sum(areas), every, sum(area > 0 for area in areas), len(areas))

    @property
    def share(self) -> float:
        """Share of all pixels."""
        return self.pixels / self.of_pixels if self.of_pixels else 0.0

    def told(self) -> list[str]:
        """Say how much of a truth is void; nothing where none is."""
        held = f"in {self.samples} of {self.of_samples} samples"
        return [f"Void: {self.share:.2%} of the truth's pixels, {held}, do not count."] if self.samples else []


@dataclass(frozen=True)
class Scores:
    """Scores of masks against their truth.

    Parameters
    ----------
    overlap : the metric of every (sample, class), under its convention.
    measure : what the one figure is: that of the named convention, or the mean over pairs.
    confusion : of exclusive classes; None where classes of either side overlap.
    convention : the named one; None without.
    void : pixels that do not count, of the truth.
    void_predicted : pixels of the prediction that count as pixels without a class.
    """

    overlap: Overlap
    measure: Measure
    confusion: Confusion | None
    convention: Named | None
    void: Void
    void_predicted: Void

    @property
    def score(self) -> float:
        """The one figure."""
        return self.overlap.score(self.measure)

    def told(self) -> list[str]:
        """Say which convention is in force, what void is left out, and which classes are absent."""
        lines = []
        if self.convention is not None:
            name = "mIoU" if self.measure.is_miou else self.measure.title
            lines.append(f"{name} {self.score:.6f} {self.convention.told(self.measure)}")
        lines += self.void.told()
        if self.void_predicted.samples:
            lines.append(
                f"Void: {self.void_predicted.share:.2%} of the prediction's pixels count as pixels without a class."
            )
        if absent := self.overlap.absent:
            lines.append(f"In neither truth nor prediction: {some(absent, 10)}.")
        return lines

    def warnings(self) -> list[Caution]:
        """Say what looks like labels that do not mean the same on both sides."""
        if self.confusion is not None and (told := mistaken(self.confusion)):
            return [Caution(told, _SAME)]
        if self.overlap.tp.any() or not self.overlap.truth.any():
            return []
        return [Caution("no pixel of any class is right: do the classes mean the same on both sides?", _SAME)]

    def reports(self) -> list[Report]:
        """Describe them: a table by class; of exclusive classes a second one, of pooled pixels, with mIoU."""
        o, name = self.overlap, self.measure.title
        pooled, positives = o.pooled_per_class, (o.truth > 0).sum(0).tolist()
        rows = [
            [c, _text(value), _text(pooled[c]), str(n)]
            for (c, value), n in zip(o.per_class.items(), positives, strict=True)
        ]
        without = "" if o.background is None else f" without {o.background}"
        rows.append([f"all{without}", _text(o.mean), _text(o.pooled), str(sum(positives))])
        title = f"{name} over {len(o.samples)} samples ({o.convention})"
        columns = ["class", f"{name} per image", f"{name} pooled", "positives"]
        first = Report(title, columns, rows, self.legend, self.told(), self.warnings())
        return [first] if self.confusion is None else [first, _of_exclusive(self.confusion)]

    @property
    def legend(self) -> str:
        """What the columns of the table by class hold."""
        o, m = self.overlap, self.measure
        image, pooled = (Measure(r, m.metric, o.convention, o.background) for r in ("mean", "pooled"))
        void = "; void does not count" if self.void.samples else ""
        return (
            f"{m.title} per image: {_after(image.legend)}. {m.title} pooled: {_after(pooled.legend)}. "
            f"Positives: samples whose truth has the class. {image.counted[0].upper()}{image.counted[1:]}{void}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, for JSON; None in place of NaN."""
        o, m = self.overlap, self.confusion
        return {
            "metric": self.measure.metric,
            "mean": _number(o.mean),
            "pooled": _number(o.pooled),
            "legend": self.legend,
            "samples": len(o.samples),
            "per_class": {c: _number(v) for c, v in o.per_class.items()},
            "pooled_per_class": {c: _number(v) for c, v in o.pooled_per_class.items()},
            "convention": {"empty": o.convention.empty, "eps": o.convention.eps},
            "background": o.background,
            "void": {"pixels": self.void.pixels, "share": round(self.void.share, 9)},
            "absent": list(o.absent),
            "named": None
            if self.convention is None
            else {
                "name": self.convention.name,
                "score": _number(self.score),
                "told": self.convention.told(self.measure),
            },
            "exclusive": None if m is None else _values(m),
        }


def score(
    prediction: MaskSet,
    truth: MaskSet,
    metric: str | None = None,
    convention: Convention | str = Convention(),  # noqa: B008 - a frozen value
    background: str | None = None,
    include_background: bool = False,
) -> Scores:
    """Score masks against their truth, and count the confusion of exclusive classes.

    Parameters
    ----------
    metric : "dice" or "iou"; default: Dice, or that of the named convention.
    convention : how empty masks count and eps, or the name of a convention (`ensemble_kit.metrics.conventions`).
    background : a class that is left out of means over classes.
    include_background : whether a named convention that leaves out the class called background counts it.

    Raises
    ------
    IncompleteError, MismatchError
        The two do not hold the same samples, classes and image sizes.
    UsageError
        A background that is not among the classes; a named convention that does not fit the metric or the truth.
    """
    counts = dice(prediction, truth)
    found = named(convention) if isinstance(convention, str) else None
    if found is not None:
        found.check(truth)
        measure = found.measure(counts.classes, metric, background)
        if include_background:
            measure = Measure(measure.objective, measure.metric, measure.convention)
    else:
        assert isinstance(convention, Convention)
        measure = Measure("mean", metric or "dice", convention, background)
    exclusive = prediction.exclusive and truth.exclusive and len(truth.classes) > 1
    return Scores(
        counts.under(measure),
        measure,
        confusion(prediction, truth, measure.background) if exclusive else None,
        found,
        Void.of(truth),
        Void.of(prediction),
    )


def _after(legend: str) -> str:
    """Drop the metric's name, which stands before it."""
    return legend.partition(" ")[2]


def void_told(truth: MaskSet) -> list[str]:
    """Say how much of a truth is void; nothing where none is."""
    return Void.of(truth).told()


def _of_exclusive(m: Confusion) -> Report:
    columns = (m.iou, m.dice, m.recall, m.precision)
    pixels = m.counts.sum(1)[:-1].tolist()
    rows = [[c, *(_text(of[c]) for of in columns), str(n)] for c, n in zip(m.classes, pixels, strict=True)]
    occur = [c for c in m.classes if c not in m.absent and c != m.background]
    without = "" if m.background is None else f", without {m.background!r}"
    over_classes = (
        f"mIoU {_text(m.miou)}, mean Dice {_text(m.mean_dice)} over the {len(occur)} classes that occur{without}; "
        f"mean accuracy {_text(m.mean_accuracy)} over those of the truth."
    )
    of_pixels = f"Pixel accuracy {_text(m.accuracy)}{' over all pixels' if without else ''}"
    lines = [over_classes, f"{of_pixels}; frequency-weighted IoU {_text(m.fwiou)}{without}."]
    title = "exclusive classes, over the pixels of all samples"
    return Report(title, ["class", "IoU", "Dice", "accuracy", "precision", "pixels"], rows, _EXCLUSIVE, lines)


def _values(m: Confusion) -> dict[str, Any]:
    alone = {name: getattr(m, name) for name in ("miou", "mean_dice", "mean_accuracy", "accuracy", "fwiou")}
    by_class = {name: getattr(m, name) for name in ("iou", "dice", "recall", "precision")}
    return {
        "legend": _EXCLUSIVE,
        **{name: _number(value) for name, value in alone.items()},
        **{name: {c: _number(v) for c, v in of.items()} for name, of in by_class.items()},
    }


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.6f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
