"""The graph of all imports, those inside functions and those for types too: arrows point down, and none goes round."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ensemble_kit"

UPWARD = {
    ("masks.maskset", "formats"),
    ("demo.run", "cli.app"),
    ("logits.places", "logits.packed"),
    ("logits.places", "logits.remote"),
    ("logits.chunkfile", "logits.places"),
    ("logits.shards", "logits.places"),
    ("backends.torch", "backends"),
    ("scores.sample", "ensemble"),
    ("ensemble", "thresholds.thresholdset"),
    ("thresholds.thresholdset", "reports.notebook"),
    ("thresholds.thresholdset", "thresholds.file"),
    ("thresholds.thresholdset", "tuning"),
    ("tuning", "search"),
    ("validation", "tuning"),
}
"""Arrows that make circles. The list may only shrink."""


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


def test_only_named_imports_point_up() -> None:
    edges = set(imports(modules()))
    assert edges >= UPWARD, "an arrow is gone: take it off the list"
    graph: dict[str, set[str]] = {}
    for importer, imported in edges - UPWARD:
        graph.setdefault(importer, set()).add(imported)
    graph.pop("", None)  # the lazy public names
    for targets in graph.values():
        targets.discard("")  # `from ensemble_kit import __version__`
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"imports go round: {' → '.join(reversed(error.args[1]))}") from None
