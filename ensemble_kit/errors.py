"""Every error the kit raises on purpose, and what it warns of.

    EnskError                 exit 1   base; never raised itself
    ├── UsageError            exit 2   also ValueError      an argument cannot mean anything
    ├── DamagedError          exit 3   also ValueError      data is damaged or invalid
    ├── IncompleteError       exit 4   also LookupError     data is missing
    ├── ResourceError         exit 5   also OSError         disk, memory, permission, a device
    ├── MismatchError         exit 6   also ValueError      inputs do not fit each other
    ├── UnsafeError           exit 7   also PermissionError refused: it could run code or leave its folder
    └── LockedError           exit 8   also BlockingIOError another writer holds it

An error speaks in three parts: what cannot be done, which item (with both values), and what to run or pass
instead. Its `code` is stable; docs/errors.md lists them all, and `ensk explain CODE` explains one. A warning is a
`Caution`: it never comes without what to do about it.
"""

import math
import numbers
import os
import re
import warnings
from collections.abc import Hashable, Iterable
from types import UnionType
from typing import NamedTuple


class EnskError(Exception):
    """What cannot be done, which item, and how to mend it.

    Parameters
    ----------
    code : stable kebab-case name; docs/errors.md lists them.
    what : what cannot be done, without a full stop.
    item : which item it is about, with the value found and the value wanted.
    fix : the command to run or the argument to pass instead.
    """

    exit_code = 1

    def __init__(self, code: str, what: str, *, item: str, fix: str) -> None:
        what, item, fix = redacted(what), redacted(item), redacted(fix)
        super().__init__(code, what, item, fix)
        self.code, self.what, self.item, self.fix = code, what, item, fix

    def __str__(self) -> str:
        return f"{self.what}: {self.item} · fix: {self.fix}"

    def with_fix(self, fix: str) -> "EnskError":
        """Return the same error with another fix, such as one that calls an option as a command does."""
        return _rebuild(type(self), self.code, self.what, self.item, fix)

    def on(self, machine: str) -> "EnskError":
        """Return the same error with the name of the machine where it was raised."""
        return _rebuild(type(self), self.code, self.what, f"{self.item} (on {machine})", self.fix)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.what, self.item, self.fix)


def _rebuild(kind: type[EnskError], code: str, what: str, item: str, fix: str) -> EnskError:
    return kind(code, what, item=item, fix=fix)


class UsageError(EnskError, ValueError):
    """An argument cannot mean anything."""

    exit_code = 2


class DamagedError(EnskError, ValueError):
    """Data is damaged or invalid."""

    exit_code = 3


class IncompleteError(EnskError, LookupError):
    """Data is missing: samples, rows, files."""

    exit_code = 4


class ResourceError(EnskError, OSError):
    """A disk, a memory budget, a permission or a device says no."""

    exit_code = 5


class MismatchError(EnskError, ValueError):
    """Inputs do not fit each other: classes, samples, sizes, a set and its members."""

    exit_code = 6


class UnsafeError(EnskError, PermissionError):
    """Refused, because it could run code or reach outside its folder."""

    exit_code = 7


class LockedError(EnskError, BlockingIOError):
    """Another writer holds it."""

    exit_code = 8


_SECRETS = re.compile(r"([A-Za-z][\w+.-]*:/{1,3})(?:\S*@)?([^\s'\"?]*)(\?[^\s'\"]*)?")
_HIDDEN = "…"


def redacted(text: str) -> str:
    """Leave out of URLs what may be a password or a key: user and password, and the values of a query.

    Examples
    --------
    >>> redacted("cannot open 'postgresql://me:secret@host/db?token=x'")
    "cannot open 'postgresql://…@host/db?…'"
    """
    return _SECRETS.sub(_without_secrets, text) if ":/" in text else text


def _without_secrets(found: re.Match[str]) -> str:
    whole, scheme, rest, query = found[0], found[1], found[2], found[3]
    user = f"{_HIDDEN}@" if "@" in whole[len(scheme) : len(whole) - len(rest) - len(query or "")] else ""
    return scheme + user + rest + (f"?{_HIDDEN}" if query else "")


