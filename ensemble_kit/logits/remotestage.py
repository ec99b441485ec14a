"""A sample on its way behind a URL: put object by object, and taken back where another writer was faster.

Nothing can be renamed there. So a sample that is written again is put beside the former one, under the other encoding
of chunk keys, and replaces it at once when its description does; a row of a store's array is one object, which does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensemble_kit.logits.chunkfile import TRAILER
from ensemble_kit.logits.layout import ARRAY, META, Layout
from ensemble_kit.logits.records import Record
from ensemble_kit.logits.remote import COMMITS, Remote
from ensemble_kit.logits.samplearray import Keys, SampleArray, other_keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RemoteStage:
    """A sample on its way behind a URL.

    Parameters
    ----------
    remote, how : the store.
    row, array : of the sample.
    there : the record that it takes the place of.
    """

    def __init__(self, remote: Remote, how: Layout, row: int, array: SampleArray, there: Record | None) -> None:
        self._remote, self._how, self._row, self._array, self._there = remote, how, row, array, there
        self.keys: Keys = other_keys(there.keys) if there is not None and array.own else "default"
        self.other: bytes | None = None
        """The commit of another writer, found on the way: nothing is put any more."""
        self._beside: list[str] = []
        """Chunks that were put beside a committed sample, and that nothing names yet."""
        self._before: dict[str, bytes] = {}
        """What stood there: of a dead writer, or of one who is about to commit."""
        self._number, self._last = 0, b""

    def add(self, content: NDArray[np.uint8], checksum: int, last: bool) -> None:
        """Put a chunk; the last one is kept until it is known whether the sample is there already."""
        body = content.tobytes() + checksum.to_bytes(TRAILER, "little")
        if last:
            self._last = body
        else:
            self._add(body)

    def finish(self, description: bytes) -> None:
        """Put the last chunk, and the description of an array of its own."""
        self._add(self._last)
        if self._array.own:
            self._beside = []  # from here on the former chunks may be those that nothing names
            self._place(f"{ARRAY}/{self._how.key(self._row)}/{META}", description)
        if self.other is not None:
            self.restore()

    def restore(self) -> None:
        """Put back what was replaced."""
        for key, body in self._before.items():
            self._remote.put(key, body)

    def settle(self) -> None:
        """Remove the former chunks; the sample is committed."""
        there = self._there
        if there is not None and self._array.own:
            self._remote.delete([f"{ARRAY}/{there.key(self._how, k)}" for k in range(there.array.count)])

    def close(self) -> None:
        """Remove what was put beside a committed sample and not committed itself."""
        if self._beside:
            self._remote.delete(self._beside)

    def _add(self, body: bytes) -> None:
        key = f"{ARRAY}/{self._how.key(self._row)}"
        if self._array.own:
            key = f"{key}/{self._array.key(self._number, self.keys)}"
            if self._there is not None:
                self._beside.append(key)
        self._place(key, body)
        self._number += 1

    def _place(self, key: str, body: bytes) -> None:
        """Put an object; where another stands there, look first whether its writer has committed."""
        if self.other is not None:
            return
        if not self._remote.put(key, body, new=self._there is None):
            self.other = self._remote.get(f"{COMMITS}/{self._row}.jsonl")
            if self.other is None:
                self._before[key] = self._remote.get(key) or b""
                self._remote.put(key, body)
