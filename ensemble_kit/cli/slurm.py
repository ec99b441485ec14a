"""How a command is shared out over a Slurm array: the lines that `--dry-run` prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path

from ensemble_kit.cli.common import Common
from ensemble_kit.execution.parts import AUTO, Part

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed")
"""The words of the command, as they were typed."""

_PLANNED = {"--part": 1, "--dry-run": 0, "--json": 0}
_MOST, _BYTES = 64, 50_000_000_000
"""Tasks that are proposed at most, and about what each reads."""


def words(leave_out: Mapping[str, int] = {}) -> list[str]:
    """Return the command as it was typed, without `--part`, `--dry-run`, `--json` and some options.

    Parameters
    ----------
    leave_out : names of options, and how many values each takes.
    """
    return [*_program(), *without(TYPED.get(tuple(sys.argv[1:])), {**_PLANNED, **leave_out})]


def without(typed: Sequence[str], drop: Mapping[str, int]) -> list[str]:
    """Return words of a command without some options.

    Parameters
    ----------
    drop : names of options, and how many values each takes.
    """
    kept, skip = list[str](), 0
    for word in typed:
        name, equals, _ = word.partition("=")
        if skip:
            skip -= 1
        elif name in drop:
            skip = 0 if equals else drop[name]
        else:
            kept.append(word)
    return kept


def tasks_of(part: Part, samples: int, read: int) -> int:
    """Return how many tasks to propose: those of `--part 1/N`, or as many as the bytes to read are worth."""
    return part.of if part.of > 1 else max(1, min(samples, _MOST, max(2, -(-read // _BYTES))))


def lines(tasks: int, command: Sequence[str], common: Common, *then: Sequence[str]) -> list[str]:
    """Write the commands of an array and of what depends on it, for a shell.

    Parameters
    ----------
    command : what each task runs, without `--part`.
    common : whose number of threads each task asks for; without one, those of Slurm's default.
    then : commands that run one after the other, once all tasks are done well.
    """
    threads = "" if common.jobs is None else f" --cpus-per-task={common.jobs}"
    each = shlex.quote(shlex.join([*command, "--part", AUTO]))
    array = f"sbatch --parsable --array=1-{tasks}{threads} --wrap {each}"
    if not then:
        return [array]
    after = shlex.quote(" && ".join(map(shlex.join, then)))
    return [f"job=$({array})", f"sbatch --dependency=afterok:$job{threads} --wrap {after}"]


def told(plan: str, array: Sequence[str]) -> str:
    """Put the lines, if there are any, under what a dry run says."""
    if not array:
        return plan
    return "\n".join([plan, "as a Slurm array (--part 1/N sets the number of tasks):", *(f"  {a}" for a in array)])


def merging(out: Path, common: Common, **more: Path | None) -> list[str]:
    """Return the command that merges the parts of an output.

    Parameters
    ----------
    more : other files that it writes, by their options.
    """
    others = [(f"--{name.replace('_', '-')}", str(path)) for name, path in more.items() if path is not None]
    force = ["--force"] if common.force else []
    return [*_program(), "merge", str(out), "--out", str(out), *(w for pair in others for w in pair), *force]


def verifying(store: str) -> list[str]:
    """Return the command that verifies a store, whose parts need no merge."""
    return [*_program(), "verify", store]


def _program() -> list[str]:
    return ["ensk"] if Path(sys.argv[0]).name == "ensk" else [sys.executable, "-m", "ensemble_kit"]
