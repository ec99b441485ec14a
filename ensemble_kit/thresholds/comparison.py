"""Two threshold sets side by side: how they decide, how they were tuned, and what they score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ensemble_kit.errors import Caution
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
        check_same_classes(self.a.names, self.b.names, names, what, "pass two sets of the same classes")

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
        sets, (a, b) = (self.a, self.b), (_values(self.a), _values(self.b))
        entries: list[dict[str, Any]] = []
        for name in self.a.names:
            entry: dict[str, Any] = {"name": name, "score": [_number(s.per_class[name]) for s in sets]}
            if all(s.classes for s in sets):
                entry["level"] = [s.levels[name] for s in sets]
            if self.word:
                entry[self.word] = [round(v[name], 9) for v in (a, b)]
            entries.append(entry)
        return {
            "kind": "two threshold sets",
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "like_with_like": self.is_like_with_like,
            "legend": self._legend(),
            "classes": entries,
            "score": [_number(self.a.score), _number(self.b.score)],
            "out_of_fold": [_out_of_fold(self.a), _out_of_fold(self.b)],
        }

    @property
    def word(self) -> str:
        """What both have for a class, "threshold" or "factor"; empty where one has the one, and the other the other."""
        words = {"threshold" if s.classes else "factor" for s in (self.a, self.b)}
        return words.pop() if len(words) == 1 else ""

    def report(self) -> Report:
        """Describe it: thresholds or factors and scores per class, then what was done differently."""
        a, b = _values(self.a), _values(self.b)
        rows = []
        for name in self.a.names:
            own = _pair(a[name], b[name])
            own[-1] = own[-1] if self.word else "–"
            rows.append([name, *own, *_pair(self.a.per_class[name], self.b.per_class[name])])
        rows.append(["all", "", "", "", *_pair(self.a.score, self.b.score)])
        folds = [math.nan if v is None else v for v in (_out_of_fold(self.a), _out_of_fold(self.b))]
        if not all(math.isnan(v) for v in folds):
            rows.append(["all, out of fold", "", "", "", *_pair(*folds)])
        lines = [f"{name}: {ours} in A, {theirs} in B" for name, (ours, theirs) in self.differences.items()]
        warnings = []
        if not self.is_like_with_like:
            doubt = "the scores are of different metrics or samples, so their difference says little"
            warnings.append(
                Caution(doubt, "tune both on the same --val with the same --metric, or vote and score both")
            )
        words = [f"{'threshold' if s.classes else 'factor'} {letter}" for s, letter in ((self.a, "A"), (self.b, "B"))]
        return Report(
            "A against B; scores are in-sample unless said otherwise",
            ["class", *words, "B - A", "score A", "score B", "B - A"],
            rows,
            self._legend(),
            lines or ["Both sets were made in the same way."],
            warnings,
        )

    def _legend(self) -> str:
        """Say by which convention each set's scores are."""
        told = [f"{s.measure.legend}; {s.measure.counted}" for s in (self.a, self.b)]
        return f"Score: {told[0]}." if told[0] == told[1] else f"Score A: {told[0]}. Score B: {told[1]}."

    def _repr_html_(self) -> str:
        return report_html(self.report())


def _values(s: ThresholdSet) -> dict[str, float]:
    """Each class's threshold, or its factor."""
    return {**s.thresholds, **{c.name: c.factor / 65536 for c in s.factors}}


def _facts(s: ThresholdSet) -> dict[str, Any]:
    crossed, decision = s.validation.crossed, s.decision
    weights = dict(zip(s.names, s.fusion.weights, strict=True))
    same = len(set(weights.values())) == 1
    return {
        "decision": decision.kind,
        "background": decision.background,
        "least": decision.least,
        "rank temperature": decision.temperature,
        "members": [m.name for m in s.members],
        "stores": [part.fingerprint for m in s.members for part in m.parts],
        "mean": str(s.fusion.mean),
        "upsample": s.fusion.upsample,
        "classes of members": s.member_classes,
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
