"""Shares of the samples: `--part i/n`, or `auto` from the variables of a batch system or launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from ensemble_kit.errors import UsageError

T = TypeVar("T")

AUTO = "auto"
_FIX = "pass i/n with 1 <= i <= n, such as --part 1/4, or auto"
_LAUNCHERS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")


class Part(NamedTuple):
    """The i-th of n shares of the samples; shares are disjoint, and their sizes differ by at most one.

    Sample k, from 0, belongs to share k mod n + 1.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Part:
        """Read `i/n`, or the variables that say it with `auto`.

        With `auto` these say it: SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP; SLURM_PROCID and SLURM_NTASKS; RANK and
        WORLD_SIZE (torchrun); OMPI_COMM_WORLD_RANK and _SIZE (Open MPI). One process of one says nothing.

        Raises
        ------
        UsageError
            Another text; with `auto`, no such variables, or some that disagree.
        """
        if text == AUTO:
            return _of_environment(environment)
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise UsageError("option-invalid", "cannot share the work", item=f"--part {text!r}", fix=_FIX)
        return cls(int(number), int(of)).checked()

    def checked(self) -> Part:
        """Return this part where there is such a one.

        Raises
        ------
        UsageError
            There is not.
        """
        if not 1 <= self.number <= self.of:
            raise UsageError("option-invalid", "cannot share the work", item=f"--part {self}", fix=_FIX)
        return self

    def check_has(self, items: int, what: str = "samples") -> None:
        """Refuse a part that nothing is left for.

        Raises
        ------
        UsageError
            There are more parts than items.
        """
        if self.of > items:
            item, fix = f"--part {self}, and there are {items} {what}", f"share the work out over {items} parts at most"
            raise UsageError("part-empty", "cannot work on a part without samples", item=item, fix=fix)

    def share(self, items: Sequence[T]) -> list[T]:
        """Take this share of some items, in their order."""
        return list(items[self.number - 1 :: self.of])


WHOLE = Part(1, 1)


def launched(environment: Mapping[str, str] = os.environ) -> Part:
    """Tell which of the processes of a launcher this is: torchrun, srun or mpirun; the whole where none started it.

    A task of an array is a run of its own, whose processes torchrun may start.

    Raises
    ------
    UsageError
        The variables are not numbers, or not those of one of the processes.
    """
    for process, processes in sorted(_LAUNCHERS, key=lambda names: names[0] != "RANK"):
        if process in environment and processes in environment:
            return Part(_number(environment, process) + 1, _number(environment, processes)).checked()
    return WHOLE


def joined(shares: Sequence[Sequence[T]]) -> list[T]:
    """Put all shares of some items, in the order of their parts, back into the order of the items."""
    total, n = sum(map(len, shares)), len(shares)
    return [shares[k % n][k // n] for k in range(total)]


def _of_environment(environment: Mapping[str, str]) -> Part:
    """Read what a batch system or launcher says; several that say the same are one."""
    found: dict[str, Part] = {}
    if _ARRAY[0] in environment:
        number, count, first = (_number(environment, name) for name in _ARRAY)
        step = _number(environment, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in environment else 1
        if (number - first) % step or not 0 <= (number - first) // step < count:
            item = f"task {number} of an array of {count} from {first} in steps of {step}"
            raise UsageError("part-unknown", "cannot tell which part this is", item=item, fix=_FIX)
        found[f"{_ARRAY[0]}={number}"] = Part((number - first) // step + 1, count)
    for process, processes in _LAUNCHERS:
        if process in environment and processes in environment:
            number = _number(environment, process)
            found[f"{process}={number}"] = Part(number + 1, _number(environment, processes))
    several = {name: part for name, part in found.items() if part.of > 1}
    if len(set(several.values())) > 1:
        item = " and ".join(f"{name} ({part})" for name, part in several.items())
        fix = "pass --part i/n, made of both"
        raise UsageError("part-unknown", "cannot tell which part this is: variables disagree", item=item, fix=fix)
    if not found:
        item = "no SLURM_ARRAY_TASK_ID, SLURM_PROCID, RANK or OMPI_COMM_WORLD_RANK in the environment"
        raise UsageError("part-unknown", "cannot tell which part this is", item=item, fix=_FIX)
    return next(iter((several or found).values())).checked()


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        item = f"{name}={text!r}" if name in environment else f"{name} is not set"
        raise UsageError("part-unknown", "cannot tell which part this is", item=f"{item}, a number is needed", fix=_FIX)
    return int(text)
