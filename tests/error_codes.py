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
    """Find the codes that the source raises or reports, with the exit codes they end in."""
    found: dict[str, set[int]] = {}
    for path in sorted((ROOT / "ensemble_kit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            code, last = node.args[0].value, node.args[-1]
            if name in KINDS:
                found.setdefault(code, set()).add(KINDS[name])
            elif name == "_report" and isinstance(last, ast.Constant):
                found.setdefault(code, set()).add(last.value)
    return found


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
