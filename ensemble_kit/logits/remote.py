"""A store behind a URL.

    URL/zarr.json, URL/logits/zarr.json, URL/logits/c.ROW.0.0.0    the same bytes as in a folder
    URL/logits/manifest/ROW.jsonl                                  the commit of one sample, put last and only once
    URL/logits/manifest/all.jsonl                                  all of them, put when the last sample is there
    URL/logits/manifest/*.jsonl                                    those of a folder that was copied there

Nothing can be appended to an object, so a commit is an object of its own. Its key follows from the row: what is
committed is asked for by key and never taken from a listing, which may lag behind. A put is whole or absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.logits import description
from ensemble_kit.logits.body import Body, HeldBody
from ensemble_kit.logits.layout import ARRAY, FORMER_META, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.manifest import HeldManifest
from ensemble_kit.logits.records import SUFFIX
from ensemble_kit.remote.copies import size_of
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import folders_of

COMMITS = f"{ARRAY}/{MANIFEST}"
ALL = "all.jsonl"
AT_ONCE = 16
"""Requests that are under way together."""
_QUEUED = 4096  # a million that wait for their turn would take 1 GB


class Remote(Objects):
    """A store behind a URL."""

    folder = None
    stamp = None

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Get the two `zarr.json` objects."""
        group = self.get(META)
        if group is None:
            if any(self.get(name) is not None for name in FORMER_META):
                raise description.former(self.name)
            if folders_of(self.name) and not self.reads_only and size_of(self.name) is not None:
                what, item = "cannot open a store behind a URL", f"{self.name} is one object"
                fix = "pass the URL of a store that is not packed, or copy it to this machine and pass its path"
                raise UsageError("url-unfit", what, item=item, fix=fix)
            fix = "check the URL and AWS_ENDPOINT_URL, or make the store with `ensk dump-logits`"
            raise description.nothing_there(self.name, fix)
        array = self.get(f"{ARRAY}/{META}")
        if array is None:
            fix = "restore zarr.json from a copy, or make the store with `ensk dump-logits`"
            raise description.not_a_store(f"{self.name}: no {ARRAY}/{META}", fix)
        return description.parse(group, array, self.name)

    def manifest(self, spec: StoreSpec) -> HeldManifest:
        """Get what is committed: one object where the store is finished, else one a sample, asked for by key.

        The segments of a folder that was copied there are found by listing; copied objects do not come and go.
        """
        segments: dict[str, bytes] = {}
        whole = self.get(f"{COMMITS}/{ALL}")
        if whole is not None:
            segments[ALL] = whole
        else:
            rows = range(len(spec.samples))
            for first in range(0, len(rows), _QUEUED):
                found = self.commits(rows[first : first + _QUEUED])
                segments.update({f"{row}.jsonl": content for row, content in found.items()})
            if len(segments) < len(rows):
                copied = [name for name in self._segments_listed() if name not in segments]
                segments.update(self._segments(copied))
        return HeldManifest(f"{self.name}/{COMMITS}", spec, segments)

    def commits(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Get the commits of some samples; those that are not there are left out."""
        found = self._segments([f"{row}{SUFFIX}" for row in rows])
        return {int(name.removesuffix(SUFFIX)): content for name, content in found.items()}

    def _segments(self, names: Sequence[str]) -> dict[str, bytes]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(self.get, [f"{COMMITS}/{name}" for name in names])
            return {name: content for name, content in zip(names, found, strict=True) if content is not None}

    def _segments_listed(self) -> list[str]:
        keys = [] if self.reads_only else self.listing(f"{COMMITS}/")
        return sorted(key.removeprefix(f"{COMMITS}/") for key in keys if key.endswith(SUFFIX))

    def open(self, key: str) -> Body:
        """Get an object."""
        content = self.get(key)
        if content is None:
            raise FileNotFoundError(2, "no such object", key)
        return HeldBody(np.frombuffer(content, np.uint8))

    def entries(self) -> Sequence[str]:
        """List what is under the array's prefix; nothing where a plain web server cannot list."""
        if self.reads_only:
            return []
        return sorted({key.removeprefix(f"{ARRAY}/").split("/")[0] for key in self.listing(f"{ARRAY}/")})

    def mend(self, keys: Sequence[str]) -> str:
        """Say how to tell damage of the store from damage on the way, and what to move aside."""
        gone = ", ".join(f"{self.name}/{key}" for key in keys[:20])
        again = f"run `ensk verify {self.name}`: a proxy may have changed the answer"
        aside = f"where it finds the same, rename {gone}{' …' if len(keys) > 20 else ''}"
        return f"{again}; {aside} and run the same dump again, which dumps what is missing"

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""
        import zarr
        from zarr.storage import ObjectStore

        return zarr.open_array(ObjectStore(self.bucket, read_only=True), path=self.prefix + ARRAY, mode="r")
