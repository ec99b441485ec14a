"""Names of classes and samples, and what makes them valid."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ensemble_kit.errors import UsageError, some

_CONTROL = re.compile(r"[\0-\x1f\x7f]")


def check_names(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """Check names of classes or samples: text, not empty, none twice, no control characters.

    Parameters
    ----------
    kind : whose names they are, in the plural: "classes", "samples".

    Raises
    ------
    UsageError
        A name of another kind, a name twice, or no name at all.
    """
    out = tuple(names)
    if not out or not all(map(_is_sound, out)):
        bad = [n for n in out if not _is_sound(n)]
        raise UsageError(
            "name-invalid",
            f"cannot use the names of {kind}",
            item=some(bad) if bad else "there is none",
            fix=f"pass {kind} as non-empty strings without control characters",
        )
    if len(set(out)) != len(out):
        seen: set[str] = set()
        twice = [n for n in out if n in seen or seen.add(n)]  # type: ignore[func-returns-value]
        item = f"{some(twice)} stand more than once"
        raise UsageError(
            "name-doubled", f"cannot tell {kind} apart", item=item, fix=f"give every one of the {kind} its own name"
        )
    return out


def _is_sound(name: object) -> bool:
    return isinstance(name, str) and name != "" and _CONTROL.search(name) is None
