"""The pages that are generated: `make docs` writes them all; a test fails while one of them is stale.

codes.json and docs/errors.md come from the errors of the source, docs/cli.md from the help texts, docs/api.md from the
docstrings. What is written by hand in codes.json, the meaning of each code, is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ensemble_kit.cli import explain
from pages import api, commands, errors

ROOT = Path(__file__).parents[2]
PAGES: dict[Path, Callable[[], str]] = {
    explain.CODES: errors.catalogue,
    ROOT / "docs" / "errors.md": errors.page,
    ROOT / "docs" / "cli.md": commands.page,
    ROOT / "docs" / "api.md": api.page,
}


def stale() -> list[str]:
    """Name the pages that differ from what would be written now."""
    return [
        path.relative_to(ROOT).as_posix()
        for path, write in PAGES.items()
        if not path.exists() or path.read_text(encoding="utf-8") != write()
    ]


def write_all() -> None:
    """Write every page."""
    for path, write in PAGES.items():
        path.write_text(write(), encoding="utf-8")
