"""`MaskFormat`: all that the kit knows of one way to keep masks. Each format's module ends in its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from ensemble_kit import strict_json
from ensemble_kit.access import reading
from ensemble_kit.errors import Caution, IncompleteError, UsageError
from ensemble_kit.files import is_stream
from ensemble_kit.formats.index import INDEX, files_under
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks
from ensemble_kit.once import once
from ensemble_kit.remote.copies import local


class Contents:
    """What stands at a path, read once for all the formats that are asked whether it is theirs.

    Raises
    ------
    IncompleteError
        Nothing is there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = existing(path)
        self.is_folder = self.path.is_dir()
        self._files: dict[str, list[str]] = {}

    @once
    def head(self) -> bytes:
        """The first bytes of a file; none of a folder."""
        if self.is_folder:
            return b""
        with self.path.open("rb") as file:
            return file.read(4096)

    @once
    def is_json(self) -> bool:
        """Whether a file begins as an object or a list of JSON does."""
        return self.head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"["}

    @once
    def value(self) -> Any:
        """What a JSON file holds, or the first one of a folder; None of any other path."""
        if self.is_folder:
            files = self.files(".json")
            return strict_json.load(self.path / files[0]) if files else None
        return strict_json.load(self.path) if self.is_json else None

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the object that a JSON file holds; none of any other path."""
        return frozenset(self.value) if isinstance(self.value, dict) and not self.is_folder else frozenset()

    @property
    def item_keys(self) -> frozenset[str]:
        """The keys of the first object in the list that a JSON file holds; none of any other path."""
        first = next(iter(self.value), None) if isinstance(self.value, list) and not self.is_folder else None
        return frozenset(first) if isinstance(first, dict) else frozenset()

    def files(self, suffix: str) -> list[str]:
        """List a folder's files of one kind, as `files_under` does; none of a file."""
        if suffix not in self._files:
            self._files[suffix] = files_under(self.path, suffix) if self.is_folder else []
        return self._files[suffix]


