"""codes.json, which `ensk explain` reads, and docs/errors.md."""

from __future__ import annotations

import json
from typing import Any

from ensemble_kit.cli.explain import CODES, EXITS
from pages import codes

HEAD = """\
# Errors

Written by `make docs` from the source; `ensk explain CODE` shows one code in a terminal.

Every error has three parts and a code: `error[CODE] what cannot be done: which item · fix: what to run or pass`. In
Python the same parts are `.code`, `.what`, `.item` and `.fix` of an `ek.EnskError`. Codes are stable: scripts may
branch on them. A blank (…) stands for what is known only when the error is raised.

A file at its final name is complete, or the old one, or absent, whatever the exit code says. A command that is killed
and run again ends in the same bytes.

## Exit codes

"""
SIGNALS = {"129, 130, 143": "ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM"}


def catalogue() -> str:
    """Write codes.json: the codes of the source now, with the meanings that stand there."""
    old = json.loads(CODES.read_text(encoding="utf-8")) if CODES.exists() else {}
    now = {
        code: {
            "meaning": old.get(code, {}).get("meaning", ""),
            "raised": [{"exit": way.exit, "what": way.what, "fix": way.fix} for way in sorted(ways)],
        }
        for code, ways in codes.used().found.items()
    }
    return json.dumps(now, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def page() -> str:
    """Write docs/errors.md from codes.json."""
    known: dict[str, Any] = json.loads(catalogue())
    exits = {code: sorted({way["exit"] for way in entry["raised"]}) for code, entry in known.items()}
    rows = ["| exit | meaning | codes |", "|---|---|---|"]
    for number, meaning in {**EXITS, **SIGNALS}.items():
        own = ", ".join(f"[{code}](#{code})" for code in sorted(known) if number in exits[code])
        rows.append(f"| {number} | {meaning} | {own} |")
    parts = [HEAD + "\n".join(rows) + "\n\n## Codes\n"]
    for code in sorted(known):
        entry = known[code]
        told = " or ".join(map(str, exits[code]))
        lines = [f"### {code}\n", f"Exit {told}. {entry['meaning']}\n"]
        lines += [_way(way, len(exits[code]) > 1) for way in entry["raised"]]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _way(way: dict[str, Any], several: bool) -> str:
    place = f"exit {way['exit']}: " if several else ""
    return f"- {place}*{way['what']}* · {way['fix']}"
