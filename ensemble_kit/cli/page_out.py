"""A page on its way to a file: what it says of its command, its pictures within it or beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import Caution, UsageError, some
from ensemble_kit.files import atomic_folder, atomic_write, check_target
from ensemble_kit.recipes.reporting.images import images_for
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.page import Named, page
from ensemble_kit.remote.copies import here
from ensemble_kit.reports.page import Page
from ensemble_kit.reports.pictures import Shelf

if TYPE_CHECKING:
    from ensemble_kit.masks.maskset import MaskSet

_MARK = "pictures-of-a-report.txt"
"""Shows that a folder holds pictures of a page, and may be replaced."""


def images_of(
    folder: Path | None, masks: MaskSet | None, common: Common, drawn: Sequence[str] | None = None
) -> dict[str, Path]:
    """Find the images of the samples that are told of, and say which of those drawn have none."""
    if folder is None or masks is None:
        return {}
    solid = any(len(masks.image_size(s)) == 3 for s in masks.samples[:1])
    found = images_for(here(folder, "cannot read images"), masks.samples, solid)
    drawn = masks.samples if drawn is None else drawn
    if bare := [s for s in drawn if s not in found]:
        doubt = f"{len(bare)} of {len(drawn)} samples have no image in {folder}, so their masks lie on black: "
        common.warn(Caution(doubt + some(bare), "pass the folder that has the images of all samples"))
    return found


@dataclass(frozen=True)
class Drawing:
    """What a page says of its command, and how it is drawn.

    Parameters
    ----------
    sources, commands : as for `recipes.reporting.page.page`.
    images : folder of the images, if any.
    pictures : how many.
    folder : whether they lie beside the page.
    """

    title: str
    sources: Named
    commands: Named
    images: Path | None
    pictures: int
    folder: bool

    def write(self, material: Material, out: Path, common: Common, more: Mapping[str, Any] | None = None) -> None:
        """Draw the page, write it, and say what it is.

        Parameters
        ----------
        more : what else is answered.
        """
        shelf = Shelf(beside(out).name if self.folder else None)
        files = images_of(self.images, material.masks, common)
        with common.progress() as listener:
            made = page(material, self.title, self.sources, self.commands, files, self.pictures, shelf, listener)
        written, scores = _write(made, shelf, out, common.force), material.scores
        values = {"out": str(out), "bytes": written, "sections": [s.anchor for s in made.sections]}
        values |= {"pictures": made.pictures, "measure": str(material.measure)}
        values["score"] = None if scores is None or isnan(scores.score) else scores.score
        common.answer({**values, **(more or {})})
        common.say(f"wrote {out}: {size(written)}; open it in a browser")


def check_page(out: Path, folder: bool, force: bool) -> None:
    """Refuse a page that cannot be written, before any work.

    Parameters
    ----------
    folder : whether its pictures lie beside it. A folder without its page was left by a killed run, and is replaced.
    """
    if out.suffix.lower() not in {".html", ".htm"}:
        item, fix = f"{str(out)!r} does not end in .html", "end the name in .html"
        raise UsageError("report-suffix", "cannot write a page", item=item, fix=fix)
    if folder:
        check_target(beside(out), force=force or not out.exists(), folder=True, mark=_MARK)


def beside(out: Path) -> Path:
    """Return the folder of a page's pictures."""
    return here(out, "cannot write pictures beside a page").with_name(f"{out.stem}_files")


def _write(made: Page, shelf: Shelf, out: Path, force: bool) -> int:
    """Write the page, and its pictures where they lie beside it; return the bytes of the page.

    Both are on the disk before either takes the place of what is there.
    """
    content = made.html().encode()
    if shelf.folder is not None:
        check_page(out, True, force)
    with atomic_write(out, force=force) as file:
        file.write(content)
        file.flush()
        if shelf.folder is not None:
            with atomic_folder(beside(out), force=True, mark=_MARK) as folder:
                (folder / _MARK).write_text(f"The pictures of {out.name}.\n")
                for name, picture in shelf.files.items():
                    (folder / name).write_bytes(picture)
    return len(content)
