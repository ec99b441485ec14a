"""`ensk merge`: the parts of a run become what the whole run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import LikeImageOption, SpacingOption
from ensemble_kit.cli.masks_out import MasksOut, Writing
from ensemble_kit.cli.options import CsvOption, refuse_idle
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.scores_out import BySampleOption, ConfusionOption, ScoresOut


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(
            help="What runs with --part wrote: FILE.part-1-of-4 …, or FILE, which stands for all its parts.",
            metavar="PARTS...",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Where the whole goes: statistics, masks, scores as JSON, or a page.")
    ],
    common: Common,
    like: Annotated[
        Path | None, typer.Option("--like", help="Of masks: as for vote. Default: as the parts were made.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--format", help="Of masks: as for vote. Default: as the parts were made.")
    ] = None,
    csv: CsvOption = None,
    like_image: LikeImageOption = None,
    spacing: SpacingOption = None,
    confusion: ConfusionOption = None,
    by_sample: BySampleOption = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Of a page: where the images lie. Default: where the first part found them."),
    ] = None,
) -> None:
    """Put the parts of a run together, none missing and none twice: the bytes are those of a whole run."""
    from ensemble_kit.formats.maskformat import existing
    from ensemble_kit.recipes import memory, merging, part_masks, part_page, part_scores, part_statistics

    paths = merging.found(parts)
    check_output(out, common, [*paths, like, like_image], stdout=True)
    memory.check(common.memory, memory.of_parts(paths), "merge")
    read = merging.read(paths)
    kind, plan = read[0].kind, read[0].plan
    told_as = "a page" if kind == part_page.KIND else kind
    if kind != part_masks.KIND:
        check_output(out, common, paths)  # standard output takes masks only
        refuse_idle(
            f"on {told_as}", "merge masks", like=like, format=format, csv=csv, like_image=like_image, spacing=spacing
        )
    files = ScoresOut(out, confusion, by_sample)
    if kind != part_scores.KIND:
        refuse_idle(f"on {told_as}", "merge scores", confusion=confusion, by_sample=by_sample)
    files.check(common, paths)
    drawing = None
    if kind == part_page.KIND:
        from ensemble_kit.cli.page_out import check_page
        from ensemble_kit.cli.page_parts import drawing_of, merge_page

        drawing = drawing_of(read, images)
        if drawing.images is None:
            refuse_idle("on a page without images", "run the parts with --images", images=images)
        check_page(out, drawing.folder, common.force)
    else:
        refuse_idle(f"on {told_as}", "merge the parts of a page", images=images)
    told: dict[str, Any] = {"out": str(out), "kind": kind, "parts": len(read)}
    if common.dry_run:
        common.answer({**told, "dry_run": True}, f"would merge {len(read)} parts into {out}")
    elif drawing is not None:
        merge_page(read, drawing, out, common, told)
    elif kind == part_statistics.KIND:
        counted = part_statistics.merged(read)
        counted.save(out)
        common.answer({**told, "samples": len(counted.samples)})
        common.say(f"wrote {out}: {len(counted.samples)} samples from {len(read)} parts")
    elif kind == part_scores.KIND:
        scores = part_scores.merged(read)
        files.write(scores, scores.confusion, common)
    else:
        own = Writing(format, csv, None if like is None else existing(like), like_image=like_image, spacing=spacing)
        writing = own.over(plan["writing"], read[0].head["files"])
        output = MasksOut(part_masks.merged(read), writing, out, bool(plan["overlaps"]), "votes" not in plan)
        writing.rehearse(output.voted, out, common.force)
        output.write()
        values = output.tell(common)
        if str(out) != "-":
            common.answer({**told, "rule": output.voted.rule, **values})
        output.say_where(common)
