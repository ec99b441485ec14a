"""The road of a page: material in, sections in their order, one page out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ensemble_kit import __version__
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.samples import sample_section
from ensemble_kit.recipes.reporting.scores import class_section, score_section
from ensemble_kit.recipes.reporting.sections import (
    curve_section,
    machine_section,
    member_section,
    rule_section,
    shift_section,
    voted_section,
)
from ensemble_kit.reports.page import Page
from ensemble_kit.reports.pictures import Shelf

Named = Sequence[tuple[str, str]]


def page(
    m: Material, title: str, sources: Named = (), commands: Named = (), images: Mapping[str, Path] | None = None,
    pictures: int = 24, shelf: Shelf | None = None, listener: Listener = nobody,
) -> Page:  # fmt: skip
    """Make a page of what was gathered; sections that need what is not there are left out.

    Parameters
    ----------
    sources, commands : what was read, and the commands that do it again, by name.
    images, pictures, shelf : as for `sample_section`.
    """
    shelf = shelf or Shelf()
    found = [
        voted_section(m, sources, commands),
        score_section(m),
        class_section(m),
        curve_section(m),
        sample_section(m, images or {}, pictures, shelf, listener),
        member_section(m),
        shift_section(m),
        rule_section(m),
        machine_section(),
    ]
    order = [section for section in (found[1], *found[2:-1], found[0], found[-1]) if section is not None]
    foot = f"Made by ensemble_kit {__version__} on {_today()}. This file asks for nothing from the network."
    return Page(title, _subtitle(m), order, foot, shelf.folder is not None)


def _subtitle(m: Material) -> str:
    if m.masks is None:
        assert m.tuned is not None
        return f"A threshold set of {len(m.tuned.members)} members, tuned on {m.tuned.validation.n} samples"
    of = f"{len(m.masks.samples)} samples, {len(m.masks.classes)} classes"
    members = len(m.members) or (len(m.voted.members) if m.voted is not None else 0)
    by = f", {members} member{'s' if members > 1 else ''}" if members else ""
    return f"{of}{by}{', with truth' if m.truth is not None else ', without truth'}"


def _today() -> str:
    """Return the date in UTC; SOURCE_DATE_EPOCH sets it, for a page that can be made again byte by byte."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
