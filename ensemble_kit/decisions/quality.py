"""`RaterQuality`: how well each member votes, as a fusion of labels estimates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import Caution, check_choice
from ensemble_kit.reports.report import Report

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ALL = "all samples"
_LEGENDS = {
    "sensitivity": "Sensitivity: the share of a class's pixels that a member gives it, p.",
    "specificity": "Specificity: the share of the other pixels that it does not give the class, q.",
    "dice": "Dice: of a member's mask with the consensus.",
    "dropped": "Dropped: in how many of the votes a member was left out.",
}


_DROPPED = "Dropped: the share of the votes of which a member was left out."


@dataclass(frozen=True)
class RaterQuality:
    """How well each member votes, by sample and class; against the truth that was estimated, not against a known one.

    Parameters
    ----------
    method : what estimated it, as text: `staple` or `simple`, with its options.
    members, classes : names.
    samples : names; one, "all samples", where all were taken together.
    figures : by name, float64 (samples, classes, members): `sensitivity` and `specificity`, or `dice` and `dropped`,
        which is the round in which a member was, 0 is never. NaN where there is nothing to measure.
    confusion : of label maps, float64 (samples, members, L, L), how often a member says the first label where the
        second is true; None where classes are decided each by itself.
    labels : the names of those L labels.
    stopped : how many estimates ended at the most iterations, without having converged; of how many `estimates`.
    more : the method with more iterations, as text.
    """

    method: str
    members: tuple[str, ...]
    samples: tuple[str, ...]
    classes: tuple[str, ...]
    figures: dict[str, NDArray[np.float64]]
    confusion: NDArray[np.float64] | None = None
    labels: tuple[str, ...] = ()
    stopped: int = 0
    estimates: int = 0
    more: str = ""

    def named(self, members: Sequence[str]) -> RaterQuality:
        """Return the same under other names of members, in their order."""
        return replace(self, members=tuple(members))

    def mean(self, name: str) -> NDArray[np.float64]:
        """Average a figure over samples, float64 (classes, members); NaN where no sample has it."""
        check_choice("the figure", name, tuple(self.figures))
        return _mean(self.figures[name])

    @property
    def inverted(self) -> list[tuple[str, str, str]]:
        """Name the (sample, class, member) whose sensitivity and specificity add up to less than 1."""
        if "sensitivity" not in self.figures:
            return []
        below = self.figures["sensitivity"] + self.figures["specificity"] < 1
        return [(self.samples[s], self.classes[c], self.members[m]) for s, c, m in np.argwhere(below)]

    def cautions(self) -> list[Caution]:
        """Say which members' votes count as their opposite, and which estimates did not converge."""
        told = []
        if len(self.members) == 1:
            told.append(
                Caution("only one member votes, and it is all that it is measured against", "vote over several")
            )
        if found := self.inverted:
            first = "; ".join(f"{member}, class {name}, {sample}" for sample, name, member in found[:3])
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            doubt = (
                f"label inversion: {len(found)} of {self.figures['sensitivity'].size} times a member's sensitivity and "
                f"specificity add up to less than 1, so that its vote counts as the opposite: {first}{more}"
            )
            fix = "look at these masks, and compare with --fusion majority (fusion='majority')"
            told.append(Caution(doubt, fix))
        if self.stopped:
            doubt = f"{self.stopped} of {self.estimates} estimates had not converged at the most iterations"
            told.append(Caution(doubt, f"pass more: --fusion {self.more} (fusion={self.more!r})"))
        return told

    def table(self) -> pd.DataFrame:
        """Return a pandas frame: a row for each sample, class and member, a column for each figure."""
        import pandas as pd

        names = [("sample", self.samples), ("class", self.classes), ("member", self.members)]
        rows = np.indices([len(n) for _, n in names]).reshape(3, -1)
        keys = {title: np.array(n, object)[k] for (title, n), k in zip(names, rows, strict=True)}
        return pd.DataFrame({**keys, **{name: values.reshape(-1) for name, values in self.figures.items()}})

    def report(self) -> Report:
        """Describe it: a table by class and member, means over samples; the last rows are of all classes."""
        rows = [
            self._row(name, member, c, m)
            for c, name in enumerate(self.classes)
            for m, member in enumerate(self.members)
        ]
        if len(self.classes) > 1:
            rows += [self._row("all", member, None, m) for m, member in enumerate(self.members)]
        over = "over all samples together" if self.samples == (ALL,) else f"means over {len(self.samples)} samples"
        title = f"quality of members by {self.method}, {over}"
        return Report(title, ["class", "member", *self.figures], rows, self.legend)

    @property
    def legend(self) -> str:
        """What the figures are, as the report shows them."""
        return self._legend(_LEGENDS)

    def _legend(self, legends: Mapping[str, str]) -> str:
        told = " ".join(legends[name] for name in self.figures)
        return f"{told} Measured against the estimated truth. -: no pixel to measure it on."

    def _row(self, name: str, member: str, c: int | None, m: int) -> list[str]:
        cells = []
        for figure, values in self.figures.items():
            own = values[:, slice(None) if c is None else c, m]
            if figure == "dropped":
                cells.append(f"{int((own > 0).sum())} of {own.size}")
            else:
                mean = float(_mean(own.reshape(-1)))
                cells.append("-" if np.isnan(mean) else f"{mean:.4f}")
        return [name, member, *cells]

    def to_dict(self) -> dict[str, Any]:
        """Return the means over samples by name, for JSON; None in place of NaN."""
        of = {
            name: {
                kind: dict(zip(self.members, map(_number, row), strict=True))
                for kind, row in zip(self.classes, self._means(name).tolist(), strict=True)
            }
            for name in self.figures
        }
        out = {
            "method": self.method,
            "members": list(self.members),
            "legend": self._legend({**_LEGENDS, "dropped": _DROPPED}),
            "samples": len(self.samples),
            **of,
        }
        if self.confusion is not None:
            out["labels"] = list(self.labels)
            mean = _mean(self.confusion)
            out["confusion"] = {
                member: [[_number(v) for v in row] for row in own.tolist()]
                for member, own in zip(self.members, mean, strict=True)
            }
        out["inverted"] = [list(names) for names in self.inverted]
        out["not_converged"] = self.stopped
        return out

    def _means(self, name: str) -> NDArray[np.float64]:
        """Means over samples; of `dropped` the share of the samples."""
        return (self.figures[name] > 0).mean(axis=0) if name == "dropped" else self.mean(name)

    def __str__(self) -> str:
        return str(self.report())


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the first axis without NaN; NaN where there is nothing else."""
    there = ~np.isnan(values)
    total, n = np.where(there, values, 0).sum(axis=0), there.sum(axis=0)
    return np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
