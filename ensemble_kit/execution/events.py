"""Progress as values: whoever works emits them, whoever cares listens. A terminal bar is one listener among others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One more sample is done.

    Parameters
    ----------
    verb : what is being done, as in "dumping".
    done, total : samples finished and wanted; `done` counts what an earlier run had finished too.
    new : samples finished by this run, for a rate that resuming does not inflate.
    sample : the one just finished; None for the first report, before any work.
    bytes : written or read by this run so far.
    note : what else is worth a look, such as the best score so far.
    """

    verb: str
    done: int
    total: int
    new: int = 0
    sample: str | None = None
    bytes: int = 0
    note: str = ""


Listener = Callable[[Progress], None]


def nobody(_: Progress) -> None:
    """Listen to nothing."""
