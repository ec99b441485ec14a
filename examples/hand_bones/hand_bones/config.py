"""An experiment's configuration: one JSON file, every key of it known."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ensemble_kit import EnskError, UsageError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
Section = Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """What decides a training run; the sections are read by the module that builds them.

    Parameters
    ----------
    name : of the experiment, its folder and its member; letters, digits, `_` and `-`.
    model : {"name": family, "weights": file or null, …}; see `networks`.
    seed : of weights, order, dropout and augmentation.
    epochs, early_stop : at most so many; and so many validations without a better Dice (0: never stop early).
    criterion : [{"name", "weight", …}, …], added; or "own", the network's own loss. See `losses`.
    optimizer, lr_scheduler : see `schedule`.
    augmentation : [{"name", …}, …]; see `augment`.
    batch_size, accumulate : images in a batch, batches in a step of the optimizer.
    image_size : side of the square input, in pixels.
    mean, std : of the three channels, on the 0..1 scale.
    fold : the part of the splits, counted from 0, that validates.
    validate_every : epochs from one validation to the next.
    workers : processes that load images.
    amp : mixed precision, on CUDA.
    wandb : "offline", "online" or "disabled".
    """

    name: str
    model: Section
    seed: int = 0
    epochs: int = 100
    early_stop: int = 20
    criterion: Sequence[Section] | str = field(default_factory=lambda: [{"name": "bce"}, {"name": "dice"}])
    optimizer: Section = field(default_factory=lambda: {"name": "adamw"})
    lr_scheduler: Section = field(default_factory=lambda: {"name": "plateau"})
    augmentation: Sequence[Section] = field(default_factory=list)
    batch_size: int = 4
    accumulate: int = 1
    image_size: int = 1024
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fold: int = 0
    validate_every: int = 1
    workers: int = 0
    amp: bool = True
    wandb: str = "offline"

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            raise _invalid("name", self.name, "letters, digits, '_' and '-', a letter first")
        for key in ("mean", "std"):
            value = getattr(self, key)
            if not (isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_number, value))):
                raise _invalid(key, value, "three numbers")
            object.__setattr__(self, key, tuple(float(v) for v in value))
        least = {"seed": 0, "early_stop": 0, "fold": 0, "workers": 0}
        for known in fields(self):
            value = getattr(self, known.name)
            if known.type == "int" and not (type(value) is int and value >= least.get(known.name, 1)):
                raise _invalid(known.name, value, f"a whole number, {least.get(known.name, 1)} or more")
            if known.type == "Section":
                _check_section(known.name, value)
        if min(self.std) <= 0:
            raise _invalid("std", self.std, "three numbers above 0")
        weights = self.model.get("weights")
        if not (weights is None or isinstance(weights, str)):
            raise _invalid("model.weights", weights, "a file or null")
        self._check_lists()
        if type(self.amp) is not bool:
            raise _invalid("amp", self.amp, "true or false")
        if self.wandb not in {"offline", "online", "disabled"}:
            raise _invalid("wandb", self.wandb, "offline, online or disabled")

    def _check_lists(self) -> None:
        for key in ("criterion", "augmentation"):
            value = getattr(self, key)
            if key == "criterion" and value == "own":
                continue
            if not isinstance(value, list | tuple) or (key == "criterion" and not value):
                own = ', not empty; or "own"' if key == "criterion" else ""
                raise _invalid(key, value, f'a list such as [{{"name": …}}]{own}')
            for section in value:
                _check_section(key, section)
                if key == "criterion" and not _is_number(section.get("weight", 1.0)):
                    raise _invalid("criterion.weight", section["weight"], "a number")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the configuration") -> Config:
        """Read it from plain JSON values; keys that are not known, or that are missing, are named."""
        if not isinstance(values, Mapping):
            raise _invalid(where, type(values).__name__, "an object of keys and values")
        refuse_unknown(where, values, [f.name for f in fields(cls)])
        missing = [key for key in ("name", "model") if key not in values]
        if missing:
            raise UsageError(
                "config-key-missing", "cannot use a configuration", item=f"{where} lacks {missing}", fix="add them"
            )
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read it from a JSON file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                "config-unreadable",
                "cannot read a configuration",
                item=f"{str(path)!r}: {error}",
                fix="pass a JSON file; configs/ has one for each family",
            ) from None
        return cls.from_dict(values, str(path))

    def to_json(self) -> str:
        """Write it as JSON, all defaults included."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def but(self, **changes: Any) -> Config:
        """Copy it with changes."""
        return replace(self, **changes)


def refuse_unknown(where: str, keys: Collection[str], known: Collection[str]) -> None:
    """Refuse keys that nothing reads, by their names: a misspelt option must not be a default in disguise."""
    unknown = sorted(set(keys) - set(known))
    if unknown:
        raise UsageError(
            "config-key-unknown",
            "cannot use a configuration",
            item=f"{where} has unknown keys: {', '.join(map(repr, unknown))}",
            fix=f"use only {', '.join(sorted(known))}",
        )


def construct(where: str, section: Section, table: Mapping[str, Callable[..., Any]], *given: Any, **fixed: Any) -> Any:
    """Call the entry of `table` that `section["name"]` names, with what is given and the section's other keys."""
    name = section.get("name")
    if not isinstance(name, str) or name not in table:
        raise UsageError(
            "config-name-unknown", f"cannot build {where}", item=f"name {name!r}", fix=f"use {', '.join(table)}"
        )
    make, options = table[name], {k: v for k, v in section.items() if k != "name"}
    parameters = [p for p in inspect.signature(make).parameters.values() if p.kind is not p.VAR_KEYWORD]
    refuse_unknown(f"{where} {name!r}", options, {p.name for p in parameters[len(given) :]} - set(fixed))
    for parameter in parameters:
        if parameter.name in options and not _fits(options[parameter.name], parameter.annotation):
            raise UsageError(
                "config-value",
                f"cannot build {where} {name!r}",
                item=f"{parameter.name} = {options[parameter.name]!r}",
                fix=f"pass {_WANTED[str(getattr(parameter.annotation, '__name__', parameter.annotation))]}",
            )
    try:
        return make(*given, **fixed, **options)
    except EnskError:
        raise
    except (TypeError, ValueError, LookupError, RuntimeError, OSError, AttributeError) as error:
        raise UsageError(
            "config-value",
            f"cannot build {where} {name!r}",
            item=f"{options}: {type(error).__name__}: {error}",
            fix="mend these options",
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_WANTED = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def _fits(value: object, annotation: object) -> bool:
    """Say whether a JSON value is of a parameter's plain type; other annotations are the callee's to check."""
    kind = getattr(annotation, "__name__", annotation)
    if kind == "int":
        return type(value) is int
    if kind == "float":
        return _is_number(value)
    return kind != "bool" or type(value) is bool


def _check_section(key: str, value: object) -> None:
    if not (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        raise _invalid(key, value, 'an object such as {"name": …}')


def _invalid(key: str, value: object, wanted: str) -> UsageError:
    return UsageError("config-value", "cannot use a configuration", item=f"{key} = {value!r}", fix=f"pass {wanted}")
