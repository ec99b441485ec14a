"""nnU-Net's summary.json: counts, Dice and IoU of every case, their means over cases, and the means over classes.

`nnUNetv2_find_best_configuration` and other tools of nnU-Net read it. What is in neither truth nor prediction is NaN,
and left out of means (`compute_metrics_on_folder` of nnU-Net 2.8).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.errors import MismatchError, some
from ensemble_kit.files import atomic_write
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import Overlap
from ensemble_kit.spec.label_table import LabelTable, drawn_values, is_background

_METRICS = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")

Region = int | tuple[int, ...]
"""The value of a label, or those of a region."""


def summary(
    overlap: Overlap, truth: MaskSet, table: LabelTable | None, prediction: Path, reference: Path
) -> dict[str, Any]:
    """Lay out counts as nnU-Net does.

    Parameters
    ----------
    overlap : the counts of every sample and class.
    truth : gives sizes and void: pixels that do not count.
    table : what the values of label maps stand for; None: the order of the classes. The value 0 is the background,
        which is left out.
    prediction, reference : folders of the files that are named.
    """
    values = values_of(overlap.classes, table)
    columns = [(str(values[name]), k) for k, name in enumerate(overlap.classes) if values[name] != 0]
    every: list[dict[str, dict[str, float]]] = []
    cases = []
    for row, sample in enumerate(overlap.samples):
        counted = math.prod(truth.image_size(sample)) - truth.void(sample).area
        counts = [v[row].tolist() for v in (overlap.tp, overlap.pred, overlap.truth)]
        every.append({key: _metrics(counts[0][k], counts[1][k], counts[2][k], counted) for key, k in columns})
        files = {"prediction_file": _file(prediction, sample), "reference_file": _file(reference, sample)}
        cases.append({"metrics": every[-1], **files})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing, which are NaN
        means = {key: {k: float(np.nanmean([of[key][k] for of in every])) for k in _METRICS} for key, _ in columns}
    foreground = {k: float(np.mean([of[k] for of in means.values()])) for k in _METRICS}
    return {"foreground_mean": foreground, "mean": means, "metric_per_case": cases}


def foreground(masks: MaskSet) -> MaskSet:
    """Leave out the background, which nnU-Net does not score and answers may lack."""
    return masks.arranged(masks.samples, [name for name in masks.classes if not is_background(name)])


def _file(folder: Path, sample: str) -> str:
    """Name the file of a sample, whose id may lack the suffix; the folder and the id where there is none."""
    path = folder / sample
    found = [] if path.exists() else sorted(folder.glob(f"{escape(sample)}.*"))
    return str(found[0] if len(found) == 1 else path)


def values_of(classes: Sequence[str], table: LabelTable | None) -> dict[str, Region]:
    """Return what each class stands for: by a table, or by the order of the classes, in which they would be drawn.

    Raises
    ------
    MismatchError
        The table does not name a class.
    """
    if table is None:
        return dict(zip(classes, drawn_values(classes)[0], strict=True))
    regions: dict[str, Region] = {name: own if len(own) > 1 else own[0] for name, own in table.regions.items()}
    own = {name: regions.get(name, table.value_of(name)) for name in classes}
    if unknown := [name for name, value in own.items() if value is None]:
        item, fix = f"{some(unknown)}; {table}", "pass --labels with the dataset.json of these classes"
        raise MismatchError("nnunet-classes", "cannot tell the labels of classes", item=item, fix=fix)
    return {name: value for name, value in own.items() if value is not None}


def _metrics(tp: int, pred: int, truth: int, counted: int) -> dict[str, float]:
    either = pred + truth - tp
    dice, iou = (2 * tp / (pred + truth), tp / either) if either else (math.nan, math.nan)
    values = dice, truth - tp, pred - tp, iou, counted - either, tp, pred, truth
    return dict(zip(_METRICS, values, strict=True))


def write(content: Mapping[str, Any], path: Path, force: bool = False) -> None:
    """Write it as nnU-Net does: with NaN, which JSON does not know and Python reads."""
    with atomic_write(path, force=force) as file:
        file.write(json.dumps(content, sort_keys=True, indent=4).encode())
