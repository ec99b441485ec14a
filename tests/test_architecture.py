"""The graph of all imports, those inside functions and those for types too: arrows point down, and none goes round."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ensemble_kit"

FLOORS = (
    "__main__",
    "cli",
    "recipes",
    "demo",
    "stacking",
    "tuning.search",
    "tuning",
    "ensemble",
    "joining",
    "decisions",
    "thresholds",
    "reports",
    "scores",
    "metrics",
    "dumping",
    "formats",
    "trainers",
    "masks",
    "logits",
    "backends",
    "execution",
    "spec",
    "strict_json",
    "user_code",
    "files",
    "remote",
    "locks",
    "access",
    "errors",
    "once",
    "kernels",
)
"""The package from top to ground. A module imports from its own floor and from those below."""

UPWARD = {("masks.maskset", "formats.writing")}
"""Imports that point up, or make a circle on one floor. The list may only shrink."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; a folder's `__init__` has the folder's name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield (importer, imported) for every import statement of the package, wherever it stands."""
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [t if t.removeprefix("ensemble_kit.") in known else str(node.module) for t in targets]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            for target in targets:
                if target.split(".")[0] == "ensemble_kit" and (short := target[len("ensemble_kit.") :]) != name:
                    yield name, short


def floor(module: str) -> int:
    """The floor of the longest name that a module begins with."""
    known = [f for f in FLOORS if module == f or module.startswith(f"{f}.")]
    assert known, f"{module} stands on no floor"
    return FLOORS.index(max(known, key=len))


def test_imports_point_down() -> None:
    edges = {(a, b) for a, b in imports(modules()) if a and b}  # the package itself names all that is public, lazily
    assert {(a, b) for a, b in edges if floor(b) < floor(a)} <= UPWARD
    assert edges >= UPWARD, "an arrow is gone: take it off the list"


def test_imports_never_go_round() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in set(imports(modules())) - UPWARD:
        if importer and imported:
            graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"imports go round: {' → '.join(reversed(error.args[1]))}") from None


def test_the_page_lists_the_floors_in_their_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^  ([\w/]+?)(?:/|\.py) ", page, re.MULTILINE)
    assert listed == ["__init__", *(f.replace(".", "/") for f in FLOORS if f != "__main__")]
