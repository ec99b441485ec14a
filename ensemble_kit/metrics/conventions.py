"""How well-known packages and competitions score, by name: metric, reduction, empty masks, background and void."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ensemble_kit.errors import UsageError, check_choice
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import is_background
from ensemble_kit.spec.scoring import REDUCTIONS, Convention, Measure, Reduction

_SKIP = Convention(empty="skip")


@dataclass(frozen=True)
class Named:
    """A convention known by a name.

    Parameters
    ----------
    name : what `--convention` calls it.
    source : whose figure it is, with the options that are not its defaults.
    metrics : those that it scores, the default first.
    reduction, convention : as `Measure` has them.
    foreground : whether the class called background is left out.
    has_void : whether pixels of the truth can be left out.
    remark : where the source differs from what is computed here.
    """

    name: str
    source: str
    metrics: tuple[str, ...]
    reduction: Reduction
    convention: Convention
    foreground: bool = False
    has_void: bool = True
    remark: str = ""

    def measure(self, classes: Sequence[str], metric: str | None = None, background: str | None = None) -> Measure:
        """Make the measure for these classes.

        Parameters
        ----------
        metric : one of the convention's own.
        background : a class to leave out; default: as the convention says.

        Raises
        ------
        UsageError
            A metric that the convention does not score.
        """
        if metric is not None:
            check_choice("metric", metric, self.metrics, f"cannot score as {self.source}")
        if background is None and self.foreground:
            background = next(filter(is_background, classes), None)
        return Measure(self.reduction, metric or self.metrics[0], self.convention, background)

    def check(self, truth: MaskSet) -> None:
        """Refuse void pixels where the convention has none.

        Raises
        ------
        UsageError
            The truth has void pixels.
        """
        if not self.has_void and truth.has_void:
            raise UsageError(
                "convention-void",
                f"cannot score as {self.source}, which knows no void",
                item=f"the truth has {sum(truth.void(s).area for s in truth.samples)} void pixels",
                fix="pass another --convention or none; Dice without void pixels is the default",
            )

    def told(self, measure: Measure) -> str:
        """Spell out what is computed."""
        empty = {
            1: "a pair whose masks are both empty scores 1",
            0: "a pair whose masks are both empty scores 0",
            "skip": "what is in neither truth nor prediction is left out",
            "skip-truth": "what the truth lacks is left out, whatever is predicted there",
        }[measure.convention.empty]
        eps = f", eps {measure.convention.eps:g}" if measure.convention.eps else ""
        counted = (
            "every class counts" if measure.background is None else f"without the background {measure.background!r}"
        )
        if measure.background is None and self.foreground:
            counted = "no class is called background, so every class counts"
        void = "; void pixels of the truth do not count" if self.has_void else ""
        remark = f". {self.remark}" if self.remark else ""
        reduced = f"{measure.title}, {REDUCTIONS[measure.objective]}"
        return f"as {self.source}: {reduced}; {empty}{eps}; {counted}{void}{remark}."


CONVENTIONS = {
    known.name: known
    for known in (
        Named("mmseg", "mmseg's IoUMetric(ignore_index=255)", ("iou", "dice"), "pooled", _SKIP),
        Named(
            "torchmetrics",
            "torchmetrics' MulticlassJaccardIndex(average='macro')",
            ("iou", "dice"),
            "pooled",
            _SKIP,
            remark="Its segmentation.MeanIoU is the mean over pairs: --metric iou --empty skip",
        ),
        Named(
            "nnunet",
            "nnU-Net's foreground_mean",
            ("dice", "iou"),
            "per-class",
            _SKIP,
            foreground=True,
            remark="nnU-Net gives NaN where a class is in no sample at all",
        ),
        Named(
            "monai",
            "MONAI's DiceMetric() and MeanIoU()",
            ("dice", "iou"),
            "per-image",
            Convention(empty="skip-truth"),
        ),
        Named(
            "handbone",
            "the Boostcamp hand-bone leaderboard",
            ("dice",),
            "mean",
            Convention(1e-4, 1),
            has_void=False,
        ),
        Named("kaggle", "Kaggle's mean Dice by image and class", ("dice",), "mean", Convention(), has_void=False),
    )
}
"""The first metric of each is its default."""


def named(name: str) -> Named:
    """Find a convention by its name.

    Raises
    ------
    UsageError
        Another name.
    """
    check_choice("--convention", name, tuple(CONVENTIONS), "cannot score")
    return CONVENTIONS[name]
