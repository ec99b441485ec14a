"""Progress, as values that work passes to a listener; the bar in the terminal is one listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One more sample is done.

    Parameters
    ----------
    verb : what is being done, such as "dumping".
    done, total : samples finished, including those of an earlier run, and samples in all.
    new : samples finished by this run, for a rate that resuming does not inflate.
    sample : the one just finished; None for the first report, before any work.
    bytes : written or read by this run so far.
    note : what else to show, such as the best score so far.
    """

    verb: str
    done: int
    total: int
    new: int = 0
    sample: str | None = None
    bytes: int = 0
    note: str = ""


Listener = Callable[[Progress], None]
"""What is called with every `Progress`."""


def nobody(_: Progress) -> None:
    """Ignore progress: the default listener."""