class Caution(NamedTuple):
    """A warning: what is doubtful, and what to run, pass or look at; as text it reads like an error.

    Parameters
    ----------
    doubt : what is doubtful, with the items and values that it is about.
    fix : an action, never empty.
    """

    doubt: str
    fix: str

    def __str__(self) -> str:
        return f"{self.doubt} · fix: {self.fix}"


def check_kind(name: str, value: object, kind: type | UnionType, fix: str = "") -> None:
    """Refuse an argument of another type with the words of an error, not with a traceback three calls below.

    Parameters
    ----------
    name : of the argument, such as "the truth".
    fix : what to pass; default: the name of `kind`.

    Raises
    ------
    UsageError
        It is of another type.
    """
    if not isinstance(value, kind):
        raise _other_kind(name, value, fix or f"pass {_one(getattr(kind, '__name__', str(kind)))}")


def check_several(name: str, values: object, fix: str) -> None:
    """Refuse one value, such as a number or a text, where several are needed; parameters as for `check_kind`."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise _other_kind(name, values, fix)


def check_path(path: object) -> None:
    """Refuse what cannot name a file."""
    check_kind("a path", path, str | os.PathLike, "pass text or a pathlib.Path")


def _other_kind(name: str, value: object, fix: str) -> UsageError:
    return UsageError("argument-kind", f"cannot use {name}", item=f"it is of type {type(value).__name__}", fix=fix)


def _one(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOU' else 'a'} {noun}"


def check_choice(
    name: str, value: object, allowed: tuple[object, ...], what: str = "", code: str = "option-invalid"
) -> None:
    """Refuse a value that is not one of a few.

    Parameters
    ----------
    name : the option or argument as the user writes it, such as "--ties" or "mean".
    what : what cannot be done; default: "cannot use NAME".

    Raises
    ------
    UsageError
        With `code`: the value is not among `allowed`; a boolean never stands for a number.
    """
    known = isinstance(value, Hashable)  # an array compares item by item
    if not known or not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
        *most, last = [f"{a!r}" for a in allowed]
        raise UsageError(
            code,
            what or f"cannot use {name}",
            item=_given(name, value),
            fix=f"pass {', '.join(most)}{' or ' if most else ''}{last}",
        )


def check_number(
    name: str,
    value: object,
    fix: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    whole: bool = False,
    what: str = "",
    code: str = "option-invalid",
) -> None:
    """Refuse what is not a finite number, or lies outside `least <= value <= most` or `above < value < below`.

    Parameters
    ----------
    name, what : as for `check_choice`.
    fix : what to pass, such as "pass 1 or more threads".
    whole : whether it has to be an integer.

    Raises
    ------
    UsageError
        With `code`.
    """
    known = type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)
    if not known or not (least <= value <= most and above < value < below) or (whole and value % 1):  # type: ignore[operator]
        raise UsageError(code, what or f"cannot use {name}", item=_given(name, value), fix=fix)


def differ(what: str, which: str, ours: object, theirs: object, fix: str, code: str) -> MismatchError:
    """Make the error of two things that do not fit: both values stand in it.

    Parameters
    ----------
    which : the item that differs, such as "sample 'a.png'".
    ours, theirs : what is there on either side, with a word on whose it is: "32 x 32 in 'unet'".
    """
    return MismatchError(code, what, item=f"{which}: {ours}, {theirs}", fix=fix)


def _given(name: str, value: object) -> str:
    return f"{name} {value!r}" if name.startswith("-") else f"{name}={value!r}"


def some(items: object, limit: int = 5) -> str:
    """List the first few of many names, with the count of the rest: `'a', 'b' and 7 more`."""
    names = [repr(i) for i in items]  # type: ignore[attr-defined]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def first_line(error: Exception) -> str:
    """Quote an error of another library: its type and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"


class EnskWarning(UserWarning):
    """What is done, but doubtful; the command line shows its `caution` as `warning: …`."""

    def __init__(self, caution: Caution) -> None:
        super().__init__(str(caution))
        self.caution = caution


def warn(caution: Caution) -> None:
    """Warn the caller's caller of what is doubtful."""
    warnings.warn(EnskWarning(caution), stacklevel=3)
