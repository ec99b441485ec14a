"""`ensk merge`: the parts of a run become what the whole run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.outputs import check_output


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(
            help="What runs with --part wrote: FILE.part-1-of-4 …, or FILE, which stands for all its parts.",
            metavar="PARTS...",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the whole goes: statistics, masks, or scores as JSON.")],
    common: Common,
) -> None:
    """Put the parts of a run together, none missing and none twice: the bytes are those of a whole run."""
    from ensemble_kit.recipes import merging, part_statistics

    paths = merging.found(parts)
    check_output(out, common, paths)
    read = merging.read(paths)
    if common.dry_run:
        common.answer({"out": str(out), "kind": read[0].kind, "parts": len(read)}, f"would merge {len(read)} parts")
        return
    whole = part_statistics.merged(read)
    whole.save(out)
    common.answer({"out": str(out), "kind": read[0].kind, "parts": len(read), "samples": len(whole.samples)})
    common.say(f"wrote {out}: {len(whole.samples)} samples from {len(read)} parts")
