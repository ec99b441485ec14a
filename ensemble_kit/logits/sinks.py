"""Sinks: where a writer's samples go. A folder here (`foldersink.py`), or a URL (`remotesink.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ensemble_kit.logits.foldersink import FolderSink
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.remotesink import RemoteSink
from ensemble_kit.logits.samplearray import SampleArray

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Stage(Protocol):
    """A sample on its way into a store: its chunks, in order; what is not committed leaves nothing."""

    def add(self, content: NDArray[np.uint8], checksum: int, last: bool) -> None:
        """Take a chunk: its bytes but the last four, which are `checksum`. The last one is written by the commit."""

    def close(self) -> None:
        """Remove what was not committed."""


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

    def committed(self, sample: str) -> Record | None:
        """Return what is known of a sample that any writer has committed, if its chunks are there."""

    def read(self, record: Record) -> NDArray[np.float16]:
        """Return the logits of a committed sample, verified."""

    def stage(self, sample: str, array: SampleArray) -> Stage:
        """Begin a sample."""

    def commit(self, record: Record, stage: Any, again: bool = False) -> bool:
        """Make a sample survive a kill; return False, and do nothing, where it is there already with these bytes.

        With `again` it takes the place of a committed one.
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
