"""Where a store lies, and how its bytes are had: a folder here, a packed file, a URL.

`Chunks` and `LogitStore` ask a place for bodies (the bytes of one key) and for the manifest; what is true about them
is decided in one way for all.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ensemble_kit.logits import chunkfile, creation
from ensemble_kit.logits.layout import ARRAY, MANIFEST, Layout, StoreSpec
from ensemble_kit.logits.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Body(Protocol):
    """The bytes of one key."""

    @property
    def size(self) -> int:
        """How many they are."""

    @property
    def stamp(self) -> Hashable:
        """Something that changes when they do; None where that cannot be told."""

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:
        """Map the first `size` bytes, read-only; None where that cannot be, or with `cached` needs the disk."""

    def close(self) -> None:
        """Let go."""


class Place(Protocol):
    """A store's place."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def folder(self) -> Path | None:
        """A folder of the file system that it lies in, if any."""

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Read what the store says about itself."""

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Open the manifest, not yet read."""

    def open(self, key: str) -> Body:
        """Open the bytes of a key; FileNotFoundError where there are none."""

    def entries(self) -> Sequence[str]:
        """Name what lies in the array's folder."""

    def mend(self, keys: Sequence[str]) -> str:
        """Say how damaged keys are taken away and made anew."""

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""


class FileBody:
    """A part of an open file."""

    def __init__(self, fd: int, stamp: Hashable, size: int, offset: int = 0) -> None:
        self.size, self.stamp = size, stamp
        self._fd, self._offset = fd, offset

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""
        done = 0
        while done < out.size:
            got = os.preadv(self._fd, [out[done:].data], self._offset + at + done)
            if got == 0:
                raise OSError(errno.EIO, "the file ended early")
            done += got

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:
        """Map the first `size` bytes; None where they lie at an odd place, or there are too many mappings.

        With `cached` also None unless the system has all of them in memory, so that a bad disk cannot show.
        """
        if self._offset % 2 or (cached and not chunkfile.is_cached(self._fd, size, self._offset)):
            return None
        try:
            os.close(free := os.dup(self._fd))  # a mapping keeps a descriptor of its own: leave half of them to others
            if free >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
                return None
            return chunkfile.map_payload(self._fd, size, self._offset, cached)
        except OSError:
            return None  # too many open files or mappings, or an old kernel: memory of our own does as well

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class HeldBody:
    """Bytes in memory."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.size, self.stamp, self._content = content.size, None, content

    def read_into(self, out: NDArray[np.uint8], at: int) -> None:
        """Fill `out` with the bytes from `at` on."""
        out[:] = self._content[at : at + out.size]

    def map(self, size: int, cached: bool) -> NDArray[np.uint8] | None:  # noqa: ARG002 - it always is
        """Return the memory itself."""
        out = self._content[:size]
        out.flags.writeable = False
        return out

    def close(self) -> None:
        """Hold on: the memory goes with its last user."""


class Folder:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.name, self.folder, self._root = str(root), root, root

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Read the two `zarr.json` files."""
        return creation.describe(self._root)

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Open the parts in the array's folder."""
        return Manifest(self._root / ARRAY / MANIFEST, spec)

    def open(self, key: str) -> Body:
        """Open a regular file, never through a link."""
        fd, stamp = chunkfile.open_file(self._root / key)
        return FileBody(fd, stamp, stamp.size)

    def entries(self) -> Sequence[str]:
        """List the array's folder."""
        return os.listdir(self._root / ARRAY)  # noqa: PTH208 - names are wanted

    def mend(self, keys: Sequence[str]) -> str:
        """Say what to remove, and to dump again."""
        paths = " ".join(f"'{self._root / key}'" for key in keys[:20])
        return f"rm -rf {paths}{' …' if len(keys) > 20 else ''} and run the same dump again; it dumps what is missing"

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""
        import zarr

        return zarr.open_array(self._root / ARRAY, mode="r")


def find(path: creation.PathLike) -> Place:
    """Tell where a store lies: a URL, a packed file, or a folder."""
    from ensemble_kit.logits.packed import Packed
    from ensemble_kit.logits.remote import Remote, url_of

    url = url_of(path)
    if url is not None:
        return Remote(url)
    root = creation.resolve(path)
    return Packed(root) if root.is_file() else Folder(root)
