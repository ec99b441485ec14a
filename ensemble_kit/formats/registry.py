"""The formats that the kit knows. A new one is a module that ends in a `MaskFormat`, and an entry here."""

from __future__ import annotations

from ensemble_kit.errors import UsageError
from ensemble_kit.formats import coco, indexed_png, labelme, npy, npz, png, submission
from ensemble_kit.formats.dialects import Dialect
from ensemble_kit.formats.maskformat import MaskFormat

FORMATS: dict[str, MaskFormat] = {
    known.name: known
    for known in (
        *submission.FORMATS,
        npy.FORMAT,
        npz.FORMAT,
        png.FORMAT,
        indexed_png.FORMAT,
        coco.FORMAT,
        labelme.FORMAT,
    )
}
"""Every format by its name, in the order in which they are asked whether a file is theirs. Of several with one suffix,
the first is what a path with that suffix is written as. An entry that is added is known to all commands and functions.
"""

Format = str | Dialect | MaskFormat
"""What `format=` takes: a name of `FORMATS`, a dialect of CSV, or a format that is not registered."""


def named(chosen: Format) -> MaskFormat:
    """Return the format that the user means.

    Raises
    ------
    UsageError
        No format has this name.
    """
    if isinstance(chosen, MaskFormat):
        return chosen
    if isinstance(chosen, Dialect):
        return submission.of_dialect(chosen)
    if not isinstance(chosen, str) or chosen not in FORMATS:
        item, fix = f"--format {chosen!r}", f"pass one of {', '.join(FORMATS)}"
        raise UsageError("format-unknown", "cannot use a format of masks", item=item, fix=fix)
    return FORMATS[chosen]
