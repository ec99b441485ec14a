"""`PartFile`: what one of n runs with `--part i/n` leaves, for `ensk merge`.

Whatever is to be written, a part leaves `OUT.part-i-of-n` beside it: a file at its final name is whole. It says what
was asked for, so that parts of two plans are never put together.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import DamagedError, IncompleteError, UsageError
from ensemble_kit.execution.parts import Part
from ensemble_kit.remote.copies import as_path, local, siblings
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning import archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.part/1"
LATER = "later."
"""How arrays are called that are too large to hold those of all parts."""
_NAME = re.compile(r".*\.part-\d+-of-\d+", re.DOTALL)


def _missing(path: Path) -> IncompleteError:
    item, fix = f"{str(path)!r} does not exist", "run the command that makes it (--part)"
    return IncompleteError("part-missing", "cannot read a part", item=item, fix=fix)


def _invalid(path: Path, why: object) -> DamagedError:
    fix = "make it again: run the command that made it"
    return DamagedError("part-invalid", "cannot read a part", item=f"{str(path)!r}: {why}", fix=fix)


_PART = archive.Kind(_missing, _invalid)


@dataclass(frozen=True)
class PartFile:
    """One share's results.

    Parameters
    ----------
    kind : what they are: "statistics", "masks", "scores" or "page".
    part : which share.
    plan : what all parts were asked for, as JSON values: the command, digests of its inputs, its options.
    head, arrays : the results. Arrays whose names begin with `LATER` are not held, but read when they are asked for.
    """

    kind: str
    part: Part
    plan: Mapping[str, Any]
    head: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def save(self, path: Path) -> None:
        """Write it, complete or not at all."""
        head = {"format": FORMAT, "kind": self.kind, "part": list(self.part), "plan": self.plan, "head": self.head}
        archive.save(path, {**head, "arrays": list(self.arrays)}, self.arrays)

    @classmethod
    def load(cls, path: Path) -> PartFile:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It holds something else.
        """
        return archive.load(path, partial(cls._of, path), _PART)

    def verified(self) -> PartFile:
        """Return this part where those arrays can be read, too, that are not held.

        Raises
        ------
        DamagedError
            They cannot.
        """
        for name in self.arrays:
            _ = self.arrays[name]
        return self

    @classmethod
    def _of(cls, path: Path, head: Mapping[str, Any], read: archive.Arrays) -> PartFile:
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        try:
            part = Part(*map(int, head["part"])).checked()
        except UsageError as error:
            raise ValueError(error.item) from None
        names = [str(name) for name in head["arrays"]]
        arrays = Arrays(path, names, {name: read(name) for name in names if not name.startswith(LATER)})
        return cls(str(head["kind"]), part, dict(head["plan"]), dict(head["head"]), arrays)


@contextmanager
def fitting(what: str, *also: type[Exception]) -> Iterator[None]:
    """Refuse parts whose contents do not fit each other, which reading them as one whole shows.

    Parameters
    ----------
    what : what cannot be done, such as "merge masks".
    also : other errors that show it.

    Raises
    ------
    DamagedError
        It says to make them again.
    """
    shown: tuple[type[Exception], ...] = (KeyError, ValueError, TypeError, IndexError, *also)
    try:
        yield
    except DamagedError:
        raise
    except shown as error:
        item = f"the parts' contents do not fit each other: {error}"
        fix = "make them again: run the commands that made them with --force"  # without it they are taken for done
        raise DamagedError("part-invalid", f"cannot {what}", item=item, fix=fix) from None


class Arrays(Mapping[str, "NDArray[Any]"]):
    """Arrays of a part's file by name: those that are held, and others, which are read whenever they are asked for.

    Parameters
    ----------
    names : of all of them.
    held : those that are read already.
    """

    def __init__(self, path: Path, names: Sequence[str], held: Mapping[str, NDArray[Any]]) -> None:
        self._path, self._names, self._held = path, tuple(names), held

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._held or name not in self._names:
            return self._held[name]
        return archive.load(self._path, lambda _, read: read(name), _PART)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def measure_of(plan: Mapping[str, Any]) -> Measure:
    """Read the measure that a plan says."""
    m = plan["measure"]
    return Measure(**{**m, "convention": Convention(**m["convention"])})


def path_of(out: str | os.PathLike[str], part: Part) -> Path:
    """Return where a part of what is to be at `out` is written."""
    digits = len(str(part.of))
    return as_path(f"{as_path(out)}.part-{part.number:0{digits}}-of-{part.of}")


def entries(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the names of a part's arrays and their bytes; nothing of a file that is none, which `load` refuses."""
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(local(path)) as file:
        yield from ((info.filename.removesuffix(".npy"), info.file_size) for info in file.infolist())


def is_part(path: Path) -> bool:
    """Tell whether a file's name is that of a part; a folder is none."""
    return _NAME.fullmatch(path.name) is not None and not path.is_dir()


def parts_of(path: Path) -> list[Path]:
    """Find the parts of what is to be at a path."""
    return [p for p in siblings(path, f"{path.name}.part-") if is_part(p)]