@dataclass(frozen=True)
class Annotations:
    """What the user says of files of annotations; each format takes some of it.

    Parameters
    ----------
    images : the file that lists the images and categories of results, or the folder of a panoptic file's PNGs.
    score : the least score of a result that is read; 0 takes all.
    skip_empty : whether annotations without a mask, such as boxes, are left out; otherwise they are refused.
    paint : whether shapes are drawn over each other in the file's own order, so that a pixel has one class.
    """

    images: Path | None = None
    score: float | None = None
    skip_empty: bool = False
    paint: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """What is not as by default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def only(self, names: frozenset[str]) -> Annotations:
        """Return these options, and the others as by default."""
        return Annotations(**{name: value for name, value in self.given.items() if name in names})


OPTION_OF = {"images": "--images", "score": "--score", "skip_empty": "--skip-empty", "paint": "--paint shapes"}
"""How the command line calls each."""


EITHER = frozenset({"file", "folder"})
"""Of `MaskFormat.keeps_geometry`: a file as well as a folder."""


def always(*_: object) -> bool:
    """Tell that masks are written as they are made, whatever the order of samples (`MaskFormat.in_pieces`)."""
    return True


class Telling:
    """What is said of masks after they are written; this one looks at none of them.

    Parameters
    ----------
    words : what was written, where their format leaves that open.
    """

    def __init__(self, words: str) -> None:
        self._words = words

    def add(self, masks: MaskSet) -> None:
        """Look at masks that are being written, those of some samples."""

    def told(self) -> str:
        """Say in words what was written."""
        return self._words

    def doubts(self) -> Sequence[Caution]:
        """Say what of the masks is lost."""
        return ()


@dataclass(frozen=True)
class MaskFormat:
    """One way to keep masks, in a file or in a folder.

    Parameters
    ----------
    name : what `format=` calls it.
    read : takes the path, the image sizes that are known, and the classes to expect or None; returns the masks.
    sniff : tells whether the contents of a path are of this format. Default: the format has to be named.
    write : writes masks to an open binary file. None: the format is a folder, or only read.
    build : writes masks into an empty folder. None: the format is a file, or only read.
    write_like : writes in the order of a sample submission, for a format whose file has rows; other formats get
        masks in that order.
    in_pieces : tells, with the sample submission or None, whether masks are written as they are made: `write`, `build`
        and `write_like` take `Masks`, piece by piece. Otherwise all are gathered in a `MaskSet` first.
    check : refuses masks whose classes the format cannot hold, before any work.
    telling : says what is written, with the sample submission or None; None: the name tells.
    suffix : of the format's files; "" for a folder.
    is_folder : whether a path to read has to be a folder or a file. None: it may be either.
    index : name of the file by which a folder is known as one that the kit wrote, and may replace.
    holds_void : whether void pixels are kept, apart from those without a class.
    takes : the options of `Annotations` that `read` takes as keywords.
    labelled : returns the format with what the user says of label maps (`LabelMaps`); None: it holds none.
    ranks : how many axes the images may have that are written.
    keeps_geometry : whether what is written says where volumes and scenes lie: as a "file", as a "folder", or both.
    """

    name: str
    read: Callable[[Path, ImageSizes, Sequence[str] | None], MaskSet]
    sniff: Callable[[Contents], bool] = lambda _: False
    write: Callable[[Any, BinaryIO], None] | None = None
    build: Callable[[Any, Path], None] | None = None
    write_like: Callable[[Any, BinaryIO, Path], None] | None = None
    in_pieces: Callable[[Masks, Path | None], bool] = lambda *_: False
    check: Callable[[Masks], object] = lambda _: None
    telling: Callable[[Masks, Path | None], Telling] | None = None
    suffix: str = ""
    is_folder: bool | None = None
    index: str = INDEX
    holds_void: bool = False
    takes: frozenset[str] = frozenset()
    labelled: Callable[[Any], MaskFormat] | None = None
    ranks: frozenset[int] = frozenset({2})
    keeps_geometry: frozenset[str] = frozenset()

    def reading(self, options: Annotations) -> MaskFormat:
        """Return the format that reads with these options.

        Raises
        ------
        UsageError
            It does not take one of them.
        """
        if idle := [name for name in options.given if name not in self.takes]:
            item = f"{OPTION_OF[idle[0]]} with the format {self.name!r}"
            what = "cannot use options of annotations"
            raise UsageError("option-idle", what, item=item, fix="leave it out, or pass another --format (--from)")
        return replace(self, read=partial(cast("Any", self.read), **options.given)) if options.given else self

    @property
    def writes(self) -> bool:
        """Whether the format is written, not only read."""
        return self.write is not None or self.build is not None

    @property
    def has_values(self) -> bool:
        """Whether its files are label maps, whose values mean classes."""
        return self.labelled is not None and self.telling is not None

    def may_be(self, folder: bool) -> bool:
        """Tell whether a folder, or a file, can be of this format."""
        return self.is_folder in {None, folder}

    def builder(self, path: Path) -> Callable[[Any, Path], None] | None:
        """Return what writes a folder at this path; None where it becomes a file."""
        is_file = self.write is not None and self.suffix == suffix_of(path, [self.suffix]) and not path.is_dir()
        return None if is_file else self.build


def suffix_of(path: Path, known: Iterable[str]) -> str:
    """Return the longest known suffix that a path ends in, such as `.nii.gz`, or else what its last dot begins."""
    found = [suffix for suffix in known if suffix and path.name.lower().endswith(suffix)]
    return max(found, key=len, default=path.suffix.lower())


def existing(path: str | os.PathLike[str]) -> Path:
    """Return a path to masks, of a URL that of a copy; refuse one where nothing is.

    A pipe is refused too, of which only the first look would see anything.

    Raises
    ------
    IncompleteError
        Nothing is there.
    UsageError
        It is a pipe, a socket or a device.
    ResourceError
        Its folder may not be looked into.
    """
    what = "cannot read masks"
    source = local(path)
    with reading(source, what):
        if "\0" in str(source) or not source.exists():
            item = f"{source} does not exist"
            raise IncompleteError("input-missing", what, item=item, fix="check the path")
        if is_stream(source):
            item, fix = f"{source} is a pipe or a device, and masks are read more than once", "write it to a file first"
            raise UsageError("input-stream", what, item=item, fix=fix)
    return source
