"""The option `--part`, and how the parts of a command are run as a Slurm array."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble_kit.execution.parts import WHOLE, Part

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
