"""What a set guarantees whose thresholds control a risk, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_kit.spec.risk import Risk
from ensemble_kit.thresholds.fields import as_level, as_object, as_whole, number

LIMITS = (
    "this holds on average over groups that are exchangeable with the calibration groups (same scanner, same site, "
    "same selection of images), not for every group or kind of group; not if a network was trained, or anything else "
    "tuned, on calibration images; and not after other rules, thresholds or fusion"
)


@dataclass(frozen=True)
class ClassRisk:
    """The risk of one class on the calibration groups, at the level of the set.

    Parameters
    ----------
    level : of the set; the risk is controlled at no higher one.
    risk : the mean over all groups.
    bound : what was compared with alpha; None where the risk of the worst class is controlled.
    present : groups that have the class.
    risk_present : the mean over these; NaN if there is none.
    """

    level: int
    risk: float
    bound: float | None
    present: int
    risk_present: float


@dataclass(frozen=True)
class Guarantee:
    """A risk that a set controls.

    Parameters
    ----------
    risk : what is controlled.
    groups : how many it was calibrated on.
    value, bound : the mean loss over them and its bound: over "all" of the worst class, else the largest of a class.
    classes : by name.
    """

    risk: Risk
    groups: int
    value: float
    bound: float
    classes: Mapping[str, ClassRisk]

    def __str__(self) -> str:
        r = self.risk
        whose = "each class's true pixels" if r.over == "class" else "the true pixels of an image's worst class"
        missed = f"the masks miss on average at most {r.alpha:g} of {whose}"
        if r.delta is None:
            told = f"in a new group {missed}, in expectation over calibration and new groups"
        else:
            each = ", for each class by itself" if r.over == "class" else ""
            told = f"in new groups {missed}, with probability {1 - r.delta:g} over calibration groups{each}"
        return f"{told} ({r.method}, {self.groups} groups)"

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, for JSON."""
        r = self.risk
        return {
            "kind": r.kind,
            "alpha": r.alpha,
            "delta": r.delta,
            "over": r.over,
            "method": r.method,
            "groups": self.groups,
            "risk": self.value,
            "bound": self.bound,
            "bound_by": r.bound_name,
            "guarantee": str(self),
            "limits": LIMITS,
            "classes": {
                name: {
                    "level": c.level,
                    "risk": c.risk,
                    "bound": c.bound,
                    "present": c.present,
                    "risk_present": c.risk_present if c.present else None,
                }
                for name, c in self.classes.items()
            },
        }

    @classmethod
    def from_dict(cls, d: dict[str, Any], levels: Mapping[str, int]) -> Guarantee:
        """Read what `to_dict` wrote, for a set with these levels; ValueError or TypeError where it cannot be so."""
        risk, groups, classes = Risk(d["alpha"], d["delta"], d["over"], d["kind"]), as_whole(d["groups"]), {}
        for name, c in as_object(d["classes"]).items():
            bound = None if c["bound"] is None else _share(c["bound"])
            present = number(c["risk_present"])
            classes[name] = ClassRisk(as_level(c["level"]), _share(c["risk"]), bound, as_whole(c["present"]), present)
        if {name: c.level for name, c in classes.items()} != levels:
            raise ValueError("its risk is controlled for other classes, or at other levels than it decides by")
        found = cls(risk, groups, _share(d["risk"]), _share(d["bound"]), classes)
        if groups < risk.least_groups or found.bound > risk.alpha * (1 + 1e-9):
            raise ValueError(f"its risk is bounded by {found.bound!r} on {groups} groups, alpha is {risk.alpha!r}")
        return found


def _share(value: object) -> float:
    share = float(value)  # type: ignore[arg-type]
    if not 0 <= share <= 1:
        raise ValueError(f"{value!r} is not a share")
    return share
