"""docs/cli.md: every command with its arguments and options, from the help texts."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.models import ArgumentInfo

from ensemble_kit.cli.commands import COMMANDS, function_of

HEAD = """\
# Commands

Written by `make docs` from the help texts, which `ensk COMMAND --help` shows too. Progress and messages go to stderr,
the answer to stdout. [errors.md](errors.md) has the exit codes and error codes, [tutorial.md](tutorial.md) walks
through the commands on real images, and [concepts.md](concepts.md) explains the words.
"""
VALUES = {str: "TEXT", Path: "PATH", int: "N", float: "X"}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command, read from its signature: typer's own objects differ between versions."""

    spelt: str
    usage: str
    help: str
    needed: bool
    is_argument: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> Parameter:
        """Read one parameter of a function that typer calls."""
        kind, info = get_args(parameter.annotation)
        kinds = [k for k in (get_args(kind) if isinstance(kind, types.UnionType) else (kind,)) if k is not type(None)]
        several = get_origin(kinds[0]) is list
        kind = get_args(kinds[0])[0] if several else kinds[0]
        told = " ".join((info.help or "").split())
        needed = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            name = info.metavar or parameter.name.upper()
            return cls(name, name, told, needed, True, ())
        names = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str)]
        value = "" if kind is bool else f" {info.metavar or VALUES.get(kind, 'VALUE')}"
        spelt = ", ".join(sorted(names, key=len)).replace("/", " / ") + value
        notes = ["Required."] if needed else []
        notes += ["May be repeated."] if several and "repeat" not in told else []
        if kind is bool and parameter.default is True and "efault" not in told:
            notes.append(f"Default: `{names[0].partition('/')[0]}`.")
        has_default = not needed and parameter.default is not None and parameter.default != ""
        if kind is not bool and has_default and "efault" not in told:
            notes.append(f"Default: `{parameter.default}`.")
        return cls(spelt, f"{names[0]}{value}", told, needed, False, tuple(notes))

    def __str__(self) -> str:
        return " ".join([f"- `{self.spelt}`: {self.help}", *self.notes])


def page() -> str:
    """Write the page."""
    commands = {name: function_of(name) for name in COMMANDS}
    parameters = {
        name: {
            p.name: Parameter.of(p) for p in inspect.signature(function).parameters.values() if get_args(p.annotation)
        }  # type: ignore[arg-type]
        for name, function in commands.items()
    }
    shared = set.intersection(*(set(own) for own in parameters.values()))
    parts = [
        HEAD,
        "## Options of every command\n",
        _list(p for n, p in next(iter(parameters.values())).items() if n in shared),
    ]
    for name, function in commands.items():
        own = [p for n, p in parameters[name].items() if n not in shared]
        usage = " ".join([f"ensk {name}", *(p.usage for p in own if p.needed), "[OPTIONS]"])
        told = " ".join((function.__doc__ or "").split())
        parts.append(f"## ensk {name}\n\n```text\n{usage}\n```\n\n{told}\n")
        parts += [_list(own)] if own else []
    return "\n".join(parts)


def _list(parameters: Any) -> str:
    return "\n".join(map(str, parameters)) + "\n"
