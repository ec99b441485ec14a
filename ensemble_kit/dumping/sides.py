"""Which classes a flip exchanges: the left and the right of one thing, the upper and the lower.

Names can tell sides in two ways. By position, `left` is what lies in the left half of the image: a horizontal flip
exchanges the two, a vertical one does not. By handedness, a left hand looks like one wherever it lies: every mirror
image exchanges the two, whichever way it was flipped, and no turn does (the determinant of the transform). The two
agree under horizontal flips alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit import strict_json
from ensemble_kit.errors import MismatchError, UsageError, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ensemble_kit.dumping.tta import Symmetry

Pairs = Mapping[str, str]
Swap = Mapping[str, str] | Mapping[str, Pairs] | Mapping[str, str | Pairs]
"""Pairs of classes, {"A": "B"}; or such pairs by what exchanges them, {"hflip": {"A": "B"}}."""

KINDS = ("hflip", "vflip", "handedness")
PLAIN = ""
"""The kind of pairs for which the user did not say what exchanges them."""

_LATERAL = {"left": "right", "lt": "rt", "l": "r", "lh": "rh", "sinister": "dexter"}
_VERTICAL = {"upper": "lower", "top": "bottom", "superior": "inferior", "sup": "inf"}
_HORIZONTAL_WORDS = re.compile(rf"(?<![a-z])({'|'.join([*_LATERAL, *_LATERAL.values()])})(?![a-z])", re.IGNORECASE)
_CAMEL_WORDS = re.compile(r"(?<=[a-z])(Left|Right|L|R)(?![a-z])|^(left|right)(?=[A-Z])|^(Left|Right|L|R)(?=[A-Z][a-z])")
_VERTICAL_WORDS = re.compile(rf"(?<![a-z])({'|'.join([*_VERTICAL, *_VERTICAL.values()])})(?![a-z])", re.IGNORECASE)
_OTHER = {**_LATERAL, **_VERTICAL}
_OTHER |= {b: a for a, b in _OTHER.items()}


def by_kind(swap: Swap) -> dict[str, dict[str, str]]:
    """Sort pairs by what exchanges them: "hflip", "vflip", "handedness", or "" where that was not said.

    Raises
    ------
    UsageError
        They are not pairs of names, or of a kind that is not known.
    """
    found: dict[str, dict[str, str]] = {}
    for key, value in swap.items() if isinstance(swap, Mapping) else [(None, None)]:
        if isinstance(key, str) and isinstance(value, str):
            found.setdefault(PLAIN, {})[key] = value
        elif key in KINDS and isinstance(value, Mapping) and all(isinstance(n, str) for p in value.items() for n in p):
            found[key] = dict(value)
        else:
            raise _unread(swap)
    return found


def class_orders(classes: Sequence[str], group: Sequence[Symmetry], swap: Swap | None) -> list[list[int] | None] | None:
    """Turn pairs of names into the order of classes after each symmetry of a group; None where none changes it.

    Raises
    ------
    MismatchError
        A class that there is not, a class in two pairs, or swaps that contradict each other.
    UsageError
        The pairs can be read in two ways under these flips, or classes told by position are turned by 90°.
    """
    kinds = {kind: pairs for kind, pairs in by_kind(swap or {}).items() if pairs}
    if not kinds:
        return None
    if len(group) == 1:
        fix = "pass --tta hflip, or leave --swap-classes out"
        raise _option("cannot swap classes without a flip", "--swap-classes without --tta", fix)
    if PLAIN in kinds:
        _check_plain(kinds, group)
    turned = any(s.turns % 2 for s in group)
    if turned and ("hflip" in kinds or "vflip" in kinds):
        item = f"{_spelled(kinds)} with --tta rot90: left is then neither left nor right"
        fix = "leave rot90 out of --tta, or pass --swap-classes handedness:… if shape tells the classes apart"
        raise _option("cannot turn classes that are told by their position", item, fix)
    orders = {kind: _order(classes, pairs) for kind, pairs in kinds.items()}
    for one, other in combinations(orders.values(), 2):
        if [one[k] for k in other] != [other[k] for k in one]:
            item = (
                f"{_spelled(kinds)}: both flips end in another order of classes than the same two the other way round"
            )
            fix = "pass swaps that do not depend on the order, such as hflip:UL=UR,LL=LR,vflip:UL=LL,UR=LR"
            raise MismatchError("swap-classes", "cannot swap classes", item=item, fix=fix)
    return [_after(symmetry, orders, len(classes)) for symmetry in group]


def _after(symmetry: Symmetry, orders: Mapping[str, list[int]], count: int) -> list[int] | None:
    """Compose what a symmetry does to the classes."""
    happens = {
        PLAIN: symmetry.mirror,
        "handedness": symmetry.mirror,
        "hflip": symmetry.mirror != (symmetry.turns == 2),
        "vflip": symmetry.turns == 2,
    }
    order = list(range(count))
    for kind, own in orders.items():
        if happens[kind]:
            order = [own[k] for k in order]
    return None if order == list(range(count)) else order


def _check_plain(kinds: Mapping[str, Pairs], group: Sequence[Symmetry]) -> None:
    """Refuse pairs without a kind where position and handedness disagree: under anything but one horizontal flip."""
    pairs = ",".join(f"{a}={b}" for a, b in kinds[PLAIN].items())
    if len(kinds) > 1:
        item = f"{_spelled(kinds)}: {pairs} stands before any of them"
        fix = f"put a kind before each pair: hflip:{pairs}, vflip:{pairs} or handedness:{pairs}"
        raise UsageError("swap-ambiguous", "cannot tell which flip exchanges classes", item=item, fix=fix)
    if not _only_horizontal(group):
        turned = any(s.turns % 2 for s in group)
        item = f"--swap-classes {pairs} with flips that are not horizontal: two readings"
        raise UsageError(
            "swap-ambiguous", "cannot tell which flip exchanges classes", item=item, fix=_asked(pairs, turned)
        )


def _only_horizontal(group: Sequence[Symmetry]) -> bool:
    return all(s.turns == 0 for s in group)


def _asked(pairs: str, turned: bool) -> str:
    """Name both readings of pairs, and the option that picks each."""
    position = (
        "leave rot90 out of --tta if position in the image tells them apart"
        if turned
        else f"pass --swap-classes 'hflip:{pairs}' if their position in the image tells left from right (vflip leaves "
        f"them as they are; 'vflip:{pairs}' for upper and lower)"
    )
    return f"{position}; --swap-classes 'handedness:{pairs}' if their shape does, which every mirror image exchanges"


def _order(classes: Sequence[str], pairs: Pairs) -> list[int]:
    """Turn pairs of names into a permutation of class numbers."""
    names = [n for pair in pairs.items() for n in pair]
    unknown = [n for n in names if n not in classes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if unknown or twice:
        item = f"no class is called {some(unknown)}" if unknown else f"{some(twice)} stand in more than one pair"
        fix = f"pass --swap-classes A=B,C=D with names among {some(classes)}"
        raise MismatchError("swap-classes", "cannot swap classes", item=item, fix=fix)
    both = {**pairs, **{b: a for a, b in pairs.items()}}
    return [list(classes).index(both.get(c, c)) for c in classes]


def parse_swap(text: str) -> Swap:
    """Read pairs of classes: `A=B,C=D` or `hflip:A=B,C=D,vflip:E=F`, where a kind holds for the pairs that follow it.

    Or a file: one pair a line, or JSON {"A": "B"} or {"hflip": {"A": "B"}}; `none` stands for no pairs.
    """
    if text.strip() == "none":
        return {}
    path = Path(text)
    if path.is_file() and path.suffix.lower() == ".json":
        values = strict_json.load(path)
        by_kind(values)
        pairs: Swap = values
        return pairs
    try:
        lines = [v for v in path.read_text("utf-8").splitlines() if v.strip()] if path.is_file() else text.split(",")
    except UnicodeDecodeError:
        raise _unread(text) from None
    found: dict[str, dict[str, str]] = {}
    kind = PLAIN
    for line in lines:
        said, colon, rest = line.strip().partition(":")
        if colon and said in KINDS:
            kind, line = said, rest  # noqa: PLW2901 - the kind holds from here on
        pair = tuple(n.strip() for n in line.split("="))
        if len(pair) != 2 or not all(pair) or pair[0] in found.get(kind, {}):
            raise _unread(text)
        found.setdefault(kind, {})[pair[0]] = pair[1]
    plain = found.pop(PLAIN, None)
    return {**plain, **found} if plain is not None else found


def likely_pairs(classes: Sequence[str], vertical: bool = False) -> dict[str, str]:
    """Find classes whose names look like two sides of one thing, such as `lung_left`, `lung_right`.

    With `vertical`: like the upper and the lower, such as `upper_lip`, `lower_lip`.
    """
    by_fold = {c.casefold(): c for c in classes}
    pairs: dict[str, str] = {}
    for name in classes:
        for sides in (_VERTICAL_WORDS,) if vertical else (_HORIZONTAL_WORDS, _CAMEL_WORDS):
            other = by_fold.get(sides.sub(lambda m: _OTHER[m[0].casefold()], name).casefold())
            if other is not None and other != name and name not in pairs.values():
                pairs[name] = other
    return pairs


def check_sides(classes: Sequence[str], group: Sequence[Symmetry], swap: Swap | None) -> None:
    """Refuse to average classes whose names look like two sides of one thing unless `swap` says what becomes of them.

    Left and right are in doubt under any flip, and under a turn by 180°, which moves left to right; upper and lower
    where the image is turned over.
    """
    if swap is not None or len(group) == 1:
        return
    sides, levels = likely_pairs(classes), likely_pairs(classes, vertical=True)
    if _only_horizontal(group):
        levels = {}
    likely = {**sides, **levels}
    if not likely:
        return
    item = "; ".join(f"{a!r} and {b!r}" for a, b in likely.items()) + " look like the two sides of one thing"
    told = [",".join(f"{a}={b}" for a, b in pairs.items()) for pairs in (sides, levels)]
    none = "--swap-classes none if these flips leave them as they are"
    shape = (
        f"--swap-classes 'handedness:{','.join(t for t in told if t)}' if their shape does, which every mirror image "
    )
    shape += "exchanges"
    if _only_horizontal(group):
        fix = f"pass --swap-classes '{told[0]}', or {none}"
    elif any(s.turns % 2 for s in group):
        fix = f"leave rot90 out of --tta if position in the image tells them apart; {none}"
        fix += f"; {shape}" if any(s.mirror for s in group) else ""
    else:
        kinds = ",".join(f"{kind}:{t}" for kind, t in zip(("hflip", "vflip"), told, strict=True) if t)
        fix = f"pass --swap-classes '{kinds}' if their position in the image tells them apart, {shape}, or {none}"
    raise UsageError("sides-merge", "refused to average flips that would merge two sides", item=item, fix=fix)


def told_swap(swap: Swap) -> str:
    """Say which classes change places, and when."""
    when = {PLAIN: "a horizontal flip", "hflip": "hflip", "vflip": "vflip", "handedness": "every mirror image"}
    pairs = {when[k]: " and ".join(f"{a!r}, {b!r}" for a, b in own.items()) for k, own in by_kind(swap).items() if own}
    return "; ".join(f"{name} exchanges {own}" for name, own in pairs.items())


def _spelled(kinds: Mapping[str, Pairs]) -> str:
    """Write pairs as the option has them."""
    groups = (",".join(f"{a}={b}" for a, b in pairs.items()) for pairs in kinds.values())
    return "--swap-classes " + ",".join(f"{k}:{g}" if k else g for k, g in zip(kinds, groups, strict=True))


def _option(what: str, item: str, fix: str) -> UsageError:
    return UsageError("option-invalid", what, item=item, fix=fix)


def _unread(swap: object) -> UsageError:
    fix = "pass A=B,C=D, hflip:A=B,vflip:C=D, handedness:A=B, none, or a file: a pair a line, or JSON "
    fix += '{"A": "B"} or {"hflip": {"A": "B"}}'
    return UsageError("swap-classes", "cannot read pairs of classes", item=f"--swap-classes {swap!r}", fix=fix)
