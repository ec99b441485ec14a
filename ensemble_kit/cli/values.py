"""Values of options that are what they should be as they were typed: texts, paths, and defaults.

Typer converts every value, given or not, by an adapter of Pydantic that it makes for each option: importing Pydantic
and making fifty of them takes as long as importing NumPy.
"""

from __future__ import annotations

import typing
from pathlib import Path
from types import NoneType
from typing import Any


def take_as_typed(parameter: Any, annotation: Any) -> Any:
    """Let a parameter of Typer take its value as it is where that needs no conversion; Typer converts all others.

    Parameters
    ----------
    annotation : of the command's parameter, `Annotated[type, typer.Option(…)]`.
    """
    if "process_value" in vars(parameter):  # done before
        return parameter
    convert = parameter.process_value
    several = parameter.multiple or parameter.nargs == -1
    kind = _kind(annotation)

    def process_value(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            return () if several else None
        items = value if several and value else [value]
        if parameter.callback is not None or not all(_is_typed(item, kind) for item in items):
            return convert(context, value)
        found = [Path(item) if kind is Path else item for item in items]
        return found if several else found[0]

    parameter.process_value = process_value
    return parameter


def _kind(wanted: Any) -> Any:
    """Return the type of one value: of `Annotated[list[Path] | None, …]` it is `Path`."""
    while inner := [a for a in typing.get_args(wanted) if a is not NoneType]:
        wanted = inner[0]
    return wanted


def _is_typed(value: Any, kind: Any) -> bool:
    """Whether a value is of its type already, or a path's text; texts that are not UTF-8 are left to Typer."""
    if type(value) is not str:
        return isinstance(value, kind)
    return kind in {str, Path} and value.isprintable()
