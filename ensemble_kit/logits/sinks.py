"""Sinks: where a writer's samples go. A folder here (`foldersink.py`), or a URL (`remotesink.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ensemble_kit.logits.foldersink import FolderSink
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.remotesink import RemoteSink

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sink(Protocol):
    """Where a writer's samples go; a writer calls it from one thread at a time."""

    @property
    def spec(self) -> StoreSpec:
        """The store's description, as it is there: made by this writer or by another one."""

    @property
    def begun(self) -> bool:
        """Whether any sample was committed when the sink was opened."""

    def missing(self) -> list[str]:
        """Samples that are still to be written, in order: not committed by any writer, or their chunk is gone."""

    def commit(self, record: Record, content: NDArray[np.uint8], checksum: int, again: bool = False) -> None:
        """Make a sample survive a kill; nothing where it is there already with these bytes.

        `content` is the chunk without its last four bytes, which are `checksum`. With `again` it takes the place of a
        committed one.
        """

    def flush(self) -> None:
        """Make everything that was committed survive a power cut."""

    def finish(self) -> None:
        """Flush for the last time."""

    def release(self) -> None:
        """Close files and drop locks without flushing, as a kill does."""


def open_sink(where: Path | str, wanted: StoreSpec, overwrite: bool) -> Sink:
    """Open the sink of a resolved folder, or of a URL (a text)."""
    return FolderSink(where, wanted, overwrite) if isinstance(where, Path) else RemoteSink(where, wanted, overwrite)
