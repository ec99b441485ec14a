"""Two threshold sets side by side: how they decide, how they were tuned, and what they score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ensemble_kit.masks.alignment import check_same_classes
from ensemble_kit.reports.html import report_html
from ensemble_kit.reports.report import Report
from ensemble_kit.thresholds.thresholdset import ThresholdSet


@dataclass(frozen=True)
class SetComparison:
    """Two threshold sets of the same classes, side by side.

    Attributes
    ----------
    differences : dict by name, the values in a and in b of what was done differently; empty where only numbers differ.

    Raises
    ------
    MismatchError
        Sets of different classes.
    """

    a: ThresholdSet
    b: ThresholdSet

    def __post_init__(self) -> None:
        what = "cannot compare threshold sets of different classes"
        names = ("the first", "the second")
        check_same_classes(self.a.levels, self.b.levels, names, what, "pass two sets of the same classes")

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """What was done differently, by name."""
        ours, theirs = _facts(self.a), _facts(self.b)
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}

    @property
    def is_like_with_like(self) -> bool:
        """Tell whether the scores are of one metric on the same validation samples."""
        return not {"metric", "validation samples"} & set(self.differences)

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, for JSON."""
        a, b = ({c.name: c for c in s.classes} for s in (self.a, self.b))
        return {
            "kind": "two threshold sets",
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "like_with_like": self.is_like_with_like,
            "classes": [
                {
                    "name": name,
                    "level": [a[name].level, b[name].level],
                    "threshold": [round(s.thresholds[name], 9) for s in (self.a, self.b)],
                    "score": [_number(a[name].score), _number(b[name].score)],
                }
                for name in a
            ],
            "score": [_number(self.a.score), _number(self.b.score)],
            "out_of_fold": [_out_of_fold(self.a), _out_of_fold(self.b)],
        }

    def report(self) -> Report:
        """Describe it: thresholds and scores per class, then what was done differently."""
        b = {c.name: c for c in self.b.classes}
        rows = [
            [c.name, *_pair(self.a.thresholds[c.name], self.b.thresholds[c.name]), *_pair(c.score, b[c.name].score)]
            for c in self.a.classes
        ]
        rows.append(["all", "", "", "", *_pair(self.a.score, self.b.score)])
        folds = [math.nan if v is None else v for v in (_out_of_fold(self.a), _out_of_fold(self.b))]
        if not all(math.isnan(v) for v in folds):
            rows.append(["all, out of fold", "", "", "", *_pair(*folds)])
        lines = [f"{name}: {ours} in A, {theirs} in B" for name, (ours, theirs) in self.differences.items()]
        warnings = []
        if not self.is_like_with_like:
            warnings.append("the scores are of different metrics or samples, so their difference says little")
        return Report(
            "A against B; scores are in-sample unless said otherwise",
            ["class", "threshold A", "threshold B", "B - A", "score A", "score B", "B - A"],
            rows,
            lines or ["Both sets were made in the same way."],
            warnings,
        )

    def _repr_html_(self) -> str:
        return report_html(self.report())


def _facts(s: ThresholdSet) -> dict[str, Any]:
    crossed = s.validation.crossed
    weights = dict(zip(s.levels, s.fusion.weights, strict=True))
    same = len(set(weights.values())) == 1
    return {
        "members": [m.name for m in s.members],
        "stores": [m.fingerprint for m in s.members],
        "mean": str(s.fusion.mean),
        "upsample": s.fusion.upsample,
        "weights": list(s.fusion.weights[0]) if same else {name: list(weights[name]) for name in sorted(weights)},
        "temperatures": list(s.fusion.temperatures),
        "rules": list(s.rules),
        "metric": str(s.measure),
        "validation samples": f"{s.validation.n} ({s.validation.digest[:12]})",
        "folds": crossed.folds if crossed else None,
        "groups": crossed.groups if crossed else None,
        "shrink": crossed.shrink if crossed else None,
        "search": {k: v for k, v in s.search.items() if k != "versions"},
        "versions": s.search.get("versions"),
    }


def _out_of_fold(s: ThresholdSet) -> float | None:
    return _number(s.validation.crossed.scores["tuned"]) if s.validation.crossed else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 9)


def _pair(a: float, b: float) -> list[str]:
    shown = ["–" if math.isnan(v) else f"{v:.4f}" for v in (a, b)]
    return [*shown, "–" if math.isnan(b - a) else f"{b - a:+.4f}"]
