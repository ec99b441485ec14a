"""A set's members, truth and groups, opened; and how a setting is judged: out of fold, and on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import ensemble_kit as ek
from ensemble_kit.recipes.tune import measure_of
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Interval
from ensemble_kit.tuning.folds import group_of, read_groups
from ensemble_kit.tuning.resampling import Resampler

FAMILIES = ("unet", "fpn", "dilated")


@dataclass(frozen=True)
class Setting:
    """What a row of the ladder found.

    Parameters
    ----------
    fold : score on validation samples that chose nothing of it.
    masks : what it answers on the test images.
    told : what was chosen, in a few words.
    """

    fold: float
    masks: ek.MaskSet
    told: str = ""


@dataclass(frozen=True)
class Bench:
    """The folder of one set, as `members.make` wrote it."""

    folder: Path
    members: tuple[str, ...] = FAMILIES

    def stores(self, part: str, members: Sequence[str] | None = None) -> list[Path]:
        """The members' stores of a part, val or test."""
        return [self.folder / part / f"{m}.zarr" for m in members or self.members]

    def open(self, part: str, members: Sequence[str] | None = None) -> ek.Ensemble:
        return ek.Ensemble(self.stores(part, members))

    @cached_property
    def val(self) -> ek.Ensemble:
        return self.open("val")

    @cached_property
    def truth(self) -> dict[str, ek.MaskSet]:
        return {part: ek.read_masks(self.folder / f"{part}.npz") for part in ("val", "test")}

    @cached_property
    def groups(self) -> Any:
        return read_groups(str(self.folder / "groups.csv"))

    @property
    def exclusive(self) -> bool:
        return self.val.activation == "softmax"

    @cached_property
    def measure(self) -> Measure:
        """Mean Dice over (image, class) pairs; of exclusive classes mIoU."""
        return measure_of(self.exclusive, None, None, 0.0, None)

    @cached_property
    def plain(self) -> dict[str, ek.MaskSet]:
        """The soft mean at 0.5, of exclusive classes its argmax: what every row is compared with."""
        return {part: self.open(part).vote() for part in ("val", "test")}

    def score(self, masks: ek.MaskSet, part: str) -> float:
        return ek.dice(masks, self.truth[part]).score(self.measure)

    def gain(self, masks: ek.MaskSet) -> Interval:
        """The gain on test over the soft mean at 0.5, with its paired bootstrap interval over groups."""
        counted = [ek.dice(m, self.truth["test"]) for m in (masks, self.plain["test"])]
        (one, other), truth = [(o.tp.T, o.pred.T) for o in counted], counted[0].truth.T
        judge = Resampler(group_of(counted[0].samples, self.groups), seed=0)
        return judge.interval(self.measure, one, other, np.ascontiguousarray(truth))

    def untuned(self, ensembles: dict[str, ek.Ensemble], decision: Any = None, rules: Any = None) -> Setting:
        """Judge a setting that no sample chooses, so that every sample is out of fold."""
        masks = {part: ensembles[part].vote(decision, rules) for part in ("val", "test")}
        return Setting(self.score(masks["val"], "val"), masks["test"])

    def tuned(self, ensembles: dict[str, ek.Ensemble], **options: Any) -> Setting:
        """Tune on validation, by group folds, and vote on test."""
        found = ek.tune_thresholds(ensembles["val"], self.truth["val"], folds="auto", groups=self.groups, **options)
        crossed = found.validation.crossed
        told = ", ".join(found.rules)
        return Setting(crossed.scores["tuned"], ensembles["test"].as_tuned(found).vote(found), told)
