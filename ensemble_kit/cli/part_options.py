"""The option `--part`, and how the parts of a command are run as a Slurm array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli import slurm
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.working import working
from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.execution.parts import AUTO, WHOLE, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.cli.masks_out import Writing
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.recipes.hard_vote import HardVote
    from ensemble_kit.recipes.tuning import Tuning
    from ensemble_kit.recipes.vote import SoftVote

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


def part_of(text: str | None, common: Common) -> Part:
    """Read `--part`; without it, or where a dry run asks what only a task can tell, all is one part."""
    if text == AUTO and common.dry_run:
        with suppress(UsageError):
            return Part.parse(text)
        return WHOLE
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
    there = None
    if size_of(path) is not None and not common.force:
        with suppress(DamagedError):  # which is made again
            there = PartFile.load(path).verified()
    if there is not None and (there.kind, there.part, there.plan) != (kind, part, plan):
        same = there.part == part
        item = f"{path} is {'a part of another run' if same else f'part {there.part} under another name'}"
        fix = "pass --force to replace it, or another path"
        raise UsageError("output-exists", "cannot write a part", item=item, fix=fix)
    if there is None:
        PartFile(kind, part, plan, *work()).save(path)
    done = "was written" if there is None else "is there already"
    common.answer({"out": str(path), "part": list(part), "kind": kind, "merged": str(out)})
    common.say(f"part {part} {done}: {path}; once all are there: ensk merge {quote(str(out))} --out {quote(str(out))}")


def check_place(
    out: Path, part: Part, common: Common, inputs: Sequence[Path | str | None], stdout: bool = False
) -> None:
    """Refuse, before any work, an output that cannot be written; of a part, its own file."""
    from ensemble_kit.files import check_target, is_stream
    from ensemble_kit.recipes.part_file import path_of

    if part.of == 1:
        check_output(out, common, inputs, stdout=stdout)
        return
    if str(out) == "-" or is_stream(out):
        item, fix = f"--part {part} with --out {out}", "pass a file as --out: its name is that of the parts"
        raise UsageError("option-invalid", "cannot write a part to a stream", item=item, fix=fix)
    path = path_of(out, part)
    check_target(path, force=True, folder=False)
    check_output(path, replace(common, force=True), inputs)  # one that is there is not done again


def share_of(samples: Sequence[str], part: Part) -> list[str]:
    """Take a part's share of the samples.

    Raises
    ------
    UsageError
        There is none for it.
    """
    part.check_has(len(samples))
    return part.share(samples)


def vote_part(
    common: Common,
    vote: SoftVote | HardVote,
    own: SoftVote | HardVote,
    part: Part,
    writing: Writing,
    out: Path,
    dask: str | None,
) -> None:
    """Vote on a share of the samples.

    Parameters
    ----------
    own : the vote on them; `vote` is that on all.
    """
    from ensemble_kit.recipes import part_masks

    def work() -> Results:
        with working(common, dask) as executor, common.progress() as listener:
            return part_masks.vote_part(own, writing.files(), executor, listener)

    run_part(common, out, part, part_masks.KIND, part_masks.plan_of(vote, writing.recorded()), work)


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

    plan = part_statistics.plan_of(tuning, truth)
    own = tuning.ensemble.on(share_of(tuning.ensemble.samples, part))
    part_statistics.check_memory(tuning, own, truth, common.memory, common.jobs)

    def work() -> Results:
        with working(common, dask) as executor, common.progress() as listener:
            return part_statistics.count_part(tuning, own, truth, executor, listener)

    run_part(common, statistics, part, part_statistics.KIND, plan, work)


def score_part(
    common: Common,
    prediction: MaskSet,
    truth: MaskSet,
    options: Mapping[str, Any],
    own: Sequence[str],
    part: Part,
    out: Path,
) -> None:
    """Count a share of the samples of a score, those of `own`."""
    from ensemble_kit.recipes import part_scores

    work = partial(part_scores.score_part, prediction, truth, options, own)
    run_part(common, out, part, part_scores.KIND, part_scores.plan_of(prediction, truth, options), work)


def counting_lines(common: Common, part: Part, samples: int, read: int, counts: Path) -> list[str]:
    """Return the lines of an array that counts, merges, and tunes with what is merged.

    Parameters
    ----------
    samples, read : how many there are, and the bytes that are read of them.
    counts : where the merged counts go.
    """
    decided = {"--out": 1, "--choose": 1, "--shared": 0, "--shrink": 0, "--no-shrink": 0, "--statistics": 1}
    count = [*slurm.words(decided), "--statistics", str(counts)]
    tune = [*slurm.words({"--statistics": 1}), "--statistics", str(counts)]
    if part.of > 1:
        part.check_has(samples)
    tasks = slurm.tasks_of(part, samples, read)
    return slurm.lines(tasks, count, common, slurm.merging(counts, common), tune)
