"""docs/api.md: the public names with their numpydoc docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import ensemble_kit as ek

HEAD = """\
# Python API

Written by `make docs` from the docstrings. `import ensemble_kit as ek` is light: a name is loaded when it is first used.
[concepts.md](concepts.md) explains the words and the arithmetic; every error is an `EnskError` with the parts that
[errors.md](errors.md) lists.
"""
GROUPS = {
    "Logits": ("LogitWriter", "LogitStore"),
    "Ensembles and thresholds": ("Ensemble", "tune_thresholds", "ThresholdSet", "hard_vote", "Staple", "Simple"),
    "Masks": ("Runs", "encode", "MaskSet", "Geometry", "read_masks"),
    "Scoring": ("dice", "iou"),
}
WIDTH = 88
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def page() -> str:
    """Write the page; a public name that stands in no group is put at the end."""
    errors = sorted(n for n in ek.__all__ if n.endswith("Error"))
    known = {name for names in GROUPS.values() for name in names} | set(errors)
    groups = {**GROUPS, "More": tuple(n for n in ek.__all__ if n not in known)}
    parts = [HEAD]
    for title, names in groups.items():
        if names:
            values = [getattr(ek, name) for name in names]
            values += [kind for kind in dict.fromkeys(map(_result, values)) if kind is not None]
            parts += [f"## {title}\n", *map(_entry, values)]
    return "\n".join([*parts, "## Errors\n", "\n".join(_error(getattr(ek, name)) for name in errors), ""])


def _result(value: Any) -> type | None:
    """Return the class that a function returns, where it has no public name of its own."""
    if inspect.isclass(value):
        return None
    kind = getattr(sys.modules[value.__module__], inspect.signature(value).return_annotation, None)
    return kind if inspect.isclass(kind) and kind.__name__ not in ek.__all__ else None


def _entry(value: Any) -> str:
    name = value.__name__
    lines = [f"### {name}\n", f"```text\n{name}{_signature(value, apart=True)}\n```\n", _markdown(value.__doc__)]
    if inspect.isclass(value):
        members = dict(_members(value))
        properties = {n: m for n, m in members.items() if isinstance(m, property)}
        if properties and "\nAttributes\n" not in inspect.cleandoc(value.__doc__ or ""):
            lines += [
                "**Attributes**\n",
                "\n".join(f"- `.{n}`: {_first(m.__doc__)}" for n, m in properties.items()) + "\n",
            ]
        for member, how in members.items():
            if member not in properties:
                function = how.__func__ if isinstance(how, (classmethod, staticmethod)) else how
                owner = name if isinstance(how, (classmethod, staticmethod)) else ""
                lines += [f"#### `{owner}.{member}{_signature(function)}`\n", _markdown(function.__doc__)]
    return "\n".join(lines)


def _error(kind: Any) -> str:
    builtin = "" if kind is ek.EnskError else f", also `{kind.__bases__[1].__name__}`"
    return f"- `{kind.__name__}`, exit {kind.exit_code}{builtin}: {_first(kind.__doc__)}"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the documented public members that the package defines, in the order of the source."""
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("ensemble_kit"):
            for name, member in vars(base).items():
                function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
                if not name.startswith("_") and (inspect.isfunction(function) or isinstance(member, property)):
                    yield name, member


class _Named:
    """A default that is shown by its name, not by its address."""

    def __init__(self, value: Any) -> None:
        self._name = value.__name__

    def __repr__(self) -> str:
        return self._name


def _signature(value: Any, apart: bool = False) -> str:
    """Write parameters with their defaults, `apart` on lines of their own; what they are stands in the docstring."""
    shown = [
        p.replace(
            annotation=inspect.Parameter.empty,
            default=_Named(p.default) if inspect.isfunction(p.default) else p.default,
        )
        for p in inspect.signature(value).parameters.values()
        if p.name not in {"self", "cls"}
    ]
    text = str(inspect.Signature(shown))
    if len(text) <= WIDTH or not apart:
        return text
    words = [str(p) for p in shown]
    if named := [p.kind for p in shown].count(inspect.Parameter.KEYWORD_ONLY):
        words.insert(-named, "*")
    return "\n".join(["(", *(f"    {word}," for word in words), ")"])


def _first(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _markdown(text: str | None) -> str:
    """Turn a numpydoc docstring into Markdown."""
    opening, *rest = SECTION.split(inspect.cleandoc(text or ""))
    out = [opening.strip() + "\n"]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title == "Examples":
            out.append(f"```pycon not-run: tests/test_doctests.py runs it where it stands\n{body.strip()}\n```\n")
        else:
            out.append(f"**{title}**\n\n{_items(body)}\n")
    return "\n".join(out)


def _items(body: str) -> str:
    """Turn `name : text`, or a name with an indented text below it, into bullets; keep a paragraph that follows."""
    first, *rest = re.split(r"\n\s*\n(?=\S)", body.strip("\n"))
    out: list[str] = []
    for line in first.split("\n"):
        if line and not line.startswith(" "):
            name, _, told = line.partition(" : ")
            out.append(f"- `{name}`: {told}".rstrip())
        else:
            out[-1] += f" {line.strip()}".rstrip()
    return "\n\n".join(["\n".join(out), *rest])
