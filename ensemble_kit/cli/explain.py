"""`ensk explain`: an error code in a paragraph."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.errors import UsageError

CODES = Path(__file__).with_name("codes.json")
"""What each code means, and every way in which it is raised; `make docs` keeps it and docs/errors.md current."""

EXITS = {
    0: "done",
    1: "a bug in ensk",
    2: "usage: an argument cannot mean anything",
    3: "data is damaged or invalid",
    4: "data is incomplete: samples, rows or files are missing",
    5: "input, output or resources: disk full, memory budget, permission, device",
    6: "inputs do not fit each other: classes, samples, sizes, a set and its members",
    7: "refused as unsafe: it could run code or reach outside its folder",
    8: "locked by another writer",
}


def explain(
    code: Annotated[str, typer.Argument(help="The code between the brackets of error[CODE].", metavar="CODE")],
    common: Common,
) -> None:
    """Explain an error code: what it means, what it says, how to fix it, and its exit code."""
    known = json.loads(CODES.read_text(encoding="utf-8"))
    name = code.removeprefix("error[").removesuffix("]")
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        raise UsageError(
            "code-unknown",
            "cannot explain an error code",
            item=f"{code!r} is not one",
            fix=f"pass one such as {' or '.join(near or ['csv-quote'])}; docs/errors.md lists all",
        )
    entry = known[name]
    ways = [{**way, "exit_meaning": EXITS[way["exit"]]} for way in entry["raised"]]
    common.answer({"code": name, "meaning": entry["meaning"], "raised": ways}, _text(name, entry))


def _text(name: str, entry: dict[str, Any]) -> str:
    lines = [f"{name}: {entry['meaning']}"]
    for code in sorted({way["exit"] for way in entry["raised"]}):
        lines += ["", f"Exit code {code}: {EXITS[code]}."]
        for way in entry["raised"]:
            if way["exit"] == code:
                lines += [f"  - {way['what']}", f"    fix: {way['fix']}"]
    return "\n".join(lines)
