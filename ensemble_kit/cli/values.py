"""Values of options that can be read in one way alone: texts, paths, plain numbers, and defaults.

Typer converts every value, given or not, by an adapter of Pydantic that it makes for each option: importing Pydantic
and making fifty of them takes as long as importing NumPy.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path
from types import NoneType
from typing import Any


def take_as_typed(parameter: Any, annotation: Any) -> Any:
    """Let a parameter of Typer take its value as it was typed where no more is to be known; Typer converts all others.

    Parameters
    ----------
    annotation : of the command's parameter, `Annotated[type, typer.Option(…)]`.
    """
    if "process_value" in vars(parameter):  # done before
        return parameter
    convert = parameter.process_value
    several = parameter.multiple or parameter.nargs == -1
    kind = _kind(annotation)
    bounds = ("min", "max")
    bounded = any(
        getattr(told, b, None) is not None for told in getattr(annotation, "__metadata__", ()) for b in bounds
    )

    def process_value(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            return () if several else None
        found = [_taken(item, kind) for item in (value if several and value else [value])]
        if parameter.callback is not None or (bounded and kind in _PLAIN) or None in found:
            return convert(context, value)
        return found if several else found[0]

    parameter.process_value = process_value
    return parameter


def _kind(wanted: Any) -> Any:
    """Return the type of one value: of `Annotated[list[Path] | None, …]` it is `Path`."""
    while inner := [a for a in typing.get_args(wanted) if a is not NoneType]:
        wanted = inner[0]
    return wanted


_PLAIN = {int: re.compile(r"[0-9]{1,15}"), float: re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")}
"""Numbers that mean the same to whoever reads them."""


def _taken(value: Any, kind: Any) -> Any:
    """Return a value that is of its type already, or a plain text of it; None where Typer must say what it is."""
    if type(value) is not str:
        return value if isinstance(value, kind) else None
    if kind in _PLAIN:
        return kind(value) if _PLAIN[kind].fullmatch(value) else None
    return kind(value) if kind in {str, Path} and value.isprintable() else None  # what is not UTF-8 is left to Typer
