"""The parts of a page: what `ensk report --part` leaves, and the page that `ensk merge` makes of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.page_out import Drawing, images_of
from ensemble_kit.cli.part_options import Results, run_part, share_of
from ensemble_kit.cli.repeated import commands
from ensemble_kit.cli.reported import Asked
from ensemble_kit.cli.working import working
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.execution.parts import Part
from ensemble_kit.recipes import part_page
from ensemble_kit.recipes.part_masks import digest_of

if TYPE_CHECKING:
    from ensemble_kit.recipes.part_file import PartFile


def report_part(asked: Asked, part: Part, out: Path, images: Path | None, pictures: int, folder: bool) -> None:
    """Gather what a page tells of a share of the samples, and keep it beside the page."""
    common = asked.common
    options = part_page.PageOptions(asked.measure, asked.tuned, asked.groups, common.seed, bool(asked.scored["hd95"]))
    if asked.are_stores():
        vote, truth, test = asked.stores(part)
        names, told_of = vote.names(), part_page.plan_of_stores(vote, test)

        def share() -> part_page.Share:
            with working(common, asked.dask) as executor, common.progress() as listener:
                return part_page.share_of_stores(vote, truth, test, options, part, executor, listener)
    else:
        named, truth = asked.masks(images)
        names = part_page.names_of_masks(named, truth, options)
        told_of = {"masks": [(name, digest_of(own)) for name, own in named.items()]}  # the first one is the answer

        def share() -> part_page.Share:
            with common.progress() as listener:
                return part_page.share_of_masks(named, truth, options, part, listener)

    share_of(names.samples, part)  # which has some
    images_of(images, names, common)
    drawn = {"pictures": pictures, "folder": folder, "images": images is not None}

    def work() -> Results:
        found = share()
        page: dict[str, Any] = {"title": asked.title, "sources": asked.sources(images)}
        page["commands"] = commands(asked, found.material.voted, found.material.left_out, images)
        page["images"] = None if images is None else str(images.absolute())
        return part_page.packed_share(found, options, page)

    run_part(common, out, part, part_page.KIND, options.plan(names.samples, truth, {**told_of, **drawn}), work)


def drawing_of(read: Sequence[PartFile], images: Path | None) -> Drawing:
    """Tell how the page of these parts is drawn.

    Parameters
    ----------
    images : where the images lie now; None: where the first part found them.

    Raises
    ------
    IncompleteError
        There is no such folder.
    DamagedError
        The parts do not say it.
    """
    try:
        plan, page = read[0].plan, read[0].head["page"]
        sources, told = ([(str(name), str(text)) for name, text in page[key]] for key in ("sources", "commands"))
        folder = None if page["images"] is None else images or Path(page["images"])
        found = Drawing(str(page["title"]), sources, told, folder, int(plan["pictures"]), bool(plan["folder"]))
    except (KeyError, TypeError, ValueError) as error:
        item, fix = f"part {read[0].part}: {error}", "make it again: run the command that made it with --force"
        raise DamagedError("part-invalid", "cannot read a part", item=item, fix=fix) from None
    if found.images is not None and not found.images.is_dir():
        item = (
            f"{str(found.images)!r}, where the parts found them, is not a folder here"
            if images is None
            else (f"{str(images)!r} is not a folder")
        )
        fix = "pass --images FOLDER, where they lie now"
        raise IncompleteError("images-missing", "cannot draw the images of a page", item=item, fix=fix)
    return found


def merge_page(read: Sequence[PartFile], drawing: Drawing, out: Path, common: Common, more: Mapping[str, Any]) -> None:
    """Make one page of all parts.

    Parameters
    ----------
    more : what is answered beside what a report answers.
    """
    drawing.write(part_page.merged(read), out, common, more)
