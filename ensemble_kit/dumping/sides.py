"""Classes that a mirror exchanges: the left and the right of one thing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit import strict_json
from ensemble_kit.errors import MismatchError, UsageError, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ensemble_kit.dumping.tta import Symmetry

_SIDES = re.compile(r"(?<![a-z])(left|right|lt|rt|l|r|lh|rh|dexter|sinister)(?![a-z])", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(Left|Right|L|R)(?![a-z])|^(left|right)(?=[A-Z])|^(Left|Right|L|R)(?=[A-Z][a-z])")
_OTHER = {"left": "right", "lt": "rt", "l": "r", "lh": "rh", "sinister": "dexter"}
_OTHER |= {b: a for a, b in _OTHER.items()}


def class_swap(classes: Sequence[str], pairs: Mapping[str, str]) -> list[int]:
    """Turn pairs of names into a permutation of class numbers: what a mirror does to the classes."""
    names = [n for pair in pairs.items() for n in pair]
    unknown = [n for n in names if n not in classes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if unknown or twice:
        item = f"no class is called {some(unknown)}" if unknown else f"{some(twice)} stand in more than one pair"
        fix = f"pass --swap-classes A=B,C=D with names among {some(classes)}"
        raise MismatchError("swap-classes", "cannot swap classes", item=item, fix=fix)
    both = {**pairs, **{b: a for a, b in pairs.items()}}
    return [list(classes).index(both.get(c, c)) for c in classes]


def parse_swap(text: str) -> dict[str, str]:
    """Read pairs of classes: `A=B,C=D`, or a file of one pair a line or JSON {"A": "B"}; `none` stands for no pairs."""
    if text.strip() == "none":
        return {}
    path = Path(text)
    if path.is_file() and path.suffix.lower() == ".json":
        values = strict_json.load(path)
        if isinstance(values, dict) and all(isinstance(v, str) for v in values.values()):
            return values
        raise _unread(text)
    try:
        lines = [v for v in path.read_text("utf-8").splitlines() if v.strip()] if path.is_file() else text.split(",")
    except UnicodeDecodeError:
        raise _unread(text) from None
    split = [tuple(n.strip() for n in line.split("=")) for line in lines]
    if not all(len(pair) == 2 and all(pair) for pair in split) or len({p[0] for p in split}) != len(split):
        raise _unread(text)
    return {pair[0]: pair[1] for pair in split}


def likely_pairs(classes: Sequence[str]) -> dict[str, str]:
    """Find classes whose names look like the left and the right of one thing, such as `lung_left`, `lung_right`."""
    by_fold = {c.casefold(): c for c in classes}
    pairs: dict[str, str] = {}
    for name in classes:
        for sides in (_SIDES, _CAMEL):
            other = by_fold.get(sides.sub(lambda m: _OTHER[m[0].casefold()], name).casefold())
            if other is not None and other != name and name not in pairs.values():
                pairs[name] = other
    return pairs


def check_sides(classes: Sequence[str], group: Sequence[Symmetry], pairs: Mapping[str, str] | None) -> None:
    """Refuse to mirror left and right classes into each other unless `pairs` says which change places."""
    likely = likely_pairs(classes)
    if pairs is None and likely and any(s.mirror for s in group):
        item = "; ".join(f"{a!r} and {b!r}" for a, b in likely.items()) + " look like the two sides of one thing"
        swap = ",".join(f"{a}={b}" for a, b in likely.items())
        fix = f"pass --swap-classes '{swap}', or --swap-classes none if a mirror leaves these classes as they are"
        raise UsageError("sides-merge", "refused to average flips that would merge left and right", item=item, fix=fix)


def _unread(text: str) -> UsageError:
    fix = 'pass A=B,C=D, a file with A=B a line or JSON {"A": "B"}, or none'
    return UsageError("swap-classes", "cannot read pairs of classes", item=f"--swap-classes {text!r}", fix=fix)
