"""`PartFile`: what one of n runs with `--part i/n` leaves, for `ensk merge`.

Whatever is to be written, a part leaves `OUT.part-i-of-n` beside it: a file at its final name is whole. It says what
was asked for, so that parts of two plans are never put together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import DamagedError, IncompleteError, UsageError
from ensemble_kit.execution.parts import Part
from ensemble_kit.remote.copies import as_path, siblings
from ensemble_kit.tuning import archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.part/1"
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
    kind : what they are: "statistics", "masks" or "scores".
    part : which share.
    plan : what all parts were asked for, as JSON values: the command, digests of its inputs, its options.
    head, arrays : the results.
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
        return archive.load(path, cls._of, _PART)

    @classmethod
    def _of(cls, head: Mapping[str, Any], read: archive.Arrays) -> PartFile:
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        try:
            part = Part(*map(int, head["part"])).checked()
        except UsageError as error:
            raise ValueError(error.item) from None
        arrays = {str(name): read(name) for name in head["arrays"]}
        return cls(str(head["kind"]), part, dict(head["plan"]), dict(head["head"]), arrays)


def path_of(out: str | os.PathLike[str], part: Part) -> Path:
    """Return where a part of what is to be at `out` is written."""
    digits = len(str(part.of))
    return as_path(f"{as_path(out)}.part-{part.number:0{digits}}-of-{part.of}")


def is_part(path: Path) -> bool:
    """Tell whether a file's name is that of a part; a folder is none."""
    return _NAME.fullmatch(path.name) is not None and not path.is_dir()


def parts_of(path: Path) -> list[Path]:
    """Find the parts of what is to be at a path."""
    return [p for p in siblings(path, f"{path.name}.part-") if is_part(p)]
