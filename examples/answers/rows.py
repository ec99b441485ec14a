"""The rows of the ladder: what is done, the command that does it, and the same by the Python API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import FAMILIES, Bench, Setting

import ensemble_kit as ek
from ensemble_kit.tuning.search.plan import Search

TRIALS, PATIENCE = 20, 90
"""Trials of each study, and seconds of a whole search."""
TUNE = "ensk tune-thresholds A B C --val MASKS --groups GROUPS"
VOTE = "ensk vote A B C --thresholds SET --out MASKS"


@dataclass(frozen=True)
class Row:
    """One way to an answer.

    Parameters
    ----------
    key : name of its file in the cache.
    told : what is done, in words.
    command : what a user types.
    kind : "any" set, "overlapping" or "exclusive" ones alone.
    """

    key: str
    told: str
    command: str
    run: Callable[[Bench], Setting]
    kind: str = "any"

    def suits(self, bench: Bench) -> bool:
        return self.kind in {"any", "exclusive" if bench.exclusive else "overlapping"}


def both(bench: Bench) -> dict[str, ek.Ensemble]:
    return {part: bench.open(part) for part in ("val", "test")}


def alone(bench: Bench, member: str) -> Setting:
    return bench.untuned({part: bench.open(part, [member]) for part in ("val", "test")})


def soft(bench: Bench) -> Setting:
    return bench.untuned(both(bench))


def ranked(bench: Bench) -> Setting:
    return bench.untuned(both(bench), ek.RankRule())


def tuned(bench: Bench, **options: Any) -> Setting:
    return bench.tuned(both(bench), **options)


def searched(bench: Bench, what: str, timeout: float | None = None) -> Setting:
    return bench.tuned(both(bench), search=Search(tuple(what.split(",")), TRIALS, timeout))


def stacked(bench: Bench) -> dict[str, ek.Ensemble]:
    """Fit the second stage once, and open what it put out: out of fold on val, and on test."""
    places = {part: bench.folder / "stack" / f"{part}.zarr" for part in ("val", "test")}
    if not all((place.parent / "done").exists() for place in places.values()):
        places["val"].parent.mkdir(exist_ok=True)
        truth, groups = bench.folder / "val.npz", bench.folder / "groups.csv"
        words = [*bench.stores("val"), "--val", truth, "--groups", groups, "--out", places["val"]]
        for store in bench.stores("test"):
            words += ["--apply", store]
        words += ["--to", places["test"], "--force"]
        ran = subprocess.run(  # noqa: S603 - the kit's own command
            [sys.executable, "-m", "ensemble_kit", "stack", *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip())
        (places["val"].parent / "done").touch()
    return {part: ek.Ensemble([place]) for part, place in places.items()}


def stack_plain(bench: Bench) -> Setting:
    return bench.untuned(stacked(bench))


def stack_tuned(bench: Bench, **options: Any) -> Setting:
    return bench.tuned(stacked(bench), **options)


STACK = "ensk stack A B C --val MASKS --groups GROUPS --out S"

ROWS = [
    *(Row(m, f"{m} alone", "ensk vote A --out MASKS", partial(alone, member=m)) for m in FAMILIES),
    Row("soft", "soft mean, 0.5 or argmax", "ensk vote A B C --out MASKS", soft),
    Row("shrunk", "thresholds: the former default, shrunk", f"{TUNE} --choose shrunk", partial(tuned, choose="shrunk")),
    Row("own", "each class its own optimum", f"{TUNE} --choose own", partial(tuned, choose="own")),
    Row("shared", "one shared threshold", f"{TUNE} --choose shared", partial(tuned, choose="shared"), "overlapping"),
    Row("default", "the default", TUNE, tuned),
    Row("weights", "member weights", f"{TUNE} --search weights --trials {TRIALS}", partial(searched, what="weights")),
    Row("greedy", "members chosen greedily", f"{TUNE} --search greedy", partial(searched, what="greedy")),
    Row(
        "post",
        "components, holes and gates",
        f"{TUNE} --search post --trials {TRIALS}",
        partial(searched, what="post"),
        "overlapping",
    ),
    Row("area", "least area", f"{TUNE} --search least-area", partial(searched, what="least-area"), "overlapping"),
    Row("compete", "competition", f"{TUNE} --search compete", partial(searched, what="compete"), "overlapping"),
    Row(
        "rules",
        "competition and least area",
        f"{TUNE} --search least-area,compete",
        partial(searched, what="least-area,compete"),
        "overlapping",
    ),
    Row("rank", "rank rule", "ensk vote A B C --decide rank --out MASKS", ranked),
    Row("stack", "stack, 0.5 or argmax", STACK, stack_plain),
    Row("stack-tuned", "stack, tuned", f"{STACK}; {TUNE.replace('A B C', 'S')}", stack_tuned),
    Row(
        "stack-rules",
        "stack, competition and least area",
        f"{STACK}; {TUNE.replace('A B C', 'S')} --search least-area,compete",
        partial(stack_tuned, search="least-area,compete"),
        "overlapping",
    ),
    Row(
        "auto",
        "the menu, chosen out of fold",
        f"{TUNE} --search auto --timeout {PATIENCE}",
        partial(searched, what="auto", timeout=PATIENCE),
    ),
]
