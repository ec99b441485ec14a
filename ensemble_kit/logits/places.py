"""Places: where a store is. A folder here; `packed.py` and `remote.py` have the others."""

from __future__ import annotations

import os
import shlex
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ensemble_kit.logits import chunkfile, description
from ensemble_kit.logits.body import Body, FileBody
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.manifest import Manifest


class Place(Protocol):
    """Where a store is: the bytes of its keys, and its manifest. What is true about them, `Chunks` decides.

    The smallest one keeps everything in a dictionary of bytes: `HeldBody` and `HeldManifest` do the rest.
    """

    @property
    def name(self) -> str:
        """How messages name it."""

    @property
    def folder(self) -> Path | None:
        """The folder of the file system that it is in, if any."""

    @property
    def stamp(self) -> Hashable:
        """A value that changes when the store is replaced; None where that is not known."""

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Read the store's description."""

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Open the manifest, not yet read."""

    def open(self, key: str) -> Body:
        """Open the bytes of a key; FileNotFoundError where there are none."""

    def entries(self) -> Sequence[str]:
        """Name what is in the array's folder."""

    def mend(self, keys: Sequence[str]) -> str:
        """Say how damaged keys are made anew; following it never removes what is sound."""

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""


class Folder:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.name, self.folder, self._root = str(root), root, root

    @property
    def stamp(self) -> Hashable:
        """The stamp of the group's description, which is written once."""
        state = (self._root / META).stat()
        return state.st_ino, state.st_mtime_ns

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Read the two `zarr.json` files."""
        return description.describe(self._root)

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Open the segments in the array's folder."""
        return Manifest(self._root / ARRAY / MANIFEST, spec)

    def open(self, key: str) -> Body:
        """Open a regular file, never through a link."""
        path = self._root / key
        if key.count("/") > 1:  # 3 µs, which a chunk in the folder itself is spared
            chunkfile.check_inside(path, self._root / ARRAY)
        fd, stamp = chunkfile.open_file(path)
        return FileBody(fd, stamp, stamp.size)

    def entries(self) -> Sequence[str]:
        """List the array's folder."""
        return os.listdir(self._root / ARRAY)  # noqa: PTH208 - names are wanted

    def mend(self, keys: Sequence[str]) -> str:
        """Say how to move them aside, and to dump again."""
        del keys
        aside = (
            f"run `ensk repair {shlex.quote(str(self._root))}`, which moves aside what is damaged and deletes nothing"
        )
        return f"{aside}, then the same dump again, which dumps what is missing"

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""
        import zarr

        return zarr.open_array(self._root / ARRAY, mode="r")
