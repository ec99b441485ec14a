"""Steps of a repair: a file is moved aside or made anew, one after the other, and none is deleted."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.files import sync_folder
from ensemble_kit.logits import segments

QUARANTINE = "quarantine"
"""Folder beside the manifest's segments: neither zarr nor a reader of ours looks into it."""


@dataclass(frozen=True)
class Step:
    """One step of a repair: done, or with `dry_run` only planned.

    Parameters
    ----------
    what : in words.
    path : the file of the store that it is about, relative.
    to : where that file was moved, relative; "" where it was made.
    """

    what: str
    path: str
    to: str = ""


@dataclass
class Work:
    """The store, and the steps so far; each is taken as it is noted, unless this is a dry run."""

    root: Path
    manifest: Path
    dry: bool
    steps: list[Step]
    _aside: Path | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep writers out; the lock's own file is made where it is gone."""
        lock = self.manifest / segments.LOCK
        if not lock.is_file():
            self.note("made anew: writers wait for each other with it", lock)
            if self.dry:
                yield
                return
            self.manifest.mkdir(parents=True, exist_ok=True)
            lock.touch()
        with segments.committing(self.manifest, wait=False):
            yield

    def note(self, what: str, path: Path, to: str = "") -> None:
        """Note a step."""
        self.steps.append(Step(what, path.relative_to(self.root).as_posix(), to))

    def move_aside(self, path: Path, why: str) -> None:
        """Move a file, a folder or a link into quarantine under a name of its own."""
        if self._aside is None:
            self._aside = self.manifest / QUARANTINE / secrets.token_hex(4)
            if not self.dry:
                self._aside.mkdir(parents=True)
        inside = path.relative_to(self.root).as_posix()
        target = self._aside / inside.replace("/", "~")
        if not self.dry:
            path.rename(target)
            sync_folder(path.parent)
            sync_folder(target.parent)
        self.note(f"moved aside: {why}", path, target.relative_to(self.root).as_posix())

    def write(self, path: Path, content: Iterable[bytes], what: str) -> None:
        """Make a file of the store, durable before it has its name."""
        if not self.dry:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with temporary.open("xb") as file:
                file.writelines(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        self.note(what, path)
