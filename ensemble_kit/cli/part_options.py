"""The option `--part`, and how the parts of a command are run as a Slurm array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.working import working
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.parts import WHOLE, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.recipes.tuning import Tuning

Results = tuple[Mapping[str, Any], Mapping[str, "NDArray[Any]"]]

PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Do the i-th of n shares of the samples, one for each process or machine; auto: as the variables of a "
        "Slurm array, srun, torchrun or Open MPI say.",
    ),
]


def part_of(text: str | None) -> Part:
    """Read `--part`; without it, all is one part."""
    return WHOLE if text is None else Part.parse(text)


def run_part(
    common: Common, out: Path, part: Part, kind: str, plan: Mapping[str, Any], work: Callable[[], Results]
) -> None:
    """Do a part and keep it beside `out`; one of the same plan that is there already is not done again.

    Parameters
    ----------
    plan : what all parts are asked for.
    work : returns the head and arrays of the part's file.

    Raises
    ------
    UsageError
        A part of another plan is there.
    """
    from ensemble_kit.recipes.part_file import PartFile, path_of
    from ensemble_kit.remote.copies import size_of

    path = path_of(out, part)
    if size_of(path) is not None and not common.force:
        if PartFile.load(path).plan != plan:
            item = f"{path} is a part of another run"
            fix = "pass --force to replace it, or another path"
            raise UsageError("output-exists", "cannot write a part", item=item, fix=fix)
        done = "is there already"
    else:
        PartFile(kind, part, plan, *work()).save(path)
        done = "was written"
    common.answer({"out": str(path), "part": list(part), "kind": kind, "merged": str(out)})
    common.say(f"part {part} {done}: {path}; once all are there: ensk merge {quote(str(out))} --out {quote(str(out))}")


def part_of_counts(statistics: Path | None, part: Part) -> Path:
    """Return where a part of a tuning keeps its counts.

    Raises
    ------
    UsageError
        No file was named for them.
    """
    from ensemble_kit.recipes.part_file import path_of

    if statistics is None:
        item, fix = f"--part {part} without --statistics", "pass --statistics FILE, where the counts are kept"
        raise UsageError("option-invalid", "cannot keep a part's counts", item=item, fix=fix)
    return path_of(statistics, part)


def count_part(common: Common, tuning: Tuning, truth: MaskSet, part: Part, statistics: Path, dask: str | None) -> None:
    """Count a share of the samples of a tuning."""
    from ensemble_kit.recipes import part_statistics

    part.check_has(len(tuning.ensemble.samples))
    plan = part_statistics.plan_of(tuning, truth)
    with working(common, dask) as executor, common.progress() as listener:
        work = partial(part_statistics.count_part, tuning, truth, part, executor, listener)
        run_part(common, statistics, part, part_statistics.KIND, plan, work)
