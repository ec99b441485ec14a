"""List every error code of the source, as the table in README has it: `python tests/error_codes.py` prints it."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from ensemble_kit import errors

ROOT = Path(__file__).parent.parent
KINDS = {name: kind.exit_code for name, kind in vars(errors).items() if inspect.isclass(kind) and name != "EnskError"}
HEADING = "## Error codes\n"


def used() -> dict[str, set[int]]:
    """Find the codes that the source raises or reports, with the exit codes they end in.

    A code is the first argument of an error's class, or of a function that makes such an error: of the same module,
    or `user_code.import_named`.
    """
    found: dict[str, set[int]] = {}
    for path in sorted((ROOT / "ensemble_kit").rglob("*.py")):
        tree = ast.parse(path.read_text())
        makers = {f.name: ends for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and (ends := _passed_on(f))}
        makers.setdefault("import_named", {KINDS["UsageError"]})
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, last = _name(node), node.args[-1]
            ends = {KINDS[name]} if name in KINDS else makers.get(name, set())
            if name == "_report" and isinstance(last, ast.Constant):
                ends = {last.value}
            for code in _literals(node.args[0]) if ends else ():
                found.setdefault(code, set()).update(ends)
    return found


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _literals(node: ast.expr) -> list[str]:
    """The texts that an expression can be: a constant, or either side of a condition."""
    if isinstance(node, ast.IfExp):
        return [*_literals(node.body), *_literals(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _passed_on(function: ast.FunctionDef) -> set[int]:
    """Exit codes of the errors to which a function passes its first parameter as the code."""
    parameters = [a.arg for a in function.args.args if a.arg != "self"]
    return {
        KINDS[_name(node)]
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and _name(node) in KINDS and node.args and parameters
        and isinstance(node.args[0], ast.Name) and node.args[0].id == parameters[0]
    }  # fmt: skip


def listed() -> dict[str, set[int]]:
    """Read the codes of README."""
    section = (ROOT / "README.md").read_text().split(HEADING)[1]
    found: dict[str, set[int]] = {}
    for exit_code, codes in re.findall(r"^\| (\d) \| (.*) \|$", section, re.MULTILINE):
        for code in re.findall(r"`([^`]+)`", codes):
            found.setdefault(code, set()).add(int(exit_code))
    return found


def table() -> str:
    """Write the table of README: the codes of each exit code."""
    codes = used()
    exits = sorted({e for ends in codes.values() for e in ends})
    rows = [f"| {e} | {', '.join(f'`{c}`' for c in sorted(codes) if e in codes[c])} |" for e in exits]
    return "\n".join(["| exit | codes |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(readme.read_text().split(HEADING)[0] + HEADING + "\n" + table())
