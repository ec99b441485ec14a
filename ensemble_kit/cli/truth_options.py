"""Ground truth as commands that fit or tune read it: the options that say how, and the masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit.cli.annotation_options import read_annotations
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import kept, label_maps, say_labels
from ensemble_kit.cli.options import class_names, csv_format, size_of_images

if TYPE_CHECKING:
    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.masks.maskset import MaskSet


@dataclass(frozen=True)
class TruthOptions:
    """The options of a command that reads ground truth, as the user typed them; None where none was given."""

    format: str | None = None
    csv: str | None = None
    image_size: str | None = None
    classes: Path | None = None
    labels: str | None = None
    first_value: int | None = None
    void: str | None = None
    only: str | None = None
    without: str | None = None
    id: str | None = None
    images: Path | None = None
    score: float | None = None
    skip_empty: bool = False
    paint: str | None = None

    def read(self, val: Path, ensemble: Ensemble, common: Common, verb: str, background: str | None = None) -> MaskSet:
        """Read the truth of an ensemble's samples, and say what the values of label maps mean.

        Parameters
        ----------
        verb : what the command does, for a budget of memory that reading does not fit.
        background : a class that the truth may lack.
        """
        from ensemble_kit.masks.idforms import check_form
        from ensemble_kit.recipes import memory
        from ensemble_kit.recipes.masks import annotated, formats_for, refuse_store, truth_for
        from ensemble_kit.remote.copies import local

        refuse_store(val, "the truth")
        val = local(val)
        maps = formats_for(
            [val], [csv_format(self.format, self.csv)], label_maps(self.labels, self.first_value, self.void)
        )
        (how,) = annotated([val], maps, read_annotations(self.images, self.score, self.skip_empty, self.paint))
        form = None if self.id is None else check_form(self.id)
        only, without = self.only, self.without
        keep = None if only is None and without is None else (lambda read: kept([read], only, without)[0])
        memory.check(common.memory, memory.of_reading([val]), verb, all_told=False)
        sizes, names = size_of_images(self.image_size), class_names(self.classes)
        truth = truth_for(ensemble, val, how, sizes, names, keep, background, form)
        say_labels(common, [truth], [val])
        return truth
