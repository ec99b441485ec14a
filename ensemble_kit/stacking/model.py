"""A fitted second stage as a value, and its file: JSON, in which nothing is executed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, UsageError, differ, some
from ensemble_kit.files import atomic_write
from ensemble_kit.once import once
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.labels import check_names
from ensemble_kit.stacking import features
from ensemble_kit.thresholds.members import MemberRecord, stores_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.stack/1"
_LARGEST = 1e100
"""Of a coefficient: sums of features times this stay finite. Those of fits are below 1000."""


@dataclass(frozen=True)
class Fitted:
    """What a stack is fitted on.

    Parameters
    ----------
    members : sorted by name.
    classes : names, in the order of the coefficients.
    activation : of the members, and of what the stack puts out.
    samples : names.
    """

    members: tuple[MemberRecord, ...]
    classes: tuple[str, ...]
    activation: Activation
    samples: tuple[str, ...]

    def check_applies(self, other: Fitted) -> None:
        """Refuse members that are not these on other samples.

        Raises
        ------
        MismatchError
            Other classes, members, models or another activation.
        UsageError
            The very stores that it is fitted on.
        """
        known = {m.name: m for m in self.members}
        facts: list[tuple[str, object, object]] = [
            ("members", sorted(known), sorted(m.name for m in other.members)),
            ("classes", sorted(self.classes), sorted(other.classes)),
            ("activation", self.activation, other.activation),
            *(
                (f"model of member {m.name!r}", sorted(map(str, known[m.name].models)), sorted(map(str, m.models)))
                for m in other.members
                if m.name in known and m.is_other(known[m.name])
            ),
        ]
        for what, ours, theirs in facts:
            if ours != theirs:
                raise differ(
                    "cannot apply a stack that was fitted on other members",
                    what,
                    f"fitted on {ours}",
                    f"asked for {theirs}",
                    "pass the stores of the members it was fitted on, or fit another (ensk stack STORE... --val)",
                    "stack-does-not-fit",
                )
        seen = self.seen(other)
        if seen and stores_in(self.members) & stores_in(other.members):
            item = f"{len(seen)} of {len(other.samples)} samples are those that it was fitted on: {some(seen, 3)}"
            fix = "use their out-of-fold logits, which fitting wrote (--out), or apply it to other stores"
            raise UsageError("stack-in-sample", "cannot apply a stack to its own samples", item=item, fix=fix)

    def seen(self, other: Fitted) -> list[str]:
        """Name the samples of others that are called like samples that it is fitted on."""
        known = set(self.samples)
        return [s for s in other.samples if s in known]


@dataclass(frozen=True, eq=False)
class StackModel:
    """Coefficients of every class: those of each fold, fitted on the samples of the others, and those of all samples.

    Parameters
    ----------
    members, classes, activation : as for `Fitted`.
    folds : samples of each fold.
    by_fold : float64 (folds, classes, features).
    of_all : float64 (classes, features).
    strengths : for each class the penalties of its folds, and that of all samples.
    plan : digest of all that a fit depends on.
    """

    members: tuple[MemberRecord, ...]
    classes: tuple[str, ...]
    activation: Activation
    folds: tuple[tuple[str, ...], ...]
    by_fold: NDArray[np.float64]
    of_all: NDArray[np.float64]
    strengths: tuple[tuple[float, ...], ...]
    plan: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the coefficients."""
        return features.names([m.name for m in self.members], self.classes)

    @property
    def fitted(self) -> Fitted:
        """What it was fitted on; samples in the order of the folds."""
        samples = tuple(s for fold in self.folds for s in fold)
        return Fitted(self.members, self.classes, self.activation, samples)

    @once
    def digest(self) -> str:
        """Hex digest of the file."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file (docs/storage.md#stacks)."""
        return {
            "format": FORMAT,
            "members": [m.to_dict() for m in self.members],
            "classes": list(self.classes),
            "activation": self.activation,
            "features": list(self.names),
            "folds": [list(fold) for fold in self.folds],
            "strengths": [list(row) for row in self.strengths],
            "coefficients": {"folds": self.by_fold.tolist(), "all": self.of_all.tolist()},
            "plan": self.plan,
        }

    def save(self, path: Path) -> None:
        """Write the file; complete, or nothing."""
        with atomic_write(path) as out:
            out.write(self._bytes())

    def _bytes(self) -> bytes:
        return strict_json.dump(self.to_dict())

    @classmethod
    def load(cls, path: Path) -> StackModel:
        """Read a file and check it.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It is not a stack, or holds impossible values.
        """
        try:
            return cls.of(strict_json.load(path))
        except (FileNotFoundError, IsADirectoryError):
            fix = "check the path, or fit one: ensk stack STORE... --val MASKS --out STORE"
            item = f"{str(path)!r} is not a file"
            raise IncompleteError("stack-missing", "cannot read a stack", item=item, fix=fix) from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            item = told(path, error)
            fix = "fit it again (ensk stack --val … --force), or pass another file"
            raise DamagedError("stack-model-invalid", "cannot read a stack", item=item, fix=fix) from None

    @classmethod
    def of(cls, d: dict[str, Any]) -> StackModel:
        """Make it of what a file holds; raises ValueError, KeyError or TypeError where that is not a stack."""
        if d["format"] != FORMAT:
            raise ValueError(f"its format is {d['format']!r}, not {FORMAT!r}")
        members = tuple(MemberRecord.from_dict(m) for m in d["members"])
        if [m.name for m in members] != sorted({m.name for m in members}):
            raise ValueError("its members are not in the order of their names, or two have one name")
        classes, folds = tuple(map(_text, d["classes"])), tuple(tuple(map(_text, fold)) for fold in d["folds"])
        check_names("classes", classes)
        check_names("samples", [s for fold in folds for s in fold])
        if d["activation"] not in {"sigmoid", "softmax"}:
            raise ValueError(f"its activation is {d['activation']!r}")
        wanted = features.names([m.name for m in members], classes)
        if tuple(d["features"]) != wanted:
            raise ValueError(f"its features are not those of this version, {len(wanted)} of {len(members)} members")
        c = d["coefficients"]
        by_fold, of_all = (
            _table(c["folds"], (len(folds), len(classes), len(wanted))),
            _table(c["all"], (len(classes), len(wanted))),
        )
        strengths = tuple(tuple(row) for row in _table(d["strengths"], (len(classes), len(folds) + 1)).tolist())
        activation = cast("Activation", d["activation"])
        return cls(members, classes, activation, folds, by_fold, of_all, strengths, _text(d["plan"]))


def told(path: Path, error: Exception) -> str:
    """Say in which file what is wrong: of an error of ours its item alone, which may name the file already."""
    if not isinstance(error, EnskError):
        return f"{path}: {type(error).__name__}: {error}"
    what = error.item or error.what
    return what if what.startswith(f"{path}: ") else f"{path}: {what}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _table(values: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    out = np.array(values, np.float64)
    if out.shape != shape or not (np.abs(out) <= _LARGEST).all():  # nor is a number that is not finite
        raise ValueError(f"coefficients of shape {out.shape} instead of {shape}, or not within ±{_LARGEST:g}")
    return out
