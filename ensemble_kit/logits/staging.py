"""A sample on its way into a folder: files under temporary names, which the commit renames.

They are beside the manifest, where zarr does not look. What is written before the commit needs no lock, so that many
writers write at once, and a volume is never whole in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit.logits import chunkfile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANY = 64
"""Files that wait for their sync; of volumes, a group of samples would have more."""


class FolderStage:
    """A sample on its way into a folder.

    Parameters
    ----------
    folder : where its files wait.
    row : of the sample.
    token : makes or returns the writer's own name, by which another one tells whether it lives.
    reporting : turns the system's errors into ours.
    """

    def __init__(
        self, folder: Path, row: int, token: Callable[[], str], reporting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._folder, self._row, self._token, self._reporting = folder, row, token, reporting
        self.files: list[Path] = []
        """What was written, in order."""
        self._open: list[int] = []
        self._last: tuple[bytes | memoryview, ...] = ()

    def add(self, content: NDArray[np.uint8], checksum: int, last: bool) -> None:
        """Write a chunk; the last one is kept until it is known whether the sample is there already."""
        parts = content.data, checksum.to_bytes(chunkfile.TRAILER, "little")
        if last:
            self._last = parts
            return
        with self._reporting():
            self.write(*parts)

    def finish(self) -> None:
        """Write the last chunk."""
        self.write(*self._last)

    def write(self, *parts: bytes | memoryview) -> None:
        """Write a file."""
        path = self._folder / f".{self._row}.{len(self.files)}.{self._token()}.tmp"
        self._open.append(chunkfile.write(path, *parts))
        self.files.append(path)
        if len(self._open) > MANY:
            os.fsync(self._open[0])
            os.close(self._open.pop(0))

    def take(self) -> list[int]:
        """Hand over the descriptors of what was written, not yet synced."""
        taken, self._open = self._open, []
        return taken

    def close(self) -> None:
        """Remove what was not committed."""
        for fd in self.take():
            os.close(fd)
        for path in self.files:
            path.unlink(missing_ok=True)


def remove_others(folder: Path, kept: Iterable[Path]) -> None:
    """Remove from a sample's folder what is none of its files: those of a former take, or of a dead writer."""
    ours = set(kept)
    for path in folder.iterdir():
        if path not in ours and not path.is_dir():
            path.unlink(missing_ok=True)
