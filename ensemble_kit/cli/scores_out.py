"""Where scores are written: a file of all figures, the confusion matrix, the score of every pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.options import warn_of_formulas
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.metrics.confusion import Confusion
    from ensemble_kit.recipes.score import Scores

ConfusionOption = Annotated[
    Path | None,
    typer.Option(
        "--confusion",
        help="Write the confusion matrix of exclusive classes: .csv, .json, or .npz with that of every sample.",
    ),
]
BySampleOption = Annotated[
    Path | None,
    typer.Option(
        "--by-sample",
        metavar="FILE",
        help="Write the score of every sample and class, with its pixels: sample,class,tp,pred,truth,value as .csv "
        "or .json.",
    ),
]


@dataclass(frozen=True)
class ScoresOut:
    """The files that scores are written to; None is not written.

    Parameters
    ----------
    out : all figures, as `--json` prints them.
    confusion, by_sample : as the options of these names.
    summary : whether `out` gets nnU-Net's summary.json in place of all figures.
    """

    out: Path | None = None
    confusion: Path | None = None
    by_sample: Path | None = None
    summary: bool = False

    def check(self, common: Common, inputs: Sequence[Path | str | None]) -> None:
        """Refuse, before any work, what cannot be written."""
        from ensemble_kit.metrics import confusion_file, overlap_file

        if self.confusion is not None:
            confusion_file.check_suffix(self.confusion)
            check_output(self.confusion, common, inputs, "--confusion")
        if self.by_sample is not None:
            overlap_file.check_suffix(self.by_sample)
            check_output(self.by_sample, common, inputs, "--by-sample")

    def write(self, scores: Scores, matrix: Confusion | None, common: Common) -> None:
        """Write the files, each complete or not at all, and give the answer.

        Parameters
        ----------
        matrix : of exclusive classes.

        Raises
        ------
        UsageError
            A matrix is to be written, and classes overlap.
        """
        from ensemble_kit.files import atomic_write
        from ensemble_kit.metrics import confusion_file, overlap_file

        if self.confusion is not None:
            if matrix is None:
                item, fix = "classes overlap in the masks of a part", "leave --confusion out"
                raise UsageError("classes-overlap", "cannot write a confusion matrix", item=item, fix=fix)
            confusion_file.write(matrix, self.confusion, force=common.force)
        if self.by_sample is not None:
            overlap_file.write(scores.overlap, self.by_sample, force=common.force)
            warn_of_formulas(common, scores.overlap, self.by_sample)
        if self.out is not None and not self.summary:
            text = json.dumps(scores.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)
            with atomic_write(self.out, force=common.force) as file:
                file.write(text.encode() + b"\n")
        common.answer(scores.to_dict(), *scores.reports())
