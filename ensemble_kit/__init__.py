"""ensemble_kit: turn many segmentation models into one answer."""

from importlib import import_module

TYPE_CHECKING = False  # `typing` takes 15 ms of every start, in which Ctrl-C would still end in Python's own traceback

__version__ = "0.1.0"

_HOME = {
    "LogitWriter": "logits.writer",
    "LogitStore": "logits.store",
    "Ensemble": "ensemble",
    "Runs": "masks.runs",
    "encode": "masks.runs",
    "MaskSet": "masks.maskset",
    "Geometry": "spec.affine",
    "read_masks": "formats.reading",
    "hard_vote": "decisions.hard",
    "Staple": "decisions.staple",
    "Simple": "decisions.simple",
    "Argmax": "decisions.argmax",
    "RankRule": "decisions.rank",
    "Thresholds": "decisions.thresholds",
    "tune_thresholds": "recipes.tune",
    "control_risk": "recipes.risk",
    "measure_calibration": "tuning.reliability",
    "vote": "recipes.arrays",
    "fuse": "recipes.fusing",
    "Stack": "recipes.stack",
    "fit_stack": "recipes.stack_fitting",
    "ThresholdSet": "thresholds.thresholdset",
    "dice": "metrics.overlap",
    "iou": "metrics.overlap",
    "confusion": "metrics.confusion",
    "overlay": "masks.drawing",
    "EnskError": "errors",
    "UsageError": "errors",
    "DamagedError": "errors",
    "IncompleteError": "errors",
    "ResourceError": "errors",
    "MismatchError": "errors",
    "UnsafeError": "errors",
    "LockedError": "errors",
}
__all__ = [  # spelt out, because type checkers do not evaluate it
    "Argmax",
    "DamagedError",
    "Ensemble",
    "EnskError",
    "Geometry",
    "IncompleteError",
    "LockedError",
    "LogitStore",
    "LogitWriter",
    "MaskSet",
    "MismatchError",
    "RankRule",
    "ResourceError",
    "Runs",
    "Simple",
    "Stack",
    "Staple",
    "ThresholdSet",
    "Thresholds",
    "UnsafeError",
    "UsageError",
    "confusion",
    "control_risk",
    "dice",
    "encode",
    "fit_stack",
    "fuse",
    "hard_vote",
    "iou",
    "measure_calibration",
    "overlay",
    "read_masks",
    "tune_thresholds",
    "vote",
]

if TYPE_CHECKING:
    from typing import Any

    from ensemble_kit.decisions.argmax import Argmax
    from ensemble_kit.decisions.hard import hard_vote
    from ensemble_kit.decisions.rank import RankRule
    from ensemble_kit.decisions.simple import Simple
    from ensemble_kit.decisions.staple import Staple
    from ensemble_kit.decisions.thresholds import Thresholds
    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.errors import (
        DamagedError,
        EnskError,
        IncompleteError,
        LockedError,
        MismatchError,
        ResourceError,
        UnsafeError,
        UsageError,
    )
    from ensemble_kit.formats.reading import read_masks
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.logits.writer import LogitWriter
    from ensemble_kit.masks.drawing import overlay
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.masks.runs import Runs, encode
    from ensemble_kit.metrics.confusion import confusion
    from ensemble_kit.metrics.overlap import dice, iou
    from ensemble_kit.recipes.arrays import vote
    from ensemble_kit.recipes.fusing import fuse
    from ensemble_kit.recipes.risk import control_risk
    from ensemble_kit.recipes.stack import Stack
    from ensemble_kit.recipes.stack_fitting import fit_stack
    from ensemble_kit.recipes.tune import tune_thresholds
    from ensemble_kit.spec.affine import Geometry
    from ensemble_kit.thresholds.thresholdset import ThresholdSet
    from ensemble_kit.tuning.reliability import measure_calibration


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble_kit' has no attribute {name!r}")
    value = getattr(import_module(f"ensemble_kit.{_HOME[name]}"), name)
    globals()[name] = value  # at the next access it is an ordinary name
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
